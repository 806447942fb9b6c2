//! `cargo xtask bench`: what a packet costs, with uplink and with what users would pick instead.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{build, shell, workspace::Workspace};

/// Everything is measured in network namespaces of its own, in turns; nothing else should run meanwhile.
#[derive(clap::Args)]
#[command(after_help = "Examples: cargo xtask bench\n          \
                        cargo xtask bench -- --part forwarding --case v4-nat --flows 1000 --rounds 3\n          \
                        cargo xtask bench --out docs/speed\n          \
                        cargo xtask bench -- --help")]
pub struct Args {
    /// Where to put the numbers and the plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Arguments for the benchmark
    #[arg(last = true)]
    extra: Vec<OsString>,
}

/// Builds, then measures as root.
pub fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    shell::need(&[("nft", "nftables"), ("ip", "iproute2"), ("iptables", "iptables")])?;
    let object = build::build(workspace)?;
    let mut cargo = workspace.cargo();
    if !shell::is_root() {
        // cargo stays the user's, only the benchmark becomes root.
        cargo.args(["--config", shell::SUDO_RUNNER]);
    }
    cargo
        .args(["bench", "--package", "uplink-tests", "--bench", "speed", "--"])
        .args(&args.extra)
        .env("UPLINK_BIN", workspace.binary("uplink"))
        .env(build::OBJECT_VARIABLE, object);
    if let Some(out) = &args.out {
        // The benchmark runs in the directory of its package.
        let out = std::path::absolute(out).with_context(|| out.display().to_string())?;
        cargo.arg("--out").arg(out);
    }
    shell::run(&mut cargo)
}
