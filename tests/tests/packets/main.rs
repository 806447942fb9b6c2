//! The packet path as data: one row is a description, a frame, the outcome and the uplink.
//!
//! Every row runs the real program through `BPF_PROG_TEST_RUN`, in a network namespace of its
//! own with real routes, and the maps are written by the daemon's own code.

mod bench;
mod fast;
mod flood;
mod frames;
mod garbage;
mod host;
mod nexthop;
mod outward;
mod passive;
mod policy;
mod recent;
mod reference;
mod rows;
mod world;

use std::collections::HashMap;

use uplink_common::{Family, FlowKey, Reason, hash, select};
use uplink_userspace::table;

use bench::{Bench, MASK, SEED};
use frames::{V4, V6};

/// Runs a test on a thread with a namespace of its own, which goes away with the thread.
fn in_namespace(test: impl FnOnce(&mut Bench) + Send + 'static) {
    let run = move || test(&mut Bench::new().expect("this test needs root and UPLINK_BPF_OBJECT"));
    std::thread::spawn(run)
        .join()
        .unwrap_or_else(|e| std::panic::resume_unwind(e));
}

#[test]
fn every_row_has_its_outcome() {
    in_namespace(|bench| {
        for row in rows::all() {
            bench.prepare(&row);
            let got = bench.run(&row.frame, row.mark_in);
            assert_eq!(got.reason, row.reason, "{}", row.what);
            assert_eq!(got.beside, row.beside, "{}", row.what);
            let (ours, others) = (got.mark & MASK, got.mark & !MASK);
            assert_eq!(others, row.mark_in & !MASK, "{}: others' bits", row.what);
            match row.steered {
                _ if row.reason == Reason::Refused => assert_eq!(ours, MASK, "{}", row.what),
                true => assert!((1..=2).contains(&(ours >> 24)), "{}: mark {ours:#x}", row.what),
                false => assert_eq!(got.mark, row.mark_in, "{}: untouched", row.what),
            }
        }
    });
}

/// The kernel gives up at a million, and a start takes as long as this work does.
#[test]
fn the_verifier_has_little_to_do() {
    const BUDGET: u32 = 150_000;
    in_namespace(|bench| {
        bench.attach_host();
        for (name, instructions) in bench.verified() {
            println!("{name}: {instructions} instructions");
            assert!((1..BUDGET).contains(&instructions), "{name}: {instructions}");
        }
    });
}

/// `outward`, `host`, `nexthop` and `fast` have rows of their own.
#[test]
fn every_reason_has_a_row() {
    let counted = |row: rows::Row| row.beside.iter().copied().chain([row.reason]);
    let rows = rows::all().into_iter().flat_map(counted);
    let rows: Vec<Reason> = rows
        .chain(outward::REASONS)
        .chain(host::REASONS)
        .chain(nexthop::REASONS)
        .chain(fast::REASONS)
        .collect();
    for reason in Reason::ALL {
        assert!(rows.contains(reason), "no row for {}", reason.name());
    }
}

#[test]
fn kernel_and_user_space_pick_the_same_slot() {
    in_namespace(|bench| {
        let table = table::build(&bench.claims(), uplink_common::SLOTS);
        let mut seen: HashMap<u8, u32> = HashMap::new();
        for n in 0..5_000_u32 {
            let port = 1024 + (n % 50_000) as u16;
            for family in Family::ALL {
                let (frame, key) = match family {
                    Family::V4 => (
                        V4::udp(port, 53).client(n).frame(),
                        V4::udp(port, 53).client(n).key(),
                    ),
                    Family::V6 => (V6::udp(port, 53).frame(), V6::udp(port, 53).key()),
                };
                let slot = select::slot(hash::flow(SEED, &key));
                let got = bench.run(&frame, 0);
                assert_eq!(got.mark >> 24, u32::from(table[slot as usize]), "{key:?}");
                *seen.entry(table[slot as usize]).or_default() += 1;
            }
        }
        let share = f64::from(seen[&1]) / 10_000.0;
        println!("weights 3:1, 10,000 flows: {share:.4} by the first");
        assert!((share - 0.75).abs() < 0.015, "{share}");
    });
}

