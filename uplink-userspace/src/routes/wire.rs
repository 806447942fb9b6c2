//! Plan routes and rules to netlink messages and back.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use uplink_common::Family;

use super::diff::normal;
use crate::plan::{Action, Hop, Route, Rule, Selector, Via};

pub(crate) const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn plan_family(family: AddressFamily) -> Option<Family> {
    Family::ALL.into_iter().find(|f| address_family(*f) == family)
}

const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

pub(crate) const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

/// The message that adds `route`.
pub(super) fn route_message(route: &Route, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = address_family(route.family);
    header.destination_prefix_length = route.to.prefix_len();
    header.protocol = RouteProtocol::from(protocol);
    header.kind = match route.via {
        Via::Unreachable => RouteType::Unreachable,
        _ => RouteType::Unicast,
    };
    header.scope = match route.via {
        Via::Link { .. } => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    // The header has room for tables up to 255 only.
    attributes.push(RouteAttribute::Table(route.table));
    if route.to.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.to.network().into()));
    }
    attributes.push(RouteAttribute::Priority(route.metric));
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    let mtu = route.mtu.map(RouteMetric::Mtu);
    let metrics: Vec<RouteMetric> = mtu
        .into_iter()
        .chain(route.advmss.map(RouteMetric::Advmss))
        .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    attributes.extend(via_attributes(&route.via));
    message
}

fn via_attributes(via: &Via) -> Vec<RouteAttribute> {
    match via {
        Via::Unreachable => vec![],
        Via::Link { ifindex } => vec![RouteAttribute::Oif(*ifindex)],
        Via::Hops(hops) => match hops.as_slice() {
            [only] => vec![
                RouteAttribute::Gateway(only.gateway.into()),
                RouteAttribute::Oif(only.ifindex),
            ],
            _ => vec![RouteAttribute::MultiPath(hops.iter().map(next_hop).collect())],
        },
    }
}

fn next_hop(hop: &Hop) -> RouteNextHop {
    let mut next = RouteNextHop::default();
    // The wire counts from zero: a weight of 2 would mean 3 in the words of `ip route`.
    next.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    next.interface_index = hop.ifindex;
    next.attributes = vec![RouteAttribute::Gateway(hop.gateway.into())];
    next
}

/// The table of a route, wherever the kernel wrote it.
pub(crate) fn table(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| message.header.table.into())
}

/// A route in the plan's words, normalised; `None` if the plan has no words for it.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let family = plan_family(message.header.address_family)?;
    if message.header.tos != 0 || message.header.source_prefix_length != 0 {
        return None;
    }
    let (mut to, mut metric, mut source) = (unspecified(family), 0, None);
    let (mut mtu, mut advmss) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(value) => mtu = Some(*value),
                        RouteMetric::Advmss(value) => advmss = Some(*value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(normal(&Route {
        family,
        table: table(message),
        to: IpNet::new(to, message.header.destination_prefix_length).ok()?,
        metric,
        via: via(message)?,
        source,
        mtu,
        advmss,
    }))
}

fn via(message: &RouteMessage) -> Option<Via> {
    match message.header.kind {
        RouteType::Unreachable => return Some(Via::Unreachable),
        RouteType::Unicast => {}
        _ => return None,
    }
    let (mut gateway, mut oif, mut hops) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::MultiPath(next) => {
                hops = Some(next.iter().map(hop).collect::<Option<Vec<_>>>()?);
            }
            // A next hop of the other family, an encapsulation or a nexthop object: not ours.
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) | RouteAttribute::NhId(_) => {
                return None;
            }
            _ => {}
        }
    }
    match (hops, gateway, oif) {
        (Some(hops), ..) => Some(Via::Hops(hops)),
        (None, Some(gateway), Some(ifindex)) => Some(Via::Hops(vec![Hop {
            gateway,
            ifindex,
            weight: 1,
        }])),
        (None, None, Some(ifindex)) => Some(Via::Link { ifindex }),
        _ => None,
    }
}

fn hop(next: &RouteNextHop) -> Option<Hop> {
    let gateway = next.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })?;
    Some(Hop {
        gateway,
        ifindex: next.interface_index,
        weight: u16::from(next.hops) + 1,
    })
}

/// Turns a dumped route into a request to delete exactly that one: what only an answer may
/// hold is left out.
pub(super) fn route_to_delete(mut message: RouteMessage) -> RouteMessage {
    message.header.flags = RouteFlags::empty();
    message.attributes.retain_mut(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => {
            for hop in hops {
                hop.flags &= RouteNextHopFlags::Onlink;
            }
            true
        }
        RouteAttribute::Table(_)
        | RouteAttribute::Destination(_)
        | RouteAttribute::Source(_)
        | RouteAttribute::Priority(_)
        | RouteAttribute::PrefSource(_)
        | RouteAttribute::Gateway(_)
        | RouteAttribute::Via(_)
        | RouteAttribute::Oif(_)
        | RouteAttribute::NhId(_) => true,
        _ => false,
    });
    message
}

