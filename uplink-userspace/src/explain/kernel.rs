//! The world as it is: the pinned maps, and the kernel's routes. Reads only, and may wait for the kernel: not for the
//! thread that steers.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use uplink_common::policy::{Choice, Members, StickyKey};
use uplink_common::record::Config;
use uplink_common::{Addr, FlowKey, NextHop, Pin, Slot, Translation, Uplink};

use super::world::{Ask, Routed, World};
use crate::flow_map;
use crate::maps::fast::{Learned, PathReader};
use crate::maps::memory::Memory;
use crate::maps::policies::PolicyReader;

/// A prefix that is a whole address.
const WHOLE: u32 = 128;

/// Handles to the maps.
pub struct Kernel {
    policies: PolicyReader,
    config: Array<MapData, Config>,
    uplinks: Array<MapData, Uplink>,
    translations: Array<MapData, Translation>,
    slots: Memory<Slot>,
    groups: Memory<Slot>,
    members: Array<MapData, Members>,
    flows: HashMap<MapData, FlowKey, Pin>,
    paths: PathReader,
    sticky: HashMap<MapData, StickyKey, Pin>,
    locals: HashMap<MapData, Addr, u32>,
    next_hops: HashMap<MapData, NextHop, u32>,
    bypass: LpmTrie<MapData, Addr, u32>,
}

impl Kernel {
    /// Opens the pins under `bpffs`. The bank of the policies is the one that is live now.
    ///
    /// # Errors
    /// When one is missing, may not be opened, or belongs to another version.
    pub fn open(bpffs: &Path) -> Result<Self> {
        Ok(Self {
            policies: PolicyReader::open(bpffs)?,
            config: open(bpffs, "config")?,
            uplinks: open(bpffs, "uplinks")?,
            translations: open(bpffs, "translations")?,
            slots: Memory::new("slots", pinned(bpffs, "slots")?)?,
            groups: Memory::new("groups", pinned(bpffs, "groups")?)?,
            members: open(bpffs, "members")?,
            flows: open(bpffs, crate::maps::FLOWS)?,
            paths: PathReader::take(|name| pinned(bpffs, name))?,
            sticky: open(bpffs, "sticky")?,
            locals: open(bpffs, "locals")?,
            next_hops: open(bpffs, "next_hops")?,
            bypass: open(bpffs, "bypass")?,
        })
    }
}

pub(crate) fn pinned(bpffs: &Path, name: &str) -> Result<Map> {
    let pin = bpffs.join(name);
    MapData::from_pin(&pin)
        .and_then(Map::from_map_data)
        .with_context(|| format!("opening {}: is anything steered, by this version?", pin.display()))
}

pub(crate) fn open<M: TryFrom<Map, Error = MapError>>(bpffs: &Path, name: &str) -> Result<M> {
    let map = M::try_from(pinned(bpffs, name)?);
    map.with_context(|| format!("the map `{name}` is not what this version expects"))
}

impl World for Kernel {
    type Policies = PolicyReader;

    fn policies(&self) -> &PolicyReader {
        &self.policies
    }

    fn choice(&self, place: u32) -> Result<Choice> {
        self.policies.choice(place)
    }

    fn config(&self) -> Result<Config> {
        self.config.get(&0, 0).context("map `config`")
    }

    fn uplink(&self, id: u32) -> Result<Uplink> {
        let record = self.uplinks.get(&id, 0);
        record.with_context(|| format!("map `uplinks`, entry {id}"))
    }

    fn translation(&self, id: u32) -> Result<Translation> {
        let record = self.translations.get(&id, 0);
        record.with_context(|| format!("map `translations`, entry {id}"))
    }

    fn slot(&self, at: u32) -> Result<Slot> {
        self.slots.read(at).context("map `slots`")
    }

    fn group_slot(&self, at: u32) -> Result<Slot> {
        self.groups.read(at).context("map `groups`")
    }

    fn members(&self, group: u32) -> Result<Members> {
        let members = self.members.get(&group, 0);
        members.with_context(|| format!("map `members`, entry {group}"))
    }

    fn pin(&self, key: &FlowKey) -> Result<Option<Pin>> {
        found(self.flows.get(key, 0)).context("map `flows`")
    }

    fn path(&self, key: &FlowKey) -> Result<Option<Learned>> {
        let seed = self.config()?.seed;
        let found = self.paths.find(seed, key, self.now_s());
        found.context("the maps of the fast path")
    }

    fn kept(&self, key: &StickyKey) -> Result<Option<Pin>> {
        found(self.sticky.get(key, 0)).context("map `sticky`")
    }

    fn is_local(&self, address: Addr) -> Result<bool> {
        let owner = found(self.locals.get(&address, 0)).context("map `locals`")?;
        Ok(owner.is_some())
    }

    fn is_bypassed(&self, address: Addr) -> Result<bool> {
        let key = Key::new(WHOLE, address);
        let prefix = found(self.bypass.get(&key, 0)).context("map `bypass`")?;
        Ok(prefix.is_some())
    }

    fn is_ours(&self, hop: &NextHop) -> Result<bool> {
        let uplink = found(self.next_hops.get(hop, 0)).context("map `next_hops`")?;
        Ok(uplink.is_some())
    }

    fn route(&self, ask: &Ask) -> Result<Routed> {
        super::route::route(ask)
    }

    fn now_s(&self) -> u32 {
        flow_map::now_s()
    }
}

fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(e) => Err(e),
    }
}
