//! Policies whose uplinks live, and policies of which none does.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use uplink_common::Reason;
use uplink_userspace::config::Policy;

use super::by;
use crate::bench::{Bench, MASK, Rules};
use crate::frames::{V4, V6};
use crate::in_namespace;

/// By the last digit of the destination port: the first uplink, the second, nobody, and nobody strictly.
fn by_port() -> Rules {
    let policy = |port: u16, uplink: &str, strict| {
        let mut policy = Policy {
            strict,
            ..by(&format!("p{port}"), &[uplink])
        };
        policy.matches.dport.any = Some(vec![port..=port]);
        policy
    };
    Rules::new(vec![
        policy(9001, "isp1", true),
        policy(9002, "isp2", false),
        policy(9003, "nobody", false),
        policy(9004, "nobody", true),
    ])
}

fn prepared(bench: &mut Bench) {
    let rules = by_port();
    bench.obey(&rules);
    bench.settle_groups(&rules.policies);
}

#[test]
fn a_group_decides_for_its_policies() {
    in_namespace(|bench| {
        prepared(bench);
        let mut fallen_back = [0; 2];
        for n in 0..200 {
            for (dport, reason, uplink) in [
                (9001, Reason::Picked, Some(1)),
                (9002, Reason::Picked, Some(2)),
                (9003, Reason::Picked, None),
                (9004, Reason::Refused, Some(MASK >> 24)),
                (9005, Reason::Picked, None),
            ] {
                let v4 = V4::tcp(1000 + n, dport);
                let v6 = V6::tcp(1000 + n, dport);
                for (frame, key) in [(v4.frame(), v4.key()), (v6.frame(), v6.key())] {
                    let got = bench.run(&frame, 0x55);
                    assert_eq!((got.reason, got.mark & !MASK), (reason, 0x55), "port {dport}");
                    let id = (got.mark & MASK) >> 24;
                    assert!(uplink.is_none_or(|u| u == id), "port {dport}: {id}");
                    let by = bench.pin(&key).map(|pin| pin.policy);
                    let policy = (9001..9005).contains(&dport).then_some(dport - 9000);
                    let refused = reason == Reason::Refused;
                    assert_eq!(by, (!refused).then_some(policy.unwrap_or(0)), "port {dport}");
                    if dport == 9003 {
                        fallen_back[id as usize - 1] += 1;
                    }
                }
            }
        }
        println!("nobody's flows: {fallen_back:?} at weights 3:1");
        assert!((250..350).contains(&fallen_back[0]), "{fallen_back:?}");
        for (number, flows) in [(0, 400), (1, 400), (3, 400), (4, 400), (5, 0)] {
            assert_eq!(bench.placed(number).flows, flows, "policy {number}");
        }
        assert_eq!((bench.placed(1).packets, bench.placed(4).packets), (400, 0));
        bench.run(&V4::tcp(1000, 9001).frame(), 0);
        let counted = bench.placed(1);
        assert_eq!((counted.flows, counted.packets), (400, 401), "a later packet");
    });
}

#[test]
fn the_live_bank_of_a_group_counts_and_only_families_that_are_served() {
    in_namespace(|bench| {
        // Both banks are known to be empty from now on, so the publication below leaves them alone.
        bench.serve_all();
        bench.one_policy(true, &[1]);
        let idle = 1 - bench.bank();
        let mut banks = [false; 2];
        banks[idle] = true;
        bench.group_slots(0, &[2], banks);
        assert_eq!(bench.run(&V4::tcp(1, 443).frame(), 0).mark >> 24, 1);
        bench.serve_all();
        assert_eq!(bench.run(&V4::tcp(2, 443).frame(), 0).mark >> 24, 2);
        bench.serve(&[(1, 1)], true);
        bench.group(0, &[2]);
        let got = bench.run(&V4::tcp(3, 443).frame(), 0);
        assert_eq!(got.reason, Reason::Refused, "a slot may not bring back who died");
    });
}

