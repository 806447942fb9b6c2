//! What the shares of new flows follow.

use super::*;
use crate::config::By;

fn by(by: By, capacities: [u32; 2]) -> Engine {
    let mut settings = settings();
    settings.balance.by = by;
    for (name, mbit) in ["isp1", "isp2"].into_iter().zip(capacities) {
        let rate = f64::from(mbit) * 1e6;
        let capacity = (mbit > 0).then_some(Rate { down: rate, up: rate });
        settings.uplinks.get_mut(name).unwrap().capacity = capacity;
    }
    Engine::new(vec![uplink(1, 1, 1), uplink(2, 1, 1)], settings, &[], &[])
}

/// Ten seconds of answers, four a second; returns how often the table changed.
fn run(e: &mut Engine, rtt_ms: [u64; 2]) -> usize {
    let mut published = 0;
    for _ in 0..40 {
        let now = e.now + Duration::from_millis(250);
        let round = now.as_millis() as u64;
        for (id, ms) in [1, 2].into_iter().zip(rtt_ms) {
            // A tenth of noise, another one for each.
            let noise = (round / 250 * 7 + u64::from(id) * 13) % 5 * 25;
            let rtt = Duration::from_micros(ms * (950 + noise));
            let target = 0;
            let path = path(id);
            e.handle(
                now,
                Event::Answered {
                    path,
                    target,
                    round,
                    rtt,
                },
            );
        }
        let commands = e.handle(now, Event::Tick);
        published += commands
            .iter()
            .filter(|c| matches!(c, Command::Publish(_)))
            .count();
    }
    published
}

fn carry(e: &mut Engine, mbit: [f64; 2]) {
    let carried = [1, 2].into_iter().zip(mbit.map(|m| Rate {
        down: m * 1e6,
        up: 0.0,
    }));
    e.on(Event::Carried(carried.collect()));
}

#[test]
fn latency_shares_are_right_ten_seconds_after_a_change_and_then_still() {
    let mut e = by(By::Latency, [0, 0]);
    run(&mut e, [10, 40]);
    assert!((e.selection().v4.share(1) - 0.8).abs() < 0.05);
    run(&mut e, [40, 10]);
    assert!((e.selection().v4.share(1) - 0.2).abs() < 0.05);
    run(&mut e, [40, 10]);
    assert_eq!(
        (0..10).map(|_| run(&mut e, [40, 10])).sum::<usize>(),
        0,
        "noise moves nothing"
    );
}

#[test]
fn bandwidth_shares_follow_what_is_carried() {
    let mut e = by(By::Bandwidth, [100, 20]);
    run(&mut e, [10, 10]);
    assert!((e.selection().v4.share(1) - 5.0 / 6.0).abs() < 0.01);
    carry(&mut e, [80.0, 0.0]);
    run(&mut e, [10, 10]);
    assert!((e.selection().v4.share(1) - 0.5).abs() < 0.03);
    carry(&mut e, [100.0, 20.0]);
    run(&mut e, [10, 10]);
    assert!((e.selection().v4.share(1) - 5.0 / 6.0).abs() < 0.03);
    assert_eq!(run(&mut e, [10, 10]), 0);
}

#[test]
fn spillover_fills_the_first_and_retires_nobody() {
    let mut e = by(By::Weight, [100, 20]);
    e.settings.balance.spillover = Some(0.8);
    run(&mut e, [10, 10]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 1000)]));
    carry(&mut e, [100.0, 0.0]);
    let mut commands = Vec::new();
    for _ in 0..20 {
        commands.extend(e.handle(e.now + Duration::from_millis(250), Event::Tick));
    }
    let publishes = |c: &Command| matches!(c, Command::Publish(s) if s.voided.is_empty());
    assert!(
        commands.iter().all(publishes) && (1..=3).contains(&commands.len()),
        "{commands:?}"
    );
    let spilled = e.selection().v4.share(2);
    assert!(
        (0.15..0.2).contains(&spilled),
        "no more than its part of the capacity: {spilled}"
    );
    carry(&mut e, [80.0, 15.0]);
    assert_eq!(run(&mut e, [10, 10]), 0, "at its limit nothing moves");
    carry(&mut e, [20.0, 5.0]);
    run(&mut e, [10, 10]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 1000)]));
    // The one in waiting serves when the first dies, and is not taken for dead before.
    lose(&mut e, 1, 1_000_000..1_000_003);
    assert_eq!(e.selection().v4, Serving(vec![(2, 1000)]));
}

