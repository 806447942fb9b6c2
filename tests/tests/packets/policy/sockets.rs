//! Random sockets of this host against random policies: programs, tables and configuration agree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use uplink_common::{Addr, FlowKey, Reason, flow};
use uplink_userspace::maps::policies::PolicyReader;
use uplink_userspace::policy::classify::{Facts, classify};

use super::cgroups::Cgroups;
use super::draw::{CGROUPS, PORTS, UIDS, Universe};
use super::random::{Tally, check_uplink, known, place_of, rules};
use super::reference::{Flow, first};
use crate::bench::{Bench, Rules};
use crate::in_namespace;

const POLICIES: usize = 200;
const SOCKETS: usize = 600;
/// The process moves to another cgroup after so many: that takes the kernel some milliseconds.
const EACH_CGROUP: usize = 10;
const SEEDS: [u64; 3] = [7, 0xcafe, 0xbeef];

/// How a socket begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// UDP, `connect`.
    Connects,
    /// The same by an IPv4-mapped address where the destination has IPv4.
    Mapped,
    /// UDP, `sendto`.
    Sends,
    /// TCP, `connect`.
    Tcp,
}

fn universe(seed: u64, base: &str) -> Universe {
    Universe {
        cgroups: base.to_owned(),
        fields: (6, 3),
        ..Universe::packets(seed)
    }
}

/// A socket of a process with this user id and in this cgroup.
fn own(universe: &mut Universe, uid: u32, cgroup: &str) -> (Flow, Way) {
    let way = universe.one(&[Way::Connects, Way::Mapped, Way::Sends, Way::Tcp]);
    let sport = universe.one(&[0, 1, 79, 443, 40_000]);
    let flow = Flow {
        src: None,
        dst: universe.ends().1,
        ports: Some((sport, universe.one(&PORTS))),
        proto: if way == Way::Tcp { 6 } else { 17 },
        dscp: None,
        iif: "lo",
        mac: None,
        uid: Some(uid),
        cgroup: Some(cgroup.to_owned()),
        names: Vec::new(),
    };
    (flow, way)
}

/// Opens it, and lets it do what it is to do. The source port may only be known now.
fn begin(flow: &mut Flow, way: Way) -> Socket {
    let (sport, dport) = flow.ports.expect("UDP and TCP have ports");
    let mapped = way == Way::Mapped || flow.dst.is_ipv6();
    let domain = if mapped { Domain::IPV6 } else { Domain::IPV4 };
    let kind = if way == Way::Tcp {
        Type::STREAM
    } else {
        Type::DGRAM
    };
    let socket = Socket::new(domain, kind, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    let any: IpAddr = if mapped {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    if sport != 0 || way != Way::Tcp {
        socket.bind(&SocketAddr::new(any, sport).into()).expect("bind");
        let bound = socket.local_addr().expect("an address").as_socket();
        flow.ports = Some((bound.expect("an address").port(), dport));
    }
    let dst = match flow.dst {
        IpAddr::V4(dst) if mapped => dst.to_ipv6_mapped().into(),
        dst => dst,
    };
    let to = SocketAddr::new(dst, dport).into();
    match way {
        Way::Sends => drop(socket.send_to(b"x", &to).expect("sendto")),
        Way::Tcp => drop(socket.connect(&to).expect_err("nobody is there")),
        _ => socket.connect(&to).expect("connect"),
    }
    socket
}

fn key(flow: &Flow, socket: &Socket) -> FlowKey {
    let (sport, dport) = flow.ports.expect("UDP and TCP have ports");
    FlowKey {
        src: flow::socket(socket.cookie().expect("SO_COOKIE")),
        dst: Addr::from(flow.dst),
        sport: sport.to_be_bytes(),
        dport: dport.to_be_bytes(),
        proto: flow.proto,
        pad: [0; 3],
    }
}

fn facts(key: &FlowKey, uid: u32, cgroups: Vec<u64>) -> Facts {
    Facts {
        src: None,
        dst: key.dst,
        sport: u16::from_be_bytes(key.sport),
        dport: u16::from_be_bytes(key.dport),
        proto: key.proto,
        dscp: None,
        iif: 1,
        mac: None,
        uid: Some(uid),
        cgroups,
        now_s: 1_000,
    }
}

/// A process as policies see it.
struct Owner {
    uid: u32,
    cgroup: String,
    lineage: Vec<u64>,
}

fn try_one(
    bench: &mut Bench,
    rules: &Rules,
    reader: &PolicyReader,
    mut flow: Flow,
    way: Way,
    by: &Owner,
) -> Option<usize> {
    bench.moved();
    let socket = begin(&mut flow, way);
    assert_eq!(bench.moved(), [Reason::HostPicked], "{way:?} {flow:?}");
    let key = key(&flow, &socket);
    let pin = bench.pin(&key).expect("a pin");
    let by_program = place_of(rules, pin.policy);
    let facts = facts(&key, by.uid, by.lineage.clone());
    let by_tables = classify(reader, &facts).expect("the maps").place;
    let by_person = first(&rules.policies, &rules.active, &flow);
    let of = |place: Option<usize>| place.map(|p| &rules.policies[p]);
    assert_eq!(
        by_program,
        by_person,
        "{way:?} {flow:?}\n{:?}\n{:?}",
        of(by_program),
        of(by_person)
    );
    assert_eq!(by_tables.map(|p| p as usize), by_person, "{flow:?}");
    check_uplink(rules, by_program, u32::from(pin.uplink), &flow);
    if way != Way::Sends {
        let mark = bench.uplink_of_host_mark(socket.mark().expect("SO_MARK"));
        assert_eq!(mark, Some(usize::from(pin.uplink)), "{way:?} {flow:?}");
    }
    by_person
}

/// The real user id of this thread alone, as the programs see it.
fn become_user(uid: u32) {
    const KEEP: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: takes numbers. The system call itself, since the library's function changes all threads.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, KEEP, KEEP) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn seeded(bench: &mut Bench, cgroups: &Cgroups, seed: u64) {
    let mut universe = universe(seed, &cgroups.base);
    let mut rules = rules(&mut universe, POLICIES);
    for path in cgroups.paths() {
        rules.around.cgroups.insert(path.clone(), cgroups.id(path));
    }
    rules.around.cgroups.insert("/".into(), cgroups.id("/"));
    bench.obey(&rules);
    bench.settle_groups(&rules.policies);
    let reader = bench.reader();
    let mut tally = Tally::default();
    while tally.flows < SOCKETS {
        let path = cgroups.paths()[universe.random.below(cgroups.paths().len())].clone();
        cgroups.enter(&path);
        let lineage = cgroups.lineage(&path);
        let uid = universe.one(&UIDS);
        let owner = Owner {
            uid,
            cgroup: path,
            lineage,
        };
        become_user(uid);
        for _ in 0..EACH_CGROUP {
            let (mut flow, way) = own(&mut universe, uid, &owner.cgroup);
            flow.names = known(&rules, &flow);
            tally.note(try_one(bench, &rules, &reader, flow, way, &owner));
        }
        become_user(0);
    }
    tally.report(&format!("sockets, seed {seed:#x}"));
}

#[test]
fn sockets_tables_and_configuration_agree() {
    in_namespace(|bench| {
        let there = CGROUPS.iter().filter(|c| !c.is_empty() && **c != "/missing");
        let cgroups = Cgroups::make(&there.copied().collect::<Vec<_>>());
        bench.attach_host();
        for seed in SEEDS {
            seeded(bench, &cgroups, seed);
        }
    });
}
