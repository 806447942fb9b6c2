//! From the configuration to the tables.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use uplink_common::policy::{
    Choice, Classifier, DPORTS, DSCPS, Field, MAX_POLICIES, NO_PORT, PROTOS, SPORTS, Set, VALUES,
};

use super::domains::Domains;
use super::exact::{self, Answers};
use super::full::{Full, Limit};
use super::lists::Lists;
use super::prefixes::{self, Prefix};
use super::sets::{Sets, collect};
use super::{choices, ranges};
use crate::config::{self, Group, Match, Policy};

/// What names in policies mean on this host now. What is missing matches nothing until it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Interfaces by name.
    pub ifindex: BTreeMap<String, u32>,
    /// Ids of cgroups, by their path as the configuration has it.
    pub cgroups: BTreeMap<String, u64>,
}

/// The contents of one bank. Indices of sets count within the bank.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// What there is to look at.
    pub classifier: Classifier,
    /// The sets.
    pub sets: Sets,
    /// Entries of the map `prefixes`, by field, network and length.
    pub prefixes: Vec<Prefix>,
    /// The map `values`: [`VALUES`] indices of sets; empty where there are no policies.
    pub values: Vec<u32>,
    /// Entries of the map `exact`: indices of sets.
    pub exact: BTreeMap<(Field, u64), u32>,
    /// What the policies do, by place.
    pub choices: Vec<Choice>,
    /// Who wants which names.
    pub domains: Domains,
}

/// Makes the tables of some policies. By place go their `numbers` ([`super::Numbers`]), and whether their schedules
/// have them in force now. The position of a policy's group in `groups` is the group's number.
///
/// # Errors
/// When there is no room for so many.
pub fn compile(
    policies: &[Policy],
    numbers: &[u32],
    groups: &[Group],
    active: &[bool],
    surroundings: &Surroundings,
) -> Result<Compiled, Full> {
    within(Limit::Policies, policies.len())?;
    let mut compiled = Compiled::default();
    if policies.is_empty() {
        return Ok(compiled);
    }
    compiled.classifier.policies = policies.len() as u32;
    compiled.classifier.active = compiled.sets.intern(&in_force(active))?;
    compiled.choices = choices::choices(policies, numbers, groups)?;
    compiled.add_prefixes(policies)?;
    compiled.add_values(policies)?;
    compiled.add_exact(policies, surroundings)?;
    compiled.add_names(policies)?;
    Ok(compiled)
}

/// The set of the policies that are in force.
#[must_use]
pub fn in_force(active: &[bool]) -> Set {
    let places = (0..MAX_POLICIES).zip(active);
    collect(places.filter(|(_, active)| **active).map(|(place, _)| place))
}

fn within(limit: Limit, wanted: usize) -> Result<(), Full> {
    if wanted > limit.room() {
        return Err(Full { limit, wanted });
    }
    Ok(())
}

/// Writes the same set to some values.
fn fill(values: &mut [u32], first: u32, count: usize, set: u32) {
    let values = values.iter_mut().skip(first as usize);
    values.take(count).for_each(|value| *value = set);
}

impl Compiled {
    fn add_prefixes(&mut self, policies: &[Policy]) -> Result<(), Full> {
        for (field, lists) in [
            (Field::Src, Lists::of(policies, |m| &m.src)),
            (Field::Dst, Lists::of(policies, |m| &m.dst)),
        ] {
            self.field(field, lists.asked, &lists.free)?;
            prefixes::addresses(field, &lists, &mut self.sets, &mut self.prefixes)?;
        }
        let lists = Lists::of(policies, |m| &m.uid);
        self.field(Field::Uid, lists.asked, &lists.free)?;
        ranges::uids(&lists, &mut self.sets, &mut self.prefixes)?;
        within(Limit::Prefixes, self.prefixes.len())
    }

    fn add_values(&mut self, policies: &[Policy]) -> Result<(), Full> {
        self.values = vec![0; VALUES as usize];
        self.ports(Field::Sport, SPORTS, policies, |m| &m.sport)?;
        self.ports(Field::Dport, DPORTS, policies, |m| &m.dport)?;
        self.numbers(Field::Proto, PROTOS, u8::MAX, policies, |m| &m.proto)?;
        self.numbers(Field::Dscp, DSCPS, 63, policies, |m| &m.dscp)
    }

    fn ports(
        &mut self,
        field: Field,
        base: u32,
        policies: &[Policy],
        of: impl Fn(&Match) -> &config::Field<RangeInclusive<u16>>,
    ) -> Result<(), Full> {
        let lists = Lists::of(policies, of);
        self.ranges(field, base, u16::MAX.into(), &lists)?;
        let none = self.classifier.otherwise[field as usize];
        fill(&mut self.values, base + NO_PORT, 1, none);
        Ok(())
    }

    fn numbers(
        &mut self,
        field: Field,
        base: u32,
        last: u8,
        policies: &[Policy],
        of: impl Fn(&Match) -> &config::Field<u8>,
    ) -> Result<(), Full> {
        let single = |asked: &config::Field<u8>| config::Field {
            any: asked
                .any
                .as_ref()
                .map(|any| any.iter().map(|n| *n..=*n).collect()),
            not: asked.not.iter().map(|n| *n..=*n).collect(),
        };
        let asked: Vec<_> = policies.iter().map(|p| single(of(&p.matches))).collect();
        let lists = Lists::of_fields(&asked);
        self.ranges(field, base, last.into(), &lists)
    }

    fn ranges<T: Clone + Into<u64>>(
        &mut self,
        field: Field,
        base: u32,
        last: u64,
        lists: &Lists<RangeInclusive<T>>,
    ) -> Result<(), Full> {
        self.field(field, lists.asked, &lists.free)?;
        let (sets, values) = (&mut self.sets, &mut self.values);
        ranges::sweep(lists, last, |(first, last), set| {
            let count = (last - first + 1) as usize;
            fill(values, base + first as u32, count, sets.intern(set)?);
            Ok(())
        })
    }

    fn add_exact(&mut self, policies: &[Policy], surroundings: &Surroundings) -> Result<(), Full> {
        let lists = Lists::of(policies, |m| &m.iif);
        self.field(Field::Iif, lists.asked, &lists.free)?;
        self.answers(Field::Iif, exact::interfaces(&lists, surroundings))?;
        let lists = Lists::of(policies, |m| &m.mac);
        self.field(Field::Mac, lists.asked, &lists.free)?;
        self.answers(Field::Mac, exact::stations(&lists))?;
        let lists = Lists::of(policies, |m| &m.cgroup);
        self.field(Field::Cgroup, lists.asked, &lists.free)?;
        self.answers(Field::Cgroup, exact::cgroups(&lists, surroundings))?;
        within(Limit::Exacts, self.exact.len())
    }

    fn answers(&mut self, field: Field, answers: Answers) -> Result<(), Full> {
        for (value, set) in answers {
            self.exact.insert((field, value), self.sets.intern(&set)?);
        }
        Ok(())
    }

    fn add_names(&mut self, policies: &[Policy]) -> Result<(), Full> {
        self.domains = Domains::of(policies);
        let free = *self.domains.otherwise();
        self.field(Field::Name, self.domains.any(), &free)
    }

    /// Notes a field, and who does not mind it.
    fn field(&mut self, field: Field, asked: bool, free: &Set) -> Result<(), Full> {
        if asked {
            self.classifier.fields |= field.bit();
        }
        self.classifier.otherwise[field as usize] = self.sets.intern(free)?;
        Ok(())
    }
}