#[test]
fn a_flow_keeps_its_uplink_when_the_table_changes_and_moves_when_its_uplink_dies() {
    in_namespace(|bench| {
        let frame = V4::udp(4000, 53).frame();
        let before = bench.run(&frame, 0).mark >> 24;
        let other = 3 - before;
        bench.serve(&[(other as u8, 1)], false);
        let kept = bench.run(&frame, 0);
        assert_eq!((kept.reason, kept.mark >> 24), (Reason::Pinned, before));
        bench.serve(&[(other as u8, 1)], true);
        let moved = bench.run(&frame, 0);
        assert_eq!((moved.reason, moved.mark >> 24), (Reason::Repicked, other));
    });
}

#[test]
fn fragments_and_errors_follow_their_flow() {
    in_namespace(|bench| {
        for port in 5000..5200 {
            let flow = V4::udp(port, 53);
            let mark = bench.run(&flow.frame(), 0).mark;
            assert_eq!(
                bench.run(&flow.first_fragment(), 0).mark,
                mark,
                "first fragment of port {port}"
            );
            assert_eq!(
                bench.run(&flow.error_about_reply(), 0).mark,
                mark,
                "ICMP error of port {port}"
            );
            let flow = V6::udp(port, 53);
            let mark = bench.run(&flow.frame(), 0).mark;
            assert_eq!(
                bench.run(&flow.error_about_reply(), 0).mark,
                mark,
                "ICMPv6 error of port {port}"
            );
            assert_eq!(
                bench.run(&flow.with_extensions(), 0).mark,
                mark,
                "extension headers, port {port}"
            );
        }
    });
}

#[test]
fn weights_edited_in_the_map_count_for_the_next_flow() {
    in_namespace(|bench| {
        let by_hand = |bench: &mut Bench, weights: [u32; 2]| {
            bench.edit_weights(weights);
            let marks = (0..1_000_u32).map(|n| V4::udp(9, 9).client(n)).map(|f| {
                bench.forget(&f.key());
                let got = bench.run(&f.frame(), 0);
                assert_eq!(got.reason, Reason::PickedByWeight);
                got.mark >> 24
            });
            marks.filter(|id| *id == 1).count()
        };
        assert_eq!(by_hand(bench, [0, 1]), 0);
        assert_eq!(by_hand(bench, [1, 0]), 1_000);
        let half = by_hand(bench, [7, 7]);
        assert!((430..570).contains(&half), "{half} of 1,000");
    });
}

#[test]
fn a_key_of_the_common_crate_is_the_key_of_the_program() {
    in_namespace(|bench| {
        let flow = V6::udp(77, 88);
        bench.run(&flow.frame(), 0);
        let key: FlowKey = flow.key();
        assert!(bench.pin(&key).is_some(), "{key:?}");
    });
}

#[test]
fn new_flows_are_left_alone_only_while_the_daemon_is_silent() {
    in_namespace(|bench| {
        bench.stale_after_s = 30;
        bench.serve_all();
        let now_s = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .expect("the clock")
            .tv_sec() as u32;
        for (heartbeat_s, port, reason) in [
            (now_s, 1, Reason::Picked),
            (now_s.saturating_sub(100), 2, Reason::Stale),
            (now_s.saturating_sub(100), 1, Reason::Pinned),
            (now_s, 2, Reason::Picked),
        ] {
            bench.heartbeat(heartbeat_s);
            let got = bench.run(&V4::udp(port, 53).frame(), 0);
            assert_eq!(
                got.reason, reason,
                "heartbeat {heartbeat_s} at {now_s}, port {port}"
            );
        }
    });
}
