use super::*;
use crate::config::Limits;

const MS: Duration = Duration::from_millis(1);

fn settings(targets: u32) -> Settings {
    Settings {
        fall: 3,
        rise: 5,
        quorum: 1,
        targets,
        health: config::Health::default(),
    }
}

fn health(targets: u32) -> Health {
    Health::new(settings(targets), Verdict::Unknown)
}

/// Half a second for each round.
fn at(round: u64) -> Duration {
    Duration::from_millis(500 * round)
}

fn answer(h: &mut Health, round: u64) -> Option<Verdict> {
    h.answer(at(round), 0, round, MS)
}

fn lose(h: &mut Health, round: u64) -> Option<Verdict> {
    h.lose(at(round), 0, round, at(round))
}

/// Up, and down again from round 2 on.
fn dead() -> Health {
    let mut h = health(1);
    answer(&mut h, 1);
    for round in 2..=4 {
        lose(&mut h, round);
    }
    assert_eq!(h.verdict(), Verdict::Down);
    h
}

#[test]
fn the_first_answer_makes_it_up_and_three_lost_rounds_down() {
    let mut h = health(1);
    assert_eq!(answer(&mut h, 1), Some(Verdict::Up));
    assert_eq!((lose(&mut h, 2), lose(&mut h, 3)), (None, None));
    assert_eq!(lose(&mut h, 4), Some(Verdict::Down));
    assert_eq!(lose(&mut h, 5), None);
    assert_eq!(h.reason(), "no probe target answers");
}

#[test]
fn five_answers_in_a_row_for_three_seconds_bring_it_back() {
    let mut h = dead();
    (5..=10).for_each(|round| assert_eq!(answer(&mut h, round), None));
    assert_eq!(
        answer(&mut h, 11),
        Some(Verdict::Up),
        "three seconds after round 5"
    );

    let mut h = dead();
    (5..=8).for_each(|round| assert_eq!(answer(&mut h, round), None));
    assert_eq!(lose(&mut h, 9), None);
    (10..=15).for_each(|round| assert_eq!(answer(&mut h, round), None));
    assert_eq!(
        answer(&mut h, 16),
        Some(Verdict::Up),
        "a loss starts the count anew"
    );
}

#[test]
fn a_third_flip_within_a_minute_waits_unless_it_is_a_death() {
    let mut h = dead();
    for round in 5..=11 {
        answer(&mut h, round);
    }
    assert_eq!(h.verdict(), Verdict::Up);
    for round in 12..=14 {
        lose(&mut h, round);
    }
    assert_eq!(h.verdict(), Verdict::Down);
    // Down at 2 s, up at 5.5 s, down at 7 s: the next is due when the second is a minute old.
    let up = (15..200).find(|round| answer(&mut h, *round).is_some());
    assert_eq!(up.map(at), Some(Duration::from_millis(65_500)));
}

#[test]
fn one_dead_target_of_two_condemns_nobody() {
    let mut h = health(2);
    for round in 1..=50 {
        h.lose(at(round), 0, round, at(round));
        h.answer(at(round), 1, round, MS);
    }
    assert_eq!(h.verdict(), Verdict::Up);
    assert!((h.loss() - 0.5).abs() < 0.01);
    assert_eq!((h.lost_by(0), h.lost_by(1)), (50, 0));
}

#[test]
fn what_a_dead_target_says_does_not_count() {
    let mut strict = Health::new(
        Settings {
            quorum: 2,
            ..settings(2)
        },
        Verdict::Unknown,
    );
    strict.set_dead(1);
    for round in 1..=50 {
        strict.lose(at(round), 0, round, at(round));
        strict.answer(at(round), 1, round, MS);
    }
    assert_eq!((strict.verdict(), strict.loss()), (Verdict::Up, 0.0));
}

