//! `gateway = "auto"`: the next hop of the interface's own default route.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::legs::{self, Hop};
use super::{Leg, Place};
use crate::config::{Gateway, NextHop};
use crate::host::{DefaultRoute, Interface};

/// What `gateway` names or the default route leads to, or what is missing, for people. `before`
/// is the leg as it was.
pub(super) fn hop(
    place: &Place<'_>,
    interface: &Interface,
    gateway: &Gateway,
    before: Option<&Leg>,
) -> Result<Hop, String> {
    let source = gateway.source.as_ref().map(|at| at.value);
    let route = match gateway.address.value {
        NextHop::Fixed(address) => return Ok(Hop::fixed(address, source)),
        NextHop::Auto => route(place, interface, before)?,
    };
    let usable = |source: &IpAddr| place.host.has(*source) && !legs::link_local(*source);
    Ok(Hop {
        address: next_hop(place, interface, route)?,
        source,
        preferred: route.source.filter(usable),
    })
}

/// The kernel's choice among the default routes of the interface: the lowest metric, then the
/// router's preference. Between equal ones what it was stays, so that nothing flaps.
fn route<'h>(
    place: &Place<'h>,
    interface: &Interface,
    before: Option<&Leg>,
) -> Result<&'h DefaultRoute, String> {
    let name = &interface.name;
    let ours = |r: &&DefaultRoute| r.family == place.family && r.ifindex == interface.index;
    let routes: Vec<&DefaultRoute> = place.host.default_routes.iter().filter(ours).collect();
    let Some(first) = routes.first() else {
        return Err(match before {
            None => format!("no default route on {name} yet"),
            Some(_) => format!("the default route on {name} is gone"),
        });
    };
    let order = |r: &DefaultRoute| (r.metric, Reverse(r.preference));
    let same = |r: &DefaultRoute| before.is_some_and(|b| r.gateway == Some(b.gateway));
    let free = routes.iter().filter(|r| taken(place, r).is_none());
    let best = free.min_by_key(|r| (order(r), !same(r)));
    best.copied().ok_or_else(|| {
        let other = taken(place, first).unwrap_or_default();
        format!("the default route on {name} leads to the gateway of uplink {other}")
    })
}

/// The other uplink on this interface that names the route's gateway as its own.
fn taken<'a>(place: &Place<'a>, route: &DefaultRoute) -> Option<&'a str> {
    let mine = &place.uplink.name.value;
    let others = place.config.uplinks.iter().filter(|u| u.name.value != *mine);
    let mut here = others.filter(|u| u.interface.value == place.uplink.interface.value);
    let names = |gateway: &Gateway| route.gateway.map(NextHop::Fixed) == Some(gateway.address.value);
    let found = here.find(|u| u.gateway(place.family).is_some_and(names));
    found.map(|u| &*u.name.value)
}

/// A route that names no gateway leads straight into a link: on one with two ends only, to the
/// other end.
fn next_hop(place: &Place<'_>, interface: &Interface, route: &DefaultRoute) -> Result<IpAddr, String> {
    let name = &interface.name;
    let v4 = |address: IpAddr| address.is_ipv4();
    let is_v4 = place.family == uplink_common::Family::V4;
    if let Some(gateway) = route.gateway {
        return match v4(gateway) == is_v4 {
            true => Ok(gateway),
            false => Err(format!(
                "the default route on {name} leads to {gateway}, an address of the other family"
            )),
        };
    }
    let peers = place.host.peers.iter();
    let peers = peers.filter(|p| p.ifindex == interface.index && v4(p.local) == is_v4);
    // The address that the route prefers tells which of several peers is meant.
    let best = peers.min_by_key(|p| route.source != Some(p.local));
    best.map(|p| p.remote.addr()).ok_or_else(|| {
        format!("the default route on {name} names no gateway, and no address there a far end")
    })
}

#[cfg(test)]
mod tests;
