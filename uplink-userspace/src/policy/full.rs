//! What there is no room for.

use std::fmt;

use uplink_common::policy::{EXACTS, GROUPS, MAX_POLICIES, PREFIXES};

use super::sets;

/// More than the programs have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Of what.
    pub limit: Limit,
    /// How many are wanted; for sets, one more than there is room for.
    pub wanted: usize,
}

/// What there is room for only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Policies.
    Policies,
    /// Different `use`s.
    Groups,
    /// Combinations of policies that answer for the values of a field.
    Sets,
    /// Combinations, once those of learned addresses are added.
    LearnedSets,
    /// Prefixes of source and destination addresses and user ids.
    Prefixes,
    /// Interfaces, MAC addresses and cgroups.
    Exacts,
}

impl Limit {
    /// How many there is room for.
    #[must_use]
    pub const fn room(self) -> usize {
        match self {
            Self::Policies => MAX_POLICIES as usize,
            Self::Groups => GROUPS as usize,
            Self::Sets => sets::COMPILED as usize,
            Self::LearnedSets => sets::LEARNED as usize,
            Self::Prefixes => PREFIXES as usize,
            Self::Exacts => EXACTS as usize,
        }
    }

    /// What they are, and what helps.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Policies => ("policies", "put policies with the same `use` together"),
            Self::Groups => (
                "different `use`s",
                "let policies share the same uplinks and weights",
            ),
            Self::Sets => (
                "combinations of policies",
                "let fewer policies name overlapping prefixes or port ranges",
            ),
            Self::LearnedSets => (
                "combinations of policies, learned addresses included",
                "let fewer policies name overlapping domains",
            ),
            Self::Prefixes => (
                "prefixes of `src`, `dst` and `uid`",
                "put neighbouring prefixes together",
            ),
            Self::Exacts => (
                "different values of `iif`, `mac` and `cgroup`",
                "name prefixes or parent cgroups instead",
            ),
        }
    }
}

impl Full {
    /// What there is no room for.
    #[must_use]
    pub fn what(&self) -> String {
        let (what, _) = self.limit.words();
        let (wanted, room) = (self.wanted, self.limit.room());
        format!("the policies need {wanted} {what}, and there is room for {room}")
    }

    /// What helps.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        self.limit.words().1
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.remedy())
    }
}

impl std::error::Error for Full {}
