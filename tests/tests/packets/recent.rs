//! Map `recent`: copies of pins say the same as the pins, or nothing.

use uplink_common::recent::{Line, Recent, Short, WAYS};
use uplink_common::{PIN_IDLE_S, Pin, Reason};

use crate::bench::{Bench, EGRESS, GATEWAY_MACS};
use crate::frames::{V4, sent_to};
use crate::in_namespace;
use crate::nexthop::on;

/// Seconds by the clock of the programs, which is up to a tick behind.
fn second() -> u32 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE);
    now.expect("the clock").tv_sec() as u32
}

/// Does something within one second, with as many attempts as that takes.
fn within_a_second<T>(mut act: impl FnMut(u32) -> T) -> T {
    loop {
        let begun = second();
        let done = act(begun);
        if second() == begun {
            return done;
        }
    }
}

/// So many flows that share a line.
fn neighbours(bench: &Bench, count: usize) -> Vec<V4> {
    let line = |flow: &V4| bench.line(&flow.key());
    let first = V4::udp(1000, 4433);
    let flows = (1000..u16::MAX).flat_map(|port| (0..8).map(move |n| V4::udp(port, 4433).client(n)));
    let flows: Vec<V4> = flows.filter(|f| line(f) == line(&first)).take(count).collect();
    assert_eq!(flows.len(), count);
    flows
}

fn entry(bench: &Bench, flow: &V4, pin: Pin, second: u32) -> Line {
    let mut line = Line::default();
    line.0[WAYS - 1] = Recent::new(bench.hash(&flow.key()), Short::new(&pin, second));
    line
}

#[test]
fn flows_that_share_a_line_keep_their_own_uplinks() {
    in_namespace(|bench| {
        let flows = neighbours(bench, 3 * WAYS);
        let marks: Vec<u32> = flows.iter().map(|f| bench.run(&f.frame(), 0).mark).collect();
        assert!(marks.iter().any(|mark| *mark != marks[0]), "both uplinks");
        for _ in 0..3 {
            for (flow, mark) in flows.iter().zip(&marks) {
                let got = bench.run(&flow.frame(), 0);
                assert_eq!((got.reason, got.mark), (Reason::Pinned, *mark));
            }
        }
        let copied = |bench: &Bench| bench.copies(&flows[0].key()).0;
        let known = |bench: &Bench| copied(bench).map(|entry| entry.tag ^ entry.pin.0);
        assert!(copied(bench).iter().all(|entry| *entry != Recent::default()));
        let before = known(bench);
        flows.iter().rev().for_each(|f| drop(bench.run(&f.frame(), 0)));
        assert_eq!(known(bench), before, "who is alive stays");
    });
}

#[test]
fn a_copy_of_a_dead_uplink_is_void_and_so_is_what_does_not_belong_together() {
    in_namespace(|bench| {
        let flow = V4::udp(1000, 4433);
        let frame = flow.frame();
        let was = bench.run(&frame, 0).mark >> 24;
        let other = 3 - was as u8;
        let pin = bench.pin(&flow.key()).expect("a pin");
        let lie = Pin { uplink: other, ..pin };
        let answer = |bench: &mut Bench, line: &dyn Fn(&Bench, u32) -> Line| {
            within_a_second(|now| {
                let line = line(bench, now);
                bench.plant(&flow.key(), line);
                bench.run(&frame, 0).mark >> 24
            })
        };
        // The test can tell: a copy is believed.
        assert_eq!(
            answer(bench, &|bench, now| entry(bench, &flow, lie, now)),
            u32::from(other)
        );
        let stale = Pin {
            generation: pin.generation.wrapping_add(1),
            ..lie
        };
        assert_eq!(answer(bench, &|bench, now| entry(bench, &flow, stale, now)), was);
        assert_eq!(
            answer(bench, &|bench, now| entry(bench, &flow, lie, now - 1)),
            was
        );
        // Two CPUs wrote it at once: the flow of one, the pin of the other.
        let torn = |bench: &Bench, now: u32| {
            let mut line = entry(bench, &flow, pin, now);
            line.0[WAYS - 1].pin = Short::new(&lie, now);
            line
        };
        assert_eq!(answer(bench, &torn), was);
        let strange = |bench: &Bench, now: u32| entry(bench, &V4::udp(1001, 4433), lie, now);
        assert_eq!(answer(bench, &strange), was);
    });
}

