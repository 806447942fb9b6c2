//! The maps of the policies: one bank is live, the other is filled and then switched to.

mod held;
mod names;
mod reader;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use uplink_common::Addr;
use uplink_common::policy::{
    Choice, Classifier, ExactKey, MAX_POLICIES, PrefixKey, Set, choice_index, set_index, value_index,
};
use uplink_common::record::{Config, Policy};

use super::Maps;
use super::memory::Memory;
use crate::policy::compile::Compiled;
use crate::policy::{IN_FORCE, choices};

pub use names::{NameTable, OtherNames};
pub use reader::PolicyReader;

use held::{Changes, Held, bank_of, changes};
pub(crate) use names::absent;

/// Handles to the maps.
pub struct PolicyMaps {
    classifier: Array<MapData, Classifier>,
    sets: Memory<Set>,
    prefixes: LpmTrie<MapData, PrefixKey, u32>,
    values: Memory<u32>,
    exact: HashMap<MapData, ExactKey, u32>,
    choices: Array<MapData, Choice>,
    counters: PerCpuArray<MapData, Policy>,
    /// By bank, what was written; `None` where that is not known.
    held: [Option<Held>; 2],
}

impl PolicyMaps {
    /// Takes the maps by their names, and those of learned names beside.
    ///
    /// # Errors
    /// When one is missing or of another version.
    pub fn take(take: &mut impl FnMut(&'static str) -> Result<Map>) -> Result<(Self, NameTable)> {
        let maps = Self {
            classifier: take("fields")?.try_into()?,
            sets: Memory::new("sets", take("sets")?)?,
            prefixes: take("prefixes")?.try_into()?,
            values: Memory::new("values", take("values")?)?,
            exact: take("exact")?.try_into()?,
            choices: take("choices")?.try_into()?,
            counters: take("policies")?.try_into()?,
            held: [None, None],
        };
        let names = take("names")?.try_into()?;
        let names = NameTable::new(names, maps.sets.another("sets")?);
        Ok((maps, names))
    }

    /// Fills the bank that is not live. `learned` are all addresses whose names are known, with their names and when
    /// they are forgotten; others are forgotten now. Returns how many of them there was no room for.
    ///
    /// # Errors
    /// When the kernel refuses a write; the live bank is as it was.
    pub fn write<'a, N>(
        &mut self,
        bank: u32,
        compiled: &Compiled,
        names: &mut NameTable,
        learned: impl IntoIterator<Item = (Addr, N, u32)>,
    ) -> Result<usize>
    where
        N: IntoIterator<Item = &'a str> + Clone,
    {
        let bank = bank & 1;
        let before = self.take_held(bank)?;
        let wanted = Held::wanted(bank, compiled);
        names.fill(bank, compiled).context("map `sets`")?;
        self.write_prefixes(&changes(&before.prefixes, &wanted.prefixes))
            .context("map `prefixes`")?;
        self.write_exact(&changes(&before.exact, &wanted.exact))
            .context("map `exact`")?;
        self.write_values(bank, compiled).context("map `values`")?;
        for (place, choice) in (0..).zip(&compiled.choices) {
            self.choices
                .set(choice_index(bank, place), choice, 0)
                .context("map `choices`")?;
        }
        self.classifier
            .set(bank, compiled.classifier, 0)
            .context("map `fields`")?;
        let left_out = names.relearn(learned)?;
        self.held[bank as usize] = Some(wanted);
        Ok(left_out)
    }

    /// What a bank holds. Unknown until it is written to the end: what is left of a failed write is found out by
    /// reading.
    fn take_held(&mut self, bank: u32) -> Result<Held> {
        match self.held[bank as usize & 1].take() {
            Some(held) => Ok(held),
            None => self.read_held(bank as usize & 1),
        }
    }

