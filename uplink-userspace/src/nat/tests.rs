use super::*;
use uplink_common::{Addr, Translation};

pub(crate) const MASK: u32 = 0x7f00_0000;

fn leg(gateway: &str, source: &str) -> Option<Leg> {
    Some(Leg {
        gateway: gateway.parse().unwrap(),
        source: source.parse().unwrap(),
        prefix: format!("{gateway}/24").parse().unwrap(),
    })
}

pub(crate) fn uplinks() -> Vec<Uplink> {
    let one = Uplink {
        id: 1,
        name: "one".into(),
        interface: "eth0".into(),
        ifindex: 2,
        v4: leg("192.168.1.1", "192.168.1.100"),
        v6: leg("fe80::1", "2001:db8::5"),
        weight: 1,
        tier: 0,
        mtu: None,
        table: 20001,
        mark: 0x100_0000,
        host_mark: 0x7e00_0000,
        translation: None,
    };
    let two = Uplink {
        id: 2,
        v4: leg("192.168.2.1", "192.168.2.100"),
        v6: None,
        mark: 0x200_0000,
        host_mark: 0x7d00_0000,
        ..one.clone()
    };
    vec![one, two]
}

pub(crate) fn input(uplinks: &[Uplink]) -> Input<'_> {
    Input {
        uplinks,
        lan: &[],
        mask: MASK,
        mode: NatMode::Masquerade,
        local: false,
        reset: false,
        aggregate: None,
        strict: false,
    }
}

fn text(change: impl FnOnce(&mut Input)) -> String {
    let all = uplinks();
    let mut input = input(&all);
    change(&mut input);
    body(&input).text
}

fn of(uplinks: &[Uplink]) -> String {
    body(&input(uplinks)).text
}

/// The rules of a chain, without its hook.
fn chain<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("\tchain {name} {{\n");
    let inside = text.split_once(&start).map_or("", |(_, rest)| rest);
    let lines = inside.lines().map(str::trim).take_while(|line| *line != "}");
    lines.filter(|line| !line.starts_with("type ")).collect()
}

#[test]
fn a_known_connection_is_decided_by_the_first_rule() {
    let text = text(|_| {});
    assert_eq!(
        chain(&text, "prerouting"),
        [
            "ct mark & 0x7f000000 vmap { 0x01000000 : goto keep_1, 0x02000000 : goto keep_2 }",
            "ct state new meta mark & 0x7f000000 vmap { 0x01000000 : goto first_1, 0x02000000 : goto first_2 }",
        ]
    );
    assert_eq!(
        chain(&text, "keep_2"),
        [
            "ct direction reply ct status snat goto inward",
            "ct direction original ct status dnat goto inward",
            "meta mark & 0x7f000000 == 0x02000000 accept",
            "meta mark set meta mark & 0x80ffffff | 0x02000000",
        ]
    );
    assert_eq!(
        chain(&text, "inward"),
        [
            "meta mark & 0x7f000000 == 0 accept",
            "meta mark set meta mark & 0x80ffffff",
        ]
    );
    assert_eq!(
        chain(&text, "first_2"),
        ["ct mark set ct mark & 0x80ffffff | 0x02000000"]
    );
}

#[test]
fn this_hosts_packets_are_looked_at_only_where_that_helps() {
    let errors = "ct state related ct mark & 0x7f000000 vmap";
    assert!(chain(&text(|_| {}), "route_output")[0].starts_with(errors));
    let local = text(|i| i.local = true);
    assert!(local.contains("type route hook output priority mangle"));
    assert_eq!(
        chain(&local, "keep_1")[3],
        "meta mark & 0x7f000000 == 0x7e000000 accept"
    );
    let mut twins = uplinks();
    twins[1].v4 = leg("192.168.1.2", "192.168.1.100");
    let shared = of(&twins);
    assert!(chain(&shared, "route_output")[0].starts_with("ct mark") && !shared.contains("0x7e000000"));
}

#[test]
fn a_host_mark_that_is_none_of_its_own_is_not_compared() {
    let mut narrow = uplinks();
    narrow[0].host_mark = narrow[0].mark;
    narrow[1].host_mark = 0;
    let text = body(&Input {
        local: true,
        ..input(&narrow)
    })
    .text;
    assert_eq!(
        (chain(&text, "keep_1").len(), chain(&text, "keep_2").len()),
        (4, 4)
    );
}

#[test]
fn every_leg_gets_a_mark_and_an_address() {
    let text = text(|_| {});
    assert_eq!(
        chain(&text, "postrouting"),
        [
            r#"oifname "eth0" rt ip nexthop 192.168.1.1 ct mark set ct mark & 0x80ffffff | 0x01000000"#,
            r#"oifname "eth0" rt ip nexthop 192.168.1.1 ip saddr != 192.168.1.100 snat ip to 192.168.1.100"#,
            r#"oifname "eth0" rt ip6 nexthop fe80::1 ct mark set ct mark & 0x80ffffff | 0x01000000"#,
            r#"oifname "eth0" rt ip6 nexthop fe80::1 ip6 saddr != { 2001:db8::5, fe80::/10 } snat ip6 to 2001:db8::5"#,
            r#"oifname "eth0" rt ip nexthop 192.168.2.1 ct mark set ct mark & 0x80ffffff | 0x02000000"#,
            r#"oifname "eth0" rt ip nexthop 192.168.2.1 ip saddr != 192.168.2.100 snat ip to 192.168.2.100"#,
        ]
    );
}

