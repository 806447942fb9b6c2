//! The pinned maps of the policies, to read only: what the programs would find.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use uplink_common::Addr;
use uplink_common::policy::{
    Choice, Classifier, ExactKey, Field, Name, PrefixKey, Set, TAG_BITS, choice_index, set_index, value_index,
};
use uplink_common::record::Config;

use crate::policy::classify::Tables;

/// Handles to the maps. The bank is the one that was live when they were opened.
pub struct PolicyReader {
    bank: u32,
    classifier: Array<MapData, Classifier>,
    sets: Array<MapData, Set>,
    prefixes: LpmTrie<MapData, PrefixKey, u32>,
    values: Array<MapData, u32>,
    exact: HashMap<MapData, ExactKey, u32>,
    names: HashMap<MapData, Addr, Name>,
    choices: Array<MapData, Choice>,
}

impl PolicyReader {
    /// Opens the pins under `bpffs`.
    ///
    /// # Errors
    /// When one is missing or belongs to another version.
    pub fn open(bpffs: &Path) -> Result<Self> {
        Self::take(&mut |name| open(bpffs, name))
    }

    /// Takes the maps by their names.
    ///
    /// # Errors
    /// When one is missing or belongs to another version.
    pub fn take(take: &mut impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        let config: Array<MapData, Config> = take("config")?.try_into()?;
        Ok(Self {
            bank: config.get(&0, 0)?.policy_bank & 1,
            classifier: take("fields")?.try_into()?,
            sets: take("sets")?.try_into()?,
            prefixes: take("prefixes")?.try_into()?,
            values: take("values")?.try_into()?,
            exact: take("exact")?.try_into()?,
            names: take("names")?.try_into()?,
            choices: take("choices")?.try_into()?,
        })
    }

    /// What the policy at a place does.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn choice(&self, place: u32) -> Result<Choice> {
        let index = choice_index(self.bank, place);
        self.choices
            .get(&index, 0)
            .with_context(|| format!("map `choices`, entry {index}"))
    }
}

fn open(bpffs: &Path, name: &str) -> Result<Map> {
    let pin = bpffs.join(name);
    MapData::from_pin(&pin)
        .and_then(Map::from_map_data)
        .with_context(|| format!("opening {}: does the daemon run, in this version?", pin.display()))
}

impl Tables for PolicyReader {
    fn classifier(&self) -> Result<Classifier> {
        self.classifier.get(&self.bank, 0).context("map `fields`")
    }

    fn set(&self, index: u32) -> Result<Set> {
        let index = set_index(self.bank, index);
        self.sets
            .get(&index, 0)
            .with_context(|| format!("map `sets`, entry {index}"))
    }

    fn prefix(&self, field: Field, value: Addr) -> Result<Option<u32>> {
        let tag = field.tag(self.bank).to_be_bytes();
        let key = Key::new(TAG_BITS + 128, PrefixKey { tag, value: value.0 });
        found(self.prefixes.get(&key, 0)).context("map `prefixes`")
    }

    fn value(&self, base: u32, value: u32) -> Result<u32> {
        let index = value_index(self.bank, base, value);
        self.values
            .get(&index, 0)
            .with_context(|| format!("map `values`, entry {index}"))
    }

    fn exact(&self, field: Field, value: u64) -> Result<Option<u32>> {
        let key = ExactKey {
            tag: field.tag(self.bank),
            pad: 0,
            value,
        };
        found(self.exact.get(&key, 0)).context("map `exact`")
    }

    fn name(&self, address: Addr) -> Result<Option<(u32, u32)>> {
        let name = found(self.names.get(&address, 0)).context("map `names`")?;
        Ok(name.map(|n| (n.set[self.bank as usize & 1], n.expires_s)))
    }
}

fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(e) => Err(e),
    }
}
