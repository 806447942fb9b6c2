use super::*;
use crate::config::{self, Balance, Target, Then};
use crate::health;
use crate::health::Outage;
use crate::weights::Serving;
use crate::weights::tests::uplink;
use proptest::prelude::*;

mod damped;
mod groups;
mod model;
mod shares;
mod week;

/// Losses that are told so late leave no doubt that others have been heard since.
const WAITED: Duration = Duration::from_secs(1000);

/// One target each, IPv4, without any waiting.
pub(super) fn individual() -> Individual {
    let health = |targets| health::Settings {
        fall: 3,
        rise: 5,
        quorum: 1,
        targets,
        health: config::Health {
            hold_down: Duration::ZERO,
            slow_start: Duration::ZERO,
            switches_per_minute: 1_000,
            ..config::Health::default()
        },
    };
    let target = Target {
        address: [192, 0, 2, 1].into(),
        port: 0,
    };
    Individual {
        health: [health(1), health(0)],
        targets: [vec![target], vec![]],
        enabled: true,
        capacity: None,
        then: Then::LastResort,
    }
}

pub(super) fn settings() -> Settings {
    let names = (1..=4).map(|id| format!("isp{id}"));
    Settings {
        balance: Balance::default(),
        uplinks: names.map(|name| (name, individual())).collect(),
        groups: Vec::new(),
    }
}

/// A millisecond after the last event.
trait Next {
    fn on(&mut self, event: Event) -> Vec<Command>;
}

impl Next for Engine {
    fn on(&mut self, event: Event) -> Vec<Command> {
        self.handle(self.now + Duration::from_millis(1), event)
    }
}

fn engine() -> Engine {
    Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 1)], settings(), &[], &[])
}

/// The second is in reserve.
fn tiers() -> Engine {
    Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 2)], settings(), &[], &[])
}

fn path(uplink: u8) -> Path {
    Path {
        uplink,
        family: Family::V4,
    }
}

fn answered(id: u8, round: u64) -> Event {
    Event::Answered {
        path: path(id),
        target: 0,
        round,
        rtt: Duration::from_millis(10),
    }
}

fn answer(e: &mut Engine, id: u8, rounds: std::ops::Range<u64>) -> Vec<Command> {
    rounds.flat_map(|round| e.on(answered(id, round))).collect()
}

fn lose(e: &mut Engine, id: u8, rounds: std::ops::Range<u64>) -> Vec<Command> {
    rounds
        .flat_map(|round| {
            e.on(Event::Lost {
                path: path(id),
                target: 0,
                round,
                waited: WAITED,
            })
        })
        .collect()
}

#[test]
fn everybody_is_used_before_anything_is_known() {
    assert_eq!(engine().selection().v4, Serving(vec![(1, 3), (2, 1)]));
}

