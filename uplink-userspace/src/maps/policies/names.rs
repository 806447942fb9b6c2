//! Addresses whose names are known.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use uplink_common::Addr;
use uplink_common::policy::{Name, Set, set_index};

use super::super::memory::Memory;
use crate::policy::compile::Compiled;
use crate::policy::{Domains, Full, Sets};

/// The map `names`, and the sets that it needs. An address is written for both banks, so that a switch between them
/// finds it. Has descriptors of its own and may be another thread's.
pub struct NameTable {
    names: HashMap<MapData, Addr, Name>,
    sets: Memory<Set>,
    /// `None` where the bank is an earlier daemon's.
    banks: [Option<Bank>; 2],
    /// The addresses that are in the map by us.
    known: HashSet<Addr>,
    /// Whether an earlier daemon's addresses may be in the map.
    strangers: bool,
}

struct Bank {
    sets: Sets,
    domains: Domains,
}

impl NameTable {
    pub(super) fn new(names: HashMap<MapData, Addr, Name>, sets: Memory<Set>) -> Self {
        Self {
            names,
            sets,
            banks: [None, None],
            known: HashSet::new(),
            strangers: true,
        }
    }

    /// Whether a policy wants this name.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let mut banks = self.banks.iter().flatten();
        banks.any(|bank| bank.domains.wants(name))
    }

    /// An address was looked up by these names; it is forgotten at `expires_s` seconds since boot.
    ///
    /// # Errors
    /// With a [`Full`] when there is no room for another combination of policies; else when the kernel refuses, such as
    /// when there are as many addresses as there is room for.
    pub fn insert<'a>(
        &mut self,
        address: Addr,
        names: impl IntoIterator<Item = &'a str> + Clone,
        expires_s: u32,
    ) -> Result<()> {
        let mut record = Name {
            set: self.inherited(&address)?,
            expires_s,
        };
        let banks = (0..).zip(&mut self.banks).zip(&mut record.set);
        for ((bank, contents), index) in banks {
            if let Some(contents) = contents {
                let set = contents.domains.set_of(names.clone());
                *index = contents.learn(bank, &set, &mut self.sets)?;
            }
        }
        self.sets.settle();
        self.names
            .insert(address, record, 0)
            .with_context(|| format!("map `names`, {address:?}"))?;
        self.known.insert(address);
        Ok(())
    }

    /// What an earlier daemon wrote for the banks that are still its.
    fn inherited(&self, address: &Addr) -> Result<[u32; 2]> {
        if self.banks.iter().all(Option::is_some) {
            return Ok([0; 2]);
        }
        match self.names.get(address, 0) {
            Ok(name) => Ok(name.set),
            Err(MapError::KeyNotFound) => Ok([0; 2]),
            Err(e) => Err(e).with_context(|| format!("map `names`, {address:?}")),
        }
    }

    /// Forgets an address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, address: Addr) -> Result<()> {
        self.known.remove(&address);
        absent(self.names.remove(&address)).with_context(|| format!("map `names`, {address:?}"))
    }

    /// Writes the sets of a bank that is not live. From now on addresses are written for it, too.
    pub(super) fn fill(&mut self, bank: u32, compiled: &Compiled) -> Result<()> {
        for (index, set) in (0..).zip(compiled.sets.as_slice()) {
            self.sets.write(set_index(bank, index), *set)?;
        }
        self.sets.settle();
        self.banks[bank as usize & 1] = Some(Bank {
            sets: compiled.sets.clone(),
            domains: compiled.domains.clone(),
        });
        Ok(())
    }

    /// Writes all that is known anew, and removes what only an earlier daemon knew. Returns how many addresses there
    /// was no room for.
    pub(super) fn relearn<'a, N>(
        &mut self,
        learned: impl IntoIterator<Item = (Addr, N, u32)>,
    ) -> Result<usize>
    where
        N: IntoIterator<Item = &'a str> + Clone,
    {
        let mut left_out = 0;
        for (address, names, expires_s) in learned {
            match self.insert(address, names, expires_s) {
                Err(e) if e.is::<Full>() => {
                    left_out += 1;
                    self.remove(address)?;
                }
                done => done?,
            }
        }
        if self.strangers {
            self.forget_strangers()?;
        }
        Ok(left_out)
    }

    fn forget_strangers(&mut self) -> Result<()> {
        let present: Vec<Addr> = self.names.keys().collect::<Result<_, _>>()?;
        for address in present.iter().filter(|a| !self.known.contains(a)) {
            absent(self.names.remove(address))?;
        }
        self.strangers = false;
        Ok(())
    }
}

impl Bank {
    /// The index of a set, which is in the map before anything points at it.
    fn learn(&mut self, bank: u32, set: &Set, memory: &mut Memory<Set>) -> Result<u32> {
        let known = self.sets.as_slice().len();
        let index = self.sets.learn(set)?;
        if index as usize >= known {
            memory.write(set_index(bank, index), *set)?;
        }
        Ok(index)
    }
}

/// To remove what is not there is no error.
pub(super) fn absent(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
