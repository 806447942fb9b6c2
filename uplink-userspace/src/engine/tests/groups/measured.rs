//! What groups follow that goes by measures.

use super::*;

/// Evenly spread from -1 to 1, another one for each uplink and round.
fn noise(id: u8, round: u64) -> f64 {
    let mut x = (round * 64 + u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 29)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

#[test]
fn the_lowest_latency_is_left_for_a_clearly_lower_one_alone() {
    let mut e = three(vec![lenient(best(&[2, 1], Prefer::LowestLatency))]);
    assert_eq!(
        of(&e, 0),
        [(2, 1)],
        "the first that is written, before anything is known"
    );
    let flat = run(&mut e, 4 * 3600, |id, round| {
        20.0 + f64::from(id) + 8.0 * noise(id, round)
    });
    assert_eq!(flat, 0, "noise moves nothing");
    // One answer in fifty is very late.
    let late = |id, round| 20.0 + if noise(id, round) > 0.96 { 400.0 } else { 0.0 };
    assert_eq!(run(&mut e, 4 * 3600, late), 0, "nor does one that is late");
    run(&mut e, 60, |_, _| 20.0);
    let real = |id, round| if id == 2 { 50.0 } else { 20.0 } + 4.0 * noise(id, round);
    assert_eq!(run(&mut e, 10, real), 1, "a real change does");
    assert_eq!(of(&e, 0), [(1, 1)]);
    assert_eq!(run(&mut e, 3600, real), 0);
}

#[test]
fn the_lowest_latency_is_found_among_all_when_nothing_is_written() {
    let choice = Choice {
        tiers: vec![],
        prefer: Prefer::LowestLatency,
    };
    let mut e = three(vec![lenient(choice)]);
    run(&mut e, 10, |id, _| [40.0, 20.0, 5.0][usize::from(id) - 1]);
    assert_eq!(of(&e, 0), [(2, 1)], "the third is in reserve");
    lose(&mut e, 2, 1_000_000..1_000_003);
    assert_eq!(of(&e, 0), [(1, 1)], "at once");
}

#[test]
fn latencies_that_take_turns_move_a_group_twice_a_minute_at_most() {
    let mut settings = settings();
    for individual in settings.uplinks.values_mut() {
        individual.health[0].health = config::Health::default();
    }
    settings.groups = vec![lenient(best(&[1, 2], Prefer::LowestLatency))];
    let mut e = Engine::new(uplinks(), settings, &[], &[]);
    let turns = |id: u8, round: u64| {
        if (round / 8_000) % 2 == u64::from(id % 2) {
            100.0
        } else {
            10.0
        }
    };
    let mut changes = Vec::new();
    for second in 0..1200 {
        for _ in 0..run(&mut e, 1, turns) {
            changes.push(second);
        }
    }
    assert!(changes.len() > 20, "{changes:?}");
    for at in changes.iter().copied() {
        let within = changes.iter().filter(|t| (at..at + 60).contains(*t)).count();
        assert!(within <= 2, "{within} within a minute from {at}");
    }
}

/// So many rounds of which these parts are lost.
fn losing(e: &mut Engine, rounds: u64, parts: [f64; 3]) -> usize {
    let mut changes = 0;
    for _ in 0..rounds {
        let before = of(e, 0);
        let now = e.now + MS * 500;
        let round = now.as_millis() as u64;
        for (id, part) in (1..=3).zip(parts) {
            let (path, target) = (path(id), 0);
            let event = match (noise(id, round) + 1.0) / 2.0 < part {
                true => Event::Lost {
                    path,
                    target,
                    round,
                    waited: MS * 400,
                },
                false => answered(id, round),
            };
            e.handle(now, event);
        }
        e.handle(now, Event::Tick);
        changes += usize::from(of(e, 0) != before);
    }
    changes
}

#[test]
fn the_lowest_loss_is_left_for_a_clearly_lower_one_alone() {
    let mut settings = settings();
    for individual in settings.uplinks.values_mut() {
        // Never degraded nor dead: the group alone decides here.
        (individual.health[0].fall, individual.health[0].health.loss.worse) = (50, 0.99);
    }
    settings.groups = vec![lenient(best(&[2, 1, 3], Prefer::LowestLoss))];
    let mut e = Engine::new(uplinks(), settings, &[], &[]);
    assert_eq!(
        losing(&mut e, 400, [0.0, 0.01, 0.5]),
        0,
        "a lost probe now and then is chance"
    );
    assert_eq!(of(&e, 0), [(2, 1)]);
    assert_eq!(losing(&mut e, 400, [0.0, 0.15, 0.5]), 1);
    assert_eq!(of(&e, 0), [(1, 1)]);
    assert_eq!(losing(&mut e, 2000, [0.01, 0.15, 0.5]), 0);
}

#[test]
fn measured_shares_of_a_group_move_in_steps_of_their_own() {
    let settings = Settings {
        balance: Balance {
            by: By::Latency,
            ..Balance::default()
        },
        groups: vec![lenient(choice(&[&[(2, None), (3, None)]], Prefer::Balance))],
        ..settings()
    };
    let mut e = Engine::new(uplinks(), settings, &[], &[]);
    let rtt = |id: u8, round| [10.0, 10.0, 40.0][usize::from(id) - 1] * (1.0 + 0.1 * noise(id, round));
    assert!(run(&mut e, 60, rtt) > 0);
    assert!((e.selection().groups[0][0].share(2) - 0.8).abs() < 0.05);
    assert_eq!(run(&mut e, 600, rtt), 0, "noise moves nothing");
}

#[test]
fn spillover_is_everybodys() {
    let settings = Settings {
        balance: Balance {
            spillover: Some(0.8),
            ..Balance::default()
        },
        groups: vec![lenient(Choice::default())],
        ..settings()
    };
    let e = Engine::new(uplinks(), settings, &[], &[]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 1000)]));
    assert_eq!(of(&e, 0), [(1, 3), (2, 1)]);
}
