//! Next-hop mode: which packets leave for the gateway at once, and how they look then.

use uplink_common::{Family, FlowKey, Reason, hop};
use uplink_userspace::config::NatMode;

use crate::bench::{Bench, EGRESS, GATEWAY_MACS, MASK};
use crate::frames::{V4, V6, established, sent_to, tagged, with_flags};
use crate::in_namespace;

/// Outcomes that have their rows here.
pub const REASONS: [Reason; 1] = [Reason::Forwarded];

const ETH: usize = 14;

fn now_s() -> u32 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.expect("the clock").tv_sec() as u32
}

/// A bench in next-hop mode whose daemon lives.
pub fn on(bench: &mut Bench) {
    bench.nat = NatMode::Off;
    bench.next_hop = true;
    bench.serve_all();
    bench.heartbeat(now_s());
}

/// A flow that went the kernel's way and was seen to leave. Returns its mark.
fn settle(bench: &mut Bench, frame: &[u8]) -> u32 {
    let mark = bench.run(frame, 0).mark;
    let id = (mark & MASK) >> 24;
    let gateway = GATEWAY_MACS[id as usize - 1];
    bench.pass(EGRESS, &sent_to(gateway, frame), mark);
    mark
}

struct Row {
    what: &'static str,
    frame: Vec<u8>,
    gso_size: u32,
    passes: bool,
}

const fn row(what: &'static str, frame: Vec<u8>, passes: bool) -> Row {
    Row {
        what,
        frame,
        gso_size: 0,
        passes,
    }
}

/// All of one flow each; the first packet of it is the plain one.
fn rows4() -> Vec<Row> {
    let udp = V4::udp(1000, 4433);
    let changed = |at: usize, value: u8| {
        let mut frame = udp.frame();
        frame[ETH + at] = value;
        frame
    };
    let long = |length: usize| {
        let mut frame = udp.frame();
        frame.resize(ETH + length, 0);
        frame[ETH + 2..ETH + 4].copy_from_slice(&(length as u16).to_be_bytes());
        frame
    };
    let mut error = udp.error_about_reply();
    let length = (error.len() - ETH) as u16;
    error[ETH + 2..ETH + 4].copy_from_slice(&length.to_be_bytes());
    let mut trailer = udp.frame();
    trailer.resize(100, 0);
    let mut padded = udp.frame();
    padded.resize(60, 0);
    vec![
        row("a datagram", udp.frame(), true),
        row("with padding", padded, true),
        row("with more behind it", trailer, false),
        row("two hops to go", changed(8, 2), true),
        row("the last hop", changed(8, 1), false),
        row("no hop at all", changed(8, 0), false),
        row("not to be fragmented", changed(6, 0x40), true),
        row("options", udp.with_options(), false),
        row("as long as the MTU", long(1500), true),
        row("longer than the MTU", long(1501), false),
        row("a VLAN tag", tagged(&udp.frame(), 1), false),
        row("an ICMP error", error, true),
        Row {
            gso_size: 500,
            ..row("several datagrams in one", long(1500), false)
        },
    ]
}

