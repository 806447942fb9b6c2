//! Firewalls and flowtables of others.

use serde_json::Value;

use super::{Facts, Finding, Setting, finding, objects};
use crate::config::Mode;
use crate::doctor::Severity::{Fine, Warns};
use crate::doctor::facts::Daemon;
use crate::nexthop;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut found = flowtables(facts);
    found.extend(drops(facts));
    found.extend(both(facts));
    found
}

fn word<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or("?")
}

/// Flows in a flowtable leave without rules, programs and marks.
fn flowtables(facts: &Facts) -> Vec<Finding> {
    let one = |table: &Value| {
        let [family, of, name] = ["family", "table", "name"].map(|k| word(table, k));
        let text = format!(
            "the flowtable {name} of table {family} {of} takes flows past rules and marks: they stay on a dead uplink"
        );
        let remedy = format!(
            "delete the `flow add @{name}` rules for what goes out by the uplinks; see `nft -a list table {family} {of}`"
        );
        finding("flowtable", Warns, text, remedy)
    };
    objects(facts, "flowtable").map(one).collect()
}

/// Chains that let nothing through by default; a router needs exceptions in each.
fn drops(facts: &Facts) -> Option<Finding> {
    let dropping = objects(facts, "chain").filter(|c| c["hook"] == "forward" && c["policy"] == "drop");
    let names: Vec<String> = dropping
        .map(|c| ["family", "table", "name"].map(|k| word(c, k)).join(" "))
        .collect();
    let text = format!(
        "the firewall forwards only what its rules accept (chain {})",
        names.join(", chain ")
    );
    let remedy = "its rules must accept what clients send to every uplink's interface";
    (!names.is_empty()).then(|| finding("forward-drop", Fine, text, remedy))
}

fn both(facts: &Facts) -> Option<Finding> {
    let compatible = |c: &&Value| c["table"] == "filter" || c["table"] == "nat" || c["table"] == "mangle";
    let nft = objects(facts, "chain").any(|c| compatible(&c) && c["family"] != "inet");
    let text = "iptables-legacy and nftables both have rules, and a packet has to pass both";
    let remedy = "iptables-legacy-save shows the older ones";
    (facts.legacy && nft).then(|| finding("iptables-both", Fine, text, remedy))
}

/// Where next-hop mode may be, what would be passed by. A daemon that runs warns by itself.
pub(super) fn passed_by(facts: &Facts, setting: &Setting<'_>) -> Option<Finding> {
    let chains = facts.ruleset.as_ref().ok()?;
    let mut found = nexthop::chains(chains).ok()?;
    if facts.legacy {
        found.push(nexthop::Obstacle {
            what: "tables of iptables-legacy".into(),
            sees: [true; 2],
        });
    }
    if setting.nat || found.is_empty() {
        return None;
    }
    let names: Vec<String> = found.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    match setting.kernel.mode {
        Mode::Mark => None,
        Mode::Auto => {
            let text =
                format!("known flows go the kernel's way, not straight to the gateway, because of {names}");
            let remedy = "nothing, while it is needed; else take it away";
            Some(finding("mark-mode", Fine, text, remedy))
        }
        Mode::NextHop if matches!(facts.daemon, Daemon::Runs(_)) => None,
        Mode::NextHop => {
            let text = format!("[kernel] mode = \"nexthop\" sends known flows past {names}");
            let remedy = "mode = \"auto\", which goes the kernel's way while it is there; or take it away";
            Some(finding(nexthop::PASSED_BY, Warns, text, remedy))
        }
    }
}

/// A firewall's own filter on the reverse path compares devices, without our marks. With NAT our rules
/// for the uplinks' own addresses tell it the right one.
pub(super) fn reverse_path(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    let mut interfaces = setting.uplinks.iter().map(|u| &u.interface);
    let first = interfaces.next();
    if setting.nat || interfaces.all(|i| Some(i) == first) {
        return Vec::new();
    }
    let nft = objects(facts, "rule").filter(|r| is_filter(r)).map(|r| {
        let place = ["family", "table", "chain"].map(|k| word(r, k)).join(" ");
        (format!("chain {place}"), format!("nft -a list chain {place}"))
    });
    let lines = facts.iptables.iter();
    let lines = lines.filter(|(_, line)| line.contains(" rpfilter ") && !line.contains("--loose"));
    let old = lines.map(|(program, line)| (format!("{program} rule `{line}`"), format!("{program}-save")));
    let one = |(what, see): (String, String)| {
        let text = format!(
            "the {what} drops what comes in by another uplink than the one that the main table names"
        );
        let remedy = format!("take it away or make it loose; see `{see}`; firewalld: IPv6_rpfilter=loose");
        finding("reverse-path", Warns, text, remedy)
    };
    nft.chain(old).map(one).collect()
}

/// `fib saddr . iif oif missing drop`, as firewalld makes it, too.
fn is_filter(rule: &Value) -> bool {
    let statements = || rule["expr"].as_array().into_iter().flatten();
    let asks = statements().any(|s| {
        let fib = &s["match"]["left"]["fib"];
        let flags = || fib["flags"].as_array().into_iter().flatten();
        let strict = flags().any(|f| f == "iif") && flags().all(|f| f != "mark");
        strict && flags().any(|f| f == "saddr") && s["match"]["right"] == false
    });
    asks && statements().any(|s| s.get("drop").is_some())
}
