//! The policy that decides, and those that all but do.

use anyhow::Result;
use uplink_common::policy::{Choice, Field, STICKY_BOTH, STICKY_SOURCE, STRICT};
use uplink_common::{Addr, MAX_UPLINKS};

use super::answer::{self, By, Missed};
use super::decide::Case;
use super::minds::word;
use super::{Source, World};
use crate::policy::choices;
use crate::policy::classify::{Facts, Tables as _, Verdict, classify};

/// So many policies that all but match are named.
const NAMED: usize = 5;
/// For this host, as `lo`.
const LOOPBACK: u32 = 1;

impl<W: World> Case<'_, W> {
    /// What the tables of the policies say.
    pub(super) fn classify(&self) -> Result<Verdict> {
        let (flow, scene) = (self.flow, self.scene);
        let socket = flow.src == Source::Socket;
        let src = match flow.src {
            Source::Socket => None,
            Source::Address(ip) => Some(Addr::from(ip)),
        };
        let facts = Facts {
            src,
            dst: flow.dst.into(),
            sport: flow.sport.unwrap_or(0),
            dport: flow.dport.unwrap_or(0),
            proto: flow.proto,
            dscp: flow.dscp,
            iif: if socket { LOOPBACK } else { scene.iif.1 },
            mac: flow.mac,
            uid: flow.uid,
            cgroups: scene.cgroups.clone(),
            now_s: self.world.now_s(),
        };
        classify(self.world.policies(), &facts)
    }

    /// The policy that decides.
    pub(super) fn matched(&self, verdict: &Verdict, place: u32, choice: &Choice) -> Result<answer::Policy> {
        let name = choices::name(choice);
        let bits = self.asked(verdict, place, &name)?;
        let fields = Field::ALL.into_iter().filter(|f| bits & f.bit() != 0);
        let by = fields.map(|field| By {
            field: word(field).to_owned(),
            value: self.value(field),
        });
        Ok(answer::Policy {
            by: by.collect(),
            name,
            file: self.scene.file.clone(),
            line: choice.line,
            place,
            strict: choice.flags & STRICT != 0,
            sticky: sticky(choice.sticky).map(str::to_owned),
            uses: self.uses(choice.group)?,
        })
    }

    /// The fields that a policy asks for: as the configuration says, or, for want of it, as far as the tables do.
    fn asked(&self, verdict: &Verdict, place: u32, name: &str) -> Result<u32> {
        if let Some((_, bits)) = self.scene.minds.iter().find(|(known, _)| known == name) {
            return Ok(*bits);
        }
        let tables = self.world.policies();
        let classifier = tables.classifier()?;
        let mut bits = 0;
        for look in &verdict.looks {
            let free = tables.set(classifier.otherwise[look.field as usize])?;
            if !free.contains(place) {
                bits |= look.field.bit();
            }
        }
        Ok(bits)
    }

    fn uses(&self, group: u32) -> Result<Vec<String>> {
        let (members, family) = (self.world.members(group)?, self.flow.family());
        let ids = (1..=MAX_UPLINKS).filter(|id| members.contains(family, self.config.bank, *id));
        ids.map(|id| self.name(id)).collect()
    }

    /// Policies in front of the one that decides that a single thing keeps from matching, and how many others there
    /// are.
    pub(super) fn missed(&self, verdict: &Verdict) -> Result<(Vec<Missed>, usize)> {
        let all = self.world.policies().classifier()?.policies;
        let before = verdict.place.unwrap_or(all).min(all);
        let near = (0..before).filter_map(|place| Some((place, only(verdict, place)?)));
        let mut missed = Vec::new();
        for (place, by) in near.take(NAMED) {
            let choice = self.world.choice(place)?;
            missed.push(Missed {
                name: choices::name(&choice),
                line: choice.line,
                by: by.to_owned(),
            });
        }
        let others = (before as usize).saturating_sub(missed.len());
        Ok((missed, others))
    }

    /// The name of the policy that a pin tells; none where it is gone by now.
    pub(super) fn policy_name(&self, number: u32) -> Result<Option<String>> {
        if number == 0 {
            return Ok(None);
        }
        for place in 0..self.world.policies().classifier()?.policies {
            let choice = self.world.choice(place)?;
            if choice.policy == number {
                return Ok(Some(choices::name(&choice)));
            }
        }
        Ok(None)
    }

    /// What the flow has in a field.
    fn value(&self, field: Field) -> String {
        let flow = &self.answered;
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
        let number = |value: Option<u32>| value.map_or_else(|| "?".into(), |n| n.to_string());
        match field {
            Field::Src => flow.src.clone(),
            Field::Dst => flow.dst.clone(),
            Field::Sport => number(flow.sport.map(u32::from)),
            Field::Dport => number(flow.dport.map(u32::from)),
            Field::Proto => flow.proto.clone(),
            Field::Dscp => number(flow.dscp.map(u32::from)),
            Field::Iif => flow.iif.clone(),
            Field::Mac => text(&flow.mac),
            Field::Uid => number(flow.uid),
            Field::Cgroup => text(&flow.cgroup),
            Field::Name => self.wanted_names(),
        }
    }

    fn wanted_names(&self) -> String {
        let names = self.known.map_or(&[][..], |known| &known.names).iter();
        let wanted: Vec<&str> = names.filter(|n| n.wanted).map(|n| &*n.name).collect();
        match wanted.is_empty() {
            true => "a name of the destination".into(),
            false => wanted.join(", "),
        }
    }
}

/// The one thing that keeps a policy from matching.
fn only(verdict: &Verdict, place: u32) -> Option<&'static str> {
    let schedule = (!verdict.active.contains(place)).then_some("when");
    let mut reasons = schedule.into_iter().chain(verdict.missed(place).map(word));
    let first = reasons.next()?;
    reasons.next().is_none().then_some(first)
}

const fn sticky(kind: u32) -> Option<&'static str> {
    match kind {
        STICKY_SOURCE => Some("source"),
        STICKY_BOTH => Some("source-destination"),
        _ => None,
    }
}
