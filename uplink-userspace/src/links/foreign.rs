//! Rules and tables of somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use uplink_common::Family;

use super::default_route;
use crate::host::{Action, DefaultRoute, Destinations, ForeignRule, MAIN};
use crate::routes::socket::{Failure, Netlink};
use crate::routes::{tolerate, wire};

/// Unspecified, default, main and local: everybody's tables.
const COMMON_TABLES: [u32; 4] = [0, 253, 254, 255];
/// The kernel's own three rules, by priority and table.
const STANDARD: [(u32, u32); 3] = [(0, 255), (32766, MAIN), (32767, 253)];
/// Masks of the two port ranges, newer than their crate: they narrow what is a range already.
const PORT_MASKS: [u16; 2] = [28, 29];
/// A table with more routes than this leads anywhere.
const MOST_DESTINATIONS: usize = 10_000;

/// The rules that are neither ours nor the kernel's standard ones.
pub(super) async fn rules(netlink: &Netlink<Message>, protocol: u8) -> Result<Vec<ForeignRule>, Failure> {
    let mut rules = Vec::new();
    for family in Family::ALL {
        let mut request = RuleMessage::default();
        request.header.family = wire::address_family(family);
        for message in tolerate(netlink.dump(Message::GetRule(request)).await)? {
            if let Message::NewRule(message) = message
                && wire::rule_protocol(&message) != Some(protocol)
            {
                rules.push(rule(family, &message));
            }
        }
    }
    rules.retain(|rule| !is_standard(rule));
    Ok(rules)
}

/// What is in tables, our own routes left out.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Those with routes in them, everybody's left out.
    pub foreign: BTreeSet<u32>,
    /// Destinations in the tables that were asked for.
    pub destinations: BTreeMap<(Family, u32), Destinations>,
    /// Default routes of `main`.
    pub defaults: Vec<DefaultRoute>,
    /// Tables with routes by the aggregate interface.
    pub entering: BTreeSet<(Family, u32)>,
}

/// Reads all routes once, those by the `aggregates` for their tables only; lists destinations for `main` and for what `rules` look up.
pub(super) async fn tables(
    netlink: &Netlink<Message>,
    protocol: u8,
    rules: &[ForeignRule],
    aggregates: &[u32],
) -> Result<Tables, Failure> {
    let mut tables = Tables::default();
    for family in Family::ALL {
        let mut request = RouteMessage::default();
        request.header.address_family = wire::address_family(family);
        for message in tolerate(netlink.dump(Message::GetRoute(request)).await)? {
            if let Message::NewRoute(route) = message
                && u8::from(route.header.protocol) != protocol
            {
                match leads_by(&route, aggregates) {
                    true => tables.enter(family, &route),
                    false => tables.take(family, &route, rules),
                }
            }
        }
    }
    Ok(tables)
}

impl Tables {
    /// A route by the aggregate interface.
    fn enter(&mut self, family: Family, route: &RouteMessage) {
        self.mark(route);
        self.entering.insert((family, wire::table(route)));
    }

    /// The table is somebody's.
    fn mark(&mut self, route: &RouteMessage) {
        let table = wire::table(route);
        if !COMMON_TABLES.contains(&table) {
            self.foreign.insert(table);
        }
    }

    fn take(&mut self, family: Family, route: &RouteMessage, rules: &[ForeignRule]) {
        self.mark(route);
        let table = wire::table(route);
        if table == MAIN {
            self.defaults.extend(default_route::next_hops(family, route));
        }
        let looked_up = |rule: &ForeignRule| rule.family == family && rule.action == Action::Table(table);
        if table != MAIN && !rules.iter().any(looked_up) {
            return;
        }
        let Some(to) = destination(family, route) else {
            return;
        };
        let destinations = self.destinations.entry((family, table));
        let destinations = destinations.or_insert(Destinations::Listed(Vec::new()));
        if let Destinations::Listed(list) = destinations {
            list.push(to);
            if list.len() > MOST_DESTINATIONS {
                *destinations = Destinations::Anywhere;
            }
        }
    }
}

/// Whether the only way of a route is one of these interfaces.
fn leads_by(route: &RouteMessage, interfaces: &[u32]) -> bool {
    let by = |a: &RouteAttribute| matches!(a, RouteAttribute::Oif(index) if interfaces.contains(index));
    route.attributes.iter().any(by)
}

/// Where a route decides. A `throw` route does not: it says "ask the next rule".
fn destination(family: Family, route: &RouteMessage) -> Option<IpNet> {
    let cached = route.header.flags.contains(RouteFlags::Cloned);
    if cached || route.header.kind == RouteType::Throw {
        return None;
    }
    let to = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(address) => wire::ip(address),
        _ => None,
    });
    let to = to.unwrap_or(match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    });
    let net = IpNet::new(to, route.header.destination_prefix_length).ok()?;
    Some(net.trunc())
}

fn is_standard(rule: &ForeignRule) -> bool {
    let standard = |(priority, table)| *rule == ForeignRule::new(rule.family, priority, Action::Table(table));
    STANDARD.into_iter().any(standard)
}

fn rule(family: Family, message: &RuleMessage) -> ForeignRule {
    let header = &message.header;
    let mut rule = ForeignRule::new(family, 0, Action::Nop);
    rule.inverted = header.flags.contains(RuleFlags::Invert);
    rule.tos = header.tos;
    let (mut table, mut target) = (u32::from(header.table), 0);
    let (mut mark, mut mask) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => rule.priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::Goto(value) => target = *value,
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = Some(*value),
            other => condition(&mut rule, header.src_len, header.dst_len, other),
        }
    }
    rule.mark = mask.map(|mask| (mark, mask));
    rule.action = match header.action {
        RuleAction::ToTable => Action::Table(table),
        RuleAction::Goto => Action::Goto(target),
        RuleAction::Nop => Action::Nop,
        RuleAction::Blackhole => Action::Blackhole,
        RuleAction::Unreachable => Action::Unreachable,
        RuleAction::Prohibit => Action::Prohibit,
        other => Action::Other(u8::from(other)),
    };
    rule
}

