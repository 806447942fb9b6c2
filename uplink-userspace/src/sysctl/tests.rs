use super::*;
use crate::resolve::{Leg, Uplink};

fn leg(gateway: &str, source: &str) -> Leg {
    Leg {
        gateway: gateway.parse().unwrap(),
        source: source.parse().unwrap(),
        prefix: format!("{gateway}/24").parse().unwrap(),
    }
}

fn uplink(id: u8, interface: &str, six: bool) -> Uplink {
    Uplink {
        id,
        name: format!("isp{id}"),
        interface: interface.to_owned(),
        ifindex: id.into(),
        v4: Some(leg("10.0.0.1", "10.0.0.2")),
        v6: six.then(|| leg("fe80::1", "2001:db8::2")),
        weight: 1,
        tier: 0,
        mtu: None,
        table: 20000,
        mark: 0x100_0000,
        host_mark: 0,
        translation: None,
    }
}

fn paths(wanted: &[Sysctl]) -> Vec<String> {
    wanted.iter().map(|s| format!("{}={}", s.path, s.value)).collect()
}

fn has(wanted: &[Sysctl], text: &str) -> bool {
    paths(wanted).iter().any(|p| p.contains(text))
}

#[test]
fn one_interface_needs_no_loose_filter_and_no_v6() {
    let up = [uplink(1, "eth0", false), uplink(2, "eth0", false)];
    let wanted = desired(&up, &["lan0".into()], |_| Some("1".into()));
    let expected = [
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/all/accept_redirects=0",
        "net/ipv4/conf/all/send_redirects=0",
        "net/ipv4/conf/eth0/send_redirects=0",
        "net/ipv4/conf/lan0/send_redirects=0",
        "net/ipv4/conf/eth0/arp_announce=2",
        "net/ipv4/conf/eth0/arp_ignore=1",
        "net/ipv4/fib_multipath_hash_policy=1",
        "net/ipv4/tcp_fwmark_accept=1",
        "net/ipv4/fwmark_reflect=1",
    ];
    assert_eq!(paths(&wanted), expected);
}

#[test]
fn several_interfaces_turn_a_strict_filter_loose_and_leave_others_alone() {
    let up = [uplink(1, "eth0", false), uplink(2, "eth1", false)];
    let strict = |path: &str| {
        Some(
            if path.ends_with("eth0/rp_filter") {
                "1"
            } else {
                "0"
            }
            .into(),
        )
    };
    let wanted = desired(&up, &[], strict);
    assert!(has(&wanted, "eth0/rp_filter=2"));
    assert!(!has(&wanted, "eth1/rp_filter"));
    let by_all = |path: &str| Some(if path.contains("all/rp_filter") { "1" } else { "0" }.into());
    assert!(has(&desired(&up, &[], by_all), "eth1/rp_filter=2"));
    let loose_already = |path: &str| Some(if path.contains("all/rp_filter") { "2" } else { "1" }.into());
    assert!(!has(&desired(&up, &[], loose_already), "rp_filter"));
}

#[test]
fn the_aggregate_interface_takes_our_own_packets_and_loosens_strict_filters() {
    let one = [uplink(1, "eth0", false)];
    let filters = |value: &'static str| {
        move |path: &str| Some(if path.ends_with("rp_filter") { value } else { "0" }.to_owned())
    };
    let pair = [
        "net/ipv4/conf/mpath0-in/forwarding=1",
        "net/ipv4/conf/mpath0-in/accept_local=1",
        "net/ipv4/conf/mpath0-in/rp_filter=2",
    ];
    assert_eq!(paths(&of_aggregate(&one, "mpath0", filters("0"))), pair);
    let strict = paths(&of_aggregate(&one, "mpath0", filters("1")));
    assert_eq!(strict[3..], ["net/ipv4/conf/eth0/rp_filter=2"]);
    let six = of_aggregate(&[uplink(1, "eth0", true)], "mpath0", filters("0"));
    assert!(has(&six, "net/ipv6/conf/mpath0/disable_ipv6=0") && has(&six, "mpath0-in/disable_ipv6=0"));
    assert_eq!(of_aggregate(&one, "mpath0", |_| None), []);
}

#[test]
fn advertisements_are_kept_before_forwarding_is_on() {
    let up = [uplink(1, "eth0", true)];
    let read = |path: &str| Some(if path.contains("lan0/accept_ra") { "0" } else { "1" }.into());
    let wanted = paths(&desired(&up, &["lan0".into()], read));
    let place = |text: &str| wanted.iter().position(|p| p.contains(text));
    assert!(place("eth0/accept_ra=2").unwrap() < place("ipv6/conf/all/forwarding=1").unwrap());
    assert_eq!(place("lan0/accept_ra"), None);
}

#[test]
fn what_does_not_exist_is_not_wanted() {
    assert_eq!(desired(&[uplink(1, "eth0", true)], &[], |_| None), []);
}

#[test]
fn the_plan_is_the_same_once_it_is_applied() {
    let up = [uplink(1, "eth0", true), uplink(2, "eth1", true)];
    let before = desired(&up, &[], |_| Some("1".into()));
    let after = desired(&up, &[], |path| {
        let set = before.iter().find(|s| s.path == path);
        Some(set.map_or("1", |s| &s.value).to_owned())
    });
    assert_eq!(before, after);
}
