//! The egress program: what it remembers of connections inward, missing NAT, prefix translation.

use uplink_common::{Reason, Translation};

use crate::bench::{EGRESS, GATEWAY_MACS, INGRESS, MASK, SHARED_MAC};
use crate::frames::{V4, V6, established, sent_by, sent_to};
use crate::in_namespace;

/// Outcomes that have their rows here.
pub const REASONS: [Reason; 1] = [Reason::Leaked];

const CLIENT: [u8; 4] = [203, 0, 113, 99];
const SERVER: [u8; 4] = [172, 16, 0, 2];

/// From the Internet to a server behind us, as it leaves towards the server.
fn inward() -> V4 {
    V4::tcp(40_000, 8080).from(CLIENT).to(SERVER)
}

#[test]
fn the_reply_of_a_server_behind_us_takes_the_uplink_of_the_request() {
    in_namespace(|bench| {
        for id in [1_u32, 2] {
            for port in 0..50 {
                let flow = V4::tcp(40_000 + port, 8000 + id as u16).from(CLIENT).to(SERVER);
                bench.pass(EGRESS, &flow.frame(), id << 24 | 0x55);
                let reply = bench.run(&flow.reversed().frame(), 0);
                assert_eq!(
                    (reply.reason, reply.mark),
                    (Reason::Pinned, id << 24),
                    "port {port}"
                );
            }
        }
    });
}

#[test]
fn what_is_not_the_first_of_a_connection_inward_is_not_remembered() {
    in_namespace(|bench| {
        let syn = inward().frame();
        for (what, frame, mark) in [
            ("no mark", syn.clone(), 0),
            ("established", established(&syn), 1 << 24),
            ("to a gateway", sent_to(GATEWAY_MACS[0], &syn), 1 << 24),
            (
                "from this host",
                inward().from([192, 168, 1, 100]).frame(),
                1 << 24,
            ),
        ] {
            bench.pass(EGRESS, &frame, mark);
            assert!(bench.pin(&inward().key().reversed()).is_none(), "{what}");
        }
    });
}

#[test]
fn a_private_source_that_leaves_is_counted_and_noted() {
    in_namespace(|bench| {
        let private = V4::udp(5000, 53);
        for (what, flow, mac, leaks) in [
            ("a client's address", private, GATEWAY_MACS[0], true),
            ("by a MAC of two gateways", private, SHARED_MAC, true),
            ("inward", private, [2, 0, 0, 0, 0, 9], false),
            (
                "a public address",
                private.from([198, 51, 100, 7]),
                GATEWAY_MACS[1],
                false,
            ),
            (
                "our own",
                private.from([192, 168, 1, 100]),
                GATEWAY_MACS[0],
                false,
            ),
        ] {
            bench.moved();
            bench.pass(EGRESS, &sent_to(mac, &flow.frame()), 0);
            let reasons = if leaks { vec![Reason::Leaked] } else { vec![] };
            assert_eq!(bench.moved(), reasons, "{what}");
            let noted: Vec<_> = leaks.then(|| flow.key()).into_iter().collect();
            assert_eq!(bench.leaks(), noted, "{what}");
        }
    });
}

#[test]
fn a_private_packet_without_its_ports_is_not_taken_for_another_flow() {
    in_namespace(|bench| {
        let whole = sent_to(GATEWAY_MACS[0], &V4::udp(5000, 53).frame());
        bench.pass(EGRESS, &whole, 0);
        assert_eq!(bench.leaks().len(), 1);
        bench.moved();
        bench.pass(EGRESS, &whole[..36], 0);
        assert_eq!((bench.leaks().len(), bench.moved()), (0, vec![]));
    });
}

/// From the LAN's prefix to a provider's.
pub fn translation() -> Translation {
    let prefix = |text: &str| text.parse::<std::net::IpAddr>().expect("a prefix").into();
    Translation::new(prefix("fd00:10::"), prefix("2001:db8:a::"), 48)
}

#[test]
fn prefixes_are_translated_outward_and_back_without_touching_checksums() {
    in_namespace(|bench| {
        bench.translate(1, translation());
        let flow = V6::udp(4000, 53);
        let out = bench
            .pass(EGRESS, &sent_to(GATEWAY_MACS[0], &flow.frame()), 0)
            .frame;
        assert_eq!(out[22..28], [0x20, 0x01, 0x0d, 0xb8, 0, 0x0a]);
        assert!(checksum_holds(&out));
        let other = sent_to(GATEWAY_MACS[1], &flow.frame());
        assert_eq!(
            bench.pass(EGRESS, &other, 0).frame,
            other,
            "the other uplink translates nothing"
        );
        // Which the other one's NAT would have to mend.
        assert_eq!(bench.moved(), [Reason::Leaked]);
        let external: [u8; 16] = out[22..38].try_into().expect("an address");
        let reply = sent_by(GATEWAY_MACS[0], &flow.reversed().to(external).frame());
        let back = bench.run(&reply, 0);
        assert_eq!(back.frame[38..54], flow.src, "the internal address");
        assert!(checksum_holds(&back.frame));
        assert_eq!((back.reason, back.mark & MASK), (Reason::Inbound, 1 << 24));
    });
}

#[test]
fn an_error_is_translated_in_what_it_quotes_too() {
    in_namespace(|bench| {
        bench.translate(1, translation());
        let flow = V6::udp(4000, 53);
        let out = bench
            .pass(EGRESS, &sent_to(GATEWAY_MACS[0], &flow.frame()), 0)
            .frame;
        let external: [u8; 16] = out[22..38].try_into().expect("an address");
        // What came back about the packet that left: it quotes the external source.
        let about = flow.from(external).error_about();
        let error = bench.pass(INGRESS, &sent_by(GATEWAY_MACS[0], &about), 0).frame;
        assert_eq!(error[38..54], flow.src, "the destination");
        assert_eq!(error[14 + 40 + 8 + 8..][..16], flow.src, "the quoted source");
    });
}

/// UDP over IPv6, by etherparse.
fn checksum_holds(frame: &[u8]) -> bool {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).expect("a packet");
    let (Some(etherparse::NetHeaders::Ipv6(ip, _)), Some(etherparse::TransportHeader::Udp(udp))) =
        (packet.net, packet.transport)
    else {
        panic!("not UDP over IPv6")
    };
    udp.calc_checksum_ipv6(&ip, packet.payload.slice())
        .expect("a checksum")
        == udp.checksum
}
