//! Reads what the checks look at. Reads only, and no command may take long.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::options::Options;
use crate::sysctl;

/// Longest wait for a command.
const BOUND: Duration = Duration::from_secs(5);
const NETWORKD: &str = "/sys/fs/cgroup/system.slice/systemd-networkd.service";

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Version of the kernel, as it writes it.
    pub release: String,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// Where maps are pinned, and whether that is in a BPF file system.
    pub bpffs: (PathBuf, bool),
    /// Programs that were not found.
    pub missing: Vec<&'static str>,
    /// `nft -j list ruleset`, or why there is none.
    pub ruleset: Result<Value, String>,
    /// `ip -j link`, or why there is none.
    pub links: Result<Value, String>,
    /// `ip -j neigh`, of both families.
    pub neighbours: Result<Value, String>,
    /// Tracked connections, and most of them.
    pub conntrack: Option<(u64, u64)>,
    /// networkd's configuration where it runs.
    pub networkd: Option<String>,
    /// Whether there is a group `uplink`.
    pub group: bool,
}

/// Reads everything.
pub(super) async fn gather(options: &Options) -> Facts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let count = |name: &str| {
        sysctl::read(&format!("net/netfilter/nf_conntrack_{name}"))?
            .parse()
            .ok()
    };
    Facts {
        release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        capabilities: capabilities(&read("/proc/self/status")),
        bpffs: (
            options.bpffs.clone(),
            on_bpffs(&options.bpffs, &read("/proc/self/mounts")),
        ),
        missing: ["nft", "ip"]
            .into_iter()
            .filter(|name| !installed(name))
            .collect(),
        conntrack: count("count").zip(count("max")),
        networkd: Path::new(NETWORKD).exists().then(networkd),
        group: read("/etc/group").lines().any(|l| l.starts_with("uplink:")),
        ruleset: json("nft", &["-j", "list", "ruleset"]).await,
        links: json("ip", &["-j", "link", "show"]).await,
        neighbours: json("ip", &["-j", "neigh", "show", "nud", "failed"]).await,
    }
}

fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok())
        .unwrap_or(0)
}

/// The mount with the longest path in front decides.
fn on_bpffs(path: &Path, mounts: &str) -> bool {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let around = mounts.filter(|(at, _)| path.starts_with(at));
    // Of two at one place the later one is seen; `max_by_key` takes the last.
    let innermost = around.max_by_key(|(at, _)| at.components().count());
    innermost.is_some_and(|(_, kind)| kind == "bpf")
}

fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

fn networkd() -> String {
    let mut text = String::new();
    for root in ["/usr/lib", "/usr/local/lib", "/run", "/etc"] {
        let dir = Path::new(root).join("systemd");
        let drop_ins = std::fs::read_dir(dir.join("networkd.conf.d"))
            .into_iter()
            .flatten();
        let drop_ins = drop_ins.filter_map(|entry| Some(entry.ok()?.path()));
        for path in std::iter::once(dir.join("networkd.conf")).chain(drop_ins) {
            text += &std::fs::read_to_string(path).unwrap_or_default();
            text += "\n";
        }
    }
    text
}

/// What a command answers; an empty answer is an empty list.
async fn json(program: &str, arguments: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(BOUND, command.output()).await {
        Err(_) => return Err(format!("{program} did not answer within {} s", BOUND.as_secs())),
        Ok(Err(e)) => return Err(format!("{program}: {e}")),
        Ok(Ok(output)) => output,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), output.stdout.trim_ascii()) {
        (false, _) => Err(format!("{program}: {}", said.lines().next().unwrap_or("failed"))),
        (true, b"") => Ok(Value::Array(Vec::new())),
        (true, text) => serde_json::from_slice(text).map_err(|e| format!("{program}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert!(on_bpffs(Path::new("/sys/fs/bpf/uplink"), mounts));
        assert!(!on_bpffs(Path::new("/sys/fs/cgroup"), mounts));
        let hidden = format!("{mounts}tmpfs /sys/fs/bpf tmpfs rw 0 0\n");
        assert!(!on_bpffs(Path::new("/sys/fs/bpf/uplink"), &hidden));
    }

    #[test]
    fn effective_capabilities_are_read() {
        assert_eq!(capabilities("CapPrm:\t0\nCapEff:\t0000000000003000\n"), 0x3000);
        assert_eq!(capabilities(""), 0);
    }
}
