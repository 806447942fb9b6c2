//! What somebody else's rule does to a packet, as far as can be told without the packet.

use std::cmp::Reverse;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uplink_common::Family;

use crate::host::{Action, Destinations, ForeignRule, Host};

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its whole mark.
    pub mark: u32,
    /// Sent by a socket of this host that is bound to nothing, so that it has no source address
    /// yet; otherwise forwarded.
    pub own: bool,
}

/// How many packets of a kind a rule applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// None.
    Never,
    /// It depends on what is not known of the packet.
    Sometimes,
    /// All to its destinations.
    Always,
}

/// Whether `rule` applies to packets like `packet`; destinations are left out.
#[must_use]
pub fn applies(rule: &ForeignRule, packet: Packet, host: &Host) -> Match {
    let asked = [
        rule.to.map(|_| Match::Always),
        rule.from.map(|net| from(&net, packet, host)),
        rule.iif.as_deref().map(|name| entered_by(name, packet, host)),
        // Who binds to a device is left alone, and what is forwarded has no such thing.
        rule.oif.as_ref().map(|_| Match::Never),
        rule.mark
            .map(|(value, mask)| certain((value ^ packet.mark) & mask == 0)),
        rule.uids.map(|_| {
            if packet.own {
                Match::Sometimes
            } else {
                Match::Never
            }
        }),
        // VRFs and tunnels with metadata are no way that we steer.
        rule.l3mdev.then_some(Match::Never),
        rule.tunnel.map(|_| Match::Never),
        (rule.tos != 0).then_some(Match::Sometimes),
        rule.protocol.map(|_| Match::Sometimes),
        rule.source_ports.map(|_| Match::Sometimes),
        rule.destination_ports.map(|_| Match::Sometimes),
        rule.unknown.then_some(Match::Sometimes),
    ];
    let all = asked.into_iter().flatten().min().unwrap_or(Match::Always);
    match (rule.inverted, all) {
        (false, all) => all,
        (true, Match::Never) => Match::Always,
        (true, Match::Always) if rule.to.is_none() => Match::Never,
        (true, _) => Match::Sometimes,
    }
}

const fn certain(yes: bool) -> Match {
    if yes { Match::Always } else { Match::Never }
}

fn from(net: &IpNet, packet: Packet, host: &Host) -> Match {
    let single = net.prefix_len() == net.max_prefix_len();
    // Nobody else sends from an address of ours.
    if packet.own || single && host.has(net.addr()) {
        return Match::Never;
    }
    Match::Sometimes
}

fn entered_by(name: &str, packet: Packet, host: &Host) -> Match {
    match (packet.own, name == "lo") {
        (own, true) => certain(own),
        (true, false) => Match::Never,
        (false, false) if host.interface(name).is_some() => Match::Sometimes,
        (false, false) => Match::Never,
    }
}

/// The destinations about which `rule` decides for packets that it applies to. A jump to a
/// priority up to `seen` decides nothing: whatever matters to the caller is asked all the same.
#[must_use]
pub fn destinations(rule: &ForeignRule, host: &Host, seen: u32) -> Vec<IpNet> {
    let scope = rule
        .to
        .filter(|_| !rule.inverted)
        .unwrap_or_else(|| anywhere(rule.family));
    let inside = |net: &IpNet| narrower(net, &scope);
    match rule.action {
        Action::Nop => Vec::new(),
        Action::Goto(priority) if priority <= seen => Vec::new(),
        Action::Table(table) => {
            let longer_than = rule.suppress_prefixlength;
            listed(host, rule.family, table, longer_than)
                .iter()
                .filter_map(inside)
                .collect()
        }
        _ => vec![scope.trunc()],
    }
}

/// The destinations of a table, those with a prefix longer than `longer_than` where that is given.
#[must_use]
pub fn listed(host: &Host, family: Family, table: u32, longer_than: Option<u32>) -> Vec<IpNet> {
    let long = |net: &&IpNet| longer_than.is_none_or(|n| u32::from(net.prefix_len()) > n);
    match host.tables.get(&(family, table)) {
        Some(Destinations::Listed(list)) => list.iter().filter(long).copied().collect(),
        Some(Destinations::Anywhere) => vec![anywhere(family)],
        None => Vec::new(),
    }
}

/// The part of two prefixes that is in both.
fn narrower(a: &IpNet, b: &IpNet) -> Option<IpNet> {
    let mut both = [a.trunc(), b.trunc()];
    both.sort_by_key(|net| Reverse(net.prefix_len()));
    let [inner, outer] = both;
    outer.contains(&inner).then_some(inner)
}

