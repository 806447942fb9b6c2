//! The configuration applied to this host: names become indices, gateways get their source.

mod follow;
mod legs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::mark::Mask;
use uplink_common::{Family, MAX_UPLINKS};

use crate::config::{self, At, Config, Gateway, Problem, Problems};
use crate::host::{Host, Interface};

pub use follow::{Followed, Unusable, follow};

/// An uplink with everything the kernel needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its id in marks and maps, from 1. Stays with the name across restarts.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// The interface's index.
    pub ifindex: u32,
    /// IPv4 leg.
    pub v4: Option<Leg>,
    /// IPv6 leg.
    pub v6: Option<Leg>,
    /// Configured weight.
    pub weight: u32,
    /// Lower is preferred.
    pub tier: u32,
    /// MTU of its routes.
    pub mtu: Option<u32>,
    /// Its routing table.
    pub table: u32,
    /// Its mark, our bits only.
    pub mark: u32,
    /// The mark of this host's sockets placed here.
    pub host_mark: u32,
    /// IPv6 prefix translation instead of SNAT, where configured.
    pub translation: Option<uplink_common::Translation>,
}

/// One address family of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Next hop.
    pub gateway: IpAddr,
    /// Our address towards it.
    pub source: IpAddr,
    /// The connected prefix they share, host bits zero.
    pub prefix: IpNet,
}

impl Uplink {
    /// The leg of a family.
    #[must_use]
    pub const fn leg(&self, family: Family) -> Option<&Leg> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// The uplinks of `config` on `host`, in the order of the file.
///
/// `ids` are those of an earlier run by name. They stay, because marks and pins of live
/// connections carry them. Other uplinks take the lowest id from 1 that `ids` does not mention,
/// so that a new uplink does not inherit the connections of a removed one.
///
/// # Errors
///
/// All that the file says and this host contradicts.
pub fn resolve(config: &Config, host: &Host, ids: &BTreeMap<String, u8>) -> Result<Vec<Uplink>, Problems> {
    let mut problems = Vec::new();
    for name in &config.lan {
        known_interface(host, name, &mut problems);
    }
    tables(config, host, &mut problems);
    let ids = assign(config, ids);
    let highest = ids.iter().copied().max().unwrap_or(0);
    let mut uplinks = Vec::new();
    for (uplink, id) in config.uplinks.iter().zip(ids) {
        let mask = config.kernel.fwmark_mask;
        let marks = (mask.of(id), mask.of_host(id, highest));
        uplinks.extend(one(uplink, host, id, marks, &mut problems));
    }
    Problems::check(&config.file, problems)?;
    Ok(uplinks)
}

/// Where client traffic enters, each interface once: what `[lan]` says, else where the uplinks
/// are, since the gateway of a one-armed router shares its wire with the clients.
#[must_use]
pub fn lan_interfaces(config: &Config) -> Vec<String> {
    let given = config.lan.iter();
    let mut names: Vec<String> = Vec::new();
    let uplinks = config.uplinks.iter().map(|u| &u.interface);
    let uplinks = uplinks.filter(|_| config.lan.is_empty());
    for name in given.chain(uplinks) {
        if !names.contains(&name.value) {
            names.push(name.value.clone());
        }
    }
    names
}

/// An id for each uplink, in their order. An old id that no longer fits the mask is as good as none.
fn assign(config: &Config, old: &BTreeMap<String, u8>) -> Vec<u8> {
    let most = most_ids(config.kernel.fwmark_mask);
    let mut taken = BTreeSet::new();
    let mut kept = Vec::new();
    for uplink in &config.uplinks {
        let id = old.get(&uplink.name.value).copied();
        kept.push(id.filter(|id| (1..=most).contains(id) && taken.insert(*id)));
    }
    let retired: BTreeSet<u8> = old.values().copied().collect();
    let mut ids = Vec::new();
    for id in kept {
        ids.push(id.unwrap_or_else(|| lowest_free(most, &mut taken, &retired)));
    }
    ids
}

fn most_ids(mask: Mask) -> u8 {
    u8::try_from(mask.max_id().min(MAX_UPLINKS)).unwrap_or(u8::MAX)
}

/// The mask holds all uplinks, so some id is free; retired ones serve when no other is left.
fn lowest_free(most: u8, taken: &mut BTreeSet<u8>, retired: &BTreeSet<u8>) -> u8 {
    let fresh = (1..=most).find(|id| !taken.contains(id) && !retired.contains(id));
    let free = fresh.or_else(|| (1..=most).find(|id| !taken.contains(id)));
    let id = free.unwrap_or(most);
    taken.insert(id);
    id
}

fn tables(config: &Config, host: &Host, problems: &mut Vec<Problem>) {
    let help = "another number: `ip route show table all` lists those in use";
    for uplink in &config.uplinks {
        let (name, table) = (&uplink.name.value, uplink.table.value);
        if host.foreign_tables.contains(&table) {
            let message = format!("table {table} of uplink {name} is in use by somebody else");
            problems.push(Problem::new(uplink.table_span(), message, help));
        }
    }
    let catch_all = config.kernel.rule_priority;
    if host.foreign_tables.contains(&catch_all) {
        let message = format!("table {catch_all}, numbered as rule_priority, is in use by somebody else");
        let help = "set [kernel] rule_priority to another number";
        problems.push(Problem::new(0..0, message, help));
    }
}

fn one(
    uplink: &config::Uplink,
    host: &Host,
    id: u8,
    (mark, host_mark): (u32, u32),
    problems: &mut Vec<Problem>,
) -> Option<Uplink> {
    let interface = known_interface(host, &uplink.interface, problems)?;
    let mut leg = |gateway: &Option<Gateway>| {
        let gateway = gateway.as_ref()?;
        let leg = legs::derive(gateway, host, interface);
        leg.map_err(|m| problems.push(m.problem(gateway, interface))).ok()
    };
    Some(Uplink {
        id,
        name: uplink.name.value.clone(),
        interface: interface.name.clone(),
        ifindex: interface.index,
        v4: leg(&uplink.v4),
        v6: leg(&uplink.v6),
        weight: uplink.weight,
        tier: uplink.tier,
        mtu: uplink.mtu,
        table: uplink.table.value,
        mark,
        host_mark,
        translation: uplink.prefix6.as_ref().map(translation),
    })
}

/// The record of a prefix translation.
fn translation(prefixes: &config::Prefixes) -> uplink_common::Translation {
    let [internal, external] = [prefixes.internal, prefixes.external.value];
    let of = |net: ipnet::Ipv6Net| IpAddr::from(net.network()).into();
    let length = u32::from(internal.prefix_len());
    uplink_common::Translation::new(of(internal), of(external), length)
}

fn known_interface<'h>(
    host: &'h Host,
    name: &At<String>,
    problems: &mut Vec<Problem>,
) -> Option<&'h Interface> {
    let found = host.interface(&name.value);
    if found.is_none() {
        let names: Vec<&str> = host.interfaces.iter().map(|i| &*i.name).collect();
        let message = format!("interface {} does not exist", name.value);
        let help = format!("this host has: {}", listed(&names));
        problems.push(Problem::new(name.span.clone(), message, help));
    }
    found
}

fn listed<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.is_empty() {
        true => "nothing".into(),
        false => items.join(", "),
    }
}
