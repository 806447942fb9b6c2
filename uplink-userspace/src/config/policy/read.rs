//! The `[[policy]]` tables: each by itself, then against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeTable;
use uplink_common::policy::{GROUPS, MAX_POLICIES};

use super::choice::{self, Ways};
use super::outside::Outside;
use super::{Group, Policy, Sticky, groups, matching, when};
use crate::config::reader::Reader;
use crate::config::uplinks::word_of;
use crate::config::{At, File, Uplink};

const TITLE: &str = "[[policy]]";

/// What [`uplink_common::policy::Choice::name`] holds, less a zero at its end.
const LONGEST_NAME: usize = 31;

/// A shorter time forgets between two clicks, a longer one outlives the addresses.
const STICKY_TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// All policies that make sense by themselves, but for those that are switched off.
pub(in crate::config) fn policies(top: &mut Reader<'_, '_>, file: &File, uplinks: &[Uplink]) -> Vec<Policy> {
    let ways = Ways::read(top, uplinks);
    let lines = Lines::of(&file.text);
    let mut outside = Outside::of(&file.path);
    let mut policies = Vec::new();
    for table in top.tables("policy", TITLE).unwrap_or_default() {
        policies.extend(one(top, table, &ways, &lines, &mut outside));
    }
    unique(top, &policies);
    policies.retain(|(_, enabled)| *enabled);
    let policies: Vec<Policy> = policies.into_iter().map(|(policy, _)| policy).collect();
    few_enough(top, &policies);
    policies
}

/// The policy, and whether it is switched on.
fn one<'t>(
    top: &mut Reader<'t, '_>,
    table: At<&'t DeTable<'t>>,
    ways: &Ways,
    lines: &Lines,
    outside: &mut Outside<'_>,
) -> Option<(Policy, bool)> {
    let line = lines.line(table.span.start);
    let mut table = Reader::new(TITLE, table.value, table.span, top.problems);
    let letters = "1 to 31 bytes: letters, digits and punctuation but / \\ and \"";
    let name = table.required("name", letters, |text| word_of(LONGEST_NAME, text));
    let matches = matching::read(&mut table, outside);
    let choice = choice::read(&mut table, ways, true);
    let strict = table.boolean("strict");
    let sticky = sticky(&mut table);
    let when = when::read(&mut table);
    let enabled = table.boolean("enabled");
    table.finish();
    let policy = Policy {
        name: name?,
        line,
        matches,
        when,
        choice: choice.unwrap_or_default(),
        strict: strict.is_some_and(|s| s.value),
        sticky,
    };
    Some((policy, enabled.is_none_or(|e| e.value)))
}

fn sticky(table: &mut Reader<'_, '_>) -> Option<Sticky> {
    let words = [("source", Some(false)), ("source-destination", Some(true))];
    let destination = table.one_of("sticky", &words);
    let time = table.duration("sticky_time", STICKY_TIMES, "1s to 24h, such as \"1h\"");
    if table.has("sticky_time") && !table.has("sticky") {
        let help = "add sticky = \"source\" or \"source-destination\", or remove this";
        table.complain(table.place("sticky_time"), "sticky_time without sticky", help);
    }
    Some(Sticky {
        destination: destination?.value,
        time: time.unwrap_or(Duration::from_secs(3600)),
    })
}

fn unique(top: &mut Reader<'_, '_>, policies: &[(Policy, bool)]) {
    let mut lines = BTreeMap::new();
    for (policy, _) in policies {
        let name = &policy.name.value;
        match lines.get(name) {
            Some(line) => {
                let message = format!("the name {name} is taken by the policy in line {line}");
                let help = "each policy needs a name of its own";
                top.complain(policy.span().clone(), message, help);
            }
            None => _ = lines.insert(name, policy.line),
        }
    }
}

/// The maps have room for so many.
fn few_enough(top: &mut Reader<'_, '_>, policies: &[Policy]) {
    if let Some(policy) = policies.get(MAX_POLICIES as usize) {
        let message = format!("more than {MAX_POLICIES} policies");
        let help = "this and what follows: join policies with the same `use` by lists in their match";
        top.complain(policy.span().clone(), message, help);
    }
    let distinct: BTreeSet<Group> = policies.iter().map(Policy::group).collect();
    if distinct.len() <= GROUPS as usize {
        return;
    }
    let groups = groups(policies);
    let extra = policies
        .iter()
        .find(|p| groups.get(GROUPS as usize) == Some(&p.group()));
    if let Some(policy) = extra {
        let message = format!("more than {GROUPS} different choices of uplinks");
        let help = "this and what follows: say the same `use` in several policies, as by a [[group]]";
        top.complain(policy.span().clone(), message, help);
    }
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> u32 {
        u32::try_from(1 + self.0.partition_point(|end| *end < at)).unwrap_or(u32::MAX)
    }
}