fn rows6() -> Vec<Row> {
    let udp = V6::udp(1000, 4433);
    let limit = |value: u8| {
        let mut frame = udp.frame();
        frame[ETH + 7] = value;
        frame
    };
    let long = |length: usize| {
        let mut frame = udp.frame();
        frame.resize(ETH + length, 0);
        frame[ETH + 4..ETH + 6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
        frame
    };
    vec![
        row("a datagram", udp.frame(), true),
        row("two hops to go", limit(2), true),
        row("the last hop", limit(1), false),
        row("extension headers", udp.with_extensions(), false),
        row("as long as the MTU", long(1500), true),
        row("longer than the MTU", long(1501), false),
    ]
}

fn tcp_rows(syn: &[u8], header: usize) -> Vec<Row> {
    let ack = established(syn);
    let mut long = ack.clone();
    long.resize(ETH + 3000, 0);
    let total = if header == 20 { 3000_u16 } else { 3000 - 40 };
    let at = ETH + if header == 20 { 2 } else { 4 };
    long[at..at + 2].copy_from_slice(&total.to_be_bytes());
    let segments = |what, gso_size, passes| Row {
        gso_size,
        ..row(what, long.clone(), passes)
    };
    let fits = 1500 - header as u32 - 20;
    vec![
        row("a segment", ack, true),
        row("FIN", with_flags(0x11, syn), false),
        row("RST", with_flags(0x04, syn), false),
        row("SYN", syn.to_vec(), false),
        row("a segment longer than the MTU", long.clone(), false),
        segments("segments of the MTU", fits, true),
        segments("segments longer than the MTU", fits + 1, false),
    ]
}

fn check(bench: &mut Bench, rows: &[Row]) {
    let mark = settle(bench, &rows[0].frame);
    for row in rows {
        bench.gso_size = row.gso_size;
        let got = bench.run(&row.frame, 0);
        bench.gso_size = 0;
        let expected = if row.passes {
            Reason::Forwarded
        } else {
            Reason::Pinned
        };
        assert_eq!(got.reason, expected, "{}", row.what);
        assert_eq!(got.mark, mark, "{}", row.what);
        let wanted = if row.passes {
            one_hop_later(&row.frame)
        } else {
            row.frame.clone()
        };
        assert!(got.frame == wanted, "{}: other bytes", row.what);
    }
}

/// As a router sends it on; the header's checksum is computed anew.
fn one_hop_later(frame: &[u8]) -> Vec<u8> {
    let mut after = frame.to_vec();
    if frame[ETH] >> 4 == 6 {
        after[ETH + 7] -= 1;
        return after;
    }
    after[ETH + 8] -= 1;
    let before = u32::from(u16::from_be_bytes([frame[ETH + 10], frame[ETH + 11]]));
    // One hop is 0x100 in the word of TTL and protocol.
    let sum = (!before & 0xffff) + 0xffff - 0x100;
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    after[ETH + 10..ETH + 12].copy_from_slice(&sum.to_be_bytes());
    after
}

#[test]
fn pinned_packets_leave_one_hop_later_unless_the_kernel_knows_better() {
    in_namespace(|bench| {
        on(bench);
        check(bench, &rows4());
        check(bench, &rows6());
        check(bench, &tcp_rows(&V4::tcp(1000, 443).frame(), 20));
        check(bench, &tcp_rows(&V6::tcp(1000, 443).frame(), 40));
    });
}

#[test]
fn a_checksum_that_was_right_stays_right() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        settle(bench, &flow.frame());
        let got = bench.run(&flow.frame(), 0);
        assert_eq!(got.reason, Reason::Forwarded);
        let ip = etherparse::Ipv4Header::from_slice(&got.frame[ETH..])
            .expect("IPv4")
            .0;
        assert_eq!(
            (ip.time_to_live, ip.header_checksum),
            (63, ip.calc_header_checksum())
        );
    });
}

/// A flow's first packet is the kernel's, and so are those until one was seen to leave.
#[test]
fn nothing_passes_before_the_flow_was_seen_to_leave() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        let reasons: Vec<Reason> = (0..3).map(|_| bench.run(&flow.frame(), 0).reason).collect();
        assert_eq!(reasons, [Reason::Picked, Reason::Pinned, Reason::Pinned]);
        settle(bench, &flow.frame());
        assert_eq!(bench.run(&flow.frame(), 0).reason, Reason::Forwarded);
        // A SYN does not count: conntrack has to see the third packet of the handshake, too.
        let syn = V4::tcp(1000, 443).frame();
        settle(bench, &syn);
        assert_eq!(bench.run(&established(&syn), 0).reason, Reason::Pinned);
        settle(bench, &established(&syn));
        assert_eq!(bench.run(&established(&syn), 0).reason, Reason::Forwarded);
    });
}

#[test]
fn the_kernel_is_asked_again_from_time_to_time() {
    in_namespace(|bench| {
        on(bench);
        let flow = V6::udp(1000, 4433);
        settle(bench, &flow.frame());
        bench.edit_pin(&flow.key(), |pin| pin.last_used_s -= hop::LOOK_AGAIN_S);
        assert_eq!(bench.run(&flow.frame(), 0).reason, Reason::Pinned);
        settle(bench, &flow.frame());
        assert_eq!(bench.run(&flow.frame(), 0).reason, Reason::Forwarded);
    });
}