/// What a single attribute asks of a packet.
fn condition(rule: &mut ForeignRule, from_length: u8, to_length: u8, attribute: &RuleAttribute) {
    match attribute {
        RuleAttribute::Source(address) => rule.from = IpNet::new(*address, from_length).ok(),
        RuleAttribute::Destination(address) => rule.to = IpNet::new(*address, to_length).ok(),
        RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
        RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
        RuleAttribute::UidRange(range) => rule.uids = Some((range.start, range.end)),
        RuleAttribute::IpProtocol(number) => rule.protocol = Some(u8::from(*number)),
        RuleAttribute::SourcePortRange(range) => rule.source_ports = Some((range.start, range.end)),
        RuleAttribute::DestinationPortRange(range) => rule.destination_ports = Some((range.start, range.end)),
        RuleAttribute::L3MDev(set) => rule.l3mdev = *set,
        RuleAttribute::TunId(key) => rule.tunnel = Some(*key),
        RuleAttribute::SuppressPrefixLen(length) => {
            rule.suppress_prefixlength = Some(*length).filter(|n| *n != u32::MAX);
        }
        RuleAttribute::Other(nla) if PORT_MASKS.contains(&nla.kind()) => {}
        // Who made it, and what becomes of the packet afterwards.
        RuleAttribute::Protocol(_) | RuleAttribute::Realm(_) | RuleAttribute::SuppressIfGroup(_) => {}
        _ => rule.unknown = true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::DefaultNla;
    use rtnetlink::packet_route::route::RouteAddress;

    fn lookup(priority: u32, table: u32) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(priority),
            RuleAttribute::Table(table),
            RuleAttribute::SuppressPrefixLen(u32::MAX),
            RuleAttribute::Protocol(2.into()),
        ];
        message
    }

    #[test]
    fn the_kernels_own_three_are_nobodys() {
        for (priority, table) in STANDARD {
            assert!(is_standard(&rule(Family::V6, &lookup(priority, table))));
        }
        assert!(!is_standard(&rule(Family::V4, &lookup(100, MAIN))));
        let mut narrowed = lookup(32766, MAIN);
        narrowed.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        assert!(!is_standard(&rule(Family::V4, &narrowed)));
    }

    #[test]
    fn what_a_rule_asks_is_read_whole() {
        let mut message = lookup(9, 51820);
        message.header.flags = RuleFlags::Invert;
        message.header.src_len = 24;
        message.attributes.extend([
            RuleAttribute::Source([10, 0, 0, 0].into()),
            RuleAttribute::FwMark(0xca6c),
            RuleAttribute::FwMask(u32::MAX),
            RuleAttribute::Iifname("eth0".into()),
        ]);
        let read = rule(Family::V4, &message);
        assert_eq!(
            read.to_string(),
            "9: not from 10.0.0.0/24 fwmark 0xca6c iif eth0 lookup 51820"
        );
        assert!(!read.unknown);
        for (kind, unknown) in [(PORT_MASKS[1], false), (99, true)] {
            let attribute = RuleAttribute::Other(DefaultNla::new(kind, vec![1]));
            message.attributes.push(attribute);
            assert_eq!(rule(Family::V4, &message).unknown, unknown);
        }
    }

    fn route(table: u32, n: u16, kind: RouteType) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.header.destination_prefix_length = 24;
        let [a, b] = n.to_be_bytes();
        message.attributes = vec![
            RouteAttribute::Table(table),
            RouteAttribute::Destination(RouteAddress::Inet([10, a, b, 0].into())),
        ];
        message
    }

    #[test]
    fn only_main_says_where_the_providers_are() {
        let default = |table| {
            let mut message = RouteMessage::default();
            message.header.kind = RouteType::Unicast;
            message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(table)];
            message
        };
        let mut tables = Tables::default();
        tables.take(Family::V4, &default(51820), &[]);
        assert_eq!(tables.defaults, []);
        tables.take(Family::V4, &default(MAIN), &[]);
        assert_eq!(tables.defaults.len(), 1);
    }

    #[test]
    fn tables_are_listed_where_a_rule_leads_there_and_cut_where_too_long() {
        let rules = [ForeignRule::new(Family::V4, 1, Action::Table(7))];
        let mut tables = Tables::default();
        tables.take(Family::V4, &route(7, 1, RouteType::Unicast), &rules);
        tables.take(Family::V4, &route(7, 2, RouteType::Throw), &rules);
        tables.take(Family::V4, &route(8, 1, RouteType::Unicast), &rules);
        tables.take(Family::V6, &route(7, 1, RouteType::Unicast), &rules);
        assert_eq!(tables.foreign, BTreeSet::from([7, 8]));
        let listed = Destinations::Listed(vec!["10.0.1.0/24".parse().unwrap()]);
        assert_eq!(tables.destinations, BTreeMap::from([((Family::V4, 7), listed)]));
        for n in 0..=MOST_DESTINATIONS {
            let n = u16::try_from(n).unwrap();
            tables.take(Family::V4, &route(MAIN, n, RouteType::Unicast), &rules);
        }
        assert_eq!(tables.destinations[&(Family::V4, MAIN)], Destinations::Anywhere);
    }
}
