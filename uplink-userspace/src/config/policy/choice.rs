//! `use` and `[[group]]`: by which uplinks.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{Choice, Prefer};
use crate::config::problem::{shown, suggest};
use crate::config::reader::{Reader, wrong};
use crate::config::uplinks::word_of;
use crate::config::{At, Uplink};

const TITLE: &str = "[[group]]";
const LONGEST_NAME: usize = 15;

/// All uplinks, one of them preferred.
const WORDS: [(&str, Prefer); 2] = [
    ("lowest-latency", Prefer::LowestLatency),
    ("lowest-loss", Prefer::LowestLoss),
];

const ALLOWED: &str = "the name of an uplink or a [[group]], \"lowest-latency\", \"lowest-loss\", weights such as \
                       { isp1 = 3, isp2 = 1 }, or a list of names and weights, the first preferred";
const ALLOWED_IN_GROUP: &str = "the name of an uplink, \"lowest-latency\", \"lowest-loss\", weights such as \
                                { isp1 = 3, isp2 = 1 }, or a list of names and weights, the first preferred";
const ALLOWED_IN_LIST: &str = "names of uplinks, or weights such as { isp1 = 3, isp2 = 1 }";

type Tier = Vec<(String, Option<u32>)>;

/// What `use` can name.
pub(super) struct Ways {
    /// Names of all uplinks, refused ones included: those have their own complaints.
    uplinks: Vec<String>,
    /// Whether there is an uplink without a name, or no uplink at all.
    nameless: bool,
    /// Those that are disabled.
    disabled: BTreeSet<String>,
    /// Names of all groups, likewise.
    group_names: Vec<String>,
    groups: Vec<(String, Choice)>,
}

impl Ways {
    /// The uplinks, and the `[[group]]` tables.
    pub fn read(top: &mut Reader<'_, '_>, uplinks: &[Uplink]) -> Self {
        let disabled = uplinks.iter().filter(|u| !u.enabled);
        let mut ways = Self {
            nameless: top.is_nameless("uplink"),
            uplinks: top.names_in("uplink"),
            disabled: disabled.map(|u| u.name.value.clone()).collect(),
            group_names: top.names_in("group"),
            groups: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for table in top.tables("group", TITLE).unwrap_or_default() {
            let mut table = Reader::new(TITLE, table.value, table.span, top.problems);
            let group = group(&mut table, &ways);
            table.finish();
            let Some((name, choice)) = group else { continue };
            if !names.insert(name.value.clone()) {
                let message = format!("the name {} is taken by an earlier group", name.value);
                top.complain(name.span, message, "each group needs a name of its own");
                continue;
            }
            ways.groups.extend(choice.map(|choice| (name.value, choice)));
        }
        ways
    }

    fn is_uplink(&self, name: &str) -> bool {
        self.uplinks.iter().any(|u| u == name)
    }

    fn is_group(&self, name: &str) -> bool {
        self.group_names.iter().any(|g| g == name)
    }
}

/// The group, its choice unless that is refused.
fn group(table: &mut Reader<'_, '_>, ways: &Ways) -> Option<(At<String>, Option<Choice>)> {
    let letters = "1 to 15 bytes: letters, digits and punctuation but / \\ and \"";
    let name = table.required("name", letters, |text| match word_of(LONGEST_NAME, text)? {
        name if ways.is_uplink(&name) => Err(wrong("is the name of an uplink")),
        name if WORDS.iter().any(|w| w.0 == name) => Err(wrong("has a meaning of its own in `use`")),
        name => Ok(name),
    });
    let everybody = (!table.has("use")).then(Choice::default);
    let choice = read(table, ways, false).or(everybody);
    let picks = [("balance", Prefer::Balance), WORDS[0], WORDS[1]].map(|(word, pick)| (word, Some(pick)));
    let pick = table.one_of("pick", &picks);
    let choice = choice.map(|choice| picked(table, choice, pick));
    Some((name?, choice))
}

fn picked(table: &mut Reader<'_, '_>, mut choice: Choice, pick: Option<At<Prefer>>) -> Choice {
    let Some(pick) = pick else { return choice };
    if choice.prefer != Prefer::Balance && choice.prefer != pick.value {
        let message = "pick says something else than use";
        table.complain(pick.span, message, "remove one of the two");
    }
    choice.prefer = pick.value;
    choice
}

/// `use`, `None` if it is absent or refused.
pub(super) fn read(table: &mut Reader<'_, '_>, ways: &Ways, groups_too: bool) -> Option<Choice> {
    let At { value, span } = table.value("use")?;
    if let Some(name) = value.as_str() {
        if let Some((_, prefer)) = WORDS.iter().find(|w| w.0 == name) {
            let prefer = *prefer;
            let tiers = Vec::new();
            return Some(Choice { tiers, prefer });
        }
        if groups_too && ways.is_group(name) {
            let group = ways.groups.iter().find(|g| g.0 == name)?;
            return Some(group.1.clone());
        }
    }
    let mut written = Written {
        table,
        ways,
        seen: BTreeSet::new(),
        groups_too,
    };
    let tiers = written.tiers(value, span.clone())?;
    some_enabled(table, ways, &tiers, span);
    let prefer = Prefer::Balance;
    Some(Choice { tiers, prefer })
}

/// What only disabled uplinks could serve is a mistake: a strict policy would refuse all, another do nothing.
fn some_enabled(table: &mut Reader<'_, '_>, ways: &Ways, tiers: &[Tier], span: Range<usize>) {
    let names: Vec<&str> = tiers.iter().flatten().map(|(name, _)| &**name).collect();
    if names.is_empty() || !names.iter().all(|name| ways.disabled.contains(*name)) {
        return;
    }
    let message = format!("use names disabled uplinks only: {}", names.join(", "));
    let help = "add one that is enabled, or remove its `enabled = false`";
    table.complain(span, message, help);
}

/// `use` being read.
struct Written<'r, 't, 'p> {
    table: &'r mut Reader<'t, 'p>,
    ways: &'r Ways,
    seen: BTreeSet<String>,
    groups_too: bool,
}