/// The message that adds `rule`.
pub(super) fn rule_message(rule: &Rule, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    // Without an action the kernel takes the rule, and fails every look-up that meets it.
    message.header.action = match rule.action {
        Action::Table(_) => RuleAction::ToTable,
        Action::Goto(_) => RuleAction::Goto,
        Action::Unreachable => RuleAction::Unreachable,
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    match rule.action {
        Action::Table(table) => attributes.push(RuleAttribute::Table(table)),
        Action::Goto(priority) => attributes.push(RuleAttribute::Goto(priority)),
        Action::Unreachable => {}
    }
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(protocol)));
    if let Some(length) = rule.suppress_prefixlength {
        attributes.push(RuleAttribute::SuppressPrefixLen(length));
    }
    if let Some(group) = rule.suppress_ifgroup {
        attributes.push(RuleAttribute::SuppressIfGroup(group));
    }
    match rule.selector {
        Selector::All => {}
        Selector::Mark { value, mask } => {
            attributes.push(RuleAttribute::FwMark(value));
            attributes.push(RuleAttribute::FwMask(mask));
        }
        Selector::From(address) => {
            message.header.src_len = if address.is_ipv4() { 32 } else { 128 };
            attributes.push(RuleAttribute::Source(address));
        }
        Selector::Iif(ref name) => attributes.push(RuleAttribute::Iifname(name.clone())),
    }
    message
}

/// The protocol of a rule; none at all before kernel 4.17.
pub(crate) fn rule_protocol(message: &RuleMessage) -> Option<u8> {
    message.attributes.iter().find_map(|a| match a {
        RuleAttribute::Protocol(protocol) => Some(u8::from(*protocol)),
        _ => None,
    })
}

/// A rule in the plan's words; `None` if the plan has no words for it.
pub(super) fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = plan_family(header.family)?;
    if header.tos != 0 || header.dst_len != 0 {
        return None;
    }
    let mut table = u32::from(header.table);
    let (mut priority, mut target) = (0, 0);
    let (mut suppress_prefixlength, mut suppress_ifgroup) = (None, None);
    let (mut mark, mut mask, mut source, mut iif) = (0, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => {}
            RuleAttribute::SuppressPrefixLen(value) => suppress_prefixlength = Some(*value),
            RuleAttribute::SuppressIfGroup(value) => suppress_ifgroup = Some(*value),
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::Source(address) => source = Some(*address),
            RuleAttribute::Iifname(name) => iif = Some(name.clone()),
            RuleAttribute::Goto(priority) => target = *priority,
            // Kernels since 6.16 print flow label and DSCP masks only where set: any stranger
            // makes it another rule.
            _ => return None,
        }
    }
    let full = if family == Family::V4 { 32 } else { 128 };
    let selector = match (source, mask, iif) {
        (None, 0, None) => Selector::All,
        (None, 0, Some(name)) => Selector::Iif(name),
        (None, mask, None) => Selector::Mark { value: mark, mask },
        (Some(address), 0, None) if header.src_len == full => Selector::From(address),
        _ => return None,
    };
    let action = match header.action {
        RuleAction::ToTable => Action::Table(table),
        RuleAction::Goto => Action::Goto(target),
        RuleAction::Unreachable => Action::Unreachable,
        _ => return None,
    };
    Some(Rule {
        family,
        priority,
        selector,
        action,
        suppress_prefixlength,
        suppress_ifgroup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{Emitable, Parseable};

    fn rules() -> [Rule; 7] {
        let base = Rule {
            family: Family::V4,
            priority: 20000,
            selector: Selector::All,
            action: Action::Table(254),
            suppress_prefixlength: Some(0),
            suppress_ifgroup: None,
        };
        let marked = |value| Rule {
            selector: Selector::Mark {
                value,
                mask: 0x7f00_0000,
            },
            action: Action::Table(20001),
            suppress_prefixlength: None,
            ..base.clone()
        };
        let from = Rule {
            family: Family::V6,
            selector: Selector::From("2001:db8::1".parse().unwrap()),
            ..base.clone()
        };
        let goto = Rule {
            selector: Selector::Iif("mpath0-in".into()),
            action: Action::Goto(20001),
            suppress_prefixlength: None,
            ..base.clone()
        };
        let around = Rule {
            action: Action::Table(254),
            suppress_ifgroup: Some(20000),
            ..goto.clone()
        };
        let refused = Rule {
            action: Action::Unreachable,
            ..marked(0x7f00_0000)
        };
        [marked(0x100_0000), marked(0), from, base, goto, around, refused]
    }

    #[test]
    fn rules_survive_the_wire() {
        for expected in rules() {
            let message = rule_message(&expected, 117);
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let parsed = RuleMessage::parse(bytes.as_slice()).unwrap();
            assert_eq!(rule(&parsed), Some(expected));
            assert_eq!(rule_protocol(&parsed), Some(117));
        }
    }

    #[test]
    fn routes_survive_the_wire() {
        let hop = |n: u8, weight| Hop {
            gateway: IpAddr::from([10, 0, 0, n]),
            ifindex: 3,
            weight,
        };
        let vias = [
            Via::Link { ifindex: 3 },
            Via::Unreachable,
            Via::Hops(vec![hop(1, 1)]),
            Via::Hops(vec![hop(1, 256), hop(2, 2)]),
        ];
        for via in vias {
            let expected = normal(&Route {
                family: Family::V4,
                table: 20001,
                to: "0.0.0.0/0".parse().unwrap(),
                metric: u32::MAX,
                via,
                source: Some(IpAddr::from([10, 0, 0, 9])),
                mtu: Some(1492),
                advmss: Some(1452),
            });
            let message = route_message(&expected, 117);
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let parsed = RouteMessage::parse(bytes.as_slice()).unwrap();
            assert_eq!(route(&parsed), Some(expected));
        }
    }

    #[test]
    fn a_rule_with_an_output_interface_is_none_of_the_plans() {
        let mut message = rule_message(&rules()[3], 117);
        message.attributes.push(RuleAttribute::Oifname("eth0".into()));
        assert_eq!(rule(&message), None);
    }
}
