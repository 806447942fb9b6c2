//! The command line.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Problems};
use crate::status::{self, Status};
use crate::{api, daemon, inspect};

/// Spreads traffic over several Internet providers behind one or more network cards.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/uplink/uplink.toml"
    )]
    pub config: PathBuf,
    /// Where the control socket and the state file are
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/uplink")]
    pub runtime_dir: PathBuf,
    /// Where maps and links are pinned
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/uplink")]
    pub bpffs: PathBuf,
    /// Say more; the verifier's log, too
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    #[command(after_help = "Example: uplink --config /etc/uplink/uplink.toml run")]
    Run,
    /// Validate the configuration
    #[command(after_help = "Example: uplink check --plan")]
    Check {
        /// Print rules, routes, NAT, sysctls and maps that would be installed; change nothing
        #[arg(long)]
        plan: bool,
    },
    /// Show uplinks, their health and shares
    #[command(after_help = "Example: uplink status --json | jq '.uplinks[] | {name, state, share}'")]
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove everything that a killed daemon left, and only that
    #[command(after_help = "Example: uplink down")]
    Down,
}

/// Runs the program; 0 done, 1 failed at run time, 2 wrong usage or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.options.verbose);
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => report(&e),
    }
}

fn run(cli: &Cli) -> Result<()> {
    let options = &cli.options;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match cli.command {
            Command::Run => daemon::run(options).await,
            Command::Check { plan } => inspect::check(&config::load(&options.config)?, plan).await,
            Command::Status { json } => show_status(options, json).await,
            Command::Down => daemon::down(options).await,
        }
    })
}

async fn show_status(options: &Options, json: bool) -> Result<()> {
    let answer = api::call(&options.runtime_dir, api::STATUS).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        let status: Status = serde_json::from_value(answer)?;
        print!("{}", status::table(&status));
    }
    Ok(())
}

fn report(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Problems>() {
        Some(problems) => {
            eprintln!("{problems}");
            ExitCode::from(2)
        }
        None => {
            eprintln!("uplink: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs on standard error; under systemd without times, since the journal has them.
fn start_log(verbose: bool) {
    use tracing_subscriber::EnvFilter;
    let level = if verbose { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("UPLINK_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},netlink_proto=off,aya=warn,aya_obj=warn")));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colour);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}