/// Every address of a family.
#[must_use]
pub fn anywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::host::Interface;

    pub(crate) fn rule(priority: u32, table: u32) -> ForeignRule {
        ForeignRule::new(Family::V4, priority, Action::Table(table))
    }

    /// A host with `eth0`, its address 10.0.1.100, and these tables.
    pub(crate) fn host(tables: &[(u32, &[&str])]) -> Host {
        let mut host = Host {
            interfaces: vec![Interface {
                index: 2,
                name: "eth0".into(),
                running: true,
                mtu: [1500; 2],
                addresses: vec!["10.0.1.100/24".parse().unwrap()],
                deprecated: vec![],
            }],
            ..Host::default()
        };
        for (table, nets) in tables {
            for net in *nets {
                let net: IpNet = net.parse().unwrap();
                let family = if net.addr().is_ipv4() {
                    Family::V4
                } else {
                    Family::V6
                };
                let entry = host.tables.entry((family, *table));
                match entry.or_insert(Destinations::Listed(vec![])) {
                    Destinations::Listed(list) => list.push(net),
                    Destinations::Anywhere => {}
                }
            }
        }
        host
    }

    const OWN: Packet = Packet { mark: 0, own: true };
    const FORWARDED: Packet = Packet {
        mark: 0x100_0000,
        own: false,
    };

    /// How often it applies to own and forwarded packets, and the same inverted.
    fn answers(change: impl Fn(&mut ForeignRule)) -> [Match; 4] {
        let mut plain = rule(1, 7);
        change(&mut plain);
        let mut inverted = plain.clone();
        inverted.inverted = true;
        let host = host(&[]);
        let of = |rule: &ForeignRule, packet| applies(rule, packet, &host);
        [
            of(&plain, OWN),
            of(&plain, FORWARDED),
            of(&inverted, OWN),
            of(&inverted, FORWARDED),
        ]
    }

    #[test]
    fn a_rule_applies_when_all_that_it_asks_is_met() {
        use Match::{Always as A, Never as N, Sometimes as S};
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        assert_eq!(answers(|_| {}), [A, A, N, N]);
        assert_eq!(answers(|r| r.to = net("10.0.0.0/8")), [A, A, S, S]);
        assert_eq!(answers(|r| r.from = net("10.9.0.0/16")), [N, S, A, S]);
        assert_eq!(answers(|r| r.from = net("10.0.1.100/32")), [N, N, A, A]);
        assert_eq!(answers(|r| r.iif = Some("lo".into())), [A, N, N, A]);
        assert_eq!(answers(|r| r.iif = Some("eth0".into())), [N, S, A, S]);
        assert_eq!(answers(|r| r.iif = Some("gone0".into())), [N, N, A, A]);
        assert_eq!(answers(|r| r.oif = Some("eth0".into())), [N, N, A, A]);
        assert_eq!(answers(|r| r.mark = Some((0, 0xff))), [A, A, N, N]);
        assert_eq!(answers(|r| r.mark = Some((0xca6c, u32::MAX))), [N, N, A, A]);
        assert_eq!(answers(|r| r.mark = Some((0, 0x7f00_0000))), [A, N, N, A]);
        assert_eq!(answers(|r| r.uids = Some((0, 9))), [S, N, S, A]);
        assert_eq!(answers(|r| r.l3mdev = true), [N, N, A, A]);
        assert_eq!(answers(|r| r.tunnel = Some(1)), [N, N, A, A]);
        assert_eq!(answers(|r| r.tos = 4), [S, S, S, S]);
        assert_eq!(answers(|r| r.destination_ports = Some((25, 25))), [S, S, S, S]);
        assert_eq!(answers(|r| r.unknown = true), [S, S, S, S]);
        assert_eq!(
            answers(|r| (r.unknown, r.mark) = (true, Some((1, 1)))),
            [N, N, A, A]
        );
    }

    fn shown(rule: &ForeignRule, host: &Host) -> Vec<String> {
        let found = destinations(rule, host, 20000);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn destinations_are_what_the_rule_and_its_table_have_in_common() {
        let host = host(&[(7, &["10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"])]);
        let mut rule = rule(1, 7);
        assert_eq!(shown(&rule, &host), ["10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]);
        rule.suppress_prefixlength = Some(8);
        assert_eq!(shown(&rule, &host), ["10.1.0.0/16"]);
        rule.suppress_prefixlength = None;
        rule.to = Some("10.1.2.3/24".parse().unwrap());
        assert_eq!(shown(&rule, &host), ["10.1.2.0/24"; 3]);
        rule.to = Some("192.0.2.0/24".parse().unwrap());
        assert_eq!(shown(&rule, &host), ["192.0.2.0/24"]);
        rule.action = Action::Prohibit;
        assert_eq!(shown(&rule, &host), ["192.0.2.0/24"]);
        rule.inverted = true;
        assert_eq!(shown(&rule, &host), ["0.0.0.0/0"]);
        for (action, some) in [
            (Action::Nop, false),
            (Action::Goto(20000), false),
            (Action::Goto(32766), true),
            (Action::Other(99), true),
            (Action::Table(8), false),
        ] {
            rule.action = action;
            assert_eq!(!shown(&rule, &host).is_empty(), some, "{action:?}");
        }
    }

    #[test]
    fn a_table_too_long_to_list_leads_anywhere_whatever_is_suppressed() {
        let mut host = Host::default();
        host.tables.insert((Family::V4, 7), Destinations::Anywhere);
        let mut rule = rule(1, 7);
        rule.suppress_prefixlength = Some(0);
        assert_eq!(shown(&rule, &host), ["0.0.0.0/0"]);
    }
}