#[test]
fn a_strict_flow_whose_uplink_dies_is_refused_until_one_lives() {
    in_namespace(|bench| {
        bench.one_policy(true, &[1]);
        let frame = V4::tcp(1, 443).frame();
        assert_eq!(bench.run(&frame, 0).mark >> 24, 1);
        bench.serve(&[(2, 1)], true);
        bench.group(0, &[]);
        for _ in 0..2 {
            let got = bench.run(&frame, 0);
            assert_eq!((got.reason, got.mark), (Reason::Refused, MASK));
        }
        bench.group(0, &[2]);
        let got = bench.run(&frame, 0);
        assert_eq!((got.reason, got.mark >> 24), (Reason::Repicked, 2));
    });
}

const RULES: [&str; 4] = [
    "rule add fwmark 0x7f000000/0x7f000000 unreachable",
    "rule add fwmark 0x1000000/0x7f000000 lookup 20001",
    "rule add fwmark 0x2000000/0x7f000000 lookup 20002",
    "rule show",
];

fn add_rules() {
    for family in ["-4", "-6"] {
        for rule in RULES {
            let mut ip = Command::new("ip");
            let output = ip.arg(family).args(rule.split(' ')).output().expect("ip");
            assert!(output.status.success(), "{rule}: {output:?}");
        }
    }
}

fn to(port: u16) -> [SocketAddr; 2] {
    [
        ([203, 0, 113, 10], port).into(),
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10], port).into(),
    ]
}

fn socket(to: SocketAddr) -> UdpSocket {
    UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket")
}

fn mark(socket: &UdpSocket) -> u32 {
    socket2::SockRef::from(socket).mark().expect("SO_MARK")
}

#[test]
fn a_socket_of_a_strict_policy_is_told_that_its_destination_is_unreachable() {
    in_namespace(|bench| {
        add_rules();
        prepared(bench);
        bench.attach_host();
        for to in to(9004) {
            let socket = socket(to);
            bench.moved();
            let refused = socket.connect(to).expect_err("a refusal");
            assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "connect {to}");
            assert_eq!(bench.moved(), [Reason::HostRefused]);
            assert_eq!(mark(&socket), MASK);
            let socket = crate::policy::strict::socket(to);
            let refused = socket.send_to(b"x", to).expect_err("a refusal");
            assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "sendto {to}");
            assert_eq!(bench.moved(), [Reason::HostRefused]);
            assert_eq!(mark(&socket), 0);
        }
        assert_eq!(bench.host_flows(), 0);
        assert_eq!(bench.placed(4).flows, 4);
    });
}

#[test]
fn a_refused_socket_connects_when_an_uplink_lives() {
    in_namespace(|bench| {
        add_rules();
        prepared(bench);
        bench.attach_host();
        let [to, _] = to(9004);
        let socket = socket(to);
        socket.connect(to).expect_err("a refusal");
        bench.group(3, &[2]);
        socket.connect(to).expect("connect");
        assert_eq!(mark(&socket), 2 << 24);
        assert_eq!(
            socket.local_addr().expect("an address").ip().to_string(),
            "10.0.0.100"
        );
    });
}

#[test]
fn a_socket_of_a_strict_policy_has_the_mark_that_is_never_diverted() {
    in_namespace(|bench| {
        add_rules();
        prepared(bench);
        bench.attach_host();
        for (port, wanted) in [(9001, 1 << 24), (9002, bench.host_mark(2))] {
            for to in to(port) {
                let connected = socket(to);
                connected.connect(to).expect("connect");
                assert_eq!(mark(&connected), wanted, "{to}");
            }
        }
    });
}

#[test]
fn a_socket_that_sent_before_it_connects_is_as_strict() {
    in_namespace(|bench| {
        add_rules();
        prepared(bench);
        bench.attach_host();
        for (port, wanted) in [(9001, 1 << 24), (9002, bench.host_mark(2))] {
            for to in to(port) {
                let socket = socket(to);
                socket.send_to(b"x", to).expect("sendto");
                socket.connect(to).expect("connect");
                assert_eq!(mark(&socket), wanted, "{to}");
            }
        }
    });
}
