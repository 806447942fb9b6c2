//! The control loop as a pure state machine: events in, commands out. It does no I/O and reads
//! no clock, so days of it run in a test in milliseconds. Times are since the daemon's start.

mod choose;
mod drain;
mod groups;
mod readdress;
mod settings;
mod settle;
mod targets;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uplink_common::Family;

pub use drain::Refusal;
pub use settings::{Individual, Settings};
pub use words::{Change, Command, Event, Path, Selection};

use crate::health::{Health, Verdict};
use crate::resolve::Uplink;
use crate::weights::Rate;

/// The engine.
#[derive(Clone, Debug)]
pub struct Engine {
    uplinks: Vec<Uplink>,
    health: Vec<(Path, Health)>,
    settings: Settings,
    selection: Selection,
    /// When the last event happened.
    now: Duration,
    /// Ids of uplinks taken out by hand.
    drained: BTreeSet<u8>,
    /// Ids of uplinks whose quota is used up.
    used_up: BTreeSet<u8>,
    /// What uplinks carry, by id.
    carried: BTreeMap<u8, Rate>,
    /// When paths came back whose weight still grows.
    recovered: BTreeMap<Path, Duration>,
    /// When more probes were last asked for.
    sampled: BTreeMap<Path, Duration>,
    /// The part of new flows that a path passes on to the next one, and when that was last looked
    /// at.
    spilled: BTreeMap<Path, f64>,
    spilled_at: Duration,
    /// When the shares of a family last changed.
    stepped: [Duration; 2],
    /// The same for groups of policies.
    clocks: Vec<[groups::Clock; 2]>,
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
            clocks: vec![Default::default(); settings.groups.len()],
            selection: Selection {
                groups: groups::unserved(&settings.groups),
                ..Selection::default()
            },
            settings,
            now: Duration::ZERO,
            used_up: BTreeSet::new(),
            carried: BTreeMap::new(),
            recovered: BTreeMap::new(),
            sampled: BTreeMap::new(),
            spilled: BTreeMap::new(),
            spilled_at: Duration::ZERO,
            stepped: [Duration::ZERO; 2],
            holders: BTreeSet::new(),
            held: false,
        };
        for family in Family::ALL {
            engine.begin(family);
        }
        // The living may have pins that an earlier daemon made; those of the dead are void.
        let paths = engine.health.iter().map(|(p, _)| *p);
        engine.holders = paths
            .filter(|p| !was_down.contains(p) || engine.serves(*p))
            .collect();
        engine.held = engine.unsettled();
        engine
    }

    /// What the engine before a reload knew of paths that are judged as before: nobody has to be
    /// measured anew. Goes before the first event.
    pub fn inherit(&mut self, before: &Self) {
        for (path, health) in &mut self.health {
            let (old, new) = (
                before.individual(path.uplink),
                self.settings.uplinks.get(name(&self.uplinks, *path)),
            );
            let known = before.health(*path);
            if let (true, Some(known)) = (old == new, known) {
                *health = known.clone();
            }
        }
        self.now = before.now;
        self.used_up.clone_from(&before.used_up);
        self.carried.clone_from(&before.carried);
        self.recovered.clone_from(&before.recovered);
        self.spilled.clone_from(&before.spilled);
        self.inherit_groups(before);
        for family in Family::ALL {
            *self.selection.family_mut(family) = before.selection.family(family).clone();
            self.begin(family);
        }
        let paths = self.health.iter().map(|(p, _)| *p);
        self.holders = paths
            .filter(|p| before.holders.contains(p) || self.serves(*p))
            .collect();
        self.held = self.unsettled();
    }

    fn individual(&self, id: u8) -> Option<&Individual> {
        let u = self.uplinks.iter().find(|u| u.id == id)?;
        self.settings.uplinks.get(&u.name)
    }

    /// What policies may use, by number.
    #[must_use]
    pub fn groups(&self) -> &[crate::config::Group] {
        &self.settings.groups
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

    /// The paths: every family that an uplink carries.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.health.iter().map(|(path, _)| *path)
    }

    /// The health of one path.
    #[must_use]
    pub fn health(&self, path: Path) -> Option<&Health> {
        self.health.iter().find(|(p, _)| *p == path).map(|(_, h)| h)
    }

    fn health_mut(&mut self, path: Path) -> Option<&mut Health> {
        self.health.iter_mut().find(|(p, _)| *p == path).map(|(_, h)| h)
    }

    /// The verdict on one path.
    #[must_use]
    pub fn verdict(&self, path: Path) -> Verdict {
        match self.health(path).and_then(Health::outage) {
            Some(_) => Verdict::Down,
            None => self.judged(path).map_or(Verdict::Unknown, Health::verdict),
        }
    }

    /// Why a path is not up, for people; may be empty.
    #[must_use]
    pub fn reason(&self, path: Path) -> String {
        let own = self.health(path).filter(|h| h.outage().is_some());
        own.or_else(|| self.judged(path))
            .map_or_else(String::new, Health::reason)
    }

    fn failing(&self, path: Path) -> bool {
        let own = self.health(path).is_some_and(Health::failing);
        own || self.judged(path).is_some_and(Health::failing)
    }

    /// Whether new flows use the path, everybody's or those of policies.
    #[must_use]
    pub fn serves(&self, path: Path) -> bool {
        self.selection.serves(path)
    }

    /// Nobody is known to answer, so nothing is decided; or somebody serves who should not, or is dead and not
    /// yet abandoned, for want of a better one: every answer may change that.
    fn unsettled(&self) -> bool {
        if Family::ALL
            .into_iter()
            .any(|family| self.serving(family).is_none())
        {
            return true;
        }
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
        let own = self.health(path)?;
        let other = match path.family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        match own.settings().targets {
            0 => self
                .health(Path {
                    family: other,
                    ..path
                })
                .or(Some(own)),
            _ => Some(own),
        }
    }

    /// Takes one event that happened at `now` and says what to do.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Command> {
        self.now = now.max(self.now);
        let (flips, news) = self.take(event);
        let mut commands = Vec::new();
        if news || self.held || !flips.is_empty() {
            self.note_recoveries(&flips);
            commands = self.settle();
            self.held = self.unsettled();
        }
        for (path, to) in flips {
            let kept = to == Verdict::Down && self.serves(path);
            commands.push(Command::Announce(Change { path, to, kept }));
        }
        commands
    }

    /// The flips, and whether anything else asks for a new selection.
    fn take(&mut self, event: Event) -> (Vec<(Path, Verdict)>, bool) {
        let now = self.now;
        let flip = |path, to: Option<Verdict>| to.map(|to| (path, to)).into_iter().collect();
        match event {
            Event::Answered {
                path,
                target,
                round,
                rtt,
            } => {
                let silent = |h: &Health| h.rtt_ms().is_none() || h.lost_by(target) > 0;
                let first = self.health(path).is_some_and(silent);
                let to = self.judge(path, |h| h.answer(now, target, round, rtt));
                if first {
                    self.leave_out_dead_targets(path.family);
                }
                (flip(path, to), false)
            }
            Event::Lost {
                path,
                target,
                round,
                waited,
            } => {
                let sent = now.saturating_sub(waited);
                let to = self.judge(path, |h| h.lose(now, target, round, sent));
                if self.health(path).is_some_and(|h| h.lost_by(target) <= 2) {
                    self.leave_out_dead_targets(path.family);
                }
                (flip(path, to), false)
            }
            Event::Outages(outages) => {
                let set = |(path, outage)| Some((path, self.judge(path, |h| h.set_outage(now, outage))?));
                (outages.into_iter().filter_map(set).collect(), true)
            }
            Event::Drain(id) => (Vec::new(), self.may_drain(id).is_ok() && self.drained.insert(id)),
            Event::Enable(id) => (Vec::new(), self.drained.remove(&id)),
            Event::Carried(carried) => {
                self.carried = carried;
                (Vec::new(), false)
            }
            Event::UsedUp(ids) => {
                let news = self.used_up != ids;
                self.used_up = ids;
                (Vec::new(), news)
            }
            Event::Tick => {
                self.spill();
                (self.tick(), true)
            }
        }
    }

    /// What time alone brings about.
    fn tick(&mut self) -> Vec<(Path, Verdict)> {
        let now = self.now;
        let mut flips = Vec::new();
        for (path, health) in &mut self.health {
            flips.extend(health.judge(now).map(|to| (*path, to)));
        }
        flips
    }

    /// An uplink that was dead starts slowly where others can carry the rest.
    fn note_recoveries(&mut self, flips: &[(Path, Verdict)]) {
        for (path, to) in flips {
            match to {
                Verdict::Down => drop(self.recovered.remove(path)),
                Verdict::Up | Verdict::Degraded if !self.serves(*path) => {
                    self.recovered.insert(*path, self.now);
                }
                _ => {}
            }
        }
    }

    /// The paths that should be probed more often for a second, each once in half of one.
    pub fn doubtful(&mut self) -> Vec<Path> {
        const AGAIN: Duration = Duration::from_millis(500);
        let now = self.now;
        let doubts = self.health.iter().filter(|(_, h)| h.doubts()).map(|(p, _)| *p);
        let due = |p: &Path| {
            self.sampled
                .get(p)
                .is_none_or(|then| now.saturating_sub(*then) >= AGAIN)
        };
        let due: Vec<Path> = doubts.filter(due).collect();
        self.sampled.extend(due.iter().map(|p| (*p, now)));
        due
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
        self.health_mut(path).and_then(result)
    }
}

fn name(uplinks: &[Uplink], path: Path) -> &str {
    uplinks
        .iter()
        .find(|u| u.id == path.uplink)
        .map_or("", |u| &u.name)
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
            let Some(individual) = settings.uplinks.get(&u.name) else {
                continue;
            };
            health.push((
                path,
                Health::new(individual.health[family as usize].clone(), verdict),
            ));
        }
    }
    health
}

#[cfg(test)]
mod tests;
