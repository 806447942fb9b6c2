//! Warnings about other people's rules that keep ours from being asked.

use ipnet::IpNet;
use uplink_common::Family;

use crate::config::Kernel;
use crate::foreign::{Match, Packet, applies, destinations};
use crate::host::{ForeignRule, Host};
use crate::plan::{BLOCK, CATCH_ALL_PRIORITY};
use crate::resolve::Uplink;
use crate::status::Warning;

/// A prefix this short is a good part of the Internet, not an exception from it.
const BROAD: u8 = 3;

/// One warning for each rule that stands in front of our mark rules and takes what we steer,
/// and for each that uses our bits of the mark.
#[must_use]
pub fn shadowing(host: &Host, uplinks: &[Uplink], kernel: &Kernel) -> Vec<Warning> {
    let warning = |rule| {
        if overlaps(rule, kernel) {
            return Some(overlap(rule, kernel));
        }
        let steered = steered(uplinks, rule.family);
        let last = uplinks.iter().map(|u| u32::from(u.id)).max()?;
        let in_front = rule.priority <= kernel.rule_priority + last;
        let takes = |packet: &Packet| applies(rule, *packet, host) != Match::Never;
        let broad = || broad(&destinations(rule, host, kernel.rule_priority));
        (in_front && steered.iter().any(takes) && !is_exception(rule) && broad())
            .then(|| shadowed(rule, kernel))
    };
    host.rules.iter().filter_map(warning).collect()
}

/// What carries our marks: packets of clients, and of sockets of this host.
fn steered(uplinks: &[Uplink], family: Family) -> Vec<Packet> {
    let uplinks = uplinks.iter().filter(|u| u.leg(family).is_some());
    let packets = uplinks.flat_map(|u| [(u.mark, false), (u.host_mark, true)]);
    packets.map(|(mark, own)| Packet { mark, own }).collect()
}

/// Made for some hosts, services or users, so most likely on purpose.
fn is_exception(rule: &ForeignRule) -> bool {
    let single = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    let narrow = rule.from.as_ref().is_some_and(single)
        || rule.uids.is_some()
        || rule.tos != 0
        || rule.protocol.is_some()
        || rule.source_ports.is_some()
        || rule.destination_ports.is_some()
        || rule.unknown;
    narrow && !rule.inverted
}

fn broad(destinations: &[IpNet]) -> bool {
    let most = |net: &IpNet| match net {
        IpNet::V4(net) => net.prefix_len() <= BROAD,
        // Unique local addresses and multicast are no part of the Internet.
        IpNet::V6(net) => net.prefix_len() <= BROAD && net.addr().octets()[0] < 0x40,
    };
    IpNet::aggregate(&destinations.to_vec()).iter().any(most)
}

/// A rule without a mask has a full one; only its value tells whether it means our bits.
fn overlaps(rule: &ForeignRule, kernel: &Kernel) -> bool {
    let ours = kernel.fwmark_mask.bits();
    rule.priority <= CATCH_ALL_PRIORITY
        && rule
            .mark
            .is_some_and(|(value, mask)| value & mask & ours != 0 || mask != u32::MAX && mask & ours != 0)
}

fn shadowed(rule: &ForeignRule, kernel: &Kernel) -> Warning {
    let first = kernel.rule_priority + BLOCK;
    let last = CATCH_ALL_PRIORITY - 1;
    Warning {
        code: "shadowed".into(),
        text: format!(
            "the rule `{rule}` ({}) stands in front of ours and takes traffic that would be steered",
            command(rule)
        ),
        remedy: format!("delete it, or give it a priority from {first} to {last}, unless it is meant so"),
    }
}

fn overlap(rule: &ForeignRule, kernel: &Kernel) -> Warning {
    let ours = kernel.fwmark_mask.bits();
    Warning {
        code: "mark-overlap".into(),
        text: format!(
            "the rule `{rule}` ({}) uses bits of the mark that are ours ({ours:#x})",
            command(rule)
        ),
        remedy: "give one of the two other bits; ours are [kernel] fwmark_mask".into(),
    }
}

