//! Policies that can never match, or that get in each other's way. What is said is always true; not all that
//! is true is said: two policies are compared at a time, so one that several earlier ones exhaust only together
//! is not noticed.

mod fields;
mod region;
mod sweep;
#[cfg(test)]
mod tests;

use crate::config::Policy;
use crate::status::Warning;

use fields::FIELDS;
use sweep::Relation;

/// Two policies that should be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    /// The earlier one, by its position; for [`Kind::Empty`] the only one.
    pub first: usize,
    /// The later one.
    pub second: usize,
    /// What is the matter with them.
    pub kind: Kind,
    /// The same for people, with names and lines.
    pub text: String,
}

/// What is the matter with two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The policy denies all that it asks for.
    Empty,
    /// The first takes all that the second could match.
    Shadowed,
    /// They match the same and choose differently, so the second never does.
    Contradiction,
    /// Each matches some of the other's, and they choose differently.
    Overlap,
}

impl Kind {
    /// Its stable name in `status`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Empty => "policy-empty",
            Self::Shadowed => "policy-shadowed",
            Self::Contradiction => "policy-contradiction",
            Self::Overlap => "policy-overlap",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Empty => "let `not` leave some of it, or remove the policy",
            Self::Shadowed => "put the narrower policy first, or remove it",
            Self::Contradiction => "keep one of the two, or tell their matches apart",
            Self::Overlap => {
                "if the order is not meant so, exchange the two or exclude one by `not` in the other"
            }
        }
    }
}

/// All that is worth a look, in the order of the later policies; of each its most telling fault only.
#[must_use]
pub fn lint(policies: &[Policy]) -> Vec<Lint> {
    let relations = Relations::of(policies);
    let mut lints: Vec<Lint> = Vec::new();
    let mut never = vec![false; policies.len()];
    for second in 0..policies.len() {
        let found = relations.never_matches(second);
        if let Some(dead) = never.get_mut(second) {
            *dead = found.is_some();
        }
        lints.extend(found.or_else(|| relations.overlap(second, &never)));
    }
    lints
}

/// The same as warnings of `status` and `check`: `most` of each kind, and how many more there are.
#[must_use]
pub fn warnings(policies: &[Policy], most: usize) -> Vec<Warning> {
    let lints = lint(policies);
    let mut warnings = Vec::new();
    for kind in [Kind::Empty, Kind::Shadowed, Kind::Contradiction, Kind::Overlap] {
        let of_kind = || lints.iter().filter(|lint| lint.kind == kind);
        let warning = |text| Warning {
            code: kind.code().into(),
            text,
            remedy: kind.remedy().into(),
        };
        warnings.extend(of_kind().take(most).map(|lint| warning(lint.text.clone())));
        let more = of_kind().count().saturating_sub(most);
        if more > 0 {
            warnings.push(warning(format!(
                "{more} more such policies: `uplink check` names them all"
            )));
        }
    }
    warnings
}

/// How policies relate to each other in each field.
struct Relations<'p> {
    policies: &'p [Policy],
    /// In the order of [`FIELDS`].
    fields: Vec<Relation>,
}

impl<'p> Relations<'p> {
    fn of(policies: &'p [Policy]) -> Self {
        let fields = fields::regions(policies);
        let fields = fields.iter().map(|regions| Relation::of(regions)).collect();
        Self { policies, fields }
    }

    /// Whether one matches whenever the other does.
    fn contains(&self, a: usize, b: usize) -> bool {
        self.fields.iter().all(|field| field.contains(a, b))
    }

    /// Whether their matches are the same, by whatever words; schedules aside.
    fn same_match(&self, a: usize, b: usize) -> bool {
        let mut fields = self.fields.iter().zip(FIELDS).filter(|(_, f)| !f.is_time);
        fields.all(|(field, _)| field.contains(a, b) && field.contains(b, a))
    }

    fn never_matches(&self, second: usize) -> Option<Lint> {
        let mut fields = self.fields.iter().zip(FIELDS);
        if let Some((_, field)) = fields.find(|(relation, _)| relation.is_empty(second)) {
            let text = format!(
                "policy {} never matches: its `not` takes away all of {}",
                self.named(second),
                field.name
            );
            return Some(lint_of(second, second, Kind::Empty, text));
        }
        let first = (0..second).find(|first| self.contains(*first, second))?;
        let opposed = self.same_match(first, second) && self.choose_differently(first, second);
        let (kind, why) = match opposed {
            true => (Kind::Contradiction, "matches the same and chooses otherwise"),
            false => (Kind::Shadowed, "takes all of it"),
        };
        let (a, b) = (self.named(first), self.named(second));
        let text = format!("policy {b} never matches: {a} {why}");
        Some(lint_of(first, second, kind, text))
    }

    /// The first that crosses it, without those that never match.
    fn overlap(&self, second: usize, never: &[bool]) -> Option<Lint> {
        let earlier = never.iter().take(second).enumerate();
        let earlier = earlier.filter(|(_, never)| !**never).map(|(first, _)| first);
        let mut crossing = earlier.filter_map(|first| Some((first, self.crossing(first, second)?)));
        let (first, field) = crossing.next()?;
        let more = match crossing.count() {
            0 => String::new(),
            more => format!("; so with {more} more"),
        };
        let (a, b) = (self.named(first), self.named(second));
        let text =
            format!("policies {a} and {b} overlap in {field}: what both match goes to the first{more}");
        Some(lint_of(first, second, Kind::Overlap, text))
    }

    /// The field in which each has something of the other's and something of its own, if they can meet.
    fn crossing(&self, a: usize, b: usize) -> Option<&'static str> {
        if !self.choose_differently(a, b) || !self.fields.iter().all(|field| field.meets(a, b)) {
            return None;
        }
        // A general policy behind a special one is what policies are for.
        if self.contains(b, a) {
            return None;
        }
        let mut told = self.fields.iter().zip(FIELDS).filter(|(_, f)| f.is_told);
        let crossed = told.find(|(field, _)| !field.contains(a, b) && !field.contains(b, a));
        crossed.map(|(_, field)| field.name)
    }

    fn choose_differently(&self, a: usize, b: usize) -> bool {
        let says = |at: usize| self.policies.get(at).map(|p| (&p.choice, p.strict));
        says(a) != says(b)
    }

    fn named(&self, at: usize) -> String {
        let policy = self.policies.get(at);
        policy.map_or_else(String::new, |p| format!("\"{}\" (line {})", p.name.value, p.line))
    }
}

const fn lint_of(first: usize, second: usize, kind: Kind, text: String) -> Lint {
    Lint {
        first,
        second,
        kind,
        text,
    }
}
