//! What the users' packets tell of a path: what is counted, and what changes nothing.

use uplink_common::Family;
use uplink_common::record::{PROBE_PRIORITY, Passive};
use uplink_userspace::config::NatMode;

use crate::bench::{Bench, COUNT, EGRESS, GATEWAY_MACS, INGRESS, SHARED_MAC};
use crate::frames::{V4, V6, sent_by, sent_to, stamped, tagged, with_flags};
use crate::in_namespace;
use crate::outward::translation;

const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;
const ONE: u32 = 1 << 24;

/// The first uplink's addresses: what leaves has them by NAT, or is this host's own.
const OURS: [u8; 4] = [192, 168, 1, 100];
const OURS6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn connection(port: u16) -> V4 {
    V4::tcp(port, 443).from(OURS)
}

fn dns(port: u16) -> V4 {
    V4::udp(port, 53).from(OURS)
}

/// How the four counters of the first uplink moved: opened, answered, retransmitted, round-trip times.
fn moved(bench: &mut Bench, family: Family, act: impl FnOnce(&mut Bench)) -> [u64; 4] {
    let before = bench.told(1, family);
    act(bench);
    let now = bench.told(1, family);
    let pair = |of: fn(&Passive) -> u64| of(&now) - of(&before);
    [
        pair(|p| p.opened),
        pair(|p| p.answered),
        pair(|p| p.retransmitted),
        pair(|p| p.rtts),
    ]
}

/// The same for DNS: queries, responses.
fn asked(bench: &mut Bench, act: impl FnOnce(&mut Bench)) -> [u64; 2] {
    let before = bench.told(1, Family::V4);
    act(bench);
    let now = bench.told(1, Family::V4);
    [now.queries - before.queries, now.responses - before.responses]
}

#[test]
fn a_connection_and_its_answer_are_counted_with_their_time() {
    in_namespace(|bench| {
        for (what, program) in [("a shared interface", INGRESS), ("an uplink's alone", COUNT)] {
            let flow = connection(1000);
            let answer = with_flags(SYN_ACK, &flow.reversed().frame());
            let told = moved(bench, Family::V4, |bench| {
                bench.pass(EGRESS, &flow.frame(), ONE);
                std::thread::sleep(std::time::Duration::from_millis(3));
                bench.pass(program, &answer, 0);
                // The other end sent it twice.
                bench.pass(program, &answer, 0);
            });
            assert_eq!(told, [1, 1, 0, 1], "{what}");
        }
        let told = bench.told(1, Family::V4);
        assert!(told.rtt_us >= 6_000, "{told:?}");
        assert_eq!(told.rtt_log2.iter().sum::<u64>(), 2);
        // 2,048 us and more.
        assert_eq!(told.rtt_log2[11..].iter().sum::<u64>(), 2, "{told:?}");
        assert_eq!(bench.told(2, Family::V4), Passive::default());
    });
}

#[test]
fn a_syn_sent_again_is_no_second_connection_and_its_answer_has_no_time() {
    in_namespace(|bench| {
        let flow = connection(1000);
        let told = moved(bench, Family::V4, |bench| {
            for _ in 0..3 {
                bench.pass(EGRESS, &flow.frame(), ONE);
            }
            bench.pass(INGRESS, &with_flags(SYN_ACK, &flow.reversed().frame()), 0);
        });
        assert_eq!(told, [1, 1, 2, 0]);
        // Answered once, it begins anew.
        let told = moved(bench, Family::V4, |bench| {
            bench.pass(EGRESS, &flow.frame(), ONE);
        });
        assert_eq!(told, [1, 0, 0, 0]);
    });
}

#[test]
fn a_reset_is_an_answer_without_a_time() {
    in_namespace(|bench| {
        for flags in [RST, RST | 0x10] {
            let flow = connection(1000);
            let told = moved(bench, Family::V4, |bench| {
                bench.pass(EGRESS, &flow.frame(), ONE);
                bench.pass(INGRESS, &with_flags(flags, &flow.reversed().frame()), 0);
            });
            assert_eq!(told, [1, 1, 0, 0], "flags {flags:#x}");
        }
    });
}

