//! `uplink-lab`: the product at work in a lab of network namespaces, to watch.

mod show;
mod view;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Set by SIGINT and SIGTERM: the show ends and cleans up.
static STOP: AtomicBool = AtomicBool::new(false);

/// A router with one NIC and two ISPs in network namespaces.
#[derive(Parser)]
#[command(version, about, after_help = "Example: uplink-lab run --seconds 30")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the daemon in the lab, sends real traffic through it, and breaks an ISP now and then.
    ///
    /// ISP 1 is blackholed after ten seconds and healed ten seconds later, again and again. Needs
    /// root; leaves nothing on the host, whichever way it ends.
    Run {
        /// End after this time with a summary; exit status 1 unless balance and failover were as
        /// expected. At least 20, so that a failover fits in.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(20..=86_400))]
        seconds: Option<u64>,
    },
}

fn main() -> ExitCode {
    let Command::Run { seconds } = Cli::parse().command;
    match run(seconds.map(Duration::from_secs)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("uplink-lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as expected.
fn run(limit: Option<Duration>) -> Result<bool> {
    uplink_lab::isolate()?;
    on_signal(Signal::SIGINT)?;
    on_signal(Signal::SIGTERM)?;
    show::run(limit)
}

/// Whether a signal asked us to end.
fn stopping() -> bool {
    STOP.load(Ordering::Relaxed)
}

extern "C" fn note_signal(_: i32) {
    STOP.store(true, Ordering::Relaxed);
}

fn on_signal(signal: Signal) -> Result<()> {
    let handler = SigHandler::Handler(note_signal);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler stores to an atomic, nothing else.
    unsafe { sigaction(signal, &action) }.with_context(|| format!("handle {signal}"))?;
    Ok(())
}
