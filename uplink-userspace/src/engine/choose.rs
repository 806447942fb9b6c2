//! Who takes new flows, and with what weight.

use std::time::Duration;

use uplink_common::Family;

use super::groups::Place;
use super::{Engine, Path};
use crate::config::{By, Choice, Then};
use crate::health::{Health, Verdict};
use crate::resolve::Uplink;
use crate::weights::{self, Member, Serving};

/// Measured shares change in steps of this, so that noise moves nothing.
const BAND: f64 = 0.03;
/// Between two steps.
pub(super) const STEP: Duration = Duration::from_secs(2);

/// How much an uplink is wanted; the best kind that anybody is of serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// It is as it should be.
    Good,
    /// Worse than it should be.
    Degraded,
    /// Its quota is used up.
    LastResort,
    /// Drained by hand.
    Drained,
}

impl Engine {
    /// Whether the uplink is used at all: neither disabled, nor out of a quota that says so.
    pub(super) fn is_in_use(&self, id: u8) -> bool {
        let Some(individual) = self.individual(id) else {
            return true;
        };
        individual.enabled && !(self.used_up.contains(&id) && individual.then == Then::Disable)
    }

    /// Why an uplink is not used at all, if so.
    #[must_use]
    pub fn out_of_use(&self, id: u8) -> Option<&'static str> {
        if self.is_in_use(id) {
            return None;
        }
        let enabled = self.individual(id).is_none_or(|i| i.enabled);
        Some(match enabled {
            true => "its quota is used up",
            false => "the configuration says `enabled = false`",
        })
    }

    /// Whether it serves only when no other one answers, because its quota is used up.
    #[must_use]
    pub fn is_last_resort(&self, id: u8) -> bool {
        self.used_up.contains(&id) && self.is_in_use(id)
    }

    pub(super) fn carries(&self, u: &Uplink, family: Family) -> bool {
        u.leg(family).is_some() && self.is_in_use(u.id)
    }

    pub(super) fn wish(&self, path: Path) -> Wish {
        if self.drained.contains(&path.uplink) {
            Wish::Drained
        } else if self.used_up.contains(&path.uplink) {
            Wish::LastResort
        } else if self.verdict(path) == Verdict::Degraded {
            Wish::Degraded
        } else {
            Wish::Good
        }
    }

    /// Who should serve a family. `None` keeps the last good table: as long as nobody is known
    /// to answer, the trouble may be the targets or our own link, and every switch would only
    /// break flows. For the same reason a dead uplink that answers again is not thrown out
    /// just before it is up. Drained uplinks serve when all others are dead: people's traffic
    /// comes before the wish to have it elsewhere.
    pub(super) fn serving(&self, family: Family) -> Option<Serving> {
        let path = |u: &Uplink| Path { uplink: u.id, family };
        let lives = |u: &Uplink| self.verdict(path(u)) != Verdict::Down;
        let answers = |u: &Uplink| lives(u) && !self.failing(path(u));
        let serves = |u: &Uplink| self.selection.family(family).weight(u.id) > 0;
        let usable = |u: &Uplink| lives(u) || (serves(u) && !self.failing(path(u)));
        let drained = |u: &Uplink| self.drained.contains(&u.id);
        let carries = || self.uplinks.iter().filter(|u| self.carries(u, family));
        if carries().next().is_none() {
            return Some(Serving::default());
        }
        if carries().any(|u| !drained(u) && answers(u) && self.is_witness(path(u))) {
            return self.best(family, |u| !drained(u) && usable(u));
        }
        // A lost probe is not yet a reason to go against the wish, nor is silence of all.
        if carries().any(|u| !drained(u) && answers(u))
            || carries().any(|u| !drained(u) && usable(u))
            || !carries().any(|u| drained(u) && answers(u))
        {
            return None;
        }
        self.best(family, |u| drained(u) && usable(u))
    }

    /// Since when the dead that are still in use have been silent; outages speak for themselves.
    fn silence(&self, family: Family) -> Option<Duration> {
        let in_use = |p: &Path| p.family == family && (self.serves(*p) || self.holders.contains(p));
        let dead = self.paths().filter(in_use).filter_map(|p| self.judged(p));
        let dead = dead.filter(|h| h.verdict() == Verdict::Down && h.outage().is_none());
        dead.filter_map(Health::silent_since).max()
    }

    /// Whether a path is known to have outlived those that are silent: it has answered since, or
    /// was never heard at all, which is the start.
    fn is_witness(&self, path: Path) -> bool {
        let heard = self.judged(path).and_then(Health::heard);
        match (heard, self.silence(path.family)) {
            (Some(heard), Some(since)) => heard >= since,
            _ => true,
        }
    }

    /// The paths that should be asked at once: somebody is dead, and that others live is old
    /// knowledge. Uplinks that fail together are found out so.
    #[must_use]
    pub fn witnesses(&self) -> Vec<Path> {
        if Family::ALL.iter().all(|family| self.silence(*family).is_none()) {
            return Vec::new();
        }
        let lives = |p: &Path| self.verdict(*p) != Verdict::Down && !self.failing(*p);
        let stale = |p: &Path| self.is_in_use(p.uplink) && lives(p) && !self.is_witness(*p);
        self.paths().filter(stale).collect()
    }

    /// Who serves while nobody is known to answer.
    pub(super) fn first(&self, family: Family) -> Serving {
        let kept = self.still_carries(self.selection.family(family), family);
        let undrained = |u: &Uplink| !self.drained.contains(&u.id);
        let kept = Some(kept).filter(|kept| !kept.0.is_empty());
        kept.or_else(|| self.best(family, undrained))
            .or_else(|| self.best(family, |_| true))
            .unwrap_or_default()
    }

    /// Those of some who serve that still may, after a reload.
    pub(super) fn still_carries(&self, serving: &Serving, family: Family) -> Serving {
        let carries = |id: u8| self.uplinks.iter().any(|u| u.id == id && self.carries(u, family));
        Serving(serving.0.iter().filter(|(id, _)| carries(*id)).copied().collect())
    }

    /// Of those who carry the family and may: the most wanted, of them the lowest tier.
    fn best(&self, family: Family, may: impl Fn(&Uplink) -> bool) -> Option<Serving> {
        let members = self.members(&Choice::default(), family, may);
        (!members.is_empty()).then(|| self.weighted(family, &members))
    }

    /// Of those of a choice who carry the family and may: the most wanted, of them the lowest tier.
    pub(super) fn members(
        &self,
        choice: &Choice,
        family: Family,
        may: impl Fn(&Uplink) -> bool,
    ) -> Vec<Member> {
        let mut candidates: Vec<(&Uplink, Place)> = Vec::new();
        for u in self.uplinks.iter().filter(|u| self.carries(u, family) && may(u)) {
            candidates.extend(Place::of(choice, u).map(|place| (u, place)));
        }
        let rank = |(u, place): &(&Uplink, Place)| (self.wish(Path { uplink: u.id, family }), place.tier);
        let best = candidates.iter().map(rank).min();
        candidates.retain(|candidate| Some(rank(candidate)) == best);
        candidates.sort_by_key(|(_, place)| place.at);
        let member = |(u, place): (&Uplink, Place)| Member {
            weight: place.weight,
            ..self.member(u, family)
        };
        candidates.into_iter().map(member).collect()
    }

    fn member(&self, u: &Uplink, family: Family) -> Member {
        let path = Path { uplink: u.id, family };
        let judged = self.judged(path);
        Member {
            id: u.id,
            weight: u.weight,
            rtt_ms: judged.and_then(Health::rtt_ms),
            jitter_ms: judged.and_then(Health::jitter_ms).unwrap_or(0.0),
            loss: judged.map_or(0.0, Health::loss),
            probes: judged.map_or(0, Health::probes),
            capacity: self.individual(u.id).and_then(|i| i.capacity),
            carried: self.carried.get(&u.id).copied().unwrap_or_default(),
            ramp: self.ramp(path),
        }
    }

    /// Shares by the configuration's rule.
    fn weighted(&self, family: Family, members: &[Member]) -> Serving {
        if self.settings.balance.spillover.is_some() {
            return self.spilled(family, members);
        }
        let early = self.now.saturating_sub(self.stepped[family as usize]) < STEP;
        in_steps(
            self.settings.balance.by,
            members,
            self.selection.family(family),
            early,
        )
    }

    /// Each passes on what is too much for it; whoever is reached by nothing takes no flows.
    fn spilled(&self, family: Family, members: &[Member]) -> Serving {
        let passed_on = |m: &Member| {
            let path = Path { uplink: m.id, family };
            self.spilled.get(&path).copied().unwrap_or(0.0)
        };
        let parts: Vec<f64> = members.iter().map(passed_on).collect();
        let ids: Vec<u8> = members.iter().map(|m| m.id).collect();
        let shares = weights::cascade(&parts);
        let reached: Vec<(u8, f64)> = ids.into_iter().zip(shares).filter(|(_, s)| *s > 0.0).collect();
        let (ids, shares): (Vec<u8>, Vec<f64>) = reached.into_iter().unzip();
        weights::scaled(&ids, &shares)
    }

    /// Every two seconds: what serves passes on more or less than before.
    pub(super) fn spill(&mut self) {
        let Some(limit) = self.settings.balance.spillover else {
            return;
        };
        if self.now.saturating_sub(self.spilled_at) < STEP {
            return;
        }
        self.spilled_at = self.now;
        let serves = |p: &Path| self.selection.family(p.family).weight(p.uplink) > 0;
        let paths: Vec<Path> = self.paths().filter(serves).collect();
        for path in paths {
            let Some(at) = self.uplinks.iter().position(|u| u.id == path.uplink) else {
                continue;
            };
            let size = |u: &Uplink| self.member(u, path.family).capacity.map_or(0.0, |c| c.down);
            let behind = self.uplinks[at + 1..].iter();
            let behind = behind.filter(|u| u.tier == self.uplinks[at].tier && self.carries(u, path.family));
            let later: f64 = behind.map(size).sum();
            let most = later / (later + size(&self.uplinks[at])).max(1.0);
            let usage = self.member(&self.uplinks[at], path.family).usage();
            let part = self.spilled.entry(path).or_default();
            *part = weights::spill(*part, usage, limit, most);
        }
    }

    fn ramp(&self, path: Path) -> f64 {
        let slow_start = self
            .individual(path.uplink)
            .map_or(Duration::ZERO, |i| i.health[0].health.slow_start);
        let since = self.recovered.get(&path);
        since.map_or(1.0, |since| {
            weights::ramp(self.now.saturating_sub(*since), slow_start)
        })
    }
}

/// Shares of members who are `current` now. What was measured changes them in steps, not `early` after the last
/// one; what was written or is over for good, at once.
pub(super) fn in_steps(by: By, members: &[Member], current: &Serving, early: bool) -> Serving {
    if by == By::Weight && members.iter().all(|m| m.ramp >= 1.0) {
        return Serving(members.iter().map(|m| (m.id, m.weight)).collect());
    }
    let ids: Vec<u8> = members.iter().map(|m| m.id).collect();
    let wanted = weights::scaled(&ids, &weights::effective(members, by));
    let same = current.is_close(&wanted, 2.0);
    if same && by != By::Weight && (early || current.is_close(&wanted, BAND)) {
        return current.clone();
    }
    wanted
}
