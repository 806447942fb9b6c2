//! This host's own sockets: the cgroup programs, run by real system calls.
//!
//! They are attached to the root cgroup, where they leave every namespace but ours alone.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use uplink_common::Reason;

use crate::bench::Bench;
use crate::in_namespace;

/// Outcomes that have their rows here.
pub const REASONS: [Reason; 4] = [
    Reason::HostPicked,
    Reason::HostOwn,
    Reason::HostBypass,
    Reason::HostRefused,
];

const SOURCES: [[&str; 2]; 2] = [["192.168.1.100", "fd00:1::100"], ["10.0.0.100", "fd00:2::100"]];
const FAR: [&str; 2] = ["203.0.113.10:9", "[2001:db8::10]:9"];

fn any(to: SocketAddr) -> SocketAddr {
    let any = if to.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0_u16; 8])
    };
    SocketAddr::new(any, 0)
}

fn mark(socket: &UdpSocket) -> u32 {
    socket2::SockRef::from(socket).mark().expect("SO_MARK")
}

fn outcome(bench: &mut Bench, act: impl FnOnce()) -> Vec<Reason> {
    bench.moved();
    act();
    bench.moved()
}

#[test]
fn a_socket_that_connects_gets_mark_and_address_of_one_uplink() {
    in_namespace(|bench| {
        bench.attach_host();
        for to in FAR.map(|a| a.parse::<SocketAddr>().expect("an address")) {
            let mut seen = [0; 2];
            for _ in 0..400 {
                let socket = UdpSocket::bind(any(to)).expect("a socket");
                let moved = outcome(bench, || socket.connect(to).expect("connect"));
                assert_eq!(moved, [Reason::HostPicked]);
                let id = bench.uplink_of_host_mark(mark(&socket)).expect("a host mark");
                let source = socket.local_addr().expect("an address").ip().to_string();
                let family = usize::from(to.is_ipv6());
                assert_eq!(source, SOURCES[id - 1][family], "mark {:#x}", mark(&socket));
                seen[id - 1] += 1;
            }
            println!("{to}: {seen:?} at weights 3:1");
            assert!((250..350).contains(&seen[0]), "{seen:?}");
        }
    });
}

#[test]
fn a_datagram_gets_the_address_of_the_uplink_that_its_flow_keeps() {
    in_namespace(|bench| {
        bench.attach_host();
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let send = |to: &str| socket.send_to(b"x", to).map(drop).expect("send");
        for n in 0..50 {
            let to = format!("203.0.113.10:{}", 1000 + n);
            for _ in 0..2 {
                assert_eq!(outcome(bench, || send(&to)), [Reason::HostPicked], "{to}");
            }
        }
        assert_eq!(bench.host_flows(), 50, "one pin for each destination");
        assert_eq!(mark(&socket), 0);
    });
}

#[test]
fn what_a_program_chose_or_others_claim_is_left_alone() {
    in_namespace(|bench| {
        bench.attach_host();
        let to: SocketAddr = FAR[0].parse().expect("an address");
        let bound = UdpSocket::bind("192.168.1.100:0").expect("a socket");
        assert_eq!(
            outcome(bench, || bound.connect(to).expect("connect")),
            [Reason::HostOwn]
        );
        let marked = UdpSocket::bind(any(to)).expect("a socket");
        socket2::SockRef::from(&marked).set_mark(0x55).expect("SO_MARK");
        assert_eq!(
            outcome(bench, || marked.connect(to).expect("connect")),
            [Reason::HostOwn]
        );
        assert_eq!(mark(&marked), 0x55);
        let device = UdpSocket::bind(any(to)).expect("a socket");
        socket2::SockRef::from(&device)
            .bind_device(Some(b"eth0"))
            .expect("SO_BINDTODEVICE");
        assert_eq!(
            outcome(bench, || device.connect(to).expect("connect")),
            [Reason::HostOwn]
        );
        let lan = UdpSocket::bind(any(to)).expect("a socket");
        bench.bypass("172.16.0.0/24");
        let near = || lan.connect("172.16.0.7:9").expect("connect");
        assert_eq!(outcome(bench, near), [Reason::HostBypass]);
        assert_eq!(mark(&lan), 0);
        let own = UdpSocket::bind(any(to)).expect("a socket");
        let ours = || own.connect("192.168.1.100:9").expect("connect");
        assert_eq!(outcome(bench, ours), [Reason::Local]);
        assert_eq!(mark(&own), 0);
    });
}

#[test]
fn sockets_of_other_namespaces_are_not_even_counted() {
    in_namespace(|bench| {
        bench.attach_host();
        let elsewhere = || {
            let run = || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace");
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                let _ = socket.connect(FAR[0]);
                mark(&socket)
            };
            assert_eq!(std::thread::spawn(run).join().expect("a thread"), 0);
        };
        assert_eq!(outcome(bench, elsewhere), []);
    });
}
