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
            .with_context(|| format!("map `names`, {address:?}"))
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

    /// Holds exactly these addresses from now on, an earlier daemon's among them or not. Returns how many of them there
    /// was no room for.
    pub(super) fn relearn<'a, N>(
        &mut self,
        learned: impl IntoIterator<Item = (Addr, N, u32)>,
    ) -> Result<usize>
    where
        N: IntoIterator<Item = &'a str> + Clone,
    {
        let learned: Vec<(Addr, N, u32)> = learned.into_iter().collect();
        self.forget_others(&learned.iter().map(|(address, ..)| *address).collect())?;
        let mut left_out = 0;
        for (address, names, expires_s) in learned {
            match self.insert(address, names, expires_s) {
                Err(e) if is_full(&e) => {
                    left_out += 1;
                    self.remove(address)?;
                }
                done => done?,
            }
        }
        Ok(left_out)
    }

    fn forget_others(&mut self, learned: &HashSet<Addr>) -> Result<()> {
        let present: Vec<Addr> = self.names.keys().collect::<Result<_, _>>()?;
        for address in present.iter().filter(|a| !learned.contains(a)) {
            absent(self.names.remove(address))?;
        }
        Ok(())
    }
}

/// The map `other_names`: addresses that were looked up by names which no policy wants.
pub struct OtherNames(HashMap<MapData, Addr, u32>);

impl OtherNames {
    pub(in crate::maps) const fn new(map: HashMap<MapData, Addr, u32>) -> Self {
        Self(map)
    }

    /// The name of an address is forgotten at `expires_s` seconds since boot.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn insert(&mut self, address: Addr, expires_s: u32) -> Result<()> {
        self.0
            .insert(address, expires_s, 0)
            .with_context(|| format!("map `other_names`, {address:?}"))
    }

    /// Forgets an address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, address: Addr) -> Result<()> {
        absent(self.0.remove(&address)).with_context(|| format!("map `other_names`, {address:?}"))
    }
}

/// Whether it is for want of room that an address could not be written: for its set, or for itself.
fn is_full(error: &anyhow::Error) -> bool {
    let full = |e: &MapError| matches!(e, MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::E2BIG));
    error.is::<Full>() || error.downcast_ref::<MapError>().is_some_and(full)
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

/// To remove what is not there is no error. Reads of it are [`MapError::KeyNotFound`], removals are not.
pub(crate) fn absent(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