#[test]
fn less_than_a_quorum_is_no_sign_of_life_until_the_silent_target_is_known_to_be_dead() {
    let settings = Settings {
        quorum: 2,
        ..settings(2)
    };
    let mut h = Health::new(settings, Verdict::Unknown);
    h.answer(at(1), 0, 1, MS);
    h.answer(at(1), 1, 1, MS);
    h.answer(at(2), 0, 2, MS);
    assert_eq!((h.heard(), h.failing()), (Some(at(1)), false));
    h.lose(at(3), 1, 2, at(2));
    assert!(h.failing() && h.silent_since().is_some());
    h.set_dead(0b10);
    assert!(!h.failing() && h.silent_since().is_none());
    h.answer(at(4), 0, 3, MS);
    assert_eq!(h.heard(), Some(at(4)));
}

#[test]
fn an_outage_needs_no_probe_and_its_end_does() {
    let mut h = health(1);
    answer(&mut h, 1);
    assert_eq!(h.set_outage(at(2), Some(Outage::Carrier)), Some(Verdict::Down));
    assert_eq!(h.reason(), "the interface has no carrier");
    assert!(h.failing());
    (2..=9).for_each(|round| assert_eq!(answer(&mut h, round), None));
    assert_eq!(h.set_outage(at(10), None), None);
    let up = (10..40).find(|round| answer(&mut h, *round).is_some());
    assert_eq!(up, Some(16));
}

#[test]
fn a_path_that_nobody_probes_is_dead_by_outage_alone() {
    let mut h = health(0);
    assert_eq!(h.judge(at(1)), None);
    assert_eq!(h.set_outage(at(2), Some(Outage::Address)), Some(Verdict::Down));
    assert_eq!((h.set_outage(at(3), None), h.judge(at(8))), (None, None));
    assert_eq!(h.judge(at(9)), Some(Verdict::Up));
}

#[test]
fn a_false_alarm_is_taken_back_by_late_replies_and_ends_the_soonest_it_may() {
    let mut h = health(1);
    answer(&mut h, 1);
    for round in 2..=3 {
        lose(&mut h, round);
    }
    for round in 2..=3 {
        h.answer(at(4), 0, round, 900 * MS);
    }
    assert_eq!((lose(&mut h, 4), lose(&mut h, 5)), (None, None));
    assert!((h.loss() - 0.4).abs() < 1e-9, "two of five: {}", h.loss());
}

#[test]
fn a_slow_path_is_degraded_until_it_is_fast_enough_for_long_enough() {
    let limits = Limits {
        worse: 100 * MS,
        better: 50 * MS,
    };
    let health = config::Health {
        rtt: Some(limits),
        ..config::Health::default()
    };
    let mut h = Health::new(
        Settings {
            health,
            ..settings(1)
        },
        Verdict::Unknown,
    );
    let mut go = |rounds: std::ops::Range<u64>, rtt| {
        rounds
            .filter_map(|round| h.answer(at(round), 0, round, rtt * MS).map(|v| (round, v)))
            .collect::<Vec<_>>()
    };
    assert_eq!(go(0..20, 10), [(0, Verdict::Up)]);
    let slow = go(20..60, 200);
    assert!(matches!(slow[..], [(20..30, Verdict::Degraded)]), "{slow:?}");
    assert!(go(60..90, 70).is_empty(), "between the limits nothing changes");
    let fast = go(90..180, 10);
    assert!(matches!(fast[..], [(96..150, Verdict::Up)]), "{fast:?}");
}

#[test]
fn loss_between_death_and_luck_degrades_and_its_end_heals() {
    let mut h = health(2);
    let mut flips = Vec::new();
    for round in 1..400 {
        for target in 0..2 {
            let lost = (20..140).contains(&round) && (2 * round + u64::from(target)) % 3 == 0;
            flips.extend(match lost {
                true => h.lose(at(round), target, round, at(round)),
                false => h.answer(at(round), target, round, MS),
            });
        }
    }
    assert_eq!(flips, [Verdict::Up, Verdict::Degraded, Verdict::Up]);
}
