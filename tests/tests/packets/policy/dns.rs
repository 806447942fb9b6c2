//! DNS packets are shown as they are.

use uplink_common::policy::CAPTURED;

use crate::bench::{EGRESS, INGRESS};
use crate::frames::{V4, V6, tagged};
use crate::in_namespace;

const ETHERNET: usize = 14;

#[test]
fn dns_packets_are_shown_from_their_ip_header_on_and_nothing_else_is() {
    in_namespace(|bench| {
        let v4 = V4::udp(5353, 53);
        let mut long = v4.frame();
        long.resize(3_000, 7);
        let shown = [
            ("a query", v4.frame(), 0),
            ("an answer", v4.reversed().frame(), 0),
            ("over TCP", V4::tcp(5353, 53).frame(), 0),
            ("IPv6", V6::udp(5353, 53).frame(), 0),
            ("two tags", tagged(&v4.frame(), 2), 8),
            ("IPv4 options", v4.with_options(), 0),
            ("a long one", long, 0),
        ];
        let hidden = [V4::udp(5353, 54).frame(), v4.protocol(132)];
        for (learns, program, inward) in [(false, INGRESS, 1), (true, INGRESS, 1), (true, EGRESS, 0)] {
            bench.learns = learns;
            bench.serve_all();
            bench.heard();
            for (what, frame, tags) in &shown {
                bench.pass(program, frame, 0);
                let heard = bench.heard();
                if !learns {
                    assert!(heard.is_empty(), "{what}");
                    continue;
                }
                let packet = &frame[ETHERNET + tags..];
                let begin = &packet[..packet.len().min(CAPTURED as usize)];
                let [(capture, bytes)] = &heard[..] else {
                    panic!("{what}: {} packets", heard.len())
                };
                assert_eq!(bytes, begin, "{what}");
                assert_eq!(capture.length as usize, begin.len(), "{what}");
                assert_eq!(capture.whole as usize, packet.len(), "{what}");
                assert_eq!(capture.inward, inward, "{what}");
            }
            for frame in &hidden {
                bench.pass(program, frame, 0);
            }
            assert!(bench.heard().is_empty(), "nobody's questions");
        }
    });
}
