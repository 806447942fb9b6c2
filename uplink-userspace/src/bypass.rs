//! Destinations at which this host's own sockets are left alone.
//!
//! Forwarded packets are steered only where the kernel's own answer means one of our uplinks.
//! The programs for sockets cannot ask the kernel, so they get the answer as a list of prefixes.

use ipnet::IpNet;
use uplink_common::Family;

use crate::config::Kernel;
use crate::foreign::{Match, Packet, applies, destinations, listed};
use crate::host::{Action, ForeignRule, Host, MAIN};
use crate::plan::CATCH_ALL_PRIORITY;

const UNMARKED: Packet = Packet { mark: 0, own: true };

/// Where an unmarked packet of this host would go by somebody else's rule that comes after our
/// mark and source rules: a mark of ours would take it away from there.
///
/// A rule at the catch-all's own priority counts: wg-quick, started first, has one there.
#[must_use]
pub fn prefixes(host: &Host, kernel: &Kernel) -> Vec<IpNet> {
    let between =
        |rule: &&ForeignRule| rule.priority > kernel.rule_priority && rule.priority <= CATCH_ALL_PRIORITY;
    // Specific routes of `main` are asked before our marks already, and its default route is
    // what the uplinks stand in for.
    let rules = host.rules.iter().filter(between);
    let rules = rules.filter(|rule| rule.action != Action::Table(MAIN));
    let found = rules.flat_map(|rule| decided(rule, host, CATCH_ALL_PRIORITY));
    IpNet::aggregate(&found.collect())
}

/// Where packets of this host go the same way whatever mark of ours they carry: by `main`'s
/// specific routes and by rules in front of ours. An uplink's source address would be wrong there.
#[must_use]
pub fn unmoved(host: &Host, kernel: &Kernel) -> Vec<IpNet> {
    let front = host.rules.iter().filter(|r| r.priority <= kernel.rule_priority);
    let front = front.flat_map(|rule| decided(rule, host, kernel.rule_priority));
    let main = Family::ALL
        .into_iter()
        .flat_map(|family| listed(host, family, MAIN, Some(0)));
    IpNet::aggregate(&front.chain(main).collect())
}

/// Whether the programs' own IPv6 look-ups cannot be believed: for IPv6 they get `main`'s default route even
/// where a rule with `suppress_prefixlength` passes it over, as ours and wg-quick's do, and so never see a later
/// rule that takes the packet. What every unmarked packet is asked by such a rule is then left to the kernel.
#[must_use]
pub fn is_hidden_v6(host: &Host, kernel: &Kernel) -> bool {
    let forwarded = Packet { mark: 0, own: false };
    let v6 = || host.rules.iter().filter(|rule| rule.family == Family::V6);
    let suppressing = v6().filter(|rule| rule.suppress_prefixlength.is_some());
    let first = suppressing.map(|rule| rule.priority).min();
    let from = first.map_or(kernel.rule_priority, |first| first.min(kernel.rule_priority));
    let takes = |rule: &&ForeignRule| {
        rule.priority > from
            && rule.priority <= CATCH_ALL_PRIORITY
            && rule.action != Action::Table(MAIN)
            && applies(rule, forwarded, host) == Match::Always
    };
    v6().filter(takes)
        .any(|rule| !destinations(rule, host, CATCH_ALL_PRIORITY).is_empty())
}

