//! A gateway and our address towards it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Leg, listed};
use crate::config::{Gateway, NextHop, Problem};
use crate::host::{Host, Interface};

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

/// The leg to `gateway` by `interface`.
pub(super) fn derive(gateway: &Gateway, host: &Host, interface: &Interface) -> Result<Leg, Misfit> {
    let NextHop::Fixed(address) = gateway.address.value else {
        return Err(Misfit::Outside);
    };
    if host.has(address) {
        return Err(Misfit::Ourselves);
    }
    let towards = interface.towards(address).ok_or(Misfit::Outside)?;
    if no_host_of(towards, address) {
        return Err(Misfit::NoHost(towards.trunc()));
    }
    Ok(Leg {
        gateway: address,
        source: source(gateway, interface, towards)?,
        prefix: towards.trunc(),
    })
}

fn source(gateway: &Gateway, interface: &Interface, towards: IpNet) -> Result<IpAddr, Misfit> {
    if let Some(source) = &gateway.source {
        let found = interface.addresses.iter().any(|net| net.addr() == source.value);
        return if found {
            Ok(source.value)
        } else {
            Err(Misfit::NoSource(source.value))
        };
    }
    if !link_local(towards.addr()) {
        return Ok(towards.addr());
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
pub(super) fn as_good(source: IpAddr, leg: &Leg, interface: &Interface) -> bool {
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
    /// For whoever edits the configuration.
    pub(super) fn problem(self, gateway: &Gateway, interface: &Interface) -> Problem {
        let NextHop::Fixed(address) = gateway.address.value else {
            unreachable!()
        };
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
    pub(super) fn reason(self, gateway: &Gateway, interface: &Interface) -> String {
        let NextHop::Fixed(address) = gateway.address.value else {
            unreachable!()
        };
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

fn link_local(address: IpAddr) -> bool {
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
