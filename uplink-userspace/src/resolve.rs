//! The configuration applied to this host: names become indices, gateways get their source.

mod auto;
mod follow;
mod legs;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::mark::Mask;
use uplink_common::{Family, MAX_UPLINKS};

use crate::config::{self, At, Config, Gateway, NextHop, Problem, Problems};
use crate::host::{Host, Interface};
use crate::{aggregate, probe};

use legs::Hop;

pub use follow::{Followed, Unusable, follow, keep};
pub use warnings::warnings;

/// An uplink with everything the kernel needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its id in marks and maps, from 1. Stays with the name across restarts.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// The interface's index; 0 while it does not exist.
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

    const fn leg_mut(&mut self, family: Family) -> &mut Option<Leg> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// What this host may lack for the moment, though the file needs it.
#[derive(Clone, Copy, Debug)]
pub enum Missing<'a> {
    /// Nothing: what is not there is a mistake of the file.
    Nothing,
    /// What this configuration has as well, which has been there.
    Of(&'a Config),
    /// Whatever it is: interfaces and addresses come when they come.
    Anything,
}

impl Missing<'_> {
    fn may_be(&self, uplink: &config::Uplink) -> bool {
        // Nobody asks for what is not in use.
        if !uplink.enabled {
            return true;
        }
        let hop = |g: &Option<Gateway>| {
            let source = |g: &Gateway| g.source.as_ref().map(|s| s.value);
            g.as_ref().map(|g| (g.address.value, source(g)))
        };
        let same = |old: &config::Uplink| {
            let names =
                (&old.name.value, &old.interface.value) == (&uplink.name.value, &uplink.interface.value);
            names && (hop(&old.v4), hop(&old.v6)) == (hop(&uplink.v4), hop(&uplink.v6))
        };
        match self {
            Self::Nothing => false,
            Self::Of(running) => running.uplinks.iter().any(same),
            Self::Anything => true,
        }
    }

    fn may_be_lan(&self, name: &At<String>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Of(running) => running.lan.iter().any(|old| old.value == name.value),
            Self::Anything => true,
        }
    }
}

/// Whose leg is looked for, and where.
#[derive(Clone, Copy)]
struct Place<'a> {
    config: &'a Config,
    uplink: &'a config::Uplink,
    family: Family,
    host: &'a Host,
}

/// The uplinks of `config` on `host`, in the order of the file.
///
/// `ids` are those of an earlier run by name. They stay, because marks and pins of live
/// connections carry them. Other uplinks take the lowest id from 1 that `ids` does not mention,
/// so that a new uplink does not inherit the connections of a removed one.
///
/// What `gateway = "auto"` waits for is no error: such a leg is `None` and among the unusable ones,
/// and [`follow`] picks it up when it appears. Nor is a configured source that this host does not have, as on
/// the router of a pair that stands by: such a leg is there, so that both routers choose alike, and among the
/// unusable ones.
///
/// # Errors
///
/// All that the file says and this host contradicts.
pub fn resolve(config: &Config, host: &Host, ids: &BTreeMap<String, u8>) -> Result<Followed, Problems> {
    resolve_but(Missing::Nothing, config, host, ids)
}

