//! Clients that keep their uplink.

use std::time::Duration;

use uplink_common::Reason;
use uplink_userspace::config::{Policy, Sticky};

use super::plain;
use crate::bench::{Bench, INGRESS, Rules};
use crate::frames::{V4, V6};
use crate::in_namespace;

const HOUR: u32 = 3_600;

/// One policy for everything, by both uplinks in equal shares.
fn prepared(bench: &mut Bench, destination: bool) {
    bench.obey(&Rules::new(vec![Policy {
        sticky: Some(Sticky {
            destination,
            time: Duration::from_secs(HOUR.into()),
        }),
        ..plain("bank")
    }]));
    bench.group(0, &[1, 2]);
}

/// The uplink of a client's n-th flow, of all different.
fn flow(bench: &mut Bench, client: u8, n: u16, destination: u8) -> u32 {
    let flow = V4::tcp(1000 + n, 443 + n % 7)
        .from([172, 20, 0, client])
        .to([203, 0, 113, destination]);
    let got = bench.run(&flow.frame(), 0);
    assert_eq!(got.reason, Reason::Picked, "client {client}, flow {n}");
    assert_eq!(bench.pin(&flow.key()).expect("a pin").policy, 1);
    got.mark >> 24
}

/// Two clients, one by each uplink.
fn clients(bench: &mut Bench) -> [u8; 2] {
    let uplinks: Vec<(u8, u32)> = (10..60).map(|c| (c, flow(bench, c, 0, 9))).collect();
    [1, 2].map(|uplink| {
        let by = uplinks.iter().find(|(_, u)| *u == uplink);
        by.expect("a client by each uplink").0
    })
}

#[test]
fn a_client_keeps_its_uplink_for_all_its_flows() {
    in_namespace(|bench| {
        prepared(bench, false);
        let clients = clients(bench);
        for n in 1..=1_000_u16 {
            if n == 500 {
                // The shares change, so that all slots are another's; nobody leaves the group.
                bench.group_slots(0, &[2], [true; 2]);
            }
            let got = clients.map(|client| flow(bench, client, n, (n % 200) as u8 + 1));
            assert_eq!(got, [1, 2], "flow {n}");
        }
        let new = (1..9).map(|client| flow(bench, client, 0, 9));
        assert!(new.eq([2; 8]), "who is new has the new shares");
    });
}

#[test]
fn clients_are_spread_and_so_are_destinations_where_they_count() {
    in_namespace(|bench| {
        prepared(bench, true);
        let mut seen = [0; 3];
        for n in 1..=200_u16 {
            let first = flow(bench, 2, n, n as u8);
            let again = flow(bench, 2, 500 + n, n as u8);
            assert_eq!(first, again, "destination {n}");
            seen[first as usize] += 1;
        }
        println!("one client's destinations: {seen:?}");
        assert!((60..140).contains(&seen[1]), "{seen:?}");
        assert_eq!(bench.sticky().len(), 200);
    });
}

#[test]
fn ipv6_and_ipv4_of_one_policy_are_kept_apart_and_this_host_is_one_client() {
    in_namespace(|bench| {
        prepared(bench, false);
        bench.attach_host();
        for n in 0..50 {
            bench.pass(INGRESS, &V6::tcp(1000 + n, 443).frame(), 0);
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.send_to(b"x", ("203.0.113.10", 1000 + n)).expect("sendto");
            let socket = std::net::UdpSocket::bind("[::]:0").expect("a socket");
            socket.send_to(b"x", ("2001:db8::10", 1000 + n)).expect("sendto");
        }
        assert_eq!(bench.sticky().len(), 3, "{:?}", bench.sticky());
        let uplinks = bench.host_uplinks();
        assert_eq!(uplinks.len(), 100);
        for family in [true, false] {
            let of = uplinks.iter().filter(|(v4, _)| *v4 == family);
            assert!(of.clone().all(|u| Some(u) == of.clone().next()), "{uplinks:?}");
        }
    });
}

#[test]
fn a_client_that_is_silent_for_long_is_new() {
    in_namespace(|bench| {
        prepared(bench, false);
        let [client, _] = clients(bench);
        bench.group_slots(0, &[2], [true; 2]);
        for n in 1..5 {
            bench.age_sticky(HOUR - 10);
            assert_eq!(flow(bench, client, n, 9), 1, "each flow counts anew");
        }
        bench.age_sticky(HOUR + 10);
        assert_eq!(flow(bench, client, 9, 9), 2);
        bench.group_slots(0, &[1], [true; 2]);
        assert_eq!(flow(bench, client, 10, 9), 2, "which is kept from now on");
    });
}

#[test]
fn an_uplink_that_leaves_the_group_or_dies_frees_its_clients() {
    in_namespace(|bench| {
        prepared(bench, false);
        let clients = clients(bench);
        bench.group(0, &[2]);
        assert_eq!(clients.map(|c| flow(bench, c, 1, 9)), [2, 2]);
        bench.group(0, &[1, 2]);
        assert_eq!(
            clients.map(|c| flow(bench, c, 2, 9)),
            [2, 2],
            "nobody is moved back"
        );
        bench.serve(&[(1, 1)], true);
        bench.group(0, &[1, 2]);
        bench.group_slots(0, &[1], [true; 2]);
        assert_eq!(
            clients.map(|c| flow(bench, c, 3, 9)),
            [1, 1],
            "void by its generation"
        );
    });
}