#[test]
fn a_degraded_uplink_serves_only_where_no_good_one_does() {
    let mut e = engine();
    let limits = config::Limits {
        worse: Duration::from_millis(100),
        better: Duration::from_millis(50),
    };
    for name in ["isp1", "isp2"] {
        let health = &mut e.settings.uplinks.get_mut(name).unwrap().health[0];
        health.health.rtt = Some(limits);
    }
    let mut e = Engine::new(e.uplinks.clone(), e.settings.clone(), &[], &[]);
    run(&mut e, [10, 10]);
    run(&mut e, [200, 10]);
    assert_eq!(e.verdict(path(1)), Verdict::Degraded);
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    run(&mut e, [200, 300]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]), "all alike");
    run(&mut e, [200, 10]);
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    lose(&mut e, 2, 1_000_000..1_000_003);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]), "better than a dead one");
}

#[test]
fn a_used_up_quota_makes_the_last_resort_or_nobody() {
    let mut e = engine();
    answer(&mut e, 1, 0..1);
    answer(&mut e, 2, 0..1);
    e.on(Event::UsedUp([1].into()));
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    lose(&mut e, 2, 1..4);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
    e.settings.uplinks.get_mut("isp1").unwrap().then = Then::Disable;
    e.on(Event::UsedUp([].into()));
    e.on(Event::UsedUp([1].into()));
    answer(&mut e, 2, 4..9);
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
}

#[test]
fn a_disabled_uplink_takes_nothing_even_when_all_others_are_dead() {
    let mut settings = settings();
    settings.uplinks.get_mut("isp2").unwrap().enabled = false;
    let mut e = Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 1)], settings, &[], &[]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
    lose(&mut e, 1, 0..10);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
    assert!(e.may_drain(1).is_err());
}

#[test]
fn an_outage_moves_flows_at_once() {
    let mut e = engine();
    answer(&mut e, 2, 0..1);
    let path = path(1);
    let outage = Some(Outage::Carrier);
    let commands = e.on(Event::Outages([(path, outage)].into()));
    assert!(
        matches!(&commands[..], [Command::Publish(_), Command::Abandon(p), Command::Announce(_)] if *p == path)
    );
    e.on(Event::Outages([(path, None)].into()));
    assert_eq!(
        e.verdict(path),
        Verdict::Down,
        "whoever returns has to answer first"
    );
    answer(&mut e, 1, 0..5);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
}

#[test]
fn an_outage_of_all_at_once_throws_nobody_out() {
    let mut e = engine();
    answer(&mut e, 1, 0..1);
    answer(&mut e, 2, 0..1);
    let all = |outage| Event::Outages([(path(1), outage), (path(2), outage)].into());
    let commands = e.on(all(Some(Outage::Carrier)));
    assert!(
        commands
            .iter()
            .all(|c| matches!(c, Command::Announce(c) if c.kept)),
        "{commands:?}"
    );
    e.on(all(None));
    answer(&mut e, 2, 1..7);
    let commands = answer(&mut e, 1, 1..7);
    assert!(
        commands.iter().all(|c| !matches!(c, Command::Abandon(_))),
        "{commands:?}"
    );
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
}

/// Both answered, and then three probes of the first were lost within their patience.
fn silent_first() -> Engine {
    let ms = Duration::from_millis;
    let mut e = engine();
    e.handle(ms(500), answered(2, 0));
    e.handle(ms(600), answered(1, 0));
    for (round, waited) in [(1, 750), (2, 700), (3, 650)] {
        let (path, target, waited) = (path(1), 0, ms(waited));
        e.handle(
            ms(1450),
            Event::Lost {
                path,
                target,
                round,
                waited,
            },
        );
    }
    e
}

