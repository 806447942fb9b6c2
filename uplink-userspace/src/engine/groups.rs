//! Who takes the new flows of policies: of a group of uplinks those who live, chosen like everybody's, or the one
//! that is best by a measure.
//!
//! A group follows the table for everybody: while that one is held because nobody is known to answer, all groups
//! are, too. Nobody serves a group none of whose uplinks may; its policies then fall back to the table for everybody,
//! or refuse where they are strict.

use std::time::Duration;

use uplink_common::Family;

use super::choose::{STEP, Wish, in_steps};
use super::{Engine, Path};
use crate::config::{By, Choice, Group, Prefer};
use crate::health::{Flips, Verdict};
use crate::resolve::Uplink;
use crate::weights::{self, Member, Serving};

/// What an uplink is within a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Lower is preferred.
    pub tier: u32,
    /// Relative share.
    pub weight: u32,
    /// Where it is written, which decides where nothing else does.
    pub at: usize,
}

impl Place {
    /// `None` where the uplink is not among those of the choice.
    pub(super) fn of(choice: &Choice, u: &Uplink) -> Option<Self> {
        if choice.tiers.is_empty() {
            let (tier, weight) = (u.tier, u.weight);
            return Some(Self { tier, weight, at: 0 });
        }
        let tiers = choice.tiers.iter().zip(0..);
        let mut written = tiers.flat_map(|(tier, n)| tier.iter().map(move |member| (member, n)));
        let at = written.clone().position(|((name, _), _)| *name == u.name)?;
        let ((_, weight), tier) = written.nth(at)?;
        let weight = weight.unwrap_or(u.weight);
        Some(Self { tier, weight, at })
    }
}

/// When one family of a group changed, so that noise moves nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// When its shares last changed.
    stepped: Duration,
    /// Since when another one is clearly better than the one in use.
    beaten: Option<Duration>,
    /// When it was given to others.
    flips: Flips,
}

impl Clock {
    /// The best of the members by the group's measure. The one in use is left for one that has been clearly better
    /// for the time of a step, and not more often in a minute than an uplink may flip.
    fn pick(
        &mut self,
        now: Duration,
        most: u32,
        members: &[Member],
        current: &Serving,
        prefer: Prefer,
    ) -> Serving {
        let since = self.beaten.take();
        let Some(best) = weights::lowest(members, prefer) else {
            return Serving::default();
        };
        let best_alone = Serving(vec![(best.id, 1)]);
        let Some(own) = members.iter().find(|m| current.weight(m.id) > 0) else {
            return best_alone;
        };
        if !weights::is_clearly_better(best, own, prefer) {
            return current.clone();
        }
        let since = since.unwrap_or(now);
        if now.saturating_sub(since) >= STEP && self.flips.allow(now, most) {
            return best_alone;
        }
        self.beaten = Some(since);
        current.clone()
    }

    fn note(&mut self, now: Duration, was: &Serving) {
        self.stepped = now;
        // Whoever comes after nobody takes flows from nobody.
        if !was.0.is_empty() {
            self.flips.note(now);
        }
    }
}

/// Nobody serves any group.
pub(super) fn unserved(groups: &[Group]) -> Vec<[Serving; 2]> {
    groups.iter().map(|_| Default::default()).collect()
}

impl Engine {
    /// The new selection of every group: of its uplinks those who live, the most wanted, of these the lowest tier.
    pub(super) fn settle_groups(&mut self, family: Family) {
        for at in 0..self.selection.groups.len() {
            let members = self.living(at, family);
            self.give(at, family, &members);
        }
    }

    /// Likewise while nobody is known to answer: whoever serves goes on, else all who are wanted.
    pub(super) fn begin_groups(&mut self, family: Family) {
        for at in 0..self.selection.groups.len() {
            let kept = self
                .selection
                .groups
                .get(at)
                .map(|g| self.still_carries(&g[family as usize], family));
            if kept.is_none_or(|kept| !kept.0.is_empty()) {
                continue;
            }
            let members = self.members_of(at, family, |_| true);
            self.give(at, family, &members);
        }
    }

    fn living(&self, at: usize, family: Family) -> Vec<Member> {
        let path = |u: &Uplink| Path { uplink: u.id, family };
        let Some(current) = self.selection.groups.get(at).map(|g| &g[family as usize]) else {
            return Vec::new();
        };
        // Who answers again is not thrown out just before it is up.
        let returns = |u: &Uplink| current.weight(u.id) > 0 && !self.failing(path(u));
        self.members_of(at, family, |u| {
            self.verdict(path(u)) != Verdict::Down || returns(u)
        })
    }

    /// Uplinks that were drained, or whose quota is used up, serve a strict group that has no others, since its
    /// flows could go nowhere else. From other groups they are spared like from everybody's flows.
    fn members_of(&self, at: usize, family: Family, may: impl Fn(&Uplink) -> bool) -> Vec<Member> {
        let Some(group) = self.settings.groups.get(at) else {
            return Vec::new();
        };
        let least = self.least_wanted(family);
        let spared = |u: &Uplink| !group.strict && self.wish(Path { uplink: u.id, family }) > least;
        self.members(&group.choice, family, |u| may(u) && !spared(u))
    }

    /// The least wanted kind that serves everybody; those who merely are worse than they should be always may.
    fn least_wanted(&self, family: Family) -> Wish {
        let serving = self.selection.family(family).0.iter();
        let wishes = serving.map(|(id, _)| self.wish(Path { uplink: *id, family }));
        wishes.fold(Wish::Degraded, Wish::max)
    }

    /// Shares the flows of a group among its members.
    fn give(&mut self, at: usize, family: Family, members: &[Member]) {
        let (now, by) = (self.now, self.group_shares_follow());
        let most = members.first().map_or(0, |m| self.switches_per_minute(m.id));
        let (Some(group), Some(serving), Some(clock)) = (
            self.settings.groups.get(at),
            self.selection.groups.get_mut(at).map(|g| &mut g[family as usize]),
            self.clocks.get_mut(at).map(|c| &mut c[family as usize]),
        ) else {
            return;
        };
        let early = now.saturating_sub(clock.stepped) < STEP;
        let next = match group.choice.prefer {
            Prefer::Balance => in_steps(by, members, serving, early),
            prefer => clock.pick(now, most, members, serving, prefer),
        };
        if *serving != next {
            clock.note(now, serving);
            *serving = next;
        }
    }

    /// Spillover knows one order of filling, that of everybody's flows.
    fn group_shares_follow(&self) -> By {
        match self.settings.balance.spillover {
            Some(_) => By::Weight,
            None => self.settings.balance.by,
        }
    }

    fn switches_per_minute(&self, id: u8) -> u32 {
        let individual = self.individual(id);
        individual.map_or(0, |i| i.health[0].health.switches_per_minute)
    }

    /// Takes over who served the groups that were there before a reload, whatever their numbers were.
    pub(super) fn inherit_groups(&mut self, before: &Self) {
        let known = |group: &Group| before.settings.groups.iter().position(|g| g == group);
        for (at, group) in self.settings.groups.iter().enumerate() {
            let Some(old) = known(group) else { continue };
            let (serving, clock) = (before.selection.groups.get(old), before.clocks.get(old));
            if let (Some(serving), Some(clock)) = (serving, clock) {
                self.selection.groups[at].clone_from(serving);
                self.clocks[at].clone_from(clock);
            }
        }
    }
}