    fn read_held(&self, bank: usize) -> Result<Held> {
        let mut held = Held::default();
        for key in self.prefixes.keys() {
            let key = key.context("reading the map `prefixes`")?;
            let data = key.data();
            if bank_of(u32::from_be_bytes(data.tag)) == bank {
                held.prefixes.insert((key.prefix_len(), data), None);
            }
        }
        for key in self.exact.keys() {
            let key = key.context("reading the map `exact`")?;
            if bank_of(key.tag) == bank {
                held.exact.insert(key, None);
            }
        }
        Ok(held)
    }

    /// Removes first: there is room for two full banks, not for three.
    fn write_prefixes(&mut self, changes: &Changes<held::TrieKey>) -> Result<()> {
        for (length, data) in &changes.gone {
            absent(self.prefixes.remove(&Key::new(*length, *data)))?;
        }
        for ((length, data), set) in &changes.new {
            self.prefixes.insert(&Key::new(*length, *data), set, 0)?;
        }
        Ok(())
    }

    fn write_exact(&mut self, changes: &Changes<ExactKey>) -> Result<()> {
        for key in &changes.gone {
            absent(self.exact.remove(key))?;
        }
        for (key, set) in &changes.new {
            self.exact.insert(key, set, 0)?;
        }
        Ok(())
    }

    fn write_values(&mut self, bank: u32, compiled: &Compiled) -> Result<()> {
        for (value, set) in (0..).zip(&compiled.values) {
            self.values.write(value_index(bank, 0, value), *set)?;
        }
        self.values.settle();
        Ok(())
    }

    /// Puts other policies of the live bank in force: a schedule has begun or ended.
    ///
    /// # Errors
    /// When the kernel refuses; those that were in force stay so.
    pub fn set_active(&mut self, bank: u32, active: &Set) -> Result<()> {
        let bank = bank & 1;
        let mut classifier = self.classifier.get(&bank, 0).context("map `fields`")?;
        if self.sets.read(set_index(bank, classifier.active))? == *active {
            return Ok(());
        }
        let [first, second] = IN_FORCE;
        let index = if classifier.active == first { second } else { first };
        self.sets.write(set_index(bank, index), *active)?;
        self.sets.settle();
        classifier.active = index;
        self.classifier.set(bank, classifier, 0).context("map `fields`")
    }

    /// The names and numbers of a bank's policies: what an earlier daemon left.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn numbers(&self, bank: u32) -> Result<Vec<(String, u32)>> {
        let bank = bank & 1;
        let policies = self.classifier.get(&bank, 0)?.policies;
        let record = |place| {
            let choice = self.choices.get(&choice_index(bank, place), 0)?;
            Ok((choices::name(&choice), choice.policy))
        };
        (0..policies.min(MAX_POLICIES)).map(record).collect()
    }

    /// What a policy placed, by its number.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counter(&self, number: u32) -> Result<Policy> {
        let per_cpu = self.counters.get(&number, 0);
        let per_cpu = per_cpu.with_context(|| format!("map `policies`, number {number}"))?;
        Ok(per_cpu.iter().fold(Policy::default(), |a, b| Policy {
            flows: a.flows + b.flows,
            packets: a.packets + b.packets,
        }))
    }

    /// Lets a number that another policy has now count from zero.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn clear_counter(&mut self, number: u32) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(file, e)| anyhow::Error::new(e).context(file))?;
        let zero = PerCpuValues::try_from(vec![Policy::default(); cpus])?;
        self.counters
            .set(number, zero, 0)
            .with_context(|| format!("map `policies`, number {number}"))
    }
}

impl Maps {
    /// The bank of the policies that is not live.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn idle_policies(&self) -> Result<u32> {
        Ok((self.config()?.policy_bank & 1) ^ 1)
    }

    /// Makes the idle bank of the policies live, and returns its number.
    ///
    /// # Errors
    /// When the kernel refuses, or somebody else writes the record, too.
    pub fn switch_policies(&mut self) -> Result<u32> {
        let policy_bank = self.idle_policies()?;
        let config = Config {
            policy_bank,
            ..self.config()?
        };
        self.config.set(0, config, 0).context("switching the policies")?;
        self.verify(&config)?;
        Ok(policy_bank)
    }
}