fn decided(rule: &ForeignRule, host: &Host, seen: u32) -> Vec<IpNet> {
    match applies(rule, UNMARKED, host) {
        Match::Never => Vec::new(),
        Match::Sometimes | Match::Always => destinations(rule, host, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::tests::{host, rule};
    use crate::plan::tests::kernel;

    const DEFAULTS: &[&str] = &["0.0.0.0/0", "::/0"];

    fn shown(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    fn with(rules: &[ForeignRule], tables: &[(u32, &[&str])]) -> Vec<String> {
        let mut host = host(tables);
        host.rules = rules.to_vec();
        shown(&prefixes(&host, &kernel()))
    }

    /// The same rule in both families.
    fn both(rule: &ForeignRule) -> [ForeignRule; 2] {
        Family::ALL.map(|family| ForeignRule {
            family,
            ..rule.clone()
        })
    }

    fn not_marked(priority: u32) -> ForeignRule {
        ForeignRule {
            mark: Some((0xca6c, u32::MAX)),
            inverted: true,
            ..rule(priority, 51820)
        }
    }

    fn main_without_default(priority: u32) -> ForeignRule {
        ForeignRule {
            suppress_prefixlength: Some(0),
            ..rule(priority, MAIN)
        }
    }

    #[test]
    fn a_full_tunnel_of_wg_quick_keeps_everything() {
        for (first, second) in [(32764, 32763), (32765, 32764)] {
            let rules = [both(&not_marked(first)), both(&main_without_default(second))].concat();
            let main: &[&str] = &["0.0.0.0/0", "10.0.1.0/24"];
            assert_eq!(with(&rules, &[(51820, DEFAULTS), (MAIN, main)]), DEFAULTS);
            let only_v4 = [not_marked(first), main_without_default(second)];
            assert_eq!(with(&only_v4, &[(51820, DEFAULTS), (MAIN, main)]), ["0.0.0.0/0"]);
        }
    }

    #[test]
    fn a_later_ipv6_table_is_hidden_from_the_programs() {
        let hidden = |rules: &[ForeignRule], tables: &[(u32, &[&str])]| {
            let mut host = host(tables);
            host.rules = rules.to_vec();
            is_hidden_v6(&host, &kernel())
        };
        let rules = both(&not_marked(32764));
        assert!(hidden(&rules, &[(51820, DEFAULTS)]));
        assert!(hidden(&rules, &[(51820, &["fd08::/64"])]));
        assert!(!hidden(&rules, &[(51820, &["10.8.0.0/24"])]), "IPv4 is seen");
        assert!(!hidden(&[], &[(MAIN, DEFAULTS)]));
        // wg-quick started later stands in front of ours, and hides its own table.
        let later = [both(&not_marked(19999)), both(&main_without_default(19998))].concat();
        assert!(hidden(&later, &[(51820, DEFAULTS)]));
        // Otherwise the programs see what is in front of ours; and a rule for some packets hides nothing from the others.
        let early = both(&rule(5270, 52));
        assert!(!hidden(&early, &[(52, DEFAULTS)]));
        let marked = ForeignRule {
            inverted: false,
            ..not_marked(32764)
        };
        assert!(!hidden(&both(&marked), &[(51820, DEFAULTS)]));
    }

    #[test]
    fn a_split_tunnel_of_wg_quick_keeps_its_prefixes() {
        // Its routes are in main, without any rule, unless `Table` names another.
        assert!(with(&[], &[(MAIN, &["10.8.0.0/24", "0.0.0.0/0"])]).is_empty());
        let table: &[&str] = &["10.8.0.0/24", "10.8.1.0/24", "fd08::/64"];
        let rules = both(&not_marked(32764));
        assert_eq!(with(&rules, &[(51820, table)]), ["10.8.0.0/23", "fd08::/64"]);
    }

    #[test]
    fn what_stands_before_our_rules_needs_no_help() {
        let marked = |priority, table| ForeignRule {
            mark: Some((0x80000, 0xff_0000)),
            ..rule(priority, table)
        };
        let rules = [
            marked(5210, MAIN),
            marked(5230, 253),
            rule(5270, 52),
            rule(20000, 52),
        ];
        let tables: [(u32, &[&str]); 2] = [(52, &["100.100.100.100/32", "0.0.0.0/0"]), (MAIN, DEFAULTS)];
        assert!(with(&rules, &tables).is_empty());
        assert!(with(&[rule(32766, 52), rule(40000, 52)], &tables).is_empty());
    }

    #[test]
    fn openvpns_half_routes_in_main_are_found_before_our_marks() {
        let main: &[&str] = &["0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/0"];
        assert!(with(&[], &[(MAIN, main)]).is_empty());
        assert!(with(&[rule(30000, MAIN)], &[(MAIN, main)]).is_empty());
    }

    #[test]
    fn rules_that_no_unbound_socket_meets_keep_nothing() {
        let table: &[(u32, &[&str])] = &[(7, &["0.0.0.0/0"])];
        let changes: [fn(&mut ForeignRule); 6] = [
            |r| r.l3mdev = true,
            |r| r.from = Some("10.0.1.100/32".parse().unwrap()),
            |r| r.iif = Some("eth0".into()),
            |r| r.oif = Some("eth0".into()),
            |r| r.mark = Some((1, 1)),
            |r| (r.mark, r.inverted) = (Some((0, 0xff)), true),
        ];
        for change in changes {
            let mut rule = rule(30000, 7);
            change(&mut rule);
            assert!(with(&[rule.clone()], table).is_empty(), "{rule}");
        }
    }

    #[test]
    fn policy_routed_destinations_are_kept() {
        let mut to = rule(30000, 7);
        to.to = Some("198.51.100.0/24".parse().unwrap());
        let table: &[(u32, &[&str])] = &[(7, &["0.0.0.0/0"])];
        assert_eq!(with(&[to.clone()], table), ["198.51.100.0/24"]);
        to.action = Action::Blackhole;
        assert_eq!(with(&[to.clone()], &[]), ["198.51.100.0/24"]);
        // Everything but that, which is no list of prefixes: be careful.
        to.inverted = true;
        assert_eq!(with(&[to], &[]), ["0.0.0.0/0"]);
    }

    #[test]
    fn a_rule_for_some_users_keeps_its_table_from_all() {
        let mut users = rule(30000, 7);
        users.uids = Some((1000, 1999));
        assert_eq!(with(&[users.clone()], &[(7, &["0.0.0.0/0"])]), ["0.0.0.0/0"]);
        users.inverted = true;
        assert_eq!(with(&[users], &[(7, &["10.8.0.0/24"])]), ["10.8.0.0/24"]);
    }

    #[test]
    fn a_jump_over_the_catch_all_keeps_what_jumps() {
        let jump = |target| ForeignRule {
            action: Action::Goto(target),
            ..rule(30000, 0)
        };
        assert_eq!(with(&[jump(32766)], &[]), ["0.0.0.0/0"]);
        assert!(with(&[jump(31000)], &[]).is_empty());
    }

    #[test]
    fn mains_specific_routes_and_earlier_rules_do_not_heed_our_marks() {
        let main: &[&str] = &["10.0.1.0/24", "10.9.0.0/24", "0.0.0.0/0", "fe80::/64"];
        let mut host = host(&[(MAIN, main), (52, &["100.64.0.0/10"]), (7, &["0.0.0.0/0"])]);
        host.rules = vec![rule(5270, 52), rule(30000, 7)];
        assert_eq!(
            shown(&unmoved(&host, &kernel())),
            ["10.0.1.0/24", "10.9.0.0/24", "100.64.0.0/10", "fe80::/64"]
        );
        host.rules.push(not_marked(19999));
        host.tables
            .insert((Family::V4, 51820), crate::host::Destinations::Anywhere);
        assert_eq!(shown(&unmoved(&host, &kernel())), ["0.0.0.0/0", "fe80::/64"]);
    }
}