const fn command(rule: &ForeignRule) -> &'static str {
    match rule.family {
        Family::V4 => "ip rule",
        Family::V6 => "ip -6 rule",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::tests::{host, rule};
    use crate::host::MAIN;
    use crate::plan::tests::{kernel, uplinks};

    const TABLES: &[(u32, &[&str])] = &[
        (100, &["0.0.0.0/0"]),
        (52, &["100.64.0.0/10", "100.100.100.100/32"]),
        (101, &["0.0.0.0/1", "128.0.0.0/1"]),
        (MAIN, &["0.0.0.0/0", "10.0.1.0/24"]),
    ];

    fn codes(change: impl Fn(&mut ForeignRule)) -> Vec<String> {
        let mut rule = rule(1, 100);
        change(&mut rule);
        let mut host = host(TABLES);
        host.rules = vec![rule];
        let found = shadowing(&host, &uplinks(), &kernel());
        found.into_iter().map(|w| w.code).collect()
    }

    #[test]
    fn a_default_route_in_front_of_ours_is_told() {
        let mut host = host(TABLES);
        host.rules = vec![rule(1, 100)];
        let found = shadowing(&host, &uplinks(), &kernel());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].code, "shadowed");
        assert!(
            found[0].text.contains("`1: from all lookup 100` (ip rule)"),
            "{found:?}"
        );
        assert!(found[0].remedy.contains("from 20256 to 32764"), "{found:?}");
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        let changes: [fn(&mut ForeignRule); 5] = [
            |r| r.priority = 20000,
            |r| r.action = crate::host::Action::Table(MAIN),
            |r| r.action = crate::host::Action::Table(101),
            |r| r.iif = Some("eth0".into()),
            // wg-quick, started after us.
            |r| (r.mark, r.inverted) = (Some((0xca6c, u32::MAX)), true),
        ];
        for change in changes {
            assert_eq!(codes(change), ["shadowed"]);
        }
        assert_eq!(codes(|r| r.from = net("10.9.0.0/24")), ["shadowed"]);
    }

    #[test]
    fn what_takes_nothing_of_ours_is_not_told() {
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        let quiet: [fn(&mut ForeignRule); 10] = [
            |r| r.priority = 20003,
            |r| (r.priority, r.action) = (5270, crate::host::Action::Table(52)),
            |r| (r.priority, r.mark) = (5210, Some((0x80000, 0xff_0000))),
            |r| r.action = crate::host::Action::Goto(19000),
            |r| (r.action, r.suppress_prefixlength) = (crate::host::Action::Table(MAIN), Some(0)),
            |r| r.family = Family::V6,
            |r| r.l3mdev = true,
            |r| r.uids = Some((1000, 1000)),
            |r| r.destination_ports = Some((25, 25)),
            |r| r.mark = Some((0xca6c, u32::MAX)),
        ];
        for (row, change) in quiet.into_iter().enumerate() {
            assert!(codes(change).is_empty(), "row {row}");
        }
        assert!(codes(|r| r.from = net("10.0.1.100/32")).is_empty());
        assert!(codes(|r| r.to = net("198.51.100.0/24")).is_empty());
    }

    #[test]
    fn our_bits_in_somebody_elses_rule_are_told_wherever_it_stands() {
        let marks = [(0x100_0000, u32::MAX), (0x100_0000, 0x100_0000), (0, 0xff00_0000)];
        for (value, mask) in marks {
            for priority in [1, 30000] {
                let change = |r: &mut ForeignRule| (r.priority, r.mark) = (priority, Some((value, mask)));
                assert_eq!(codes(change), ["mark-overlap"]);
            }
        }
        assert!(codes(|r| r.mark = Some((1, u32::MAX))).is_empty());
    }

    #[test]
    fn a_jump_over_our_rules_is_a_shadow() {
        assert_eq!(
            codes(|r| r.action = crate::host::Action::Goto(32766)),
            ["shadowed"]
        );
    }
}
