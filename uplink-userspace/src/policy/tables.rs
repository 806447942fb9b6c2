//! Compiled policies and learned names as tables, without a kernel.

use std::collections::HashMap;

use anyhow::Result;
use uplink_common::Addr;
use uplink_common::policy::{Classifier, Field, Set};

use super::classify::Tables;
use super::compile::Compiled;
use super::full::Full;
use super::prefixes::masked;

/// What the maps hold of one bank.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The policies.
    pub compiled: Compiled,
    names: HashMap<Addr, (u32, u32)>,
}

impl Model {
    /// Nothing learned yet.
    #[must_use]
    pub fn new(compiled: Compiled) -> Self {
        Self {
            compiled,
            names: HashMap::new(),
        }
    }

    /// An address was looked up by these names.
    ///
    /// # Errors
    /// When there is no room for one more set.
    pub fn learn<'a>(
        &mut self,
        address: Addr,
        names: impl IntoIterator<Item = &'a str>,
        expires_s: u32,
    ) -> Result<(), Full> {
        let set = self.compiled.domains.set_of(names);
        let set = self.compiled.sets.learn(&set)?;
        self.names.insert(address, (set, expires_s));
        Ok(())
    }
}

impl Tables for Model {
    fn classifier(&self) -> Result<Classifier> {
        Ok(self.compiled.classifier)
    }

    fn set(&self, index: u32) -> Result<Set> {
        Ok(self.compiled.sets.get(index))
    }

    fn prefix(&self, field: Field, value: Addr) -> Result<Option<u32>> {
        let number = u128::from_be_bytes(value.0);
        let entry = |length| {
            let wanted = (field, masked(number, length), length);
            let entries = &self.compiled.prefixes;
            let key = |p: &super::Prefix| (p.field, u128::from_be_bytes(p.value.0), p.length);
            let at = entries.binary_search_by_key(&wanted, key).ok()?;
            entries.get(at).map(|p| p.set)
        };
        Ok((0..=128).rev().find_map(entry))
    }

    fn value(&self, base: u32, value: u32) -> Result<u32> {
        let found = self.compiled.values.get((base + value) as usize);
        Ok(found.copied().unwrap_or(0))
    }

    fn exact(&self, field: Field, value: u64) -> Result<Option<u32>> {
        Ok(self.compiled.exact.get(&(field, value)).copied())
    }

    fn name(&self, address: Addr) -> Result<Option<(u32, u32)>> {
        Ok(self.names.get(&address).copied())
    }
}
