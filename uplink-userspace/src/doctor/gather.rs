//! Reads what the checks look at. Reads only, and no command may take long.

mod command;
mod services;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::AccessFlags;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::facts::{Asked, Bpffs, Daemon, Facts, Pins, User};
use crate::config::Config;
use crate::inspect::present::{self, Pinned};
use crate::loader::{self, Hook};
use crate::options::Options;
use crate::plan::Plan;
use crate::resolve::Uplink;
use crate::routes::Routes;
use crate::state::State;
use crate::sysctl::{self, Change};
use crate::{api, desired};

/// Longest wait for the daemon.
const BOUND: Duration = Duration::from_secs(5);

/// Reads everything that is there whatever the configuration says.
pub(super) async fn facts(options: &Options) -> Facts {
    let (seen, daemon) = tokio::join!(command::all(), daemon(options));
    let mounts = text("/proc/self/mounts");
    let running = services::running();
    Facts {
        user: user(&text("/proc/self/status")),
        release: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        bpffs: bpffs(&options.bpffs, &mounts),
        pins: pins(&options.bpffs),
        daemon,
        missing: command::missing(),
        ruleset: seen.ruleset,
        iptables: seen.iptables,
        legacy: seen.legacy,
        wired: loader::wired(&options.bpffs),
        links: seen.links,
        addresses: seen.addresses,
        neighbours: seen.neighbours,
        qdiscs: seen.qdiscs,
        conntrack: conntrack(),
        interpreted: sysctl::read("net/core/bpf_jit_enable").as_deref() == Some("0"),
        rp_filter: rp_filter(),
        networkd: running.contains("systemd-network").then(services::networkd),
        managed: services::managed(),
        running,
        group: text("/etc/group").lines().any(|l| l.starts_with("uplink:")),
        protocols: protocols(),
    }
}

/// Reads what the configuration makes worth reading.
pub(super) async fn asked(config: &Config, uplinks: &[Uplink]) -> Asked {
    let local = &config.local;
    let hook = loader::hook(config.kernel.attach);
    let tagged = async { Routes::new(config.kernel.protocol)?.steps(&Plan::default()).await };
    Asked {
        tagged: tagged
            .await
            .map_or(0, |(rules, routes)| rules.len() + routes.len()),
        sysctls: changes(config, uplinks),
        cgroup: match local.enabled {
            true => loader::cgroup_directory(&local.cgroup.value)
                .err()
                .map(|e| format!("{e:#}")),
            false => None,
        },
        clsact: matches!(hook, Ok(Hook::Clsact)),
        attach: hook.err().map(|e| format!("{e:#}")),
    }
}

fn changes(config: &Config, uplinks: &[Uplink]) -> Vec<Change> {
    let wanted = desired::sysctls(config, uplinks).into_iter();
    let change = |s: crate::plan::Sysctl| {
        let from = sysctl::read(&s.path)?;
        let (path, to) = (s.path, s.value);
        (from != to).then_some(Change { path, from, to })
    };
    wanted.filter_map(change).collect()
}

/// A file's text, empty where it cannot be read.
fn text(path: impl AsRef<Path>) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn user(status: &str) -> User {
    let mask = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        let mask = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok());
        mask.unwrap_or(0)
    };
    let root = nix::unistd::geteuid().is_root();
    let writable = || nix::unistd::access("/proc/sys/net/ipv4/ip_forward", AccessFlags::W_OK);
    User {
        root,
        effective: mask("CapEff:"),
        bounding: mask("CapBnd:"),
        sysctls: root.then(|| writable() != Err(Errno::EROFS)),
    }
}

