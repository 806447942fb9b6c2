//! What policies may use.

use super::*;
use crate::config::{Balance, By, Choice, Group, Prefer};

mod measured;
mod model;

const MS: Duration = Duration::from_millis(1);

type Tier<'a> = &'a [(u8, Option<u32>)];

fn choice(tiers: &[Tier<'_>], prefer: Prefer) -> Choice {
    let member = |(id, weight): &(u8, Option<u32>)| (format!("isp{id}"), *weight);
    let tier = |members: &Tier<'_>| members.iter().map(member).collect();
    let tiers = tiers.iter().map(tier).collect();
    Choice { tiers, prefer }
}

/// One uplink after the other.
fn ordered(ids: &[u8]) -> Choice {
    let tiers: Vec<[(u8, Option<u32>); 1]> = ids.iter().map(|id| [(*id, None)]).collect();
    let tiers: Vec<Tier<'_>> = tiers.iter().map(|t| &t[..]).collect();
    choice(&tiers, Prefer::Balance)
}

/// The best of these.
fn best(ids: &[u8], prefer: Prefer) -> Choice {
    let tier: Vec<(u8, Option<u32>)> = ids.iter().map(|id| (*id, None)).collect();
    choice(&[&tier], prefer)
}

fn lenient(choice: Choice) -> Group {
    let strict = false;
    Group { choice, strict }
}

fn strict(choice: Choice) -> Group {
    let strict = true;
    Group { choice, strict }
}

/// Three uplinks, the third in reserve.
fn three(groups: Vec<Group>) -> Engine {
    let settings = Settings { groups, ..settings() };
    Engine::new(uplinks(), settings, &[], &[])
}

fn uplinks() -> Vec<crate::resolve::Uplink> {
    vec![uplink(1, 3, 1), uplink(2, 1, 1), uplink(3, 1, 2)]
}

fn heard(mut e: Engine) -> Engine {
    for id in 1..=3 {
        answer(&mut e, id, 0..1);
    }
    e
}

fn of(e: &Engine, group: usize) -> Vec<(u8, u32)> {
    e.selection().groups[group][0].0.clone()
}

fn nobody() -> Vec<(u8, u32)> {
    vec![]
}

#[test]
fn an_ordered_group_uses_the_first_that_lives() {
    let mut e = heard(three(vec![lenient(ordered(&[3, 2]))]));
    assert_eq!(of(&e, 0), [(3, 1)]);
    let commands = lose(&mut e, 3, 1..4);
    let [Command::Publish(s), Command::Abandon(dead), Command::Announce(_)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((&s.voided[..], *dead), (&[path(3)][..], path(3)));
    assert_eq!(of(&e, 0), [(2, 1)]);
    // It comes back; the one that stood in serves everybody, so it has nothing to give up.
    let commands = answer(&mut e, 3, 4..9);
    assert!(
        matches!(&commands[..], [Command::Publish(_), Command::Announce(_)]),
        "{commands:?}"
    );
    assert_eq!(of(&e, 0), [(3, 1)]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
}

#[test]
fn a_weighted_group_has_its_own_weights_or_the_uplinks() {
    let e = three(vec![
        lenient(choice(&[&[(2, Some(5)), (3, None), (1, None)]], Prefer::Balance)),
        lenient(Choice::default()),
    ]);
    assert_eq!(of(&e, 0), [(2, 5), (3, 1), (1, 3)]);
    assert_eq!(of(&e, 1), [(1, 3), (2, 1)]);
}

#[test]
fn names_that_are_not_there_are_nobody() {
    let e = three(vec![lenient(ordered(&[4, 2])), lenient(ordered(&[4]))]);
    assert_eq!((of(&e, 0), of(&e, 1)), (vec![(2, 1)], nobody()));
    assert!(
        e.selection().groups.iter().all(|g| g[1].0.is_empty()),
        "nobody carries IPv6"
    );
}

#[test]
fn a_group_without_the_living_has_nobody_and_its_flows_go_with_everybodys() {
    for group in [lenient(ordered(&[3])), strict(ordered(&[3]))] {
        let mut e = heard(three(vec![group]));
        let commands = lose(&mut e, 3, 1..4);
        assert!(commands.contains(&Command::Abandon(path(3))), "{commands:?}");
        assert_eq!(of(&e, 0), nobody());
        answer(&mut e, 3, 4..9);
        assert_eq!(of(&e, 0), [(3, 1)]);
    }
}

#[test]
fn groups_are_held_with_the_table_for_everybody() {
    let mut e = heard(three(vec![lenient(ordered(&[1])), strict(ordered(&[3]))]));
    let before = e.selection().clone();
    for round in 1..10 {
        for id in 1..=3 {
            lose(&mut e, id, round..round + 1);
        }
    }
    assert_eq!(*e.selection(), before, "they fail together");
    for id in 1..=3 {
        answer(&mut e, id, 10..20);
    }
    assert_eq!(*e.selection(), before);
}

#[test]
fn nobody_is_thrown_out_of_a_group_before_another_one_was_heard() {
    let mut e = three(vec![lenient(ordered(&[3, 1]))]);
    for (id, at) in [(1, 500), (2, 500), (3, 600)] {
        e.handle(MS * at, answered(id, 0));
    }
    for (round, waited) in [(1, 750), (2, 700), (3, 650)] {
        let (path, target, waited) = (path(3), 0, MS * waited);
        e.handle(
            MS * 1450,
            Event::Lost {
                path,
                target,
                round,
                waited,
            },
        );
    }
    assert_eq!((e.verdict(path(3)), of(&e, 0)), (Verdict::Down, vec![(3, 1)]));
    assert_eq!(e.witnesses(), [path(1), path(2)]);
    let commands = e.on(answered(2, 1));
    assert!(matches!(&commands[..], [Command::Publish(_), Command::Abandon(p)] if *p == path(3)));
    assert_eq!(of(&e, 0), [(1, 3)]);
}

#[test]
fn a_reserve_that_policies_use_is_not_retired() {
    let mut e = heard(three(vec![lenient(ordered(&[3]))]));
    lose(&mut e, 1, 1..4);
    lose(&mut e, 2, 1..4);
    answer(&mut e, 3, 1..2);
    assert_eq!(e.selection().v4, Serving(vec![(3, 1)]));
    let commands = answer(&mut e, 1, 4..9);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
    assert!(
        commands.iter().all(|c| !matches!(c, Command::Retire(_))),
        "{commands:?}"
    );
    assert!(e.void(path(3)).is_empty(), "it serves");
}

#[test]
fn a_reserve_of_a_group_alone_is_retired_when_the_better_tier_is_back() {
    let mut uplinks = uplinks();
    uplinks[1].tier = 2;
    let settings = Settings {
        groups: vec![
            lenient(ordered(&[3, 2])),
            lenient(best(&[3, 1], Prefer::LowestLatency)),
        ],
        ..settings()
    };
    let mut e = heard(Engine::new(uplinks, settings, &[], &[]));
    lose(&mut e, 3, 1..4);
    assert_eq!((of(&e, 0), of(&e, 1)), (vec![(2, 1)], vec![(1, 1)]));
    let commands = answer(&mut e, 3, 4..9);
    assert!(commands.contains(&Command::Retire(path(2))), "{commands:?}");
    assert_eq!((of(&e, 0), of(&e, 1)), (vec![(3, 1)], vec![(1, 1)]));
}

#[test]
fn a_drained_uplink_is_emptied_but_for_strict_policies_without_another() {
    let groups = vec![
        lenient(ordered(&[1])),
        strict(ordered(&[1])),
        strict(ordered(&[1, 3])),
        lenient(ordered(&[1, 2])),
    ];
    let mut e = heard(three(groups));
    e.on(Event::Drain(1));
    assert_eq!(of(&e, 0), nobody(), "everybody's table serves it");
    assert_eq!(of(&e, 1), [(1, 3)], "who else?");
    assert_eq!((of(&e, 2), of(&e, 3)), (vec![(3, 1)], vec![(2, 1)]));
    assert!(e.is_recalled(1));
    // It dies: its strict policy has nobody, everybody else stays.
    let commands = lose(&mut e, 1, 1..4);
    assert!(commands.contains(&Command::Abandon(path(1))), "{commands:?}");
    assert_eq!(of(&e, 1), nobody());
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    answer(&mut e, 1, 4..9);
    e.on(Event::Enable(1));
    for group in 0..4 {
        assert_eq!(of(&e, group), [(1, 3)]);
    }
}

#[test]
fn a_drained_uplink_that_serves_everybody_serves_its_policies_too() {
    let mut e = heard(three(vec![lenient(ordered(&[1]))]));
    e.on(Event::Drain(1));
    lose(&mut e, 3, 1..4);
    lose(&mut e, 2, 1..4);
    answer(&mut e, 1, 1..2);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
    assert_eq!(of(&e, 0), [(1, 3)]);
    answer(&mut e, 3, 4..9);
    assert_eq!(
        (e.selection().v4.clone(), of(&e, 0)),
        (Serving(vec![(3, 1)]), nobody())
    );
}

#[test]
fn a_drained_uplink_of_policies_alone_dies_like_any() {
    let mut e = heard(three(vec![lenient(ordered(&[3]))]));
    e.on(Event::Drain(3));
    assert_eq!(of(&e, 0), nobody());
    let commands = lose(&mut e, 3, 1..4);
    assert!(
        commands.contains(&Command::Abandon(path(3))),
        "it had flows: {commands:?}"
    );
}

#[test]
fn a_used_up_quota_is_spared_like_a_drained_one() {
    let mut e = heard(three(vec![
        lenient(ordered(&[1])),
        strict(ordered(&[1])),
        lenient(ordered(&[1, 2])),
    ]));
    e.on(Event::UsedUp([1].into()));
    assert_eq!((of(&e, 0), of(&e, 1)), (nobody(), vec![(1, 3)]));
    assert_eq!(of(&e, 2), [(2, 1)]);
    e.settings.uplinks.get_mut("isp1").unwrap().then = Then::Disable;
    e.on(Event::UsedUp([].into()));
    e.on(Event::UsedUp([1].into()));
    assert_eq!((of(&e, 0), of(&e, 1)), (nobody(), nobody()));
}

#[test]
fn a_degraded_uplink_serves_a_group_that_has_no_better_one() {
    let mut settings = settings();
    let (worse, better) = (MS * 100, MS * 50);
    for name in ["isp1", "isp2", "isp3"] {
        let health = &mut settings.uplinks.get_mut(name).unwrap().health[0];
        health.health.rtt = Some(config::Limits { worse, better });
    }
    settings.groups = vec![lenient(ordered(&[1, 2])), lenient(ordered(&[1]))];
    let mut e = Engine::new(uplinks(), settings, &[], &[]);
    run(&mut e, 20, |id, _| if id == 1 { 200.0 } else { 10.0 });
    assert_eq!(e.verdict(path(1)), Verdict::Degraded);
    assert_eq!((of(&e, 0), of(&e, 1)), (vec![(2, 1)], vec![(1, 3)]));
}

#[test]
fn a_recovered_uplink_grows_in_a_group_too() {
    let mut settings = settings();
    for individual in settings.uplinks.values_mut() {
        individual.health[0].health.slow_start = Duration::from_secs(5);
    }
    settings.groups = vec![lenient(choice(&[&[(3, None), (2, None)]], Prefer::Balance))];
    let mut e = heard(Engine::new(uplinks(), settings, &[], &[]));
    lose(&mut e, 3, 1..4);
    answer(&mut e, 3, 4..9);
    assert_eq!(of(&e, 0), [(3, 200), (2, 1000)]);
    e.handle(e.now + Duration::from_secs(6), Event::Tick);
    assert_eq!(of(&e, 0), [(3, 1), (2, 1)]);
}

/// So many seconds with two answers each from everybody; returns how often the first group changed.
fn run(e: &mut Engine, seconds: u32, rtt_ms: impl Fn(u8, u64) -> f64) -> usize {
    let mut changes = 0;
    for _ in 0..seconds * 2 {
        let before = of(e, 0);
        let now = e.now + MS * 500;
        let round = now.as_millis() as u64;
        for id in 1..=3 {
            let (path, target) = (path(id), 0);
            let rtt = Duration::from_secs_f64(rtt_ms(id, round) / 1e3);
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
        e.handle(now, Event::Tick);
        changes += usize::from(of(e, 0) != before);
    }
    changes
}

#[test]
fn a_reload_keeps_who_serves_a_group_by_what_it_is() {
    let latency = lenient(best(&[1, 2], Prefer::LowestLatency));
    let mut before = three(vec![latency.clone()]);
    run(&mut before, 20, |id, _| [40.0, 10.0, 10.0][usize::from(id) - 1]);
    run(&mut before, 60, |id, _| [10.0, 11.0, 10.0][usize::from(id) - 1]);
    assert_eq!(of(&before, 0), [(2, 1)], "not clearly worse");
    let mut after = three(vec![lenient(ordered(&[3])), latency]);
    after.inherit(&before);
    assert_eq!((of(&after, 0), of(&after, 1)), (vec![(3, 1)], vec![(2, 1)]));
}

#[test]
fn a_reload_while_all_fail_together_throws_nobody_out() {
    let groups = vec![lenient(ordered(&[1, 2]))];
    let mut before = heard(three(groups.clone()));
    lose(&mut before, 1, 1..4);
    assert_eq!(of(&before, 0), [(2, 1)]);
    for id in [2, 3] {
        lose(&mut before, id, 1..2);
    }
    let mut after = three(groups);
    after.inherit(&before);
    assert_eq!(after.selection(), before.selection(), "the dead one stays out");
}
