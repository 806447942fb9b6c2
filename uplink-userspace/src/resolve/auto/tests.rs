use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::Family;

use super::super::tests::{config, host};
use super::super::{Followed, Uplink, follow, resolve};
use crate::config::Problems;
use crate::host::{DefaultRoute, Destinations, Host, Interface, MAIN, Peer};

/// `isp1` on `eth0` follows both families, `isp2` has a gateway of its own there.
const FILE: &str = r#"
[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "auto"
gateway6 = "auto"

[[uplink]]
name = "isp2"
interface = "eth0"
gateway = "10.0.0.1"
"#;

/// `lte` alone, on an interface that this host does not have.
const ABSENT: &str = "[[uplink]]\nname = \"lte\"\ninterface = \"ppp0\"\ngateway = \"auto\"\n";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A default route out of `eth0`, without a preferred source.
fn route(gateway: &str, metric: u32) -> DefaultRoute {
    let gateway = ip(gateway);
    DefaultRoute {
        family: if gateway.is_ipv4() { Family::V4 } else { Family::V6 },
        ifindex: 7,
        gateway: Some(gateway),
        source: None,
        metric,
        preference: 0,
    }
}

fn with(routes: &[DefaultRoute]) -> Host {
    Host {
        default_routes: routes.to_vec(),
        ..host()
    }
}

/// What the file finds on that host.
fn found(file: &str, host: &Host) -> Followed {
    refused(file, host).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(file: &str, host: &Host) -> Result<Followed, Problems> {
    resolve(&config(file), host, &BTreeMap::new())
}

fn reasons(followed: &Followed) -> Vec<String> {
    followed.unusable.iter().map(ToString::to_string).collect()
}

/// Gateway, source and prefix of the first uplink's leg.
fn leg(uplinks: &[Uplink], family: Family) -> Option<[String; 3]> {
    let leg = uplinks[0].leg(family)?;
    Some([
        leg.gateway.to_string(),
        leg.source.to_string(),
        leg.prefix.to_string(),
    ])
}

fn v4(host: &Host) -> Option<[String; 3]> {
    leg(&found(FILE, host).uplinks, Family::V4)
}

fn some(gateway: &str, source: &str, prefix: &str) -> Option<[String; 3]> {
    Some([gateway.into(), source.into(), prefix.into()])
}

/// A host with `ppp0` and this pair of addresses on it, and a default route into it.
fn ppp(local: &str, remote: &str) -> Host {
    let net: IpNet = local.parse().unwrap();
    let mut host = with(&[DefaultRoute {
        ifindex: 9,
        gateway: None,
        ..route("1.1.1.1", 0)
    }]);
    host.interfaces.push(Interface {
        index: 9,
        name: "ppp0".into(),
        running: true,
        mtu: [1500; 2],
        addresses: vec![net],
        deprecated: vec![],
    });
    host.peers = vec![Peer {
        ifindex: 9,
        local: net.addr(),
        remote: remote.parse().unwrap(),
    }];
    host
}

#[test]
fn both_families_follow_the_default_routes_of_their_interface() {
    let elsewhere = DefaultRoute {
        ifindex: 8,
        ..route("10.9.0.254", 0)
    };
    let host = with(&[elsewhere, route("192.168.1.1", 100), route("fe80::1", 1024)]);
    let found = found(FILE, &host);
    assert_eq!(reasons(&found), [""; 0]);
    assert_eq!(
        leg(&found.uplinks, Family::V4),
        some("192.168.1.1", "192.168.1.100", "192.168.1.0/24")
    );
    assert_eq!(
        leg(&found.uplinks, Family::V6),
        some("fe80::1", "2001:db8::2", "fe80::/64")
    );
    assert_eq!((found.uplinks[0].id, found.uplinks[0].ifindex), (1, 7));
}

#[test]
fn a_reload_while_the_route_is_away_keeps_the_leg_of_the_running_daemon() {
    let running = found(FILE, &with(&[route("192.168.1.1", 100), route("fe80::1", 1024)]));
    let now = found(FILE, &with(&[]));
    assert!(now.uplinks[0].v4.is_none() && now.uplinks[0].v6.is_none());
    let config = super::super::tests::config(FILE);
    let kept = super::super::keep(&config, now.uplinks.clone(), &running.uplinks);
    assert_eq!(kept, running.uplinks);
    for (gateway, keeps) in [("192.168.1.1", true), ("192.168.1.9", false)] {
        let fixed = FILE.replacen("gateway = \"auto\"", &format!("gateway = \"{gateway}\""), 1);
        let config = super::super::tests::config(&fixed);
        let kept = super::super::keep(&config, now.uplinks.clone(), &running.uplinks);
        assert_eq!(
            (kept[0].v4.is_some(), kept[0].v6.is_some()),
            (keeps, true),
            "{gateway}"
        );
    }
}

#[test]
fn the_lowest_metric_wins_then_the_routers_preference() {
    let gateway = |routes: &[DefaultRoute], family| {
        let found = found(FILE, &with(routes));
        found.uplinks[0].leg(family).unwrap().gateway.to_string()
    };
    let routes = [route("192.168.1.9", 200), route("192.168.1.1", 100)];
    assert_eq!(gateway(&routes, Family::V4), "192.168.1.1");
    let high = DefaultRoute {
        preference: 1,
        ..route("fe80::2:2", 1024)
    };
    let routes = [route("fe80::1", 1024), high, route("fe80::3", 2000)];
    assert_eq!(gateway(&routes, Family::V6), "fe80::2:2");
}

#[test]
fn the_source_is_the_configured_or_the_routes_or_the_interfaces() {
    let preferring = |source: &str| DefaultRoute {
        source: Some(ip(source)),
        ..route("192.168.1.1", 100)
    };
    let mut host = with(&[preferring("192.168.1.7")]);
    // An address that this host does not have is nobody's preference.
    assert_eq!(v4(&host), some("192.168.1.1", "192.168.1.100", "192.168.1.0/24"));
    host.interfaces[0]
        .addresses
        .push("192.168.1.7/24".parse().unwrap());
    assert_eq!(v4(&host), some("192.168.1.1", "192.168.1.7", "192.168.1.0/24"));
    let given = FILE.replacen("\"auto\"", "\"auto\"\nsource = \"192.168.1.100\"", 1);
    let uplinks = found(&given, &host).uplinks;
    assert_eq!(leg(&uplinks, Family::V4).unwrap()[1], "192.168.1.100");
    let gone = FILE.replacen("\"auto\"", "\"auto\"\nsource = \"192.168.1.3\"", 1);
    assert_eq!(
        reasons(&found(&gone, &host))[0],
        "isp1 (IPv4): eth0 does not have the address 192.168.1.3"
    );
}

#[test]
fn a_router_outside_of_every_subnet_needs_a_route_and_a_preferred_source() {
    let outside = route("172.31.1.1", 100);
    let refused = "isp1 (IPv4): eth0 has no address in the subnet of 172.31.1.1";
    let source = Some(ip("192.168.1.100"));
    let mut host = with(&[DefaultRoute { source, ..outside }]);
    let mut main = |nets: [&str; 2]| {
        let nets = nets.map(|net| net.parse().unwrap()).to_vec();
        host.tables.insert((Family::V4, MAIN), Destinations::Listed(nets));
        host.clone()
    };
    let without = main(["0.0.0.0/0", "192.168.1.0/24"]);
    assert_eq!(reasons(&found(FILE, &without))[0], refused);
    let mut host = main(["0.0.0.0/0", "172.31.1.1/32"]);
    assert_eq!(v4(&host), some("172.31.1.1", "192.168.1.100", "172.31.1.1/32"));
    host.default_routes = vec![outside];
    assert_eq!(reasons(&found(FILE, &host))[0], refused);
}

#[test]
fn on_a_point_to_point_link_the_other_end_is_the_gateway() {
    let host = ppp("100.64.0.5/32", "100.64.0.1/32");
    let one = found(ABSENT, &host);
    assert_eq!(reasons(&one), [""; 0]);
    assert_eq!(
        leg(&one.uplinks, Family::V4),
        some("100.64.0.1", "100.64.0.5", "100.64.0.1/32")
    );
    let mut without = host;
    without.peers.clear();
    assert_eq!(
        reasons(&found(ABSENT, &without)),
        ["lte (IPv4): the default route on ppp0 names no gateway, and no address there a far end"]
    );
}

#[test]
fn of_several_far_ends_the_one_beside_the_preferred_source_counts() {
    let mut host = ppp("100.64.0.5/32", "100.64.0.1/32");
    host.interfaces[2]
        .addresses
        .push("100.64.9.5/32".parse().unwrap());
    host.peers.push(Peer {
        ifindex: 9,
        local: ip("100.64.9.5"),
        remote: "100.64.9.1/32".parse().unwrap(),
    });
    host.default_routes[0].source = Some(ip("100.64.9.5"));
    assert_eq!(
        leg(&found(ABSENT, &host).uplinks, Family::V4),
        some("100.64.9.1", "100.64.9.5", "100.64.9.1/32")
    );
}

#[test]
fn what_is_not_there_yet_is_told_and_waited_for() {
    let waiting = found(FILE, &host());
    assert_eq!(
        reasons(&waiting),
        [
            "isp1 (IPv4): no default route on eth0 yet",
            "isp1 (IPv6): no default route on eth0 yet"
        ]
    );
    let isp1 = &waiting.uplinks[0];
    assert_eq!((isp1.v4, isp1.v6, isp1.ifindex), (None, None, 7));
    assert!(waiting.uplinks[1].v4.is_some());
    assert!(!waiting.is_usable(isp1, Family::V4));

    let absent = found(ABSENT, &host());
    assert_eq!(reasons(&absent), ["lte (IPv4): interface ppp0 does not exist"]);
    assert_eq!(
        (absent.uplinks[0].ifindex, &*absent.uplinks[0].interface),
        (0, "ppp0")
    );

    let mut bare = with(&[route("192.168.1.1", 100)]);
    bare.interfaces[0]
        .addresses
        .retain(|net| net.to_string() != "192.168.1.100/24");
    assert_eq!(v4(&bare), None);
    let reason = &reasons(&found(FILE, &bare))[0];
    assert_eq!(
        reason,
        "isp1 (IPv4): eth0 has no address in the subnet of 192.168.1.1"
    );
}

#[test]
fn beside_a_fixed_gateway_everything_is_as_strict_as_ever() {
    let mixed = ABSENT.replace("\"auto\"", "\"auto\"\ngateway6 = \"fe80::1\"");
    let shown = refused(&mixed, &host()).unwrap_err().to_string();
    assert!(shown.contains("interface ppp0 does not exist"), "{shown}");
    let wrong = FILE.replace("10.0.0.1", "10.77.0.1");
    let shown = refused(&wrong, &host()).unwrap_err().to_string();
    assert!(shown.contains("outside every subnet of eth0"), "{shown}");
}

#[test]
fn a_gateway_that_cannot_be_one_is_refused_with_its_reason() {
    let told = |routes: &[DefaultRoute]| reasons(&found(FILE, &with(routes)))[0].clone();
    assert_eq!(
        told(&[route("192.168.1.100", 1)]),
        "isp1 (IPv4): this host has the gateway's address 192.168.1.100 itself"
    );
    assert_eq!(
        told(&[route("10.0.0.1", 1)]),
        "isp1 (IPv4): the default route on eth0 leads to the gateway of uplink isp2"
    );
    let mixed = DefaultRoute {
        family: Family::V4,
        ..route("fe80::1", 1)
    };
    assert_eq!(
        told(&[mixed]),
        "isp1 (IPv4): the default route on eth0 leads to fe80::1, an address of the other family"
    );
    assert_eq!(
        told(&[route("192.168.1.255", 1)]),
        "isp1 (IPv4): 192.168.1.255 is no host of 192.168.1.0/24, the subnet on eth0"
    );
    // Another provider's route on the same wire leaves this one's.
    let host = with(&[route("10.0.0.1", 1), route("192.168.1.1", 100)]);
    assert_eq!(v4(&host).unwrap()[0], "192.168.1.1");
}

/// Follows `FILE` from one host to another.
fn then(file: &str, first: &Host, now: &Host) -> (Vec<Uplink>, Followed) {
    let before = found(file, first).uplinks;
    let after = follow(&config(file), now, &before);
    (before, after)
}

#[test]
fn a_leg_is_picked_up_when_it_appears() {
    let (_, now) = then(
        FILE,
        &host(),
        &with(&[route("192.168.1.1", 100), route("fe80::1", 9)]),
    );
    assert_eq!(reasons(&now), [""; 0]);
    assert!(now.uplinks[0].v6.is_some());
    assert_eq!(leg(&now.uplinks, Family::V4).unwrap()[0], "192.168.1.1");
    let (_, now) = then(ABSENT, &host(), &ppp("100.64.0.5/32", "100.64.0.1/32"));
    assert_eq!(now.uplinks[0].ifindex, 9);
    assert_eq!(leg(&now.uplinks, Family::V4).unwrap()[0], "100.64.0.1");
}

#[test]
fn a_changed_gateway_address_or_prefix_is_followed() {
    let first = with(&[route("192.168.1.1", 100)]);
    let (_, now) = then(FILE, &first, &with(&[route("192.168.1.254", 100)]));
    let expected = some("192.168.1.254", "192.168.1.100", "192.168.1.0/24");
    assert_eq!(leg(&now.uplinks, Family::V4), expected);
    let mut moved = with(&[route("172.16.0.1", 100)]);
    moved.interfaces[0].addresses[0] = "172.16.0.9/20".parse().unwrap();
    let (_, now) = then(FILE, &first, &moved);
    let expected = some("172.16.0.1", "172.16.0.9", "172.16.0.0/20");
    assert_eq!(leg(&now.uplinks, Family::V4), expected);
}

#[test]
fn an_address_that_router_advertisements_deprecate_is_left() {
    let first = with(&[route("fe80::1", 1024)]);
    let mut now = first.clone();
    now.interfaces[0]
        .addresses
        .insert(0, "2001:db8:2::2/64".parse().unwrap());
    let (_, same) = then(FILE, &first, &now);
    assert_eq!(leg(&same.uplinks, Family::V6).unwrap()[1], "2001:db8::2");
    now.interfaces[0].deprecated.push(ip("2001:db8::2"));
    let (_, renumbered) = then(FILE, &first, &now);
    assert_eq!(leg(&renumbered.uplinks, Family::V6).unwrap()[1], "2001:db8:2::2");
}

#[test]
fn a_route_that_goes_away_leaves_the_leg_as_it_was() {
    let first = with(&[route("192.168.1.1", 100), route("fe80::1", 9)]);
    let (before, now) = then(FILE, &first, &with(&[route("fe80::1", 9)]));
    assert_eq!(now.uplinks, before);
    assert_eq!(reasons(&now), ["isp1 (IPv4): the default route on eth0 is gone"]);
    let there = ppp("100.64.0.5/32", "100.64.0.1/32");
    let (before, now) = then(ABSENT, &there, &host());
    assert_eq!(now.uplinks, before);
    assert_eq!(reasons(&now), ["lte (IPv4): interface ppp0 does not exist"]);
}

#[test]
fn between_equal_routers_nothing_flaps() {
    let (a, b) = (route("fe80::1", 1024), route("fe80::3", 1024));
    let (_, now) = then(FILE, &with(&[a]), &with(&[b, a]));
    assert_eq!(leg(&now.uplinks, Family::V6).unwrap()[0], "fe80::1");
    let better = DefaultRoute { preference: 1, ..b };
    let (_, now) = then(FILE, &with(&[a]), &with(&[better, a]));
    assert_eq!(leg(&now.uplinks, Family::V6).unwrap()[0], "fe80::3");
}