fn bpffs(path: &Path, mounts: &str) -> Bpffs {
    let parent = path.parent().unwrap_or(path);
    // What a link leads to; as it is where it cannot be followed.
    let parent = parent.canonicalize().unwrap_or_else(|_| parent.into());
    Bpffs {
        path: path.into(),
        exists: !matches!(fs::symlink_metadata(&parent), Err(e) if e.kind() == ErrorKind::NotFound),
        mounted: on_bpffs(&parent, mounts),
    }
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

fn pins(bpffs: &Path) -> Pins {
    match present::pins(bpffs) {
        Ok(Pinned::Nothing) => Pins::Nothing,
        // A start that was cut short leaves maps without a number; the next one fills them.
        Ok(Pinned::Ours(_) | Pinned::Other(0)) => Pins::Ours,
        Ok(Pinned::Other(abi)) => Pins::Other(abi),
        Err(e) => Pins::Unseen(format!("{e:#}")),
    }
}

async fn daemon(options: &Options) -> Daemon {
    let socket = api::path(&options.runtime_dir);
    if nix::unistd::access(&socket, AccessFlags::W_OK) == Err(Errno::EACCES) {
        let group = "root and its group alone may";
        return Daemon::Unseen(format!("{} cannot be asked: {group}", socket.display()));
    }
    let asked = api::call(&options.runtime_dir, api::STATUS, json!({}));
    match timeout(BOUND, asked).await {
        Ok(Ok(status)) => Daemon::Runs(status),
        Ok(Err(e)) if api::is_gone(&e) => left(&options.runtime_dir),
        Ok(Err(e)) => Daemon::Silent(format!("{e:#}")),
        Err(_) => Daemon::Silent(format!("nothing within {BOUND:?}")),
    }
}

fn left(runtime_dir: &Path) -> Daemon {
    match State::read(runtime_dir) {
        Ok(None) => Daemon::Absent,
        Ok(Some(_)) => Daemon::Gone,
        Err(e) => Daemon::Unseen(format!("{e:#}")),
    }
}

fn conntrack() -> Option<(u64, u64)> {
    let number = |name: &str| {
        let value = sysctl::read(&format!("net/netfilter/nf_conntrack_{name}"));
        value?.parse::<u64>().ok()
    };
    number("count").zip(number("max"))
}

fn rp_filter() -> BTreeMap<String, u8> {
    let root = "net/ipv4/conf";
    let value = |name: &str| -> u8 {
        let value = sysctl::read(&format!("{root}/{name}/rp_filter"));
        value.and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    let all = value("all");
    let names = list(&Path::new("/proc/sys").join(root)).into_iter();
    let names = names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    names
        .map(|name| {
            let own = value(&name);
            (name, own.max(all))
        })
        .collect()
}

/// Names that people gave to routing protocols. Ours is ours.
fn protocols() -> BTreeMap<u8, String> {
    let mut found = BTreeMap::new();
    for root in ["/usr/lib/iproute2", "/usr/share/iproute2", "/etc/iproute2"] {
        let root = Path::new(root);
        let files = list(&root.join("rt_protos.d")).into_iter();
        for path in std::iter::once(root.join("rt_protos")).chain(files) {
            for line in text(path).lines() {
                let mut words = line.split_whitespace();
                if let (Some(Ok(number)), Some(name)) = (words.next().map(str::parse), words.next())
                    && name != "uplink"
                {
                    found.insert(number, name.to_owned());
                }
            }
        }
    }
    found
}

/// What is in a directory, in the order of the names; nothing where it cannot be read.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    paths
}

/// An answer of nothing is an empty list.
fn parsed(text: &[u8]) -> Result<Value, String> {
    match text.trim_ascii() {
        b"" => Ok(Value::Array(Vec::new())),
        text => serde_json::from_slice(text).map_err(|e| e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert!(on_bpffs(Path::new("/sys/fs/bpf"), mounts));
        assert!(!on_bpffs(Path::new("/sys/fs/cgroup"), mounts));
        let hidden = format!("{mounts}tmpfs /sys/fs/bpf tmpfs rw 0 0\n");
        assert!(!on_bpffs(Path::new("/sys/fs/bpf/deep"), &hidden));
    }

    #[test]
    fn capabilities_are_read() {
        let user = user("CapPrm:\t0\nCapEff:\t0000000000003000\nCapBnd:\t000001ffffffffff\n");
        assert_eq!((user.effective, user.bounding), (0x3000, 0x1ff_ffff_ffff));
        assert_eq!(super::user("").effective, 0);
    }

    #[test]
    fn an_empty_answer_is_an_empty_list() {
        assert_eq!(parsed(b" \n"), Ok(json!([])));
        assert_eq!(parsed(b"[1]"), Ok(json!([1])));
        assert!(parsed(b"[").is_err());
    }
}
