//! Sets of policies, each kept once.

use std::collections::HashMap;

use uplink_common::policy::{SETS, Set};

use super::full::{Full, Limit};

/// Sets that only names bring, at run time, have this much room in any case.
const FOR_NAMES: u32 = 4_096;
/// Where the set of the policies in force goes when a schedule changes it: two places by turns, so that the one which
/// is read is never written.
pub const IN_FORCE: [u32; 2] = [SETS - 2, SETS - 1];
/// Sets that names may use, in all.
pub(super) const LEARNED: u32 = SETS - 2;
/// Sets that the other fields may use.
pub(super) const COMPILED: u32 = LEARNED - FOR_NAMES;

/// The sets of one bank. The first is the empty one, so a value that nobody wrote satisfies nobody.
#[derive(Clone, Debug)]
pub struct Sets {
    list: Vec<Set>,
    index: HashMap<Set, u32>,
}

impl Default for Sets {
    fn default() -> Self {
        Self {
            list: vec![Set::EMPTY],
            index: HashMap::from([(Set::EMPTY, 0)]),
        }
    }
}

impl Sets {
    /// The index of a set while compiling; names keep their room.
    pub(super) fn intern(&mut self, set: &Set) -> Result<u32, Full> {
        self.within(set, Limit::Sets)
    }

    /// The index of a set that names bring at run time.
    ///
    /// # Errors
    /// When it is a new one and there is no room left.
    pub fn learn(&mut self, set: &Set) -> Result<u32, Full> {
        self.within(set, Limit::LearnedSets)
    }

    fn within(&mut self, set: &Set, limit: Limit) -> Result<u32, Full> {
        if let Some(index) = self.index.get(set) {
            return Ok(*index);
        }
        if self.list.len() >= limit.room() {
            return Err(Full {
                limit,
                wanted: self.list.len() + 1,
            });
        }
        let index = self.list.len() as u32;
        self.list.push(*set);
        self.index.insert(*set, index);
        Ok(index)
    }

    /// All of them, by index.
    #[must_use]
    pub fn as_slice(&self) -> &[Set] {
        &self.list
    }

    /// The set of an index; nobody where there is none.
    #[must_use]
    pub fn get(&self, index: u32) -> Set {
        self.list.get(index as usize).copied().unwrap_or(Set::EMPTY)
    }
}

/// The set of these policies.
pub(super) fn collect(places: impl IntoIterator<Item = u32>) -> Set {
    let mut set = Set::EMPTY;
    places.into_iter().for_each(|place| set.insert(place));
    set
}
