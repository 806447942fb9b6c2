use serde_json::json;

use super::*;
use crate::config::Mode;
use crate::doctor::facts::{Bpffs, Daemon, Pins, User};
use crate::foreign::tests::{host as a_host, rule};
use crate::host::{DefaultRoute, Interface, Neighbour};
use crate::plan::tests::{kernel as a_kernel, uplinks};
use crate::sysctl::Change;
use Severity::{Blocks, Fine, Warns};
use uplink_common::Family;

/// A host, and what the configuration means there.
struct World {
    facts: Facts,
    kernel: Kernel,
    lan: Vec<String>,
    host: Host,
    uplinks: Vec<Uplink>,
    nat: bool,
    asked: Asked,
}

/// A router on which nothing is wrong.
fn healthy() -> World {
    let facts = Facts {
        user: User {
            root: true,
            effective: u64::MAX,
            bounding: u64::MAX,
            sysctls: Some(true),
        },
        release: "6.12.0-amd64".into(),
        bpffs: Bpffs {
            path: "/sys/fs/bpf/uplink".into(),
            exists: true,
            mounted: true,
        },
        pins: Pins::Nothing,
        daemon: Daemon::Absent,
        missing: Vec::new(),
        ruleset: Ok(json!({"nftables": [
            {"flowtable": {"family": "inet", "table": "uplink", "name": "ours"}},
            {"rule": {"family": "inet", "table": "uplink", "chain": "prerouting", "expr": [
                {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 0x100_0000}}]}}]})),
        iptables: vec![(
            "iptables",
            "-A POSTROUTING -j MARK --set-xmark 0x1/0xffffffff".into(),
        )],
        legacy: true,
        wired: [7].into(),
        links: Ok(
            json!([{"ifname": "eth0", "ifindex": 7, "mtu": 1500, "xdp": {}}, {"ifname": "x", "xdp": {}}]),
        ),
        addresses: Ok(json!([{"ifname": "eth0", "addr_info": [{"local": "10.0.1.100"}]}])),
        neighbours: Ok(json!([{"dst": "10.0.1.1", "dev": "x"}, {"dst": "10.0.1.9", "dev": "eth0"}])),
        qdiscs: Ok(json!([{"kind": "ingress", "dev": "eth0"}])),
        conntrack: Some((899, 1000)),
        interpreted: false,
        rp_filter: [("eth0".to_owned(), 1)].into(),
        running: ["NetworkManager".to_owned()].into(),
        networkd: None,
        managed: [7].into(),
        group: true,
        protocols: [(16, "dhcp".to_owned())].into(),
    };
    World {
        facts,
        kernel: Kernel {
            mode: Mode::Mark,
            ..a_kernel()
        },
        lan: vec!["eth0".into()],
        host: a_host(&[]),
        uplinks: uplinks().to_vec(),
        nat: true,
        asked: Asked::default(),
    }
}

fn found(change: impl Fn(&mut World)) -> Vec<Finding> {
    let mut w = healthy();
    change(&mut w);
    let setting = Setting {
        kernel: &w.kernel,
        lan: &w.lan,
        host: &w.host,
        uplinks: &w.uplinks,
        nat: w.nat,
        asked: &w.asked,
    };
    let mut found = host(&w.facts);
    found.extend(configured(&w.facts, &setting));
    found
}

fn codes(change: impl Fn(&mut World)) -> Vec<(String, Severity)> {
    found(change).into_iter().map(|f| (f.code, f.severity)).collect()
}

