//! Which policies want a destination by its names.

use std::collections::HashMap;
use std::iter::successors;

use uplink_common::policy::Set;

use crate::config::Policy;

/// The policies that name domains, and those that do not.
#[derive(Clone, Debug)]
pub struct Domains {
    free: Set,
    exact: HashMap<String, Set>,
    below: HashMap<String, Set>,
}

impl Default for Domains {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Domains {
    /// What the policies ask for.
    #[must_use]
    pub fn of(policies: &[Policy]) -> Self {
        let mut domains = Self {
            free: Set::EMPTY,
            exact: HashMap::new(),
            below: HashMap::new(),
        };
        for (place, policy) in (0..).zip(policies) {
            domains.add(place, policy);
        }
        domains
    }

    fn add(&mut self, place: u32, policy: &Policy) {
        if policy.matches.domain.is_empty() {
            self.free.insert(place);
        }
        for domain in &policy.matches.domain {
            let map = if domain.below {
                &mut self.below
            } else {
                &mut self.exact
            };
            let set = map.entry(domain.name.clone()).or_insert(Set::EMPTY);
            set.insert(place);
        }
    }

    /// Whether any policy names a domain.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.exact.is_empty() || !self.below.is_empty()
    }

    /// The policies for destinations without a known name.
    #[must_use]
    pub const fn otherwise(&self) -> &Set {
        &self.free
    }

    /// The policies for a destination that was looked up by these names, as [`crate::config::Domain`] has them: lower
    /// case, without a dot at the end.
    #[must_use]
    pub fn set_of<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Set {
        let sets = names.into_iter().flat_map(|name| self.naming(name));
        sets.fold(self.free, |all, set| all.or(set))
    }

    /// Whether a policy wants this name.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.naming(name).next().is_some()
    }

    fn naming(&self, name: &str) -> impl Iterator<Item = &Set> {
        let suffixes = successors(Some(name), |n| n.split_once('.').map(|(_, rest)| rest));
        let below = suffixes.filter_map(|suffix| self.below.get(suffix));
        self.exact.get(name).into_iter().chain(below)
    }
}
