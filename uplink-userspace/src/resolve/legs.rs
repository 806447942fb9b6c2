//! A gateway and our address towards it.

use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::Family;

use super::{Leg, Place, auto, listed};
use crate::config::{Gateway, Problem};
use crate::host::{Destinations, Host, Interface, MAIN};

/// A next hop, and what is known of our address towards it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub address: IpAddr,
    /// The configured source; the interface must have it.
    pub source: Option<IpAddr>,
    /// The source that the default route prefers; one of this host's.
    pub preferred: Option<IpAddr>,
}

impl Hop {
    pub(super) const fn fixed(address: IpAddr, source: Option<IpAddr>) -> Self {
        Self {
            address,
            source,
            preferred: None,
        }
    }
}

/// Why a gateway of the configuration has no leg on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The gateway is this host.
    Ourselves,
    /// No address of the interface is in a subnet with it.
    Outside,
    /// It is no single host of that subnet.
    NoHost(IpNet),
    /// The interface does not have the configured source.
    NoSource(IpAddr),
    /// There is only a link-local address, which means nothing beyond the link.
    OnlyLinkLocal,
}

/// The leg of `gateway` as the host has it now, or why there is none, for people. An address
/// that serves as well as the one of `before` is no reason to change: connections carry it.
pub(super) fn find(
    place: &Place<'_>,
    interface: Option<&Interface>,
    gateway: &Gateway,
    before: Option<&Leg>,
) -> Result<Leg, String> {
    let missing = || format!("interface {} does not exist", place.uplink.interface.value);
    let interface = interface.ok_or_else(missing)?;
    let hop = auto::hop(place, interface, gateway, before)?;
    let leg = reach(&hop, place.host, interface).map_err(|m| m.reason(hop.address, interface))?;
    let given = hop.source.or(hop.preferred).is_some();
    let kept = before.filter(|b| !given && as_good(b.source, &leg, interface));
    Ok(Leg {
        source: kept.map_or(leg.source, |b| b.source),
        ..leg
    })
}

/// The leg to `hop` by `interface`.
pub(super) fn reach(hop: &Hop, host: &Host, interface: &Interface) -> Result<Leg, Misfit> {
    if host.has(hop.address) {
        return Err(Misfit::Ourselves);
    }
    let (ours, prefix) = match connected(hop.address, host, interface) {
        Some(found) => found,
        // Providers that hand out single addresses have their router outside of every subnet: then
        // `main` has a route to it, without which the kernel refuses it in any table, and the
        // default route names our address.
        None => {
            let preferred = hop.preferred.filter(|_| has_route_to(hop.address, host));
            (preferred.ok_or(Misfit::Outside)?, IpNet::from(hop.address))
        }
    };
    if no_host_of(prefix, hop.address) {
        return Err(Misfit::NoHost(prefix));
    }
    Ok(Leg {
        gateway: hop.address,
        source: source(hop, interface, ours)?,
        prefix,
    })
}

/// The leg that `hop` will have when its configured source comes to this host, and what is missing, for people.
/// Nothing where something else is wrong, or where another interface has the source.
pub(super) fn awaited(
    hop: &Hop,
    host: &Host,
    interface: &Interface,
    misfit: Misfit,
) -> Option<(Leg, String)> {
    let source = hop.source.filter(|source| !host.has(*source))?;
    let prefix = match misfit {
        Misfit::NoSource(_) => connected(hop.address, host, interface)?.1,
        // The only address in the gateway's subnet is the one that is missing.
        Misfit::Outside => IpNet::from(hop.address),
        Misfit::Ourselves | Misfit::NoHost(_) | Misfit::OnlyLinkLocal => return None,
    };
    let leg = Leg {
        gateway: hop.address,
        source,
        prefix,
    };
    Some((leg, Misfit::NoSource(source).reason(hop.address, interface)))
}

/// Our address that is connected with `address`, and the prefix that connects them, host bits
/// zero: a subnet, or the far end of a point-to-point link.
fn connected(address: IpAddr, host: &Host, interface: &Interface) -> Option<(IpAddr, IpNet)> {
    if let Some(net) = interface.towards(address) {
        return Some((net.addr(), net.trunc()));
    }
    let mut peers = host.peers.iter().filter(|p| p.ifindex == interface.index);
    let peer = peers.find(|p| p.remote.contains(&address))?;
    Some((peer.local, peer.remote.trunc()))
}

/// Whether `main` leads to that address by more than a default route.
fn has_route_to(address: IpAddr, host: &Host) -> bool {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    let leads = |net: &IpNet| net.prefix_len() > 0 && net.contains(&address);
    match host.tables.get(&(family, MAIN)) {
        Some(Destinations::Listed(nets)) => nets.iter().any(leads),
        Some(Destinations::Anywhere) | None => false,
    }
}