type Case = (&'static str, Severity, fn(&mut World));

const MACHINE: &[Case] = &[
    ("kernel-old", Blocks, |w| w.facts.release = "6.0.19".into()),
    ("capability-missing", Blocks, |w| {
        w.facts.user.effective = !(1 << 39)
    }),
    ("bpffs-missing", Blocks, |w| {
        (w.facts.bpffs.mounted, w.facts.bpffs.exists) = (false, false);
    }),
    ("bpffs-missing", Blocks, |w| {
        (w.facts.bpffs.mounted, w.facts.user.effective) = (false, !(1 << 21));
    }),
    ("program-missing", Blocks, |w| w.facts.missing = vec!["nft"]),
    ("program-missing", Fine, |w| w.facts.missing = vec!["ip"]),
    ("conntrack-full", Warns, |w| {
        w.facts.conntrack = Some((900, 1000));
    }),
    ("jit-off", Warns, |w| w.facts.interpreted = true),
    ("group-missing", Warns, |w| w.facts.group = false),
    ("unseen", Fine, |w| w.facts.links = Err("ip: no".into())),
    ("unseen", Fine, |w| w.facts.pins = Pins::Unseen("no".into())),
    ("unseen", Fine, |w| {
        (w.facts.user.root, w.facts.user.effective) = (false, 0);
        w.facts.ruleset = Err("nft: Operation not permitted".into());
    }),
];

const OURS: &[Case] = &[
    ("pins-old", Blocks, |w| w.facts.pins = Pins::Other(3)),
    ("daemon-gone", Warns, |w| {
        (w.facts.daemon, w.asked.tagged) = (Daemon::Gone, 9)
    }),
    ("daemon-silent", Warns, |w| {
        w.facts.daemon = Daemon::Silent("nothing".into());
    }),
    ("uplink-down", Warns, |w| {
        w.facts.daemon = Daemon::Runs(json!({"uplinks": [
            {"name": "a", "state": "up"}, {"name": "b", "state": "down", "reason": "no carrier"}]}));
    }),
    ("drained-in-use", Warns, |w| {
        w.facts.daemon =
            Daemon::Runs(json!({"warnings": [{"code": "drained-in-use", "text": "", "remedy": ""}]}));
    }),
    ("protocol-in-use", Warns, |w| w.asked.tagged = 1),
    ("protocol-in-use", Warns, |w| {
        w.facts.protocols = [(117, "frr".to_owned())].into();
    }),
    ("attach", Blocks, |w| w.asked.attach = Some("too old".into())),
    ("cgroup", Warns, |w| w.asked.cgroup = Some("none".into())),
];

const OTHERS: &[Case] = &[
    ("rule-in-block", Warns, |w| w.host.rules = vec![rule(20000, 100)]),
    ("rule-in-block", Warns, |w| w.host.rules = vec![rule(20255, 100)]),
    ("networkd", Warns, |w| {
        w.facts.networkd = Some("#ManageForeignRoutes=no\n".into());
    }),
    ("networkd", Warns, |w| {
        w.facts.networkd = Some("ManageForeignRoutes=no\nManageForeignRoutingPolicyRules=yes\n".into());
    }),
    ("network-manager", Fine, |w| {
        w.facts.managed = [w.uplinks[0].ifindex].into()
    }),
    ("docker", Fine, |w| {
        w.facts.links = Ok(json!([{"ifname": "docker0"}]))
    }),
    ("vpn", Fine, |w| {
        w.facts.links = Ok(json!([{"ifname": "wg0", "linkinfo": {"info_kind": "wireguard"}}]));
    }),
    ("flowtable", Warns, |w| {
        w.facts.ruleset =
            Ok(json!({"nftables": [{"flowtable": {"family": "inet", "table": "fw", "name": "ft"}}]}));
    }),
    ("forward-drop", Fine, |w| {
        w.facts.ruleset = Ok(json!({"nftables": [
            {"chain": {"family": "inet", "table": "fw", "name": "f", "hook": "forward", "policy": "drop"}}]}));
    }),
    ("firewall-passed-by", Warns, |w| {
        (w.nat, w.kernel.mode) = (false, Mode::NextHop);
    }),
    ("mark-mode", Fine, |w| {
        (w.nat, w.facts.legacy, w.kernel.mode) = (false, false, Mode::Auto);
        w.facts.ruleset = Ok(json!({"nftables": [
            {"chain": {"family": "inet", "table": "fw", "name": "p", "hook": "prerouting", "policy": "accept"}}]}));
    }),
    ("iptables-both", Fine, |w| {
        w.facts.ruleset = Ok(json!({"nftables": [
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD"}}]}));
    }),
    ("mark-set", Warns, |w| w.facts.ruleset = marking(0x300_0000)),
    ("mark-overwritten", Warns, |w| w.facts.ruleset = marking(5)),
    ("mark-set", Warns, |w| {
        w.facts.iptables = vec![(
            "iptables",
            "-A PREROUTING -j MARK --set-xmark 0x7000000/0x7000000".into(),
        )];
    }),
    ("reverse-path", Warns, |w| {
        (w.nat, w.uplinks[1].interface) = (false, "eth1".into());
        w.facts.iptables = vec![("iptables", "-A PREROUTING -m rpfilter --invert -j DROP".into())];
    }),
    ("reverse-path", Warns, |w| {
        (w.nat, w.uplinks[1].interface) = (false, "eth1".into());
        w.facts.ruleset = Ok(
            json!({"nftables": [{"rule": {"family": "inet", "table": "fw", "chain": "pre", "expr": [
            {"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false}},
            {"drop": null}]}}]}),
        );
    }),
];

const LINKS: &[Case] = &[
    ("xdp", Warns, |w| {
        w.facts.links = Ok(json!([{"ifname": "eth0", "ifindex": 8, "xdp": {"mode": 2}}]));
    }),
    ("ingress-qdisc", Blocks, |w| w.asked.clsact = true),
    ("gateway-silent", Warns, |w| {
        w.facts.neighbours = Ok(json!([{"dst": "10.0.1.1", "dev": "eth0"}]));
    }),
    ("shared-mac", Warns, |w| {
        let neighbour = |last: u8| Neighbour {
            ifindex: w.uplinks[0].ifindex,
            address: [10, 0, last, 1].into(),
            mac: [2; 6],
        };
        w.host.neighbours = vec![neighbour(1), neighbour(2)];
    }),
    ("mtu", Warns, |w| {
        for u in &mut w.uplinks {
            u.mtu = Some(1501);
        }
    }),
    ("mtu", Fine, |w| w.uplinks[0].mtu = Some(1492)),
    ("address-duplicate", Warns, |w| {
        w.facts.addresses = Ok(json!([{"ifname": "eth0", "addr_info": [
            {"local": "10.0.1.100"}, {"local": "fd00::1", "dadfailed": true}]}]));
    }),
    ("address-duplicate", Warns, |w| {
        let other = Interface {
            name: "eth1".into(),
            ..w.host.interfaces[0].clone()
        };
        w.host.interfaces.push(other);
    }),
];

const SYSCTLS: &[Case] = &[
    ("forwarding", Fine, |w| w.asked.sysctls = vec![forward()]),
    ("forwarding", Warns, |w| {
        w.asked.sysctls = vec![forward()];
        w.facts.daemon = Daemon::Runs(json!({}));
    }),
    ("sysctl-read-only", Blocks, |w| {
        w.asked.sysctls = vec![forward()];
        w.facts.user.sysctls = Some(false);
    }),
    ("rp-filter", Warns, |w| {
        (w.nat, w.host.default_routes) = (false, vec![by(9, 1), by(2, 100)]);
    }),
    ("rp-filter", Fine, |w| {
        (w.nat, w.host.default_routes) = (false, vec![by(9, 1)]);
        w.asked.sysctls = vec![Change {
            path: "net/ipv4/conf/eth0/rp_filter".into(),
            from: "1".into(),
            to: "2".into(),
        }];
    }),
];

/// A rule of somebody else that sets this mark.
fn marking(value: u32) -> Seen {
    Ok(json!({"nftables": [
        {"chain": {"family": "inet", "table": "fw", "name": "post", "hook": "postrouting"}},
        {"rule": {"family": "inet", "table": "fw", "chain": "pre", "expr": [
            {"mangle": {"key": {"meta": {"key": "mark"}}, "value": value}}]}},
        {"rule": {"family": "inet", "table": "fw", "chain": "post", "expr": [
            {"mangle": {"key": {"meta": {"key": "mark"}}, "value": value}}]}}]}))
}

fn forward() -> Change {
    Change {
        path: "net/ipv4/ip_forward".into(),
        from: "0".into(),
        to: "1".into(),
    }
}

fn by(ifindex: u32, metric: u32) -> DefaultRoute {
    DefaultRoute {
        family: Family::V4,
        ifindex,
        gateway: None,
        source: None,
        metric,
        preference: 0,
    }
}

#[test]
fn nothing_is_found_on_a_healthy_router() {
    assert_eq!(codes(|_| ()), []);
    let off = "ManageForeignRoutes=no\n ManageForeignRoutingPolicyRules = No\n";
    assert_eq!(codes(|w| w.facts.networkd = Some(off.into())), []);
    assert_eq!(codes(|w| w.facts.release = "6.1".into()), []);
    assert_eq!(codes(|w| w.host.rules = vec![rule(19999, 7), rule(20256, 7)]), []);
    assert_eq!(
        codes(|w| w.facts.bpffs.mounted = false),
        [],
        "the daemon mounts it"
    );
    assert_eq!(codes(|w| w.host.default_routes = vec![by(9, 1)]), []);
    let defaults = vec![by(2, 1), by(9, 5)];
    assert_eq!(
        codes(|w| (w.nat, w.host.default_routes) = (false, defaults.clone())),
        []
    );
}

#[test]
fn each_condition_is_found_alone() {
    for (code, severity, change) in [MACHINE, OURS, OTHERS, LINKS, SYSCTLS].concat() {
        let found = found(change);
        let mut codes: Vec<_> = found.iter().map(|f| (f.code.as_str(), f.severity)).collect();
        codes.dedup();
        assert_eq!(codes, [(code, severity)], "{found:#?}");
        if severity != Fine && code != "drained-in-use" {
            assert!(
                !found[0].text.is_empty() && !found[0].remedy.is_empty(),
                "{found:?}"
            );
        }
    }
}

#[test]
fn what_the_daemon_left_is_nobody_elses() {
    for daemon in [Daemon::Runs(json!({})), Daemon::Unseen("no".into())] {
        let codes = codes(|w| (w.facts.daemon, w.asked.tagged) = (daemon.clone(), 20));
        assert!(codes.iter().all(|(code, _)| code == "unseen"), "{codes:?}");
    }
}

#[test]
fn a_plain_user_is_blocked_by_nothing_that_root_could_do() {
    let found = found(|w| {
        (w.facts.user.root, w.facts.user.effective) = (false, 0);
        w.facts.user.sysctls = None;
        w.facts.ruleset = Err("nft: Operation not permitted".into());
        w.asked.sysctls = vec![forward()];
    });
    assert!(found.iter().all(|f| f.severity == Fine), "{found:?}");
    let unseen = found
        .iter()
        .find(|f| f.code == "unseen")
        .expect("something is unseen");
    assert!(
        unseen
            .text
            .contains("nft: Operation not permitted; whether the daemon may"),
        "{unseen:?}"
    );
    assert_eq!(unseen.remedy, "sudo uplink doctor");
}

#[test]
fn each_missing_capability_is_named() {
    let one = |bounding: u64| {
        let found =
            found(|w| (w.facts.user.effective, w.facts.user.bounding) = (1 << 12 | 1 << 21, bounding));
        found.into_iter().next().expect("one finding")
    };
    let bounded = one(1 << 12);
    assert!(
        bounded
            .text
            .contains("lacks CAP_NET_RAW, CAP_PERFMON, CAP_BPF here"),
        "{bounded:?}"
    );
    assert!(
        bounded
            .remedy
            .contains("--cap-add=NET_RAW --cap-add=PERFMON --cap-add=BPF;")
    );
    assert!(
        bounded
            .remedy
            .ends_with("CapabilityBoundingSet=CAP_NET_RAW CAP_PERFMON CAP_BPF")
    );
    assert!(
        one(u64::MAX)
            .remedy
            .contains("AmbientCapabilities=CAP_NET_RAW CAP_PERFMON CAP_BPF")
    );
}
