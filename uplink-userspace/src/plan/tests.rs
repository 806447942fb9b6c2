use super::*;
use crate::weights::tests::uplink;
use uplink_common::mark::Mask;

pub(crate) fn kernel() -> Kernel {
    let fwmark_mask = Mask::new(0x7f00_0000).unwrap();
    let attach = crate::config::Attach::Auto;
    Kernel {
        fwmark_mask,
        rule_priority: 20000,
        protocol: 117,
        attach,
        suits_fast: false,
        mode: crate::config::Mode::Auto,
        flows: 1024,
        stale_after: None,
        seed: None,
    }
}

/// Two, with marks for sockets.
pub(crate) fn uplinks() -> [Uplink; 2] {
    [uplink(1, 3, 1), uplink(2, 1, 1)].map(|u| Uplink {
        host_mark: kernel().fwmark_mask.of_host(u.id, 2),
        ..u
    })
}

fn serving(members: &[(u8, u32)]) -> Selection {
    Selection {
        v4: Serving(members.to_vec()),
        ..Selection::default()
    }
}

fn shown<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn plan(members: &[(u8, u32)], up: bool) -> (Vec<String>, Vec<String>) {
    let selection = serving(members);
    let (rules, routes) = routing(&uplinks(), &selection, &kernel(), false, |_, _| up, |_, _| false);
    (shown(&rules), shown(&routes))
}

/// The rules while the first uplink is dead.
fn rules_without_the_first(uplinks: &[Uplink]) -> Vec<String> {
    let moved = |u: &Uplink, family| u.id == 1 && family == Family::V4;
    let (rules, _) = routing(uplinks, &serving(&[(2, 1)]), &kernel(), false, |_, _| true, moved);
    shown(&rules)
}

#[test]
fn rules_stand_in_the_order_of_authority() {
    let (rules, _) = plan(&[(1, 3), (2, 1)], true);
    assert_eq!(
        rules,
        [
            "ip rule add priority 20000 lookup 254 suppress_prefixlength 0",
            "ip rule add priority 32765 lookup 20000",
            "ip rule add priority 20001 fwmark 0x1000000/0x7f000000 lookup 20001",
            "ip rule add priority 20065 fwmark 0x7e000000/0x7f000000 lookup 20001",
            "ip rule add priority 20129 from 10.0.1.100 lookup 20001",
            "ip rule add priority 20002 fwmark 0x2000000/0x7f000000 lookup 20002",
            "ip rule add priority 20066 fwmark 0x7d000000/0x7f000000 lookup 20002",
            "ip rule add priority 20130 from 10.0.2.100 lookup 20002",
        ]
    );
}

#[test]
fn the_catch_all_has_the_weights_of_those_that_serve() {
    let (_, routes) = plan(&[(1, 3), (2, 1)], true);
    assert_eq!(
        routes.last().unwrap(),
        "ip route add 0.0.0.0/0 table 20000 metric 100 \
         nexthop via 10.0.1.1 dev if2 weight 3 nexthop via 10.0.2.1 dev if2 weight 1"
    );
    let (_, routes) = plan(&[(2, 1)], true);
    assert!(
        routes
            .last()
            .unwrap()
            .ends_with("metric 100 via 10.0.2.1 dev if2")
    );
}

#[test]
fn a_link_that_is_down_leaves_only_the_backstop() {
    let (_, routes) = plan(&[(1, 1), (2, 1)], false);
    assert_eq!(
        routes,
        [
            "ip route add unreachable 0.0.0.0/0 table 20001 metric 4294967295",
            "ip route add unreachable 0.0.0.0/0 table 20002 metric 4294967295",
        ]
    );
}

#[test]
fn large_weights_are_scaled_to_what_a_next_hop_can_carry() {
    let (_, routes) = plan(&[(1, 1000), (2, 1)], true);
    assert!(
        routes
            .last()
            .unwrap()
            .contains("weight 256 nexthop via 10.0.2.1 dev if2 weight 1")
    );
}

#[test]
fn sockets_of_a_dead_uplink_go_where_all_traffic_goes_before_their_address_is_asked() {
    let rules = rules_without_the_first(&uplinks());
    let moved = "ip rule add priority 20065 fwmark 0x7e000000/0x7f000000 lookup 20000";
    assert_eq!(
        rules
            .iter()
            .filter(|r| r.contains("0x7e000000"))
            .collect::<Vec<_>>(),
        [moved]
    );
    assert!(rules.contains(&"ip rule add priority 20066 fwmark 0x7d000000/0x7f000000 lookup 20002".into()));
    assert!(rules.contains(&"ip rule add priority 20129 from 10.0.1.100 lookup 20001".into()));
}

