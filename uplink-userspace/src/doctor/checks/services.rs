//! Other programs that manage networks.

use super::{Facts, Finding, Setting, finding, items};
use crate::doctor::Severity::{Fine, Warns};

const KEYS: [&str; 2] = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"];
/// Kinds of links that lead into tunnels.
const TUNNELS: [&str; 3] = ["wireguard", "tun", "xfrm"];

pub(super) fn all(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    let some = [
        network_manager(facts, setting),
        tunnels(facts),
        docker(facts, setting),
    ];
    some.into_iter().flatten().collect()
}

/// It deletes what it did not make, and says so in its manual.
pub(super) fn networkd(facts: &Facts) -> Option<Finding> {
    let text = facts.networkd.as_ref()?;
    let absent: Vec<String> = KEYS
        .iter()
        .filter(|k| !is_off(text, k))
        .map(|k| format!("{k}=no"))
        .collect();
    let text = format!(
        "systemd-networkd runs without {}: it may delete our rules and routes when it starts",
        absent.join(" and ")
    );
    let remedy = "install -D -m 644 /usr/share/doc/uplink/examples/networkd.conf \
                  /etc/systemd/networkd.conf.d/uplink.conf && systemctl restart systemd-networkd";
    (!absent.is_empty()).then(|| finding("networkd", Warns, text, remedy))
}

/// The last line counts.
fn is_off(text: &str, key: &str) -> bool {
    let value = |line: &str| {
        let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?;
        Some(value.trim().to_ascii_lowercase())
    };
    let last = text.lines().filter_map(value).next_back();
    last.is_some_and(|v| matches!(&*v, "no" | "false" | "off" | "0" | "n" | "f"))
}

fn network_manager(facts: &Facts, setting: &Setting<'_>) -> Option<Finding> {
    if !facts.running.contains("NetworkManager") {
        return None;
    }
    let managed = setting
        .uplinks
        .iter()
        .filter(|u| facts.managed.contains(&u.ifindex));
    let mut names: Vec<&str> = managed.map(|u| u.interface.as_str()).collect();
    names.dedup();
    let text = format!(
        "NetworkManager manages {}: `nmcli con up` takes our routes away, and uplink puts them back at once",
        names.join(", ")
    );
    (!names.is_empty()).then(|| finding("network-manager", Fine, text, "nothing to do"))
}

fn tunnels(facts: &Facts) -> Option<Finding> {
    let tunnels = items(&facts.links).filter(|l| {
        let kind = l["linkinfo"]["info_kind"].as_str();
        kind.is_some_and(|k| TUNNELS.contains(&k))
    });
    let names: Vec<&str> = tunnels.filter_map(|l| l["ifname"].as_str()).collect();
    let text = format!(
        "there are tunnels ({}): what the rules and routes of a VPN claim is never steered",
        names.join(", ")
    );
    let remedy = "nothing to do; `uplink explain SRC DST` tells what becomes of a flow";
    (!names.is_empty()).then(|| finding("vpn", Fine, text, remedy))
}

fn docker(facts: &Facts, setting: &Setting<'_>) -> Option<Finding> {
    let there = items(&facts.links).any(|l| l["ifname"] == "docker0");
    let text = "the containers behind docker0 are not steered";
    let mut lan: Vec<&str> = setting.lan.iter().map(String::as_str).collect();
    lan.push("docker0");
    let remedy = format!("if they should be: [lan] interfaces = {lan:?}");
    let listed = setting.lan.iter().any(|l| l == "docker0");
    (there && !listed).then(|| finding("docker", Fine, text, remedy))
}
