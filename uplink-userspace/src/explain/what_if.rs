//! What would change: each uplink goes down in a copy of the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use uplink_common::policy::GROUP_SLOTS;
use uplink_common::{Family, Pin, SLOTS, select};

use super::World;
use super::answer::{Answer, IfDown, Outcome, Share};
use super::balance::{Balance, Chosen, Shares, choose};
use super::decide::{Case, Fresh};
use crate::engine::{Command, Engine, Event, Path};
use crate::health::{Outage, Verdict};
use crate::resolve::Uplink;
use crate::weights::Serving;
use crate::{maps, table};

/// So much later it happens: nothing that was done just now is in the way.
const LATER: Duration = Duration::from_secs(10);
/// Shares of the maps and of the engine differ by what a slot is worth.
const SAME: f64 = 0.005;

/// The tables when an uplink has gone down.
struct Then {
    engine: Engine,
    family: Family,
    /// Who went down, if its pins are void now; 0: nobody's.
    voided: u8,
}

impl Then {
    fn new(engine: &Engine, now: Duration, id: u8, family: Family) -> Self {
        let mut engine = engine.clone();
        let paths = engine.paths().filter(|p| p.uplink == id);
        let outages: BTreeMap<Path, Option<Outage>> = paths.map(|p| (p, Some(Outage::Carrier))).collect();
        let commands = engine.handle(now + LATER, Event::Outages(outages));
        let voids = |c: &Command| match c {
            Command::Publish(selection) => selection.voided.contains(&Path { uplink: id, family }),
            _ => false,
        };
        let voided = if commands.iter().any(voids) { id } else { 0 };
        Self {
            engine,
            family,
            voided,
        }
    }

    fn keeps(&self, id: u8) -> bool {
        self.voided == 0 || self.voided != id
    }

    fn of(&self, serving: &Serving, size: u32, hash: Option<u64>) -> Shares {
        let Some(hash) = hash else {
            let serving = serving.0.iter().filter(|(_, weight)| *weight > 0);
            let all = Serving(serving.copied().collect());
            return all.0.iter().map(|(id, _)| (*id, all.share(*id))).collect();
        };
        let slots = table::build(&maps::claims(self.engine.uplinks(), serving), size);
        let id = slots
            .get(select::among(hash, size) as usize)
            .filter(|id| **id != 0);
        id.map(|id| (*id, 1.0)).into_iter().collect()
    }

    fn serving(&self, group: u32) -> Option<&Serving> {
        let groups = &self.engine.selection().groups;
        Some(&groups.get(group as usize)?[self.family as usize])
    }
}

impl Balance for Then {
    fn everybody(&self, hash: Option<u64>) -> Result<(Shares, bool)> {
        let serving = self.engine.selection().family(self.family);
        Ok((self.of(serving, SLOTS, hash), false))
    }

    fn group(&self, group: u32, hash: Option<u64>) -> Result<Shares> {
        let serving = self.serving(group);
        Ok(serving.map_or_else(Shares::new, |s| self.of(s, GROUP_SLOTS, hash)))
    }

    fn goes_on(&self, group: u32, kept: &Pin) -> Result<bool> {
        let id = kept.uplink;
        let serves = self.serving(group).is_some_and(|s| s.weight(id) > 0);
        Ok(serves && self.keeps(id))
    }
}

impl<W: World> Case<'_, W> {
    /// For every uplink of the family what becomes of the flow without it. `pinned` is the one that the flow has.
    pub(super) fn if_down(&self, answer: &Answer, fresh: &Fresh, pinned: Option<u8>) -> Result<Vec<IfDown>> {
        let Some(known) = self.known else {
            return Ok(Vec::new());
        };
        let family = self.flow.family();
        let uplinks = known.engine.uplinks().iter().filter(|u| u.leg(family).is_some());
        let one = |u: &Uplink| {
            let then = Then::new(&known.engine, known.now, u.id, family);
            let (outcome, shares) = fate(&then, fresh, pinned)?;
            let path = Path { uplink: u.id, family };
            let already = known.engine.verdict(path) == Verdict::Down;
            self.describe(answer, u, already, outcome, &shares)
        };
        uplinks.map(one).collect()
    }

    fn describe(
        &self,
        answer: &Answer,
        down: &Uplink,
        already: bool,
        outcome: Outcome,
        shares: &Shares,
    ) -> Result<IfDown> {
        let share = |(id, share): &(u8, f64)| {
            Ok(Share {
                uplink: self.name((*id).into())?,
                share: (share * 1e4).round() / 1e4,
            })
        };
        let candidates: Vec<Share> = shares.iter().map(share).collect::<Result<_>>()?;
        let changes = outcome != answer.outcome || !same(answer, &candidates);
        let uses = candidates.iter().any(|c| c.uplink == down.name);
        let text = match outcome {
            _ if already => "is down already".into(),
            _ if uses => "stays all the same, since nobody else answers".into(),
            _ if !changes => "no change".into(),
            Outcome::Refused => "is refused".into(),
            Outcome::LeftAlone => "is left to the kernel".into(),
            Outcome::Steered => format!("goes by {}", either(&candidates)),
        };
        Ok(IfDown {
            uplink: down.name.clone(),
            already,
            changes,
            outcome,
            candidates,
            text,
        })
    }
}

/// What becomes of a flow in the tables of then.
fn fate(then: &Then, fresh: &Fresh, pinned: Option<u8>) -> Result<(Outcome, Shares)> {
    if let Some(id) = pinned.filter(|id| then.keeps(*id)) {
        return Ok((Outcome::Steered, vec![(id, 1.0)]));
    }
    let kept = fresh.kept.filter(|h| h.valid).map(|h| h.pin);
    Ok(
        match choose(then, fresh.choice.as_ref(), fresh.spread, kept.as_ref())? {
            Chosen::Given(shares, _) => (Outcome::Steered, shares),
            Chosen::Refused => (Outcome::Refused, Shares::new()),
            Chosen::Nobody => (Outcome::LeftAlone, Shares::new()),
        },
    )
}

fn same(answer: &Answer, then: &[Share]) -> bool {
    let before = |share: &Share| {
        let mut now = answer.candidates.iter();
        now.any(|c| c.uplink == share.uplink && (c.share - share.share).abs() < SAME)
    };
    then.len() == answer.candidates.len() && then.iter().all(before)
}

/// One uplink, or several with their shares.
fn either(shares: &[Share]) -> String {
    if let [only] = shares {
        return only.uplink.clone();
    }
    let each = shares.iter();
    let each: Vec<String> = each
        .map(|s| format!("{} ({:.0} %)", s.uplink, s.share * 100.0))
        .collect();
    each.join(" or ")
}