#[test]
fn flows_move_with_their_first_packet_behind_a_failover() {
    in_namespace(|bench| {
        let flows = neighbours(bench, WAYS);
        within_a_second(|_| {
            bench.serve_all();
            flows.iter().for_each(|f| bench.forget(&f.key()));
            let marks = flows.iter().map(|f| bench.run(&f.frame(), 0).mark >> 24);
            let marks: Vec<u32> = marks.collect();
            flows.iter().for_each(|f| drop(bench.run(&f.frame(), 0)));
            bench.serve(&[(2, 1)], true);
            for (flow, was) in flows.iter().zip(marks) {
                let moved = if was == 2 {
                    Reason::Pinned
                } else {
                    Reason::Repicked
                };
                for reason in [moved, Reason::Pinned, Reason::Pinned] {
                    let got = bench.run(&flow.frame(), 0);
                    assert_eq!((got.reason, got.mark >> 24), (reason, 2));
                }
            }
        });
    });
}

/// What a person does to the flow table counts when the second is over.
#[test]
fn what_is_edited_by_hand_counts_within_a_second() {
    in_namespace(|bench| {
        let flow = V4::udp(1000, 4433);
        let frame = flow.frame();
        let was = bench.run(&frame, 0).mark >> 24;
        bench.run(&frame, 0);
        bench.edit_pin_alone(&flow.key(), |pin| pin.uplink = 3 - was as u8);
        let begun = std::time::Instant::now();
        while bench.run(&frame, 0).mark >> 24 == was {
            assert!(begun.elapsed() < std::time::Duration::from_millis(1100));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(bench.pin(&flow.key()).expect("a pin").uplink, 3 - was as u8);
    });
}

/// Ports are used again: what was silent for long is nobody's any more.
#[test]
fn a_flow_that_was_silent_for_long_begins_anew() {
    in_namespace(|bench| {
        // The clock of a machine that has just started does not go back so far.
        while second() <= PIN_IDLE_S + 2 {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        let flow = V4::udp(1000, 4433);
        let frame = flow.frame();
        for (silent_s, reason) in [
            (PIN_IDLE_S - 2, Reason::Pinned),
            (PIN_IDLE_S + 2, Reason::Repicked),
            (0, Reason::Pinned),
        ] {
            bench.run(&frame, 0);
            bench.edit_pin(&flow.key(), |pin| pin.last_used_s -= silent_s);
            assert_eq!(bench.run(&frame, 0).reason, reason, "{silent_s} s");
        }
    });
}

/// And the flow table hears of a flow in use: else the oldest would have to go, in use or not.
#[test]
fn a_flow_in_use_refreshes_its_pin() {
    in_namespace(|bench| {
        let flow = V4::udp(1000, 4433);
        for _ in 0..25 {
            within_a_second(|now| {
                bench.run(&flow.frame(), 0);
                assert!(now - bench.pin(&flow.key()).expect("a pin").last_used_s <= 1);
            });
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
}

/// Conntrack knew better, behind a copy.
#[test]
fn a_pin_that_follows_takes_its_copy_along() {
    in_namespace(|bench| {
        on(bench);
        let flow = V4::udp(1000, 4433);
        let frame = flow.frame();
        bench.run(&frame, 0);
        let other = 3 - (bench.run(&frame, 0).mark >> 24);
        let gateway = GATEWAY_MACS[other as usize - 1];
        bench.pass(EGRESS, &sent_to(gateway, &frame), other << 24);
        let got = bench.run(&frame, 0);
        assert_eq!((got.reason, got.mark >> 24), (Reason::Forwarded, other));
    });
}