#[test]
fn every_dns_query_of_a_socket_has_its_own_response() {
    in_namespace(|bench| {
        let told = asked(bench, |bench| {
            bench.pass(EGRESS, &dns(1000).frame(), ONE);
            bench.pass(EGRESS, &dns(1000).frame(), ONE);
            for _ in 0..5 {
                bench.pass(INGRESS, &dns(1000).reversed().frame(), 0);
            }
        });
        assert_eq!(told, [2, 2]);
        let told = asked(bench, |bench| {
            bench.pass(EGRESS, &V4::udp(1000, 123).from(OURS).frame(), ONE);
            bench.pass(INGRESS, &V4::udp(1000, 123).from(OURS).reversed().frame(), 0);
            bench.pass(EGRESS, &dns(1001).first_fragment(), ONE);
            bench.pass(EGRESS, &dns(1002).later_fragment(), ONE);
        });
        assert_eq!(
            told,
            [1, 0],
            "conntrack reassembles: a first fragment has its ports"
        );
    });
}

#[test]
fn answers_to_nothing_that_is_open_change_nothing() {
    in_namespace(|bench| {
        // Where nobody looks at sources, what says that it comes from us is read like the rest.
        bench.guards = false;
        bench.serve_all();
        let open = connection(1000);
        bench.pass(EGRESS, &open.frame(), ONE);
        bench.pass(EGRESS, &dns(1000).frame(), ONE);
        let before = bench.told(1, Family::V4);
        let answer = |flow: V4| with_flags(SYN_ACK, &flow.reversed().frame());
        for port in 2000..12_000 {
            bench.pass(INGRESS, &answer(connection(port)), 0);
        }
        for (what, frame) in [
            ("another port", answer(V4::tcp(1000, 444).from(OURS))),
            ("another address", answer(open.to([203, 0, 113, 11]))),
            (
                "an established segment",
                with_flags(0x10, &open.reversed().frame()),
            ),
            ("the wrong way", with_flags(SYN_ACK, &open.frame())),
            ("DNS to another port", dns(1001).reversed().frame()),
            ("DNS from another server", dns(1000).to([9; 4]).reversed().frame()),
            ("an ICMP error", open.error_about_reply()),
        ] {
            bench.pass(INGRESS, &frame, 0);
            assert_eq!(bench.told(1, Family::V4), before, "{what}");
        }
        let told = moved(bench, Family::V4, |bench| {
            bench.pass(INGRESS, &answer(open), 0);
        });
        assert_eq!(told, [0, 1, 0, 1], "what is open still is");
    });
}

#[test]
fn the_daemons_probes_do_not_count_but_their_bytes_do() {
    in_namespace(|bench| {
        let sent = bench.carried(1).sent.packets;
        bench.priority = PROBE_PRIORITY;
        let segment = stamped(7, 0, &connection(1000).frame());
        for frame in [connection(1000).frame(), dns(1000).frame(), segment] {
            bench.pass(EGRESS, &frame, ONE);
        }
        bench.priority = 0;
        let syn_ack = with_flags(SYN_ACK, &connection(1000).reversed().frame());
        bench.pass(INGRESS, &syn_ack, 0);
        bench.pass(INGRESS, &dns(1000).reversed().frame(), 0);
        bench.pass(INGRESS, &stamped(0, 7, &connection(1000).reversed().frame()), 0);
        assert_eq!(bench.told(1, Family::V4), Passive::default());
        assert_eq!(bench.carried(1).sent.packets - sent, 3);
    });
}

