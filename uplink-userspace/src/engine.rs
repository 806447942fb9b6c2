//! The control loop as a pure state machine: events in, commands out. It does no I/O and reads
//! no clock, so days of it run in a test in milliseconds.

mod drain;
mod readdress;

use std::collections::BTreeSet;
use std::time::Duration;

use uplink_common::Family;

pub use drain::Refusal;

use crate::config::Config;
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
        /// Which target of the path's family was asked, in the order of the file.
        target: u8,
        /// Round of the probe.
        round: u64,
        /// Round-trip time.
        rtt: Duration,
    },
    /// A probe was lost.
    Lost {
        /// Which path was probed.
        path: Path,
        /// Which target of the path's family was asked, in the order of the file.
        target: u8,
        /// Round of the probe.
        round: u64,
    },
    /// Somebody wants this uplink, by id, to take no new flows. Nothing happens where
    /// [`Engine::may_drain`] says no.
    Drain(u8),
    /// Somebody wants it back.
    Enable(u8),
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
    /// The path lives and takes no new flows any more, because a better one came back:
    /// `[nat] on_failback` says what becomes of its flows. After the table that avoids it.
    Retire(Path),
    /// The path was drained by hand and takes new flows all the same: nobody else answers.
    Recall(Path),
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
    /// Paths whose pins are void from this table on; set in [`Command::Publish`] only, so that
    /// publishing the table again voids nothing twice.
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

impl Settings {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            thresholds: Thresholds {
                fall: config.probe.fall,
                rise: config.probe.rise,
            },
            targets: Family::ALL.map(|family| config.probe.targets_of(family).count()),
        }
    }
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Engine {
    uplinks: Vec<Uplink>,
    health: Vec<(Path, Health)>,
    settings: Settings,
    selection: Selection,
    /// Ids of uplinks taken out by hand.
    drained: BTreeSet<u8>,
    /// Paths that may have flows: they served since their pins were last voided.
    holders: BTreeSet<Path>,
    /// The table is not as it should be, because nobody is known to be better.
    held: bool,
}

impl Engine {
    /// `was_down` names the paths that an earlier daemon had found dead, `drained` the uplinks
    /// that were taken out by hand; names that are not configured are ignored.
    #[must_use]
    pub fn new(uplinks: Vec<Uplink>, settings: Settings, was_down: &[Path], drained: &[String]) -> Self {
        let health = unprobed(&uplinks, &settings, was_down);
        let drained = uplinks.iter().filter(|u| drained.contains(&u.name));
        let mut engine = Self {
            drained: drained.map(|u| u.id).collect(),
            uplinks,
            health,
            settings,
            selection: Selection::default(),
            holders: BTreeSet::new(),
            held: false,
        };
        for family in Family::ALL {
            *engine.selection.family_mut(family) = engine.first(family);
        }
        // The living may have pins that an earlier daemon made; those of the dead are void.
        let paths = engine.health.iter().map(|(p, _)| *p);
        engine.holders = paths
            .filter(|p| !was_down.contains(p) || engine.serves(*p))
            .collect();
        engine.held = engine.unsettled();
        engine
    }

    /// Who serves before anybody has answered.
    fn first(&self, family: Family) -> Serving {
        let undrained = |u: &Uplink| !self.drained.contains(&u.id);
        self.serving(family)
            .or_else(|| weights::serving(&self.uplinks, family, undrained))
            .or_else(|| weights::serving(&self.uplinks, family, |_| true))
            .unwrap_or_default()
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

    /// Whether new flows use the path.
    fn serves(&self, path: Path) -> bool {
        self.selection.family(path.family).weight(path.uplink) > 0
    }

    /// Somebody serves who should not, or is dead and not yet abandoned, for want of a better
    /// one: every answer may change that.
    fn unsettled(&self) -> bool {
        let dead = |path: Path| self.verdict(path) == Verdict::Down;
        let unwanted = |path: Path| dead(path) || self.drained.contains(&path.uplink);
        let mut paths = self.health.iter().map(|(p, _)| *p);
        paths.any(|p| match self.serves(p) {
            true => unwanted(p),
            false => dead(p) && self.holders.contains(&p),
        })
    }

    /// The health that counts for a path: a family without targets follows the other one.
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
        let mut flip = None;
        let news = match event {
            Event::Answered { path, round, rtt, .. } => {
                flip = self.judge(path, |h| h.answer(round, rtt)).map(|to| (path, to));
                flip.is_some()
            }
            Event::Lost { path, round, .. } => {
                flip = self.judge(path, |h| h.loss_of(round)).map(|to| (path, to));
                flip.is_some()
            }
            Event::Drain(id) => self.may_drain(id).is_ok() && self.drained.insert(id),
            Event::Enable(id) => self.drained.remove(&id),
        };
        let mut commands = Vec::new();
        if news || self.held {
            commands = self.settle();
            self.held = self.unsettled();
        }
        if let Some((path, to)) = flip {
            let kept = to == Verdict::Down && self.serves(path);
            commands.push(Command::Announce(Change { path, to, kept }));
        }
        commands
    }

