//! `cargo xtask run`: the main job, in the lab or on this host.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result};

use crate::{build, shell, workspace::Workspace};

/// Without --config: a router with one NIC and two ISPs in network namespaces, with real traffic
/// and a failover. With it: the daemon, on this host.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask run --seconds 30")]
pub struct Args {
    /// End the lab after this many seconds
    #[arg(long, value_name = "N", conflicts_with = "config")]
    seconds: Option<u32>,
    /// Run the daemon on this host with this configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Further arguments, for the lab's or the daemon's `run`
    #[arg(last = true)]
    extra: Vec<OsString>,
}

/// Builds, then becomes the lab or the daemon.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    shell::need(&[("nft", "nftables"), ("ip", "iproute2")])?;
    let object = build::build(workspace)?;
    let daemon = workspace.binary("uplink");
    let mut command = match &args.config {
        Some(file) => {
            let file = file
                .canonicalize()
                .with_context(|| format!("cannot open {}", file.display()))?;
            let mut command = shell::as_root(&daemon, &[])?;
            command.arg("--config").arg(file).arg("run");
            command
        }
        None => {
            let variables = [("UPLINK_BIN", &*daemon), (build::OBJECT_VARIABLE, &*object)];
            let mut command = shell::as_root(&workspace.binary("uplink-lab"), &variables)?;
            command.arg("run");
            command
        }
    };
    if let Some(seconds) = args.seconds {
        command.arg("--seconds").arg(seconds.to_string());
    }
    shell::exec(command.args(&args.extra))
}