#[test]
fn whoever_was_heard_before_the_silence_is_asked_before_anybody_is_thrown_out() {
    let mut e = silent_first();
    assert_eq!(e.verdict(path(1)), Verdict::Down);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
    assert_eq!(e.witnesses(), [path(2)]);
    let commands = e.on(answered(2, 1));
    assert!(matches!(&commands[..], [Command::Publish(_), Command::Abandon(p)] if *p == path(1)));
    assert!(e.witnesses().is_empty());

    let mut e = silent_first();
    lose(&mut e, 2, 1..4);
    assert_eq!(
        e.selection().v4,
        Serving(vec![(1, 3), (2, 1)]),
        "they failed together"
    );
}

/// Two targets, both must answer.
fn strict() -> Engine {
    let mut settings = settings();
    for individual in settings.uplinks.values_mut() {
        let other = Target {
            address: [192, 0, 2, 2].into(),
            port: 0,
        };
        individual.targets[0].push(other);
        individual.health[0].targets = 2;
        individual.health[0].quorum = 2;
    }
    Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 1)], settings, &[], &[])
}

#[test]
fn a_target_that_answers_nobody_condemns_nobody_and_is_named() {
    let mut e = strict();
    for round in 0..30 {
        for id in [1, 2] {
            let path = path(id);
            e.on(answered(id, round));
            e.on(match round {
                0..5 => Event::Answered {
                    path,
                    target: 1,
                    round,
                    rtt: Duration::from_millis(9),
                },
                _ => Event::Lost {
                    path,
                    target: 1,
                    round,
                    waited: WAITED,
                },
            });
        }
    }
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
    assert!([1, 2].iter().all(|id| e.verdict(path(*id)) == Verdict::Up));
    let dead: Vec<String> = e.dead_targets().iter().map(ToString::to_string).collect();
    assert_eq!(dead, ["192.0.2.2"]);
    // One that answers others is not dead: the path is, when others have had the time to say so.
    for round in 30..50 {
        if round == 40 {
            assert_eq!(e.verdict(path(1)), Verdict::Up, "too early to tell");
            e.now += Duration::from_secs(3);
        }
        e.on(Event::Answered {
            path: path(2),
            target: 1,
            round,
            rtt: Duration::from_millis(9),
        });
        e.on(answered(2, round));
        e.on(Event::Lost {
            path: path(1),
            target: 1,
            round,
            waited: WAITED,
        });
        e.on(answered(1, round));
    }
    assert_eq!(
        (e.verdict(path(1)), e.verdict(path(2))),
        (Verdict::Down, Verdict::Up)
    );
    assert!(e.dead_targets().is_empty());
}

#[test]
fn a_target_that_only_one_uplink_asks_tells_of_that_uplink() {
    let mut e = strict();
    e.settings.uplinks.get_mut("isp2").unwrap().targets[0].pop();
    for round in 0..10 {
        if round == 5 {
            e.now += Duration::from_secs(3);
        }
        e.on(answered(1, round));
        e.on(answered(2, round));
        e.on(Event::Lost {
            path: path(1),
            target: 1,
            round,
            waited: WAITED,
        });
    }
    assert_eq!(e.verdict(path(1)), Verdict::Down);
    assert!(e.dead_targets().is_empty());
}

#[test]
fn a_reload_keeps_what_was_measured_where_the_judging_stays() {
    let mut before = by(By::Latency, [0, 0]);
    run(&mut before, [10, 40]);
    let mut after = by(By::Latency, [0, 0]);
    after.inherit(&before);
    assert!((after.selection().v4.share(1) - 0.8).abs() < 0.05);
    assert_eq!(after.verdict(path(1)), Verdict::Up);

    let mut other = settings();
    other.uplinks.get_mut("isp1").unwrap().health[0].fall = 9;
    let mut after = Engine::new(before.uplinks().to_vec(), other, &[], &[]);
    after.inherit(&before);
    assert_eq!(
        (after.verdict(path(1)), after.verdict(path(2))),
        (Verdict::Unknown, Verdict::Up)
    );
}

#[test]
fn a_leg_that_appears_joins() {
    let mut bare = uplink(2, 1, 1);
    bare.v4 = None;
    let mut e = Engine::new(vec![uplink(1, 3, 1), bare], settings(), &[], &[]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
    let commands = e.readdress(vec![uplink(1, 3, 1), uplink(2, 1, 1)]);
    assert!(
        matches!(&commands[..], [Command::Publish(s)] if s.voided.is_empty()),
        "{commands:?}"
    );
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
}