/// Who has sent it and where it says so.
#[test]
fn the_uplink_is_found_by_mark_host_mark_address_or_gateway() {
    in_namespace(|bench| {
        bench.nat = NatMode::Off;
        bench.serve_all();
        let host = bench.host_mark(1);
        let client = V4::tcp(1000, 443);
        let [gateway, other] = GATEWAY_MACS;
        let ours = connection(1000).frame();
        for (what, frame, mark, counted) in [
            ("marked, behind NAT", ours.clone(), ONE, 1),
            ("a socket of this host", ours.clone(), host, 1),
            ("an uplink's address, unmarked", sent_to(gateway, &ours), 0, 1),
            ("an uplink's address, unmarked, to a neighbour", ours, 0, 0),
            (
                "another mark than the address",
                connection(1000).frame(),
                2 << 24,
                1,
            ),
            ("a client's, unmarked", sent_to(gateway, &client.frame()), 0, 1),
            ("a client's, marked", sent_to(gateway, &client.frame()), ONE, 1),
            (
                "by a MAC of two, marked",
                sent_to(SHARED_MAC, &client.frame()),
                ONE,
                1,
            ),
            ("by a MAC of two", sent_to(SHARED_MAC, &client.frame()), 0, 0),
            ("by the other gateway", sent_to(other, &client.frame()), 0, 0),
            ("inward", client.frame(), ONE, 0),
            ("this host to the LAN", client.from([172, 16, 0, 1]).frame(), 0, 0),
            ("a mark of nobody", client.frame(), 0x3000_0000, 0),
        ] {
            let told = moved(bench, Family::V4, |bench| {
                bench.pass(EGRESS, &frame, mark);
            });
            assert_eq!(told[0] + told[2], counted, "{what}");
        }
    });
}

#[test]
fn answers_to_hosts_behind_us_count_without_nat_and_with_any_framing() {
    in_namespace(|bench| {
        bench.nat = NatMode::Off;
        bench.serve_all();
        let [gateway, _] = GATEWAY_MACS;
        for (what, family, syn, answer) in [
            (
                "IPv4",
                Family::V4,
                V4::tcp(1000, 443).frame(),
                V4::tcp(1000, 443).reversed().frame(),
            ),
            (
                "IPv6",
                Family::V6,
                V6::tcp(1000, 443).frame(),
                V6::tcp(1000, 443).reversed().frame(),
            ),
            (
                "this host's IPv6",
                Family::V6,
                V6::tcp(1000, 443).from(OURS6).frame(),
                V6::tcp(1000, 443).from(OURS6).reversed().frame(),
            ),
        ] {
            for tags in 0..3 {
                let told = moved(bench, family, |bench| {
                    bench.pass(EGRESS, &tagged(&sent_to(gateway, &syn), tags), ONE);
                    let answer = sent_by(gateway, &with_flags(SYN_ACK, &answer));
                    bench.pass(INGRESS, &tagged(&answer, tags), 0);
                });
                assert_eq!(told, [1, 1, 0, 1], "{what}, {tags} tags");
            }
        }
    });
}

#[test]
fn answers_to_translated_prefixes_count() {
    in_namespace(|bench| {
        bench.translate(1, translation());
        let flow = V6::tcp(1000, 443);
        let told = moved(bench, Family::V6, |bench| {
            let out = sent_to(GATEWAY_MACS[0], &flow.frame());
            let out = bench.pass(EGRESS, &out, ONE).frame;
            let external: [u8; 16] = out[22..38].try_into().expect("an address");
            assert_ne!(external, flow.src);
            let answer = with_flags(SYN_ACK, &flow.reversed().to(external).frame());
            bench.pass(INGRESS, &sent_by(GATEWAY_MACS[0], &answer), 0);
        });
        assert_eq!(told, [1, 1, 0, 1]);
    });
}

#[test]
fn a_timestamp_that_comes_back_tells_the_time() {
    in_namespace(|bench| {
        let flow = connection(1000);
        let out = |tsval| stamped(tsval, 5, &flow.frame());
        let back = |tsecr| stamped(9, tsecr, &flow.reversed().frame());
        let mut next = |what: &str, sent: &[u8], come: &[Vec<u8>], times| {
            std::thread::sleep(std::time::Duration::from_millis(25));
            let told = moved(bench, Family::V4, |bench| {
                bench.pass(EGRESS, sent, ONE);
                for frame in come {
                    bench.pass(INGRESS, frame, 0);
                }
            });
            assert_eq!(told, [0, 0, 0, times], "{what}");
        };
        next("its own", &out(100), &[back(100)], 1);
        next(
            "an earlier one, then its own",
            &out(200),
            &[back(199), back(200)],
            1,
        );
        next("a later one, then its own", &out(300), &[back(301), back(300)], 0);
        next("twice", &out(400), &[back(400), back(400)], 1);
        next(
            "around the end of the numbers",
            &out(u32::MAX),
            &[back(0), back(u32::MAX)],
            0,
        );
        let foreign = stamped(9, 500, &connection(1001).reversed().frame());
        let remote = stamped(9, 500, &flow.to([203, 0, 113, 11]).reversed().frame());
        next(
            "another flow's, then its own",
            &out(500),
            &[foreign, remote, back(500)],
            1,
        );
        let mut bare = out(600);
        bare.truncate(14 + 20 + 32);
        next("without payload", &bare, &[back(600)], 0);
        let fin = with_flags(0x11, &out(700));
        next("of a FIN", &fin, &[back(700)], 0);
        let mut other = out(800);
        other[14 + 20 + 20] = 2;
        next("behind other options", &other, &[back(800)], 0);
        next("its own again", &out(900), &[back(900)], 1);
    });
}

