//! What every command takes.

use std::path::PathBuf;

use clap::Args;

/// Where this instance of uplink has its things.
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