#[test]
fn without_nat_only_the_marks_stay() {
    let text = text(|i| i.mode = NatMode::Off);
    assert!(!text.contains("snat ip") && !text.contains("type nat"));
    let rules = chain(&text, "postrouting");
    assert_eq!((rules.len(), rules[0]), (4, "ct state != new accept"));
}

#[test]
fn what_prefix_translation_handles_keeps_its_source() {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    let mut all = uplinks();
    all[0].translation = Some(Translation::new(addr("fd00:10::"), addr("2001:db8:1:2::"), 64));
    let text = of(&all);
    assert!(
        text.contains("ip6 saddr != { 2001:db8::5, fd00:10::/64, fe80::/10 } snat"),
        "{text}"
    );
    assert!(text.contains("rt ip6 nexthop fe80::1 ct mark set"));
    // Our own address inside of the prefix would overlap with it.
    all[0].v6 = leg("fe80::1", "fd00:10::5");
    assert!(of(&all).contains("ip6 saddr != { fd00:10::/64, fe80::/10 } snat"));
}

#[test]
fn segments_are_clamped_in_both_directions() {
    let plain = text(|_| {});
    assert_eq!(chain(&plain, "mss"), ["tcp flags & (syn | rst) == syn goto syn"]);
    assert_eq!(
        chain(&plain, "syn"),
        [r#"oifname { "eth0" } tcp option maxseg size set rt mtu"#]
    );
    let mut all = uplinks();
    all[1].mtu = Some(1400);
    let small = of(&all);
    assert_eq!(
        chain(&small, "syn")[1],
        "ct mark & 0x7f000000 vmap { 0x02000000 : goto mss_2 }"
    );
    assert_eq!(
        chain(&small, "mss_2"),
        [
            "meta nfproto ipv4 tcp option maxseg size set 1360",
            "meta nfproto ipv6 tcp option maxseg size set 1340",
        ]
    );
}

#[test]
fn resets_are_offered_where_a_mark_is_free_for_them() {
    assert!(!text(|_| {}).contains("reset"));
    let full = text(|i| (i.reset, i.mask) = (true, 0x100_0000));
    assert!(!full.contains("reset"));
    let text = text(|i| i.reset = true);
    assert_eq!(chain(&text, "reset_forward"), chain(&text, "reset_input"));
    assert_eq!(
        chain(&text, "reset_4"),
        ["ip saddr . tcp sport . ip daddr . tcp dport @reset4 reject with tcp reset"]
    );
    assert_eq!(
        chain(&text, "raw_output"),
        ["meta mark & 0x7f000000 == 0x7f000000 notrack"]
    );
}

#[test]
fn redirects_stay_in_on_uplinks_and_lan() {
    let lan = ["lan0".to_owned()];
    let all = uplinks();
    let with = Input {
        lan: &lan,
        ..input(&all)
    };
    let rule = r#"icmpv6 type nd-redirect oifname { "eth0", "lan0" } drop"#;
    assert_eq!(chain(&body(&with).text, "output"), [rule]);
    assert_eq!(body(&input(&[])).text, "");
}

#[test]
fn every_rule_is_counted() {
    let text = text(|i| (i.local, i.reset) = (true, true));
    let rules: usize = text
        .lines()
        .filter(|line| line.starts_with("\t\t") && !line.contains("type ") || line.contains("icmpv6 type"))
        .filter(|line| !line.contains("flags timeout") && !line.contains("timeout 1m"))
        .count();
    let all = uplinks();
    let counted = body(&Input {
        local: true,
        reset: true,
        ..input(&all)
    });
    assert_eq!(counted.rules, rules);
}

#[test]
fn what_enters_the_aggregate_interface_is_tracked_as_it_comes_out() {
    let plain = text(|_| {});
    assert!(!plain.contains("notrack") && !plain.contains("no_circle"));
    let text = text(|i| (i.aggregate, i.reset) = (Some("mpath0"), true));
    assert_eq!(
        chain(&text, "raw_prerouting"),
        ["iifname != \"mpath0-in\" fib daddr . mark oifname \"mpath0\" notrack"]
    );
    assert_eq!(
        chain(&text, "raw_output"),
        [
            "meta mark & 0x7f000000 == 0x7f000000 notrack",
            "oifname \"mpath0\" notrack"
        ]
    );
    assert_eq!(
        chain(&text, "no_circle"),
        ["iifname \"mpath0-in\" oifname \"mpath0\" reject with icmpx type no-route"]
    );
}

#[test]
fn probes_for_resets_are_not_refused_with_the_flows_of_strict_policies() {
    let probes = |strict| {
        let text = text(|i| (i.reset, i.strict) = (true, strict));
        let rules = text.lines().filter(|l| l.contains("notrack"));
        rules.map(|l| l.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(probes(false), ["meta mark & 0x7f000000 == 0x7f000000 notrack"]);
    assert_eq!(probes(true), ["meta mark & 0x7f000000 == 0x7c000000 notrack"]);
}
