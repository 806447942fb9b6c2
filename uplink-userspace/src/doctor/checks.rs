//! What the facts mean.

use serde_json::Value;

use super::facts::Facts;
use super::{Finding, Severity};
use crate::config::Kernel;
use crate::host::Host;
use crate::plan::BLOCK;
use crate::resolve::Uplink;
use Severity::{Blocks, Fine, Warns};

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (6, 1);
/// Capabilities that the daemon needs, by their bits.
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];
const DROP_IN: [&str; 2] = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"];

fn finding(code: &str, severity: Severity, text: String, remedy: impl Into<String>) -> Finding {
    Finding {
        code: code.into(),
        severity,
        text,
        remedy: remedy.into(),
    }
}

/// What holds without a configuration.
pub(super) fn host(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = [kernel(facts), capabilities(facts), bpffs(facts)]
        .into_iter()
        .flatten()
        .collect();
    found.extend(facts.missing.iter().map(|name| {
        let package = if *name == "nft" { "nftables" } else { "iproute2" };
        let text = format!("the program {name} was not found in PATH");
        finding(
            "program-missing",
            Blocks,
            text,
            format!("apt-get install {package}"),
        )
    }));
    found.extend(
        [conntrack(facts), networkd(facts), group(facts)]
            .into_iter()
            .flatten(),
    );
    found.extend(flowtables(facts));
    let unread = [&facts.ruleset, &facts.links, &facts.neighbours].into_iter();
    let unread = unread.filter_map(|r| r.as_ref().err());
    found.extend(unread.map(|why| {
        let text = format!("not everything could be seen: {why}");
        finding("unseen", Fine, text, "run it as root: sudo uplink doctor")
    }));
    found
}

