//! Interfaces, addresses and neighbours of the uplinks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::{Facts, Finding, Setting, finding, items};
use crate::doctor::Severity::{Blocks, Fine, Warns};
use crate::host::Interface;
use crate::resolve::Uplink;
use crate::stations;

pub(super) fn all(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    let mut found = xdp(facts, setting.uplinks);
    found.extend(ingress(facts, setting));
    found.extend(gateways(facts, setting.uplinks));
    found.extend(shared(setting));
    found.extend(mtu(facts, setting.uplinks));
    found.extend(twice(setting));
    found
}

/// It sees packets before us, and may take them.
fn xdp(facts: &Facts, uplinks: &[Uplink]) -> Vec<Finding> {
    let one = |link: &Value| {
        let (name, xdp) = (link["ifname"].as_str()?, link.get("xdp")?);
        uplinks.iter().find(|u| u.interface == name)?;
        let index = link["ifindex"]
            .as_u64()
            .and_then(|index| u32::try_from(index).ok());
        if index.is_some_and(|index| facts.wired.contains(&index)) {
            return None;
        }
        // Programs of one kind are not taken off as another.
        let kind = match xdp["mode"].as_u64() {
            Some(2) => "xdpgeneric",
            Some(3) => "xdpoffload",
            _ => "xdp",
        };
        let text = format!("an XDP program is on {name}: what it drops or redirects never gets to uplink");
        let remedy = format!("unless it is meant so: ip link set dev {name} {kind} off");
        Some(finding("xdp", Warns, text, remedy))
    };
    items(&facts.links).filter_map(one).collect()
}

/// The ingress qdisc and clsact have one handle.
fn ingress(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    if !setting.asked.clsact {
        return Vec::new();
    }
    let there = items(&facts.qdiscs).filter(|q| q["kind"] == "ingress");
    let names = there.filter_map(|q| q["dev"].as_str());
    let ours = names.filter(|name| {
        let lan = setting.lan.iter().map(String::as_str);
        let mut ports = setting.uplinks.iter().map(|u| &*u.interface).chain(lan);
        ports.any(|port| port == *name)
    });
    let one = |name: &str| {
        let text = format!(
            "{name} has an ingress qdisc in the place of clsact: both programs land there, and the wrong one runs"
        );
        let remedy = format!(
            "move its filters to clsact: tc qdisc del dev {name} ingress && tc qdisc add dev {name} clsact"
        );
        finding("ingress-qdisc", Blocks, text, remedy)
    };
    ours.map(one).collect()
}

fn gateways(facts: &Facts, uplinks: &[Uplink]) -> Vec<Finding> {
    let one = |n: &Value| {
        let (address, dev) = (n["dst"].as_str()?, n["dev"].as_str()?);
        let address: IpAddr = address.parse().ok()?;
        let is = |u: &&Uplink| {
            let mut legs = [u.v4, u.v6].into_iter().flatten();
            u.interface == dev && legs.any(|leg| leg.gateway == address)
        };
        let uplink = uplinks.iter().find(is)?;
        let text = format!(
            "the gateway {address} of uplink {} does not answer on {dev}",
            uplink.name
        );
        let remedy =
            format!("look at the cable, the provider's router and the address: ip neigh show {address}");
        Some(finding("gateway-silent", Warns, text, remedy))
    };
    items(&facts.neighbours).filter_map(one).collect()
}

/// The daemon warns of it, too; here it is told before the start.
fn shared(setting: &Setting<'_>) -> Vec<Finding> {
    let found = stations::stations(setting.host, setting.uplinks);
    let warnings = found.shared.iter().map(|(a, b)| stations::warning(a, b));
    warnings.map(|w| Finding::of(w, Warns)).collect()
}

fn mtu(facts: &Facts, uplinks: &[Uplink]) -> Vec<Finding> {
    let of: BTreeMap<&str, u64> = items(&facts.links)
        .filter_map(|l| Some((l["ifname"].as_str()?, l["mtu"].as_u64()?)))
        .collect();
    let mut found = Vec::new();
    for u in uplinks {
        let device = of.get(&*u.interface);
        if let (Some(wanted), Some(device)) = (u.mtu, device)
            && u64::from(wanted) > *device
        {
            let text = format!(
                "uplink {} has mtu = {wanted}, but {} carries only {device}",
                u.name, u.interface
            );
            let remedy = format!("mtu = {device}, or: ip link set dev {} mtu {wanted}", u.interface);
            found.push(finding("mtu", Warns, text, remedy));
        }
    }
    let each = |u: &Uplink| u.mtu.map(u64::from).or(of.get(&*u.interface).copied());
    let all: Vec<(u64, &str)> = uplinks
        .iter()
        .filter_map(|u| Some((each(u)?, &*u.name)))
        .collect();
    if all.iter().any(|(mtu, _)| *mtu != all[0].0) {
        let list: Vec<String> = all.iter().map(|(mtu, name)| format!("{name} {mtu}")).collect();
        let text = format!("the uplinks have different MTUs: {}", list.join(", "));
        let remedy = "nothing to do: uplink has TCP fit its segments to the uplink that it takes";
        found.push(finding("mtu", Fine, text, remedy));
    }
    found
}

/// Addresses that the kernel found in use by another machine.
pub(super) fn duplicates(facts: &Facts) -> Vec<Finding> {
    let of = |link: &Value| {
        let name = link["ifname"].as_str().unwrap_or("?").to_owned();
        let addresses = link["addr_info"].as_array().cloned().unwrap_or_default();
        let failed = addresses.into_iter().filter(|a| a["dadfailed"] == true);
        let one = move |a: Value| {
            let address = a["local"].as_str().unwrap_or("?").to_owned();
            let text =
                format!("another machine on {name} has our address {address}, so the kernel does not use it");
            let remedy = "give one of the two another address";
            finding("address-duplicate", Warns, text, remedy)
        };
        failed.map(one).collect::<Vec<_>>()
    };
    items(&facts.addresses).flat_map(of).collect()
}

/// An uplink's address that is on two interfaces of this host.
fn twice(setting: &Setting<'_>) -> Vec<Finding> {
    let legs = setting.uplinks.iter().flat_map(|u| [u.v4, u.v6]).flatten();
    let sources: BTreeSet<IpAddr> = legs.map(|leg| leg.source).collect();
    let one = |address: IpAddr| {
        let has = |i: &&Interface| i.addresses.iter().any(|net| net.addr() == address);
        let with = setting.host.interfaces.iter().filter(has);
        let names: Vec<&str> = with.map(|i| &*i.name).collect();
        let text = format!(
            "the address {address} is on several interfaces: {}",
            names.join(", ")
        );
        let remedy = format!("leave it on one: ip addr show to {address}");
        (names.len() > 1).then(|| finding("address-duplicate", Warns, text, remedy))
    };
    sources.into_iter().filter_map(one).collect()
}
