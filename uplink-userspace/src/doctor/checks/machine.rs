//! The kernel, and what this process may do.

use super::{Facts, Finding, finding};
use crate::doctor::Severity::{Blocks, Fine, Warns};

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (6, 1);
/// Capabilities that the daemon needs, by their bits.
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];
/// Whoever has it can mount.
const SYS_ADMIN: u32 = 21;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let some = [
        kernel(facts),
        capabilities(facts),
        bpffs(facts),
        nft(facts),
        conntrack(facts),
        interpreter(facts),
        group(facts),
    ];
    let mut found: Vec<Finding> = some.into_iter().flatten().collect();
    found.extend(facts.missing.iter().map(|name| missing(name)));
    found
}

/// Whether a process with these capabilities could not be the daemon.
pub(super) fn lacks(capabilities: u64) -> bool {
    CAPABILITIES.iter().any(|(_, bit)| !has(capabilities, *bit))
}

const fn has(capabilities: u64, bit: u32) -> bool {
    capabilities >> bit & 1 == 1
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Option<Finding> {
    let old = version(&facts.release).is_some_and(|v| v < OLDEST);
    let (major, minor) = OLDEST;
    let text = format!("the kernel is {}, older than {major}.{minor}", facts.release);
    let remedy = format!("install Linux {major}.{minor} or later, such as that of Debian 12, and reboot");
    old.then(|| finding("kernel-old", Blocks, text, remedy))
}

/// Of a plain user nothing can be said: the daemon will be somebody else.
fn capabilities(facts: &Facts) -> Option<Finding> {
    let user = &facts.user;
    let absent = |held: u64| CAPABILITIES.iter().filter(move |(_, bit)| !has(held, *bit));
    let names: Vec<&str> = absent(user.effective).map(|(name, _)| *name).collect();
    if names.is_empty() || !user.root {
        return None;
    }
    let text = format!(
        "root lacks {} here, and so would a daemon that is started like this",
        names.join(", ")
    );
    let never = absent(user.bounding).next().is_some();
    let short = |n: &&str| n.trim_start_matches("CAP_").to_owned();
    let remedy = match never {
        true => {
            let options: Vec<String> = names.iter().map(|n| format!("--cap-add={}", short(n))).collect();
            format!(
                "in a container: docker run {}; in a unit: CapabilityBoundingSet={}",
                options.join(" "),
                names.join(" ")
            )
        }
        false => format!(
            "start it where root has them; in a unit: AmbientCapabilities={}",
            names.join(" ")
        ),
    };
    Some(finding("capability-missing", Blocks, text, remedy))
}

/// The daemon mounts one where it may.
fn bpffs(facts: &Facts) -> Option<Finding> {
    let place = &facts.bpffs;
    let may_mount = !facts.user.root || has(facts.user.effective, SYS_ADMIN);
    if place.mounted || place.exists && may_mount {
        return None;
    }
    let parent = place.path.parent().unwrap_or(&place.path).display();
    let text = format!("{parent}, where maps are pinned, is no BPF file system");
    let remedy = format!("mkdir -p {parent} && mount -t bpf bpf {parent}");
    Some(finding("bpffs-missing", Blocks, text, remedy))
}

fn missing(name: &str) -> Finding {
    let package = if name == "nft" { "nftables" } else { "iproute2" };
    // Routes are set without it; it is for people and for this command.
    let severity = if name == "nft" { Blocks } else { Fine };
    let text = format!("the program `{name}` was not found");
    finding(
        "program-missing",
        severity,
        text,
        format!("apt-get install {package}"),
    )
}

/// Root who may not list the rules has a kernel without nf_tables, or a broken one.
fn nft(facts: &Facts) -> Option<Finding> {
    let why = facts.ruleset.as_ref().err()?;
    let there = facts.user.root && !facts.missing.contains(&"nft");
    let text = format!("nftables does not work: {why}");
    let remedy = "modprobe nf_tables; after an upgrade of the kernel: reboot";
    (there && !lacks(facts.user.effective)).then(|| finding("nft-fails", Blocks, text, remedy))
}

/// New connections are dropped once the table is full. The kernel makes as many buckets as connections; with more of these alone
/// each look-up walks along a chain.
fn conntrack(facts: &Facts) -> Option<Finding> {
    let (count, max) = facts.conntrack?;
    let text = format!("{count} of {max} connections are tracked; at the limit new ones are dropped");
    let wanted = max.saturating_mul(2);
    let remedy = format!(
        "sysctl -w net.netfilter.nf_conntrack_buckets={wanted} net.netfilter.nf_conntrack_max={wanted}"
    );
    (max > 0 && count >= max / 10 * 9).then(|| finding("conntrack-full", Warns, text, remedy))
}

fn interpreter(facts: &Facts) -> Option<Finding> {
    let text = "BPF programs are interpreted, which makes each packet several times dearer";
    let remedy = "sysctl -w net.core.bpf_jit_enable=1";
    facts.interpreted.then(|| finding("jit-off", Warns, text, remedy))
}

fn group(facts: &Facts) -> Option<Finding> {
    let text = "there is no group `uplink`: uplink.service needs it, and its members may ask the daemon";
    (!facts.group).then(|| finding("group-missing", Warns, text, "groupadd --system uplink"))
}