/// What depends on the configuration.
pub(super) fn configured(facts: &Facts, kernel: &Kernel, host: &Host, uplinks: &[Uplink]) -> Vec<Finding> {
    let mut found = in_block(kernel, host);
    found.extend(tables(host, uplinks));
    found.extend(xdp(facts, uplinks));
    found.extend(gateways(facts, uplinks));
    found
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Option<Finding> {
    let old = version(&facts.release).is_some_and(|v| v < OLDEST);
    let text = format!(
        "the kernel is {}, older than {}.{}",
        facts.release, OLDEST.0, OLDEST.1
    );
    old.then(|| finding("kernel-old", Blocks, text, "install a newer kernel"))
}

fn capabilities(facts: &Facts) -> Option<Finding> {
    let absent = CAPABILITIES
        .iter()
        .filter(|(_, bit)| facts.capabilities >> bit & 1 == 0);
    let absent: Vec<&str> = absent.map(|(name, _)| *name).collect();
    let names = absent.join(" ");
    (!absent.is_empty()).then(|| {
        let text = format!("this process lacks {names}, and so would a daemon that is started like it");
        let remedy = format!(
            "run as root, or in the unit: CapabilityBoundingSet={names} and AmbientCapabilities={names}"
        );
        finding("capability-missing", Blocks, text, remedy)
    })
}

fn bpffs(facts: &Facts) -> Option<Finding> {
    let (path, mounted) = &facts.bpffs;
    let text = format!("{} is not in a BPF file system", path.display());
    let remedy = "mount -t bpf bpf /sys/fs/bpf";
    (!mounted).then(|| finding("bpffs-missing", Blocks, text, remedy))
}

/// New connections are dropped once the table is full.
fn conntrack(facts: &Facts) -> Option<Finding> {
    let (count, max) = facts.conntrack?;
    let text = format!("{count} of {max} connections are tracked; at the limit new ones are dropped");
    let remedy = format!(
        "sysctl -w net.netfilter.nf_conntrack_max={}",
        max.saturating_mul(2)
    );
    (max > 0 && count >= max / 10 * 9).then(|| finding("conntrack-full", Warns, text, remedy))
}

fn networkd(facts: &Facts) -> Option<Finding> {
    let text = facts.networkd.as_ref()?;
    let set = |key: &&str| {
        // The last one counts.
        let mut lines = text
            .lines()
            .filter_map(|l| l.trim().strip_prefix(*key)?.trim_start().strip_prefix('='));
        let value = lines.next_back().map(|v| v.trim().to_ascii_lowercase());
        value.is_some_and(|v| matches!(&*v, "no" | "false" | "off" | "0" | "n" | "f"))
    };
    let absent: Vec<String> = DROP_IN
        .iter()
        .filter(|k| !set(k))
        .map(|k| format!("{k}=no"))
        .collect();
    (!absent.is_empty()).then(|| {
        let text = format!("systemd-networkd runs without {}", absent.join(" and "));
        let remedy = "install -D -m 644 /usr/share/doc/uplink/examples/networkd.conf \
                      /etc/systemd/networkd.conf.d/uplink.conf && systemctl restart systemd-networkd";
        finding(
            "networkd",
            Warns,
            text + ": it deletes foreign rules and routes when it starts",
            remedy,
        )
    })
}

fn group(facts: &Facts) -> Option<Finding> {
    let text = "there is no group `uplink`: the unit needs it, and its members may ask the daemon".into();
    (!facts.group).then(|| finding("group-missing", Warns, text, "groupadd --system uplink"))
}

/// Flows in a flowtable leave without rules, programs and marks.
fn flowtables(facts: &Facts) -> Vec<Finding> {
    let objects = facts.ruleset.as_ref().ok().and_then(|r| r["nftables"].as_array());
    let tables = objects.into_iter().flatten().filter_map(|o| o.get("flowtable"));
    let one = |table: &Value| {
        let [family, of, name] = ["family", "table", "name"].map(|k| table[k].as_str().unwrap_or("?"));
        let text = format!("the flowtable {name} of table {family} {of} forwards flows past the programs");
        let remedy = "take the `flow add` rules for what goes out by the uplinks away".to_owned();
        finding("flowtable", Warns, text, remedy)
    };
    tables.map(one).collect()
}

fn in_block(kernel: &Kernel, host: &Host) -> Vec<Finding> {
    let (first, last) = (kernel.rule_priority, kernel.rule_priority + BLOCK - 1);
    let inside = host.rules.iter().filter(|r| (first..=last).contains(&r.priority));
    let one = |rule: &crate::host::ForeignRule| {
        let text =
            format!("the rule `{rule}` of somebody else is in our block of priorities, {first} to {last}");
        let remedy =
            format!("give it another priority, or set [kernel] rule_priority to another than {first}");
        finding("rule-in-block", Warns, text, remedy)
    };
    inside.map(one).collect()
}

fn tables(host: &Host, uplinks: &[Uplink]) -> Vec<Finding> {
    let taken = uplinks.iter().filter(|u| host.foreign_tables.contains(&u.table));
    let one = |u: &Uplink| {
        let text = format!(
            "table {} of uplink {} has routes of somebody else",
            u.table, u.name
        );
        let remedy = format!(
            "see `ip route show table {}`; give the uplink another `table`",
            u.table
        );
        finding("table-in-use", Warns, text, remedy)
    };
    taken.map(one).collect()
}

/// It sees packets before us, and may take them.
fn xdp(facts: &Facts, uplinks: &[Uplink]) -> Vec<Finding> {
    let links = facts.links.as_ref().ok().and_then(Value::as_array);
    let links = links.into_iter().flatten().filter(|l| l.get("xdp").is_some());
    let names = links.filter_map(|l| l["ifname"].as_str());
    let ours = names.filter(|name| uplinks.iter().any(|u| u.interface == *name));
    let one = |name: &str| {
        let text = format!("an XDP program is on {name}: what it drops or redirects never gets to uplink");
        let remedy = format!("if it is not meant so: ip link set dev {name} xdp off");
        finding("xdp", Warns, text, remedy)
    };
    ours.map(one).collect()
}

fn gateways(facts: &Facts, uplinks: &[Uplink]) -> Vec<Finding> {
    let failed = facts.neighbours.as_ref().ok().and_then(Value::as_array);
    let failed = failed
        .into_iter()
        .flatten()
        .filter_map(|n| Some((n["dst"].as_str()?, n["dev"].as_str()?)));
    let one = |(address, dev): (&str, &str)| {
        let legs = |u: &&Uplink| {
            let mut legs = [u.v4, u.v6].into_iter().flatten();
            u.interface == dev && legs.any(|leg| leg.gateway.to_string() == address)
        };
        let uplink = uplinks.iter().find(legs)?;
        let text = format!(
            "the gateway {address} of uplink {} does not answer on {dev}",
            uplink.name
        );
        let remedy = "look at the cable, the provider's router and the address".to_owned();
        Some(finding("gateway-silent", Warns, text, remedy))
    };
    failed.filter_map(one).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