    /// Voids the pins of a path that does not serve, so that its flows go on elsewhere. Nothing
    /// to do where it serves by now, or is not configured any more.
    pub fn void(&mut self, path: Path) -> Vec<Command> {
        if self.serves(path) || self.health(path).is_none() {
            return Vec::new();
        }
        self.holders.remove(&path);
        let voided = vec![path];
        let publish = Command::Publish(Selection {
            voided,
            ..self.selection.clone()
        });
        vec![publish, Command::Abandon(path)]
    }

    fn judge(&mut self, path: Path, result: impl FnOnce(&mut Health) -> Option<Verdict>) -> Option<Verdict> {
        let (_, health) = self.health.iter_mut().find(|(p, _)| *p == path)?;
        result(health)
    }

    /// Publishes first, abandons after: a flow whose connection is forgotten must already find
    /// the new table.
    fn settle(&mut self) -> Vec<Command> {
        let before = self.selection.clone();
        let mut voided = Vec::new();
        for family in Family::ALL {
            // As long as nobody is known to answer, the dead keep their flows, too.
            if let Some(serving) = self.serving(family) {
                *self.selection.family_mut(family) = serving;
                voided.extend(self.stranded(family));
            }
        }
        if self.selection == before && voided.is_empty() {
            return Vec::new();
        }
        for path in self.health.iter().map(|(p, _)| *p) {
            if self.serves(path) {
                self.holders.insert(path);
            }
        }
        self.holders.retain(|p| !voided.contains(p));
        self.commands(&before, voided)
    }

    /// Dead paths that may have flows and take no new ones.
    fn stranded(&self, family: Family) -> Vec<Path> {
        let holders = self.holders.iter().filter(|p| p.family == family);
        holders
            .filter(|p| !self.serves(**p) && self.verdict(**p) == Verdict::Down)
            .copied()
            .collect()
    }

    /// What the step from `before` to the selection of now asks for.
    fn commands(&self, before: &Selection, voided: Vec<Path>) -> Vec<Command> {
        let mut commands: Vec<_> = voided.iter().copied().map(Command::Abandon).collect();
        for path in self.health.iter().map(|(p, _)| *p) {
            let served = before.family(path.family).weight(path.uplink) > 0;
            let drained = self.drained.contains(&path.uplink);
            match (served, self.serves(path)) {
                // Flows of an uplink that was drained by hand finish on their own.
                (true, false) if !drained && !voided.contains(&path) => {
                    commands.push(Command::Retire(path));
                }
                (false, true) if drained => commands.push(Command::Recall(path)),
                _ => {}
            }
        }
        let selection = Selection {
            voided,
            ..self.selection.clone()
        };
        commands.insert(0, Command::Publish(selection));
        commands
    }

    /// Who should serve a family. `None` keeps the last good table: as long as nobody is known
    /// to answer, the trouble may be the targets or our own link, and every switch would only
    /// break flows. For the same reason a dead uplink that answers again is not thrown out
    /// just before it is up. Drained uplinks serve when all others are dead: people's traffic
    /// comes before the wish to have it elsewhere.
    fn serving(&self, family: Family) -> Option<Serving> {
        let path = |u: &Uplink| Path { uplink: u.id, family };
        let lives = |u: &Uplink| self.verdict(path(u)) != Verdict::Down;
        let answers = |u: &Uplink| lives(u) && !self.failing(path(u));
        let usable = |u: &Uplink| lives(u) || (self.serves(path(u)) && !self.failing(path(u)));
        let drained = |u: &Uplink| self.drained.contains(&u.id);
        let carries = || self.uplinks.iter().filter(|u| u.leg(family).is_some());
        if carries().next().is_none() {
            return Some(Serving::default());
        }
        if carries().any(|u| !drained(u) && answers(u)) {
            return weights::serving(&self.uplinks, family, |u| !drained(u) && usable(u));
        }
        // A lost probe is not yet a reason to go against the wish.
        if carries().any(|u| !drained(u) && usable(u)) || !carries().any(|u| drained(u) && answers(u)) {
            return None;
        }
        weights::serving(&self.uplinks, family, |u| drained(u) && usable(u))
    }
}

/// The health of every path, before the first probe.
fn unprobed(uplinks: &[Uplink], settings: &Settings, was_down: &[Path]) -> Vec<(Path, Health)> {
    let mut health = Vec::new();
    for u in uplinks {
        for family in Family::ALL.into_iter().filter(|f| u.leg(*f).is_some()) {
            let path = Path { uplink: u.id, family };
            let verdict = match was_down.contains(&path) {
                true => Verdict::Down,
                false => Verdict::Unknown,
            };
            let targets = settings.targets[family as usize];
            health.push((path, Health::new(settings.thresholds, targets, verdict)));
        }
    }
    health
}

#[cfg(test)]
mod tests;
