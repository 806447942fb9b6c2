//! The control loop as a pure state machine: events in, commands out. It does no I/O and reads
//! no clock, so days of it run in a test in milliseconds.

use std::time::Duration;

use uplink_common::Family;

use crate::health::{Health, Thresholds, Verdict};
use crate::resolve::Uplink;
use crate::weights::{self, Serving};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A probe was answered.
    Answered {
        /// Which path was probed.
        path: Path,
        /// Round of the probe.
        round: u64,
        /// Round-trip time.
        rtt: Duration,
    },
    /// A probe was lost.
    Lost {
        /// Which path was probed.
        path: Path,
        /// Round of the probe.
        round: u64,
    },
}

/// One address family of one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Uplink id.
    pub uplink: u8,
    /// Address family.
    pub family: Family,
}

/// What to do about it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make this the table of new flows, in the maps and in the kernel's multipath route.
    Publish(Selection),
    /// Forget the connections of an uplink that died, so that its flows start anew elsewhere.
    /// Only after the table that avoids it is live.
    Abandon(Path),
    /// Tell people.
    Announce(Change),
}

/// The uplinks of new flows, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// For IPv4.
    pub v4: Serving,
    /// For IPv6.
    pub v6: Serving,
    /// Paths whose pins are void from this table on.
    pub voided: Vec<Path>,
}

impl Selection {
    /// The uplinks of a family.
    #[must_use]
    pub const fn family(&self, family: Family) -> &Serving {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn family_mut(&mut self, family: Family) -> &mut Serving {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A flip that people should hear about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What flipped.
    pub path: Path,
    /// What it is now.
    pub to: Verdict,
    /// It is dead and serves all the same: nobody else answers either.
    pub kept: bool,
}

/// Configuration of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rise and fall.
    pub thresholds: Thresholds,
    /// Probes in a round, IPv4 and IPv6. A family without targets is judged by the other.
    pub targets: [usize; 2],
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Engine {
    uplinks: Vec<Uplink>,
    health: Vec<(Path, Health)>,
    settings: Settings,
    selection: Selection,
    /// A dead uplink still serves because nobody is known to be better.
    held: bool,
}

impl Engine {
    /// `was_down` names the paths that an earlier daemon had found dead.
    #[must_use]
    pub fn new(uplinks: Vec<Uplink>, settings: Settings, was_down: &[Path]) -> Self {
        let mut health = Vec::new();
        for u in &uplinks {
            for family in Family::ALL {
                if u.leg(family).is_some() {
                    let path = Path { uplink: u.id, family };
                    let verdict = if was_down.contains(&path) {
                        Verdict::Down
                    } else {
                        Verdict::Unknown
                    };
                    let targets = settings.targets[family as usize];
                    health.push((path, Health::new(settings.thresholds, targets, verdict)));
                }
            }
        }
        let selection = Selection::default();
        let mut engine = Self {
            uplinks,
            health,
            settings,
            selection,
            held: false,
        };
        for family in Family::ALL {
            *engine.selection.family_mut(family) = engine
                .serving(family)
                .or_else(|| weights::serving(&engine.uplinks, family, |_| true))
                .unwrap_or_default();
        }
        engine
    }

    /// The uplinks, in the order of the configuration.
    #[must_use]
    pub fn uplinks(&self) -> &[Uplink] {
        &self.uplinks
    }

    /// What new flows use now.
    #[must_use]
    pub const fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The health of one path.
    #[must_use]
    pub fn health(&self, path: Path) -> Option<&Health> {
        self.health.iter().find(|(p, _)| *p == path).map(|(_, h)| h)
    }

    /// The verdict on one path.
    #[must_use]
    pub fn verdict(&self, path: Path) -> Verdict {
        self.judged(path).map_or(Verdict::Unknown, Health::verdict)
    }

    fn failing(&self, path: Path) -> bool {
        self.judged(path).is_some_and(Health::failing)
    }

    /// The health that counts for a path: a family without targets follows the other one.
    fn serves_by_the_dead(&self) -> bool {
        let dead = |family, id| self.verdict(Path { uplink: id, family }) == Verdict::Down;
        let any = |family: Family| {
            self.selection
                .family(family)
                .0
                .iter()
                .any(|(id, _)| dead(family, *id))
        };
        Family::ALL.into_iter().any(any)
    }

    fn judged(&self, path: Path) -> Option<&Health> {
        let family = match path.family {
            Family::V4 if self.settings.targets[0] == 0 => Family::V6,
            Family::V6 if self.settings.targets[1] == 0 => Family::V4,
            own => own,
        };
        self.health(Path { family, ..path })
    }

    /// Takes one event and says what to do.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        let (path, flipped) = match event {
            Event::Answered { path, round, rtt } => (path, self.judge(path, |h| h.answer(round, rtt))),
            Event::Lost { path, round } => (path, self.judge(path, |h| h.loss_of(round))),
        };
        let mut commands = Vec::new();
        if flipped.is_some() || self.held {
            commands = self.settle();
            self.held = self.serves_by_the_dead();
        }
        if let Some(to) = flipped {
            let kept = to == Verdict::Down && self.selection.family(path.family).weight(path.uplink) > 0;
            commands.push(Command::Announce(Change { path, to, kept }));
        }
        commands
    }

