//! The maps as a person edits them.

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use std::os::fd::AsFd as _;
use uplink_common::hash;
use uplink_common::policy::{Members, StickyKey};
use uplink_common::recent::{self, Line};
use uplink_common::record::Config;
use uplink_common::{Addr, FlowKey, Pin, Seed, Slot, Uplink};

/// The maps as a person with `bpftool` has them.
pub(super) struct Hands {
    pub(super) config: Array<MapData, Config>,
    pub(super) uplinks: Array<MapData, Uplink>,
    pub(super) slots: Array<MapData, Slot>,
    pub(super) flows: HashMap<MapData, FlowKey, Pin>,
    recent: Array<MapData, Line>,
    pub(super) groups: Array<MapData, Slot>,
    pub(super) members: Array<MapData, Members>,
    pub(super) sticky: HashMap<MapData, StickyKey, Pin>,
    other_names: HashMap<MapData, Addr, u32>,
    pub(super) answers: RingBuf<MapData>,
    others: std::collections::HashMap<String, MapData>,
}

/// What is read as `explain` reads it.
const READ: [&str; 7] = [
    "fields", "sets", "prefixes", "values", "exact", "names", "choices",
];

impl Hands {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let map = |name: &str| -> Result<Map> {
            let data = again(data(ebpf.map(name).context("no such map")?)?)?;
            Ok(Map::from_map_data(data)?)
        };
        let other = |name: &str| {
            let data = again(data(ebpf.map(name).context("no such map")?)?)?;
            Ok((name.to_owned(), data))
        };
        Ok(Self {
            config: map("config")?.try_into()?,
            uplinks: map("uplinks")?.try_into()?,
            slots: map("slots")?.try_into()?,
            flows: map("flows")?.try_into()?,
            recent: map("recent")?.try_into()?,
            groups: map("groups")?.try_into()?,
            members: map("members")?.try_into()?,
            sticky: map("sticky")?.try_into()?,
            other_names: map("other_names")?.try_into()?,
            answers: map("answers")?.try_into()?,
            others: READ
                .iter()
                .copied()
                .chain(["config"])
                .map(other)
                .collect::<Result<_>>()?,
        })
    }

    /// Where copies of a flow's pin are.
    pub(super) fn place(&self, seed: Seed, key: &FlowKey) -> u32 {
        recent::place(hash::flow(seed, key), self.recent.len() - 1)
    }

    /// The copies there.
    pub(super) fn copies(&self, place: u32) -> Line {
        self.recent.get(&place, 0).expect("map `recent`")
    }

    /// Others instead.
    pub(super) fn plant(&mut self, place: u32, line: Line) {
        self.recent.set(place, line, 0).expect("map `recent`");
    }

    /// Somebody looked an address up, by a name of no policy.
    pub(super) fn name_nobody_wants(&mut self, address: Addr, until_s: u32) {
        self.other_names
            .insert(address, until_s, 0)
            .expect("map `other_names`");
    }

    /// One more handle to a map that policies are read from.
    pub(super) fn another(&self, name: &str) -> Result<Map> {
        let data = self.others.get(name).context("no such map")?;
        Ok(Map::from_map_data(again(data)?)?)
    }
}

fn data(map: &Map) -> Result<&MapData> {
    match map {
        Map::Array(d) | Map::HashMap(d) | Map::LruHashMap(d) | Map::LpmTrie(d) | Map::RingBuf(d) => Ok(d),
        other => bail!("no map of this type is edited: {other:?}"),
    }
}

fn again(data: &MapData) -> Result<MapData> {
    Ok(MapData::from_fd(data.fd().as_fd().try_clone_to_owned()?)?)
}
