//! DNS packets are shown to user space, and go on untouched.

use etherparse::PacketBuilder;
use uplink_common::Reason;
use uplink_common::policy::CAPTURED;

use crate::bench::{Bench, COUNT, EGRESS, INGRESS};
use crate::frames::{CLIENT_MAC, ROUTER_MAC, V4, V6, tagged};
use crate::in_namespace;

const ETH: usize = 14;

/// An answer over UDP of this many bytes, the IP header included.
fn long_answer(bytes: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..bytes - 28).map(|n| n as u8).collect();
    let ip = PacketBuilder::ethernet2(CLIENT_MAC, ROUTER_MAC).ipv4([9, 9, 9, 9], [172, 16, 0, 2], 64);
    let mut frame = Vec::new();
    ip.udp(53, 40_000)
        .write(&mut frame, &payload)
        .expect("writing to memory");
    frame
}

/// What is to be shown, with the bytes in front of the IP header.
fn shown() -> Vec<(&'static str, Vec<u8>, usize)> {
    vec![
        ("a query", V4::udp(40_000, 53).frame(), ETH),
        ("an answer", V4::udp(40_000, 53).reversed().frame(), ETH),
        ("over TCP", V4::tcp(40_000, 53).frame(), ETH),
        ("over IPv6", V6::udp(40_000, 53).frame(), ETH),
        ("over TCP and IPv6", V6::tcp(53, 40_000).frame(), ETH),
        ("with options", V4::udp(40_000, 53).with_options(), ETH),
        ("with a tag", tagged(&V4::udp(40_000, 53).frame(), 1), ETH + 4),
        ("with two tags, IPv6", tagged(&V6::udp(53, 1).frame(), 2), ETH + 8),
        (
            "of the longest that is shown whole",
            long_answer(CAPTURED as usize),
            ETH,
        ),
        ("of one byte less", long_answer(CAPTURED as usize - 1), ETH),
        ("of one byte more", long_answer(CAPTURED as usize + 1), ETH),
        ("of a jumbo frame", long_answer(9_000), ETH),
    ]
}

fn learning(bench: &mut Bench) {
    bench.learns = true;
    bench.serve_all();
    bench.heard();
}

#[test]
fn what_crosses_is_shown_byte_by_byte() {
    in_namespace(|bench| {
        learning(bench);
        let ifindex = nix::net::if_::if_nametoindex("eth0").expect("an interface");
        for (what, frame, head) in shown() {
            for (program, inward) in [(INGRESS, 1), (COUNT, 1), (EGRESS, 0)] {
                bench.moved();
                let passed = bench.pass(program, &frame, 0);
                assert_eq!(passed.frame, frame, "{what}: untouched");
                assert!(bench.moved().contains(&Reason::Overheard), "{what}, {program}");
                let heard = bench.heard();
                let [(capture, bytes)] = &heard[..] else {
                    panic!("{what}, {program}: {} shown", heard.len())
                };
                let packet = &frame[head..];
                let length = packet.len().min(CAPTURED as usize);
                assert_eq!(bytes, &packet[..length], "{what}, {program}");
                assert_eq!(capture.length as usize, length, "{what}, {program}");
                assert_eq!(capture.whole as usize, packet.len(), "{what}, {program}");
                assert_eq!(
                    (capture.ifindex, capture.inward),
                    (ifindex, inward),
                    "{what}, {program}"
                );
            }
        }
    });
}

#[test]
fn nothing_else_is_shown() {
    in_namespace(|bench| {
        learning(bench);
        let query = V4::udp(40_000, 53);
        for (what, frame) in [
            ("another port", V4::udp(40_000, 5353).frame()),
            (
                "a port that has the same bytes crosswise",
                V4::udp(0x3500, 0x3500).frame(),
            ),
            ("another protocol", query.protocol(132)),
            ("a later fragment", query.later_fragment()),
            ("an ICMP error about it", query.error_about_reply()),
            (
                "cut behind the IP header",
                tagged(&query.frame(), 1)[..18 + 20].to_vec(),
            ),
        ] {
            for program in [INGRESS, EGRESS] {
                bench.pass(program, &frame, 0);
                assert_eq!(bench.heard().len(), 0, "{what}, {program}");
            }
        }
    });
}

#[test]
fn nothing_is_shown_unless_policies_go_by_names() {
    in_namespace(|bench| {
        bench.heard();
        for (what, frame, _) in shown() {
            for program in [INGRESS, COUNT, EGRESS] {
                bench.pass(program, &frame, 0);
                assert_eq!(bench.heard().len(), 0, "{what}, {program}");
            }
        }
    });
}

#[test]
fn what_nobody_takes_is_counted_and_what_comes_later_is_shown_again() {
    in_namespace(|bench| {
        learning(bench);
        let frame = long_answer(4_000);
        let mut shown = 0;
        while bench.pass(INGRESS, &frame, 0).mark != 0 || !bench.moved().contains(&Reason::Unheard) {
            shown += 1;
            assert!(shown < 1_000, "the buffer never fills");
        }
        assert_eq!(bench.heard().len(), shown);
        bench.moved();
        bench.pass(INGRESS, &frame, 0);
        assert!(bench.moved().contains(&Reason::Overheard));
        assert_eq!(bench.heard().len(), 1);
    });
}