#[test]
fn flows_of_an_address_that_moved_start_anew_and_may_come_back_at_once() {
    let mut e = engine();
    let mut uplinks = e.uplinks().to_vec();
    uplinks[1].ifindex = 9;
    let commands = e.readdress(uplinks.clone());
    assert!(
        matches!(&commands[..], [Command::Publish(s)] if s.voided.is_empty()),
        "another interface is no other address: {commands:?}"
    );
    uplinks[0].v4.as_mut().unwrap().source = "10.0.1.7".parse().unwrap();
    let commands = e.readdress(uplinks);
    let [Command::Publish(s), Command::Abandon(p)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((&s.voided[..], *p), (&[path(1)][..], path(1)));
    assert_eq!(s.v4, Serving(vec![(1, 3), (2, 1)]));
}

#[test]
fn a_dead_uplink_leaves_the_table_before_its_connections_are_forgotten() {
    let mut e = engine();
    e.on(answered(2, 0));
    let commands = lose(&mut e, 1, 0..3);
    let [Command::Publish(s), Command::Abandon(p), Command::Announce(c)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(s.v4, Serving(vec![(2, 1)]));
    assert_eq!(s.voided, vec![path(1)]);
    assert_eq!(*p, path(1));
    assert_eq!((c.to, c.kept), (Verdict::Down, false));
}

#[test]
fn with_all_dead_the_last_good_table_stays() {
    let mut e = engine();
    lose(&mut e, 1, 0..3);
    let commands = lose(&mut e, 2, 0..3);
    assert_eq!(
        commands,
        [Command::Announce(Change {
            path: path(2),
            to: Verdict::Down,
            kept: true
        })]
    );
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
}

#[test]
fn the_first_to_return_after_a_blackout_serves_and_the_dead_are_abandoned_once() {
    let mut e = engine();
    lose(&mut e, 1, 0..3);
    lose(&mut e, 2, 0..3);
    let commands: Vec<_> = (10..15).flat_map(|r| e.on(answered(1, r))).collect();
    let [Command::Publish(s), Command::Abandon(p), Command::Announce(_)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(s.v4, Serving(vec![(1, 3)]));
    assert_eq!(*p, path(2));
}

#[test]
fn a_returning_uplink_abandons_nobody() {
    let mut e = engine();
    lose(&mut e, 1, 0..3);
    let commands: Vec<_> = (10..15).flat_map(|r| e.on(answered(1, r))).collect();
    assert!(matches!(&commands[..], [Command::Publish(s), Command::Announce(_)] if s.voided.is_empty()));
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
}

#[test]
fn what_an_earlier_daemon_found_dead_is_not_tried_on_users() {
    let e = Engine::new(
        vec![uplink(1, 3, 1), uplink(2, 1, 1)],
        settings(),
        &[path(1)],
        &[],
    );
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
}

#[test]
fn when_all_fail_together_nobody_is_thrown_out() {
    let mut e = engine();
    e.on(answered(1, 0));
    e.on(answered(2, 0));
    let before = e.selection().clone();
    for round in 1..10 {
        for id in [1, 2] {
            let commands = lose(&mut e, id, round..round + 1);
            assert!(
                commands.iter().all(|c| matches!(c, Command::Announce(_))),
                "{commands:?}"
            );
        }
    }
    for round in 10..20 {
        for id in [1, 2] {
            let commands = e.on(answered(id, round));
            assert!(
                commands.iter().all(|c| matches!(c, Command::Announce(_))),
                "{commands:?}"
            );
        }
    }
    assert_eq!(*e.selection(), before);
}

#[test]
fn a_failover_that_was_held_comes_with_the_others_first_answer() {
    let mut e = engine();
    e.on(answered(1, 0));
    e.on(answered(2, 0));
    lose(&mut e, 2, 1..2);
    lose(&mut e, 1, 1..4);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
    let commands = e.on(answered(2, 2));
    assert!(matches!(&commands[..], [Command::Publish(_), Command::Abandon(p)] if *p == path(1)));
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
}

#[test]
fn a_drained_uplink_takes_no_new_flows_and_keeps_the_old_ones() {
    let mut e = engine();
    let commands = e.on(Event::Drain(1));
    assert!(matches!(&commands[..], [Command::Publish(s)] if s.voided.is_empty()));
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    assert_eq!(e.drained(), ["isp1"]);
    assert!(e.on(Event::Drain(1)).is_empty());
    assert!(matches!(&e.on(Event::Enable(1))[..], [Command::Publish(_)]));
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
    assert!(e.on(Event::Enable(1)).is_empty() && e.drained().is_empty());
}

#[test]
fn a_drained_uplink_that_dies_is_abandoned() {
    let mut e = engine();
    e.on(Event::Drain(1));
    let commands = lose(&mut e, 1, 0..3);
    let [Command::Publish(s), Command::Abandon(p), Command::Announce(_)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((&s.voided, *p), (&vec![path(1)], path(1)));
    assert!(e.selection().voided.is_empty());
    // Its pins are void by then, so a second death has nothing to void.
    answer(&mut e, 1, 3..8);
    assert!(matches!(&lose(&mut e, 1, 8..11)[..], [Command::Announce(_)]));
}

#[test]
fn a_drained_uplink_that_dies_last_is_abandoned_with_the_others_first_answer() {
    let mut e = engine();
    answer(&mut e, 2, 0..1);
    e.on(Event::Drain(1));
    lose(&mut e, 2, 1..2);
    assert!(matches!(&lose(&mut e, 1, 1..4)[..], [Command::Announce(_)]));
    let commands = answer(&mut e, 2, 2..3);
    assert!(matches!(&commands[..], [Command::Publish(_), Command::Abandon(p)] if *p == path(1)));
}

#[test]
fn the_last_one_of_a_family_cannot_be_drained() {
    let mut e = engine();
    e.on(Event::Drain(1));
    let refusal = e.may_drain(2).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "isp2 is the only uplink left for IPv4: enable another first"
    );
    assert!(e.on(Event::Drain(2)).is_empty() && !e.is_drained(2));
    assert!(e.may_drain(1).is_ok() && e.may_drain(9).is_ok());

    let mut e = engine();
    lose(&mut e, 1, 0..3);
    let refusal = e.may_drain(2).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "isp2 is the only uplink left for IPv4: the others are down"
    );
    assert!(e.may_drain(1).is_ok());

    let e = Engine::new(vec![uplink(1, 1, 1)], settings(), &[], &[]);
    let refusal = e.may_drain(1).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "isp1 is the only uplink left for IPv4: no other one carries it"
    );
}

#[test]
fn a_drained_uplink_serves_when_all_others_are_dead() {
    let mut e = engine();
    answer(&mut e, 1, 0..1);
    e.on(Event::Drain(1));
    let commands = lose(&mut e, 2, 0..3);
    let [
        Command::Publish(s),
        Command::Abandon(dead),
        Command::Recall(back),
        Command::Announce(c),
    ] = &commands[..]
    else {
        panic!("{commands:?}");
    };
    assert_eq!(s.v4, Serving(vec![(1, 3)]));
    assert_eq!((*dead, *back, c.kept), (path(2), path(1), false));
    assert!(e.is_recalled(1));
    // The others come back: it is out again, and what it carries finishes there.
    let commands = answer(&mut e, 2, 3..8);
    assert!(matches!(&commands[..], [Command::Publish(s), Command::Announce(_)] if s.voided.is_empty()));
    assert!(!e.is_recalled(1));
}

#[test]
fn a_lost_probe_of_the_last_one_recalls_nobody() {
    let mut e = engine();
    e.on(Event::Drain(1));
    assert!(lose(&mut e, 2, 0..2).is_empty());
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
}

#[test]
fn a_drain_while_the_other_fails_comes_with_its_first_answer() {
    let mut e = engine();
    lose(&mut e, 2, 0..1);
    assert!(e.on(Event::Drain(1)).is_empty());
    assert!(e.is_recalled(1));
    assert!(matches!(
        &answer(&mut e, 2, 1..2)[..],
        [Command::Publish(_), Command::Announce(_)]
    ));
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
}

#[test]
fn drained_stays_drained_over_a_restart() {
    let uplinks = vec![uplink(1, 3, 1), uplink(2, 1, 1)];
    let drained = ["isp1".to_owned(), "gone".to_owned()];
    let mut e = Engine::new(uplinks.clone(), settings(), &[], &drained);
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    assert_eq!(e.drained(), ["isp1"]);
    // Flows of before are still on it.
    answer(&mut e, 2, 0..1);
    let commands = lose(&mut e, 1, 0..3);
    assert!(commands.contains(&Command::Abandon(path(1))), "{commands:?}");

    let e = Engine::new(uplinks, settings(), &[path(2)], &drained);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
}

#[test]
fn only_drained_ones_are_left_after_a_reload() {
    let e = Engine::new(vec![uplink(1, 3, 1)], settings(), &[], &["isp1".to_owned()]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3)]));
}

#[test]
fn a_better_tier_that_comes_back_retires_the_reserve() {
    let mut e = tiers();
    lose(&mut e, 1, 0..3);
    assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    assert!(e.void(path(2)).is_empty(), "it serves");
    let commands = answer(&mut e, 1, 3..8);
    let [Command::Publish(s), Command::Retire(p), Command::Announce(_)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((&s.voided, *p), (&vec![], path(2)));
    let commands = e.void(path(2));
    let [Command::Publish(s), Command::Abandon(p)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((&s.v4, &s.voided), (&Serving(vec![(1, 3)]), &vec![path(2)]));
    assert_eq!(*p, path(2));
    assert!(e.void(path(9)).is_empty(), "it is not configured");
}

#[test]
fn a_reserve_that_dies_with_flows_on_it_is_abandoned() {
    let mut e = tiers();
    lose(&mut e, 1, 0..3);
    answer(&mut e, 1, 3..8);
    let commands = lose(&mut e, 2, 0..3);
    assert!(matches!(&commands[..], [Command::Publish(_), Command::Abandon(p), _] if *p == path(2)));
}