impl Written<'_, '_, '_> {
    fn tiers(&mut self, value: &DeValue<'_>, span: Range<usize>) -> Option<Vec<Tier>> {
        let allowed = if self.groups_too {
            ALLOWED
        } else {
            ALLOWED_IN_GROUP
        };
        let Some(items) = value.as_array() else {
            return self.tier(value, span, allowed).map(|tier| vec![tier]);
        };
        if items.is_empty() {
            self.table.complain(span, "use is empty", allowed);
            return None;
        }
        let tiers = items.iter();
        let tiers = tiers.map(|item| self.tier(item.get_ref(), item.span(), ALLOWED_IN_LIST));
        // All of them, so that every mistake is told.
        tiers.collect::<Vec<_>>().into_iter().collect()
    }

    fn tier(&mut self, value: &DeValue<'_>, span: Range<usize>, allowed: &str) -> Option<Tier> {
        if let Some(name) = value.as_str() {
            return self.uplink(name, span, allowed).map(|name| vec![(name, None)]);
        }
        match value.as_table() {
            Some(weights) => self.weights(weights, span, allowed),
            None => self.table.wrong_type("use", value, span, allowed),
        }
    }

    fn weights(&mut self, weights: &DeTable<'_>, span: Range<usize>, allowed: &str) -> Option<Tier> {
        if weights.is_empty() {
            self.table.complain(span, "use has an empty table", allowed);
            return None;
        }
        let each = weights.iter().map(|(name, weight)| {
            let weight = self.weight(name.get_ref(), weight.get_ref(), weight.span());
            let name = self.uplink(name.get_ref(), name.span(), ALLOWED_IN_LIST);
            Some((name?, Some(weight?)))
        });
        // All of them, so that every mistake is told.
        let each: Vec<_> = each.collect();
        let mut tier: Tier = each.into_iter().collect::<Option<_>>()?;
        // The order of keys in a table says nothing: what says the same is the same group.
        tier.sort();
        Some(tier)
    }

    fn weight(&mut self, name: &str, value: &DeValue<'_>, span: Range<usize>) -> Option<u32> {
        let allowed = "a weight from 1 to 1000";
        let Some(number) = value.as_integer() else {
            return self.table.wrong_type(name, value, span, allowed);
        };
        let read = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let weight = read.filter(|n| (1..=1000).contains(n));
        if weight.is_none() {
            let message = format!("the weight {number} of {} is out of range", shown(name));
            self.table.complain(span, message, allowed);
        }
        weight
    }

    fn uplink(&mut self, name: &str, span: Range<usize>, allowed: &str) -> Option<String> {
        if !self.ways.is_uplink(name) {
            self.unknown(name, span, allowed);
            return None;
        }
        if !self.seen.insert(name.to_owned()) {
            let message = format!("use names {name} twice");
            self.table.complain(span, message, "each uplink once");
            return None;
        }
        Some(name.to_owned())
    }

    fn unknown(&mut self, name: &str, span: Range<usize>, allowed: &str) {
        let ways = self.ways;
        // An uplink whose name is missing has its own complaint, and may be this one.
        if ways.nameless {
            return;
        }
        let (message, help) = if WORDS.iter().any(|w| w.0 == name) {
            let message = format!("use {} stands alone, not in a list", shown(name));
            let help = format!("a [[group]] with pick = {} for some uplinks only", shown(name));
            (message, help)
        } else if ways.is_group(name) {
            let message = format!(
                "use {} is a group, and groups cannot be put together",
                shown(name)
            );
            (
                message,
                format!("{ALLOWED_IN_LIST}; a group stands alone in a policy"),
            )
        } else {
            let what = if self.groups_too {
                "an uplink or a group"
            } else {
                "an uplink"
            };
            let groups = ways.group_names.iter().filter(|_| allowed == ALLOWED);
            let words = WORDS.iter().map(|w| w.0).filter(|_| allowed != ALLOWED_IN_LIST);
            let known = ways.uplinks.iter().chain(groups).map(String::as_str).chain(words);
            let message = format!("use {} is not the name of {what}", shown(name));
            (message, suggest(name, known, &format!("allowed: {allowed}")))
        };
        self.table.complain(span, message, help);
    }
}