#[test]
fn marks_that_sockets_share_with_clients_are_not_moved() {
    let narrow = uplinks().map(|u| Uplink {
        host_mark: u.mark,
        ..u
    });
    let rules = rules_without_the_first(&narrow);
    assert_eq!(rules.iter().filter(|r| r.contains("fwmark")).count(), 2);
    assert!(
        rules
            .iter()
            .all(|r| r.contains("priority 32765") || !r.contains("lookup 20000"))
    );
}

#[test]
fn an_address_of_two_uplinks_stands_for_the_lowest_id() {
    let mut uplinks = uplinks();
    let leg = uplinks[1].v4;
    uplinks[0].v4 = leg;
    uplinks.reverse();
    let (rules, _) = routing(
        &uplinks,
        &serving(&[(1, 1), (2, 1)]),
        &kernel(),
        false,
        |_, _| true,
        |_, _| false,
    );
    let rules = shown(&rules);
    let by_address: Vec<_> = rules.iter().filter(|r| r.contains(" from ")).collect();
    assert_eq!(
        by_address,
        ["ip rule add priority 20129 from 10.0.2.100 lookup 20001"]
    );
}

#[test]
fn an_mtu_limits_what_tcp_asks_for() {
    let mut uplinks = uplinks();
    uplinks[0].mtu = Some(1492);
    let (_, routes) = routing(
        &uplinks,
        &serving(&[(1, 1)]),
        &kernel(),
        false,
        |_, _| true,
        |_, _| false,
    );
    let routes = shown(&routes);
    assert!(
        routes
            .iter()
            .any(|r| r.contains("0.0.0.0/0") && r.contains("mtu 1492 advmss 1452 via 10.0.1.1"))
    );
    assert!(
        routes
            .iter()
            .any(|r| r.contains("10.0.1.0/24") && r.contains("mtu 1492 dev"))
    );
    assert_eq!(segment(Family::V6, 1492), 1432);
}

#[test]
fn a_family_that_lost_its_address_does_not_take_the_other_along() {
    let mut uplinks = uplinks();
    uplinks[0].v6 = Some(Leg {
        gateway: "fe80::1".parse().unwrap(),
        source: "2001:db8::2".parse().unwrap(),
        prefix: "fe80::/64".parse().unwrap(),
    });
    let only_v4 = |_: &Uplink, family| family == Family::V4;
    let (_, routes) = routing(
        &uplinks,
        &serving(&[(1, 1)]),
        &kernel(),
        false,
        only_v4,
        |_, _| false,
    );
    let of = |family| {
        routes
            .iter()
            .filter(|r| r.family == family && r.table == 20001)
            .count()
    };
    assert_eq!((of(Family::V4), of(Family::V6)), (3, 1));
}

#[test]
fn strict_policies_are_answered_before_the_catch_all() {
    let refused = |uplinks: &[Uplink], kernel: &Kernel, strict| {
        let selection = serving(&[(1, 1)]);
        let (rules, _) = routing(uplinks, &selection, kernel, strict, |_, _| true, |_, _| false);
        let rules = shown(&rules).into_iter();
        rules.filter(|r| r.ends_with("unreachable")).collect::<Vec<_>>()
    };
    let rule = "ip rule add priority 20250 fwmark 0x7f000000/0x7f000000 unreachable";
    assert_eq!(refused(&uplinks(), &kernel(), true), [rule]);
    assert!(refused(&uplinks(), &kernel(), false).is_empty());
    let mut dual = uplinks();
    dual[1].v6 = Some(Leg {
        gateway: "fe80::1".parse().unwrap(),
        source: "2001:db8::2".parse().unwrap(),
        prefix: "fe80::/64".parse().unwrap(),
    });
    assert_eq!(refused(&dual, &kernel(), true).len(), 2);
    let narrow = Kernel {
        fwmark_mask: Mask::new(3).unwrap(),
        ..kernel()
    };
    let mut full = uplinks();
    full[1].id = 3;
    assert!(
        refused(&full, &narrow, true).is_empty(),
        "it would be the third uplink's"
    );
}