fn source(hop: &Hop, interface: &Interface, ours: IpAddr) -> Result<IpAddr, Misfit> {
    if let Some(source) = hop.source {
        let found = interface.addresses.iter().any(|net| net.addr() == source);
        return if found {
            Ok(source)
        } else {
            Err(Misfit::NoSource(source))
        };
    }
    if let Some(preferred) = hop.preferred {
        return Ok(preferred);
    }
    if !link_local(ours) {
        return Ok(ours);
    }
    // The router is reached by link-local addresses, the Internet needs a global one.
    let global = interface.addresses.iter().map(IpNet::addr);
    let global = global
        .filter(|a| a.is_ipv6() && !link_local(*a))
        .min_by_key(|a| unique_local(*a));
    global.ok_or(Misfit::OnlyLinkLocal)
}

/// Whether `source` serves as well as the source of `leg`: it is there to stay, and as near to
/// the gateway or as global.
fn as_good(source: IpAddr, leg: &Leg, interface: &Interface) -> bool {
    let mut addresses = interface.addresses.iter();
    let Some(net) = addresses.find(|net| net.addr() == source) else {
        return false;
    };
    let alike = match leg.prefix.contains(&leg.source) {
        true => net.trunc() == leg.prefix,
        false => !link_local(source) && unique_local(source) == unique_local(leg.source),
    };
    alike && source.is_ipv4() == leg.source.is_ipv4() && !interface.deprecated.contains(&source)
}

impl Misfit {
    /// Whether an address that comes to this host can mend it.
    pub(super) const fn heals(&self) -> bool {
        match self {
            Self::Outside | Self::NoSource(_) | Self::OnlyLinkLocal => true,
            Self::Ourselves | Self::NoHost(_) => false,
        }
    }

    /// For whoever edits the configuration, which names `address` in `gateway`.
    pub(super) fn problem(self, address: IpAddr, gateway: &Gateway, interface: &Interface) -> Problem {
        let name = &interface.name;
        let (message, help) = match self {
            Self::Ourselves => (
                format!("gateway {address} is this host's own address"),
                "the address of the ISP's router, as `ip route show default` prints it".into(),
            ),
            Self::Outside => (
                format!("gateway {address} is outside every subnet of {name}"),
                format!("{name} has: {}", listed(&subnets(interface, address))),
            ),
            Self::NoHost(net) => (
                format!("gateway {address} cannot be the address of a router"),
                format!("{net} names no single host there"),
            ),
            Self::NoSource(source) => (
                format!("source {source} is not an address of {name}"),
                format!("{name} has: {}", listed(&addresses(interface, source))),
            ),
            Self::OnlyLinkLocal => (
                format!("{name} has no IPv6 address but link-local ones"),
                "give it a global address, or remove gateway6".into(),
            ),
        };
        let source = gateway
            .source
            .as_ref()
            .filter(|_| matches!(self, Self::NoSource(_)));
        let span = source.map_or(&gateway.address.span, |s| &s.span);
        Problem::new(span.clone(), message, help)
    }

    /// For whoever watches a host that has changed under a configuration that once fitted.
    fn reason(self, address: IpAddr, interface: &Interface) -> String {
        let name = &interface.name;
        match self {
            Self::Ourselves => format!("this host has the gateway's address {address} itself"),
            Self::Outside => format!("{name} has no address in the subnet of {address}"),
            Self::NoHost(net) => format!("{address} is no host of {net}, the subnet on {name}"),
            Self::NoSource(source) => format!("{name} does not have the address {source}"),
            Self::OnlyLinkLocal => format!("{name} has no IPv6 address but link-local ones"),
        }
    }
}

/// The network's own or its broadcast address, where the subnet is large enough to have them.
fn no_host_of(net: IpNet, address: IpAddr) -> bool {
    let small = net.max_prefix_len() - net.prefix_len() < 2;
    net.addr().is_ipv4() && !small && (net.network() == address || net.broadcast() == address)
}

pub(super) fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

fn unique_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unique_local())
}

/// The subnets of an interface in the family of `like`.
fn subnets(interface: &Interface, like: IpAddr) -> Vec<String> {
    let same = interface
        .addresses
        .iter()
        .filter(|n| n.addr().is_ipv4() == like.is_ipv4());
    same.map(|n| n.trunc().to_string()).collect()
}

/// The addresses of an interface in the family of `like`, without those that cannot be a source.
fn addresses(interface: &Interface, like: IpAddr) -> Vec<String> {
    let all = interface.addresses.iter().map(IpNet::addr);
    let same = all.filter(|a| a.is_ipv4() == like.is_ipv4() && !link_local(*a));
    same.map(|a| a.to_string()).collect()
}
