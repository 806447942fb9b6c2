//! The maps as a person edits them.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData};
use std::os::fd::AsFd as _;
use uplink_common::record::Config;
use uplink_common::{FlowKey, Pin, Slot, Uplink};

/// The maps as a person with `bpftool` has them.
pub(super) struct Hands {
    pub(super) config: Array<MapData, Config>,
    pub(super) uplinks: Array<MapData, Uplink>,
    pub(super) slots: Array<MapData, Slot>,
    pub(super) flows: HashMap<MapData, FlowKey, Pin>,
}

impl Hands {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let map = |name: &str| -> Result<Map> {
            let (Map::Array(data) | Map::LruHashMap(data)) = ebpf.map(name).context("no such map")? else {
                anyhow::bail!("map `{name}` has another type");
            };
            Ok(Map::from_map_data(MapData::from_fd(
                data.fd().as_fd().try_clone_to_owned()?,
            )?)?)
        };
        Ok(Self {
            config: map("config")?.try_into()?,
            uplinks: map("uplinks")?.try_into()?,
            slots: map("slots")?.try_into()?,
            flows: map("flows")?.try_into()?,
        })
    }
}
