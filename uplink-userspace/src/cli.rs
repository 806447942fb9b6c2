//! The command line.

mod events;
mod explain;
mod pages;
mod show;
mod status;
mod terminal;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::config::Problems;
use crate::options::Options;
use crate::{api, daemon, doctor, inspect, top};

/// Longest list of flows.
const MOST_FLOWS: i64 = 1_000_000;

/// Spreads traffic over several Internet providers behind one or more network cards.
#[derive(Debug, Parser)]
#[command(
    name = "uplink",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    #[command(after_help = "Example: uplink --config /etc/uplink/uplink.toml run")]
    Run {
        /// Start although an interface or an address that the file needs is not there yet; it is taken in when it comes
        #[arg(long)]
        wait: bool,
    },
    /// Validate the configuration
    #[command(after_help = "Example: uplink check --plan\n\n\
        The plan compares what the file asks for with what the kernel has. Lines begin with + (would be\n\
        added), - (removed), ~ (changed), ? (could not be read) or a space (as it is).")]
    Check {
        /// Show what a start or a reload would change; change nothing
        #[arg(long)]
        plan: bool,
    },
    /// Look at this host for what would get in the way
    #[command(after_help = "Example: sudo uplink doctor\n\n\
        Each finding blocks (uplink does not start, or steers nothing), warns, or is fine, and has a\n\
        remedy. Nothing is changed. The exit status is 1 when something blocks, and 2 with a wrong\n\
        configuration.")]
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show uplinks, their health and shares
    #[command(
        after_help = "Example: uplink status --json | jq '.uplinks[] | {name, state, share}'\n\
                            Example: uplink status --watch 5"
    )]
    Status {
        /// As JSON; with --watch one document per line
        #[arg(long)]
        json: bool,
        /// Again and again, every 2 or so many seconds, until Ctrl-C; waits for a daemon that has gone
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
              value_parser = clap::value_parser!(u16).range(1..=3600))]
        watch: Option<u16>,
    },
    /// Tell what happened: states, failovers, orders, reloads, repairs, warnings
    #[command(after_help = "Example: uplink events --follow\n\
                            Example: uplink events --json --follow | jq -c 'select(.kind == \"state\")'\n\n\
        The daemon keeps the newest 1000 events since its start.")]
    Events {
        /// As JSON, one event per line
        #[arg(long)]
        json: bool,
        /// Go on with those that come, until Ctrl-C; waits for a daemon that has gone
        #[arg(long)]
        follow: bool,
        /// Those after this number alone; each start of the daemon counts from 1
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Watch uplinks, events and talkers live in the terminal
    #[command(after_help = "Example: uplink top --interval 2s\n\n\
        ? shows the keys. Without a terminal use `uplink status`.")]
    Top {
        /// How often the daemon is asked, 200ms to 1h
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
        interval: top::Interval,
    },
    /// Tell which uplink a flow takes, and why
    #[command(after_help = "Example: uplink explain 192.168.0.9:40000 203.0.113.7:443\n\
                            Example: uplink explain --proto udp --iif eth1 [fd00::9]:5060 [2001:db8::1]:5060\n\
                            Example: uplink explain --uid backup - 203.0.113.7:22\n\n\
        The answer comes from the very maps that the programs read. Without a source port it names all\n\
        uplinks that come into question; - is a socket of this host.")]
    Explain(explain::Asked),
    /// List the pinned flows, newest first
    #[command(after_help = "Example: uplink flows --uplink isp1\n\
                            Example: uplink flows --policy voip --address 192.168.0.0/24\n\
                            Example: uplink flows --json | jq '.[] | select(.idle_s < 60)'")]
    Flows {
        /// As JSON, an array of objects
        #[arg(long)]
        json: bool,
        /// Those of one uplink
        #[arg(long, value_name = "NAME")]
        uplink: Option<String>,
        /// Those that one policy placed
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// Those with this address, or one of this prefix, at either end
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// At most so many; by default 1000, with --json all [up to 1000000]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_FLOWS))]
        limit: Option<u32>,
    },
    /// Take an uplink out for maintenance: no new flows, old ones finish
    #[command(after_help = "Example: uplink drain isp1\n\n\
        It lasts over reloads and restarts of the daemon until `uplink enable isp1`, or a stop. When\n\
        no other uplink answers, a drained one takes new flows all the same.")]
    Drain {
        /// The uplink's name
        name: String,
    },
    /// Take a drained uplink back
    #[command(after_help = "Example: uplink enable isp1")]
    Enable {
        /// The uplink's name
        name: String,
    },
    /// Have the daemon read its configuration again, wait, and report
    #[command(after_help = "Example: uplink reload && uplink status\n\n\
        The daemon reads the file that it was started with. When anything is wrong with it, nothing\n\
        changes, and the exit status is 2.")]
    Reload,
    /// Remove everything that a killed daemon left, and only that
    #[command(after_help = "Example: uplink down")]
    Down,
    /// Print what a shell completes commands by
    #[command(after_help = "Example: uplink completions bash > /etc/bash_completion.d/uplink")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command and one for the configuration
    #[command(after_help = "Example: uplink man | man -l -\n\
                            Example: uplink man --dir /usr/local/share/man/man1")]
    Man {
        /// Write uplink.1, uplink-status.1 and so on, and uplink.toml.5, to this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<std::path::PathBuf>,
    },
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
    let done = local.block_on(&runtime, async {
        match &cli.command {
            Command::Run { wait } => daemon::run(options, *wait).await,
            Command::Check { plan } => inspect::check(options, *plan).await,
            Command::Doctor { json } => doctor::doctor(options, *json).await,
            Command::Status { json, watch } => status::status(options, *json, *watch).await,
            Command::Events { json, follow, after } => events::events(options, *json, *follow, *after).await,
            Command::Top { interval } => top::run(options, *interval).await,
            Command::Explain(asked) => explain::explain(options, asked).await,
            Command::Flows {
                json,
                uplink,
                policy,
                address,
                limit,
            } => {
                let wanted = [("uplink", uplink), ("policy", policy), ("address", address)];
                show::flows(options, *json, wanted, *limit).await
            }
            Command::Drain { name } => show::order(options, api::DRAIN, name).await,
            Command::Enable { name } => show::order(options, api::ENABLE, name).await,
            Command::Reload => show::reload(options).await,
            Command::Down => daemon::down(options).await,
            Command::Completions { shell } => pages::completions(*shell),
            Command::Man { dir } => pages::man(dir.as_deref()),
        }
    });
    drop(local);
    // A probe's program on a dead file server may hang in its start.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

fn interval(text: &str) -> Result<top::Interval, String> {
    let interval = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    top::Interval::new(interval)
}

fn report(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Problems>() {
        Some(problems) => {
            eprintln!("{problems}");
            ExitCode::from(2)
        }
        None if error.is::<doctor::Wrong>() => {
            eprintln!("uplink: {error}");
            ExitCode::from(2)
        }
        None => said(error),
    }
}

/// An error of the daemon, or of ours.
fn said(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<api::Error>() {
        Some(answer) if answer.name == api::INVALID_CONFIGURATION => eprintln!("{answer}"),
        _ => eprintln!("uplink: {error:#}"),
    }
    match error
        .downcast_ref::<api::Error>()
        .is_some_and(api::Error::is_usage)
    {
        true => ExitCode::from(2),
        false => ExitCode::FAILURE,
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
        .with_ansi(colour)
        // A log that cannot be written, since the disk is full or the terminal gone, is no reason to end.
        .log_internal_errors(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}
