//! What every command takes.

use std::path::{Path, PathBuf};

use clap::Args;

const RUNTIME_DIR: &str = "/run/uplink";
const STATE_DIR: &str = "/var/lib/uplink";

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
    #[arg(long, global = true, value_name = "DIR", default_value = RUNTIME_DIR)]
    pub runtime_dir: PathBuf,
    /// Where quota usage and measured capacities are kept over reboots; default /var/lib/uplink, or
    /// `lib` in the runtime directory where that is another one than usual
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where maps and links are pinned
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/uplink")]
    pub bpffs: PathBuf,
    /// Say more; the verifier's log, too
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl Options {
    /// Where quota usage and measured capacities are kept. An instance with a runtime directory
    /// of its own keeps them there, so that several instances do not meet.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        match &self.state_dir {
            Some(dir) => dir.clone(),
            None if self.runtime_dir == Path::new(RUNTIME_DIR) => STATE_DIR.into(),
            None => self.runtime_dir.join("lib"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn state_dir(line: &str) -> PathBuf {
        let words = std::iter::once("uplink").chain(line.split_whitespace());
        Line::parse_from(words).options.state_dir()
    }

    #[test]
    fn instances_keep_their_state_apart() {
        let cases = [
            ("", "/var/lib/uplink"),
            ("--runtime-dir /run/uplink/", "/var/lib/uplink"),
            ("--runtime-dir /run/lab", "/run/lab/lib"),
            ("--runtime-dir /run/lab --state-dir /srv/lab", "/srv/lab"),
            ("--state-dir /srv/lab", "/srv/lab"),
        ];
        for (line, dir) in cases {
            assert_eq!(state_dir(line), Path::new(dir), "{line}");
        }
    }
}