#[test]
fn one_timestamp_is_awaited_at_a_time_and_not_for_ever() {
    in_namespace(|bench| {
        let flow = V6::tcp(1000, 443).from(OURS6);
        let out = |tsval| stamped(tsval, 5, &flow.frame());
        let back = |tsecr| stamped(9, tsecr, &flow.reversed().frame());
        let wait = |ms| std::thread::sleep(std::time::Duration::from_millis(ms));
        let told = moved(bench, Family::V6, |bench| {
            wait(25);
            bench.pass(EGRESS, &out(100), ONE);
            wait(25);
            bench.pass(EGRESS, &out(200), ONE);
            bench.pass(INGRESS, &back(100), 0);
            bench.pass(EGRESS, &out(300), ONE);
            bench.pass(INGRESS, &back(300), 0);
            wait(25);
            bench.pass(EGRESS, &out(400), ONE);
            wait(1_050);
            bench.pass(EGRESS, &out(500), ONE);
            bench.pass(INGRESS, &back(500), 0);
        });
        assert_eq!(told, [0, 0, 0, 3]);
    });
}

#[test]
fn bytes_are_counted_where_they_leave_and_where_they_come_back() {
    in_namespace(|bench| {
        let out = connection(1000).frame();
        let client = V4::tcp(1000, 443);
        for (what, nat, frame, mark) in [
            ("behind NAT", NatMode::Masquerade, out.clone(), ONE),
            ("this host", NatMode::Masquerade, out, bench.host_mark(1)),
            (
                "without NAT",
                NatMode::Off,
                sent_to(GATEWAY_MACS[0], &client.frame()),
                ONE,
            ),
        ] {
            bench.nat = nat;
            bench.serve_all();
            let before = bench.carried(1).sent;
            bench.pass(EGRESS, &frame, mark);
            let sent = bench.carried(1).sent;
            let moved = (sent.packets - before.packets, sent.bytes - before.bytes);
            assert_eq!(moved, (1, frame.len() as u64), "{what}");
        }
        let before = [bench.carried(1), bench.carried(2)];
        bench.run(&client.frame(), 0);
        bench.pass(EGRESS, &client.reversed().frame(), ONE);
        let sent = [bench.carried(1), bench.carried(2)].map(|c| c.sent);
        let packets = sent[0].packets + sent[1].packets;
        assert_eq!(packets, before[0].sent.packets + before[1].sent.packets);
        let flows = sent[0].flows + sent[1].flows;
        assert_eq!(flows, before[0].sent.flows + before[1].sent.flows + 1);
    });
}

#[test]
fn what_comes_back_to_a_host_behind_us_is_counted_once() {
    in_namespace(|bench| {
        bench.nat = NatMode::Off;
        bench.serve_all();
        let to_lan = V4::tcp(1000, 443).reversed().frame();
        let established = with_flags(0x10, &to_lan);
        for program in [INGRESS, COUNT] {
            for (what, frame, packets) in [
                ("opens", sent_by(GATEWAY_MACS[0], &to_lan), 1),
                ("again", sent_by(GATEWAY_MACS[0], &to_lan), 1),
                ("established", sent_by(GATEWAY_MACS[0], &established), 1),
                ("not from a gateway", established.clone(), 0),
                ("from either gateway", sent_by(SHARED_MAC, &established), 0),
            ] {
                let before = bench.carried(1).received.packets;
                bench.pass(program, &frame, 0);
                let now = bench.carried(1).received.packets;
                assert_eq!(now - before, packets, "{program}: {what}");
            }
        }
    });
}