/// As [`resolve`], where something may be missing for the moment: such legs are `None` and among the unusable ones, too.
///
/// # Errors
///
/// As [`resolve`].
pub fn resolve_but(
    missing: Missing<'_>,
    config: &Config,
    host: &Host,
    ids: &BTreeMap<String, u8>,
) -> Result<Followed, Problems> {
    let mut problems = Vec::new();
    for name in config.lan.iter().filter(|name| !missing.may_be_lan(name)) {
        known_interface(host, name, &mut problems);
    }
    aggregate::problems(config, host, &mut problems);
    tables(config, host, &mut problems);
    targets(config, host, &mut problems);
    probe::problems(config, &mut problems);
    let ids = assign(config, ids);
    let highest = ids.iter().copied().max().unwrap_or(0);
    refusals(config, highest, &mut problems);
    let mut found = Followed::default();
    for (uplink, id) in config.uplinks.iter().zip(ids) {
        let mask = config.kernel.fwmark_mask;
        let bare = bare(uplink, id, (mask.of(id), mask.of_host(id, highest)));
        let may_wait = missing.may_be(uplink);
        let legs = legs_of((config, uplink), host, bare, may_wait, &mut found, &mut problems);
        found.uplinks.extend(legs);
    }
    Problems::check(&config.file, problems)?;
    Ok(found)
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
    // What was routed into the aggregate interface comes out here.
    names.extend(aggregate::outer(config).map(aggregate::inner));
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

/// What strict policies refuse has a mark of its own.
fn refusals(config: &Config, highest: u8, problems: &mut Vec<Problem>) {
    let mask = config.kernel.fwmark_mask;
    let strict = config.policies.iter().find(|p| p.strict);
    if let Some(policy) = strict.filter(|_| mask.of_refused(highest) == 0) {
        let (name, bits) = (&policy.name.value, mask.bits());
        problems.push(Problem::new(
            policy.span().clone(),
            format!("the strict policy {name:?} needs one more mark than the mask {bits:#x} holds"),
            "one more bit in `[kernel] fwmark_mask`, or no `strict`",
        ));
    }
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

/// An address of this host answers whatever becomes of the uplinks.
fn targets(config: &Config, host: &Host, problems: &mut Vec<Problem>) {
    let help = "the address of a host on the Internet";
    for uplink in &config.uplinks {
        for (target, span) in uplink.probe.targets.iter().zip(&uplink.target_spans) {
            let message = format!("target {} is this host's own address", target.address);
            let problem = Problem::new(span.clone(), message, help);
            // Uplinks that have it from [probe] have it from one place.
            if host.has(target.address) && !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
}

/// What the file alone says of an uplink.
fn bare(uplink: &config::Uplink, id: u8, (mark, host_mark): (u32, u32)) -> Uplink {
    Uplink {
        id,
        name: uplink.name.value.clone(),
        interface: uplink.interface.value.clone(),
        ifindex: 0,
        v4: None,
        v6: None,
        weight: uplink.weight,
        tier: uplink.tier,
        mtu: uplink.mtu,
        table: uplink.table.value,
        mark,
        host_mark,
        translation: uplink.prefix6.as_ref().map(translation),
    }
}

/// `u` on its interface with its legs. Only one that waits for all of its gateways may wait for
/// its interface, too.
fn legs_of(
    (config, uplink): (&Config, &config::Uplink),
    host: &Host,
    mut u: Uplink,
    may_wait: bool,
    found: &mut Followed,
    problems: &mut Vec<Problem>,
) -> Option<Uplink> {
    let gateway = |family| uplink.gateway(family);
    let fixed = |g: &Gateway| g.address.value != NextHop::Auto;
    let is_needed = !may_wait && Family::ALL.into_iter().filter_map(gateway).any(fixed);
    let interface = match is_needed {
        true => Some(known_interface(host, &uplink.interface, problems)?),
        false => host.interface(&u.interface),
    };
    u.ifindex = interface.map_or(0, |i| i.index);
    for family in Family::ALL {
        let Some(gateway) = gateway(family) else { continue };
        let place = Place {
            config,
            uplink,
            family,
            host,
        };
        *u.leg_mut(family) = match (gateway.address.value, interface) {
            (NextHop::Fixed(address), Some(interface)) => {
                let leg = match strict(address, gateway, host, interface) {
                    Err((_, true)) if may_wait => {
                        let reason = legs::find(&place, Some(interface), gateway, None).err();
                        let unusable = |reason| Unusable::new(&u.name, family, reason);
                        found.unusable.extend(reason.map(unusable));
                        None
                    }
                    leg => leg.map_err(|(problem, _)| problems.push(problem)).ok(),
                };
                let waits = leg.as_ref().and_then(|(_, waits)| waits.clone());
                let waits = waits.map(|reason| Unusable::new(&u.name, family, reason));
                found.unusable.extend(waits);
                leg.map(|(leg, _)| leg)
            }
            _ => {
                let leg = legs::find(&place, interface, gateway, None);
                let unusable = |reason| Unusable::new(&u.name, family, reason);
                leg.map_err(|reason| found.unusable.push(unusable(reason))).ok()
            }
        };
    }
    Some(u)
}

/// The leg to a gateway that the file names: it fits the host, or waits for its source and says so, or the
/// file is wrong, unless the host can still make it right.
fn strict(
    address: IpAddr,
    gateway: &Gateway,
    host: &Host,
    interface: &Interface,
) -> Result<(Leg, Option<String>), (Problem, bool)> {
    let source = gateway.source.as_ref().map(|at| at.value);
    let hop = Hop::fixed(address, source);
    match legs::reach(&hop, host, interface) {
        Ok(leg) => Ok((leg, None)),
        Err(misfit) => match legs::awaited(&hop, host, interface, misfit) {
            Some((leg, reason)) => Ok((leg, Some(reason))),
            None => {
                let heals = misfit.heals();
                Err((misfit.problem(address, gateway, interface), heals))
            }
        },
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
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