/// Conntrack knew better: the packet left by the other uplink.
#[test]
fn a_pin_follows_what_really_left() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        let frame = flow.frame();
        let was = bench.run(&frame, 0).mark >> 24;
        let other = 3 - was;
        let gateway = GATEWAY_MACS[other as usize - 1];
        bench.pass(EGRESS, &sent_to(gateway, &frame), other << 24);
        let pin = bench.pin(&flow.key()).expect("a pin");
        assert_eq!((u32::from(pin.uplink), u32::from(pin.seen)), (other, other));
        let got = bench.run(&frame, 0);
        assert_eq!((got.reason, got.mark >> 24), (Reason::Forwarded, other));
    });
}

/// Such as a drained one: what conntrack keeps there goes the kernel's way, packet by packet.
#[test]
fn no_pin_is_made_for_an_uplink_that_takes_no_new_flows() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        let frame = flow.frame();
        bench.serve(&[(1, 1)], false);
        assert_eq!(bench.run(&frame, 0).mark >> 24, 1);
        bench.pass(EGRESS, &sent_to(GATEWAY_MACS[1], &frame), 2 << 24);
        let pin = bench.pin(&flow.key()).expect("a pin");
        assert_eq!((pin.uplink, pin.seen), (1, 0));
        assert_eq!(bench.run(&frame, 0).reason, Reason::Pinned);
    });
}

#[test]
fn a_void_pin_learns_nothing() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        let mark = settle(bench, &flow.frame());
        let dead = (mark >> 24) as u8;
        bench.serve(&[(3 - dead, 1)], true);
        let gateway = GATEWAY_MACS[usize::from(dead) - 1];
        bench.pass(EGRESS, &sent_to(gateway, &flow.frame()), mark);
        let moved = bench.run(&flow.frame(), 0);
        assert_eq!(
            (moved.reason, moved.mark >> 24),
            (Reason::Repicked, u32::from(3 - dead))
        );
        bench.pass(EGRESS, &sent_to(gateway, &flow.frame()), mark);
        assert_eq!(
            bench.run(&flow.frame(), 0).reason,
            Reason::Pinned,
            "not back to the dead"
        );
    });
}

/// Nobody else would notice a new firewall.
#[test]
fn nothing_passes_without_the_mode_the_daemon_or_an_mtu() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        let key: FlowKey = flow.key();
        settle(bench, &flow.frame());
        let run = |bench: &mut Bench| bench.run(&flow.frame(), 0).reason;
        assert_eq!(run(bench), Reason::Forwarded);
        bench.heartbeat(now_s() - hop::ALIVE_S - 1);
        assert_eq!(run(bench), Reason::Pinned, "a silent daemon");
        bench.heartbeat(now_s());
        assert_eq!(run(bench), Reason::Forwarded);
        bench.next_hop = false;
        bench.serve_all();
        assert_eq!(run(bench), Reason::Pinned, "mark mode");
        bench.next_hop = true;
        bench.nat = NatMode::Masquerade;
        bench.serve_all();
        assert_eq!(run(bench), Reason::Pinned, "never with NAT");
        on(bench);
        bench.mtu = 0;
        bench.publish_mtu();
        assert_eq!(run(bench), Reason::Pinned, "an unknown MTU");
        assert!(bench.pin(&key).is_some());
    });
}

#[test]
fn in_mark_mode_egress_learns_nothing() {
    in_namespace(|bench| {
        bench.nat = NatMode::Off;
        bench.serve_all();
        for family in Family::ALL {
            let (frame, key) = match family {
                Family::V4 => (V4::udp(1, 4433).frame(), V4::udp(1, 4433).key()),
                Family::V6 => (V6::udp(1, 4433).frame(), V6::udp(1, 4433).key()),
            };
            settle(bench, &frame);
            assert_eq!(bench.pin(&key).expect("a pin").seen, 0, "{family:?}");
        }
    });
}