    fn judge(&mut self, path: Path, result: impl FnOnce(&mut Health) -> Option<Verdict>) -> Option<Verdict> {
        let (_, health) = self.health.iter_mut().find(|(p, _)| *p == path)?;
        result(health)
    }

    /// Publishes first, abandons after: a flow whose connection is forgotten must already find
    /// the new table.
    fn settle(&mut self) -> Vec<Command> {
        let mut next = self.selection.clone();
        next.voided.clear();
        for family in Family::ALL {
            let Some(serving) = self.serving(family) else {
                continue;
            };
            for (id, _) in &self.selection.family(family).0 {
                let was = Path { uplink: *id, family };
                if serving.weight(*id) == 0 && self.verdict(was) == Verdict::Down {
                    next.voided.push(was);
                }
            }
            *next.family_mut(family) = serving;
        }
        if next.v4 == self.selection.v4 && next.v6 == self.selection.v6 {
            return Vec::new();
        }
        let abandoned = next.voided.clone();
        self.selection = next.clone();
        let publish = std::iter::once(Command::Publish(next));
        publish
            .chain(abandoned.into_iter().map(Command::Abandon))
            .collect()
    }

    /// Who should serve a family. `None` keeps the last good table: as long as nobody is known
    /// to answer, the trouble may be the targets or our own link, and every switch would only
    /// break flows. For the same reason a dead uplink that answers again is not thrown out
    /// just before it is up.
    fn serving(&self, family: Family) -> Option<Serving> {
        let path = |u: &Uplink| Path { uplink: u.id, family };
        let lives = |u: &Uplink| self.verdict(path(u)) != Verdict::Down;
        let carries = || self.uplinks.iter().filter(|u| u.leg(family).is_some());
        if carries().next().is_none() {
            return Some(Serving::default());
        }
        if !carries().any(|u| lives(u) && !self.failing(path(u))) {
            return None;
        }
        let serves = |u: &Uplink| self.selection.family(family).weight(u.id) > 0;
        weights::serving(&self.uplinks, family, |u| {
            lives(u) || (serves(u) && !self.failing(path(u)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tests::uplink;
    use proptest::prelude::*;

    fn engine() -> Engine {
        let settings = Settings {
            thresholds: Thresholds { fall: 3, rise: 5 },
            targets: [1, 0],
        };
        Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 1)], settings, &[])
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
            round,
            rtt: Duration::from_millis(10),
        }
    }

    fn lose(e: &mut Engine, id: u8, rounds: std::ops::Range<u64>) -> Vec<Command> {
        rounds
            .flat_map(|round| {
                e.handle(Event::Lost {
                    path: path(id),
                    round,
                })
            })
            .collect()
    }

    #[test]
    fn everybody_is_used_before_anything_is_known() {
        assert_eq!(engine().selection().v4, Serving(vec![(1, 3), (2, 1)]));
    }

    #[test]
    fn a_dead_uplink_leaves_the_table_before_its_connections_are_forgotten() {
        let mut e = engine();
        e.handle(answered(2, 0));
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
        let commands: Vec<_> = (10..15).flat_map(|r| e.handle(answered(1, r))).collect();
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
        let commands: Vec<_> = (10..15).flat_map(|r| e.handle(answered(1, r))).collect();
        assert!(matches!(&commands[..], [Command::Publish(s), Command::Announce(_)] if s.voided.is_empty()));
        assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
    }

    #[test]
    fn what_an_earlier_daemon_found_dead_is_not_tried_on_users() {
        let settings = Settings {
            thresholds: Thresholds { fall: 3, rise: 5 },
            targets: [1, 0],
        };
        let e = Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 1)], settings, &[path(1)]);
        assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    }

    #[test]
    fn when_all_fail_together_nobody_is_thrown_out() {
        let mut e = engine();
        e.handle(answered(1, 0));
        e.handle(answered(2, 0));
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
                let commands = e.handle(answered(id, round));
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
        e.handle(answered(1, 0));
        e.handle(answered(2, 0));
        lose(&mut e, 2, 1..2);
        lose(&mut e, 1, 1..4);
        assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
        let commands = e.handle(answered(2, 2));
        assert!(matches!(&commands[..], [Command::Publish(_), Command::Abandon(p)] if *p == path(1)));
        assert_eq!(e.selection().v4, Serving(vec![(2, 1)]));
    }

    proptest! {
        /// Whatever is answered and lost: somebody always serves, and nobody who is dead and
        /// silent does while another one is known to answer.
        #[test]
        fn never_a_dead_uplink_while_one_lives(events in prop::collection::vec((1u8..=2, any::<bool>()), 0..500)) {
            let mut e = engine();
            for (round, (id, ok)) in events.into_iter().enumerate() {
                let round = round as u64;
                e.handle(if ok { answered(id, round) } else { Event::Lost { path: path(id), round } });
                let serving = &e.selection().v4.0;
                prop_assert!(!serving.is_empty());
                let dead = |id: &u8| e.verdict(path(*id)) == Verdict::Down;
                let answers = [1, 2].iter().any(|id| !dead(id) && !e.failing(path(*id)));
                for (id, _) in serving {
                    prop_assert!(!answers || !dead(id) || !e.failing(path(*id)));
                }
            }
        }
    }
}
