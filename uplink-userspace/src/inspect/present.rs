//! What the kernel holds of ours. Reads only.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::Array;
use uplink_common::record::{Config as Record, Slot, Uplink};
use uplink_common::{ABI, Family, MAX_UPLINKS, SLOTS};

use super::compare::Named;
use crate::explain::kernel::{open, pinned};
use crate::host::Host;
use crate::loader::{self, Hook, Port};
use crate::maps::memory::Memory;
use crate::{aggregate, maps};

/// The maps of an earlier daemon, or of the one that runs.
pub struct Maps {
    /// By id.
    pub uplinks: Vec<(u8, Uplink)>,
    /// The uplink of each slot that is live, by family.
    pub slots: [Vec<u8>; 2],
}

/// What is pinned.
pub enum Pinned {
    /// Nothing.
    Nothing,
    /// The maps of a version with another ABI, which is this number.
    Other(u32),
    /// Maps of ours.
    Ours(Maps),
}

/// The maps under `bpffs`.
///
/// # Errors
/// When we may not look, or they cannot be read.
pub fn pins(bpffs: &Path) -> Result<Pinned> {
    match bpffs.join("config").symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Pinned::Nothing),
        other => other.with_context(|| bpffs.display().to_string())?,
    };
    let config: Array<_, Record> = open(bpffs, "config")?;
    let config = config.get(&0, 0).context("map `config`")?;
    if config.abi != ABI {
        return Ok(Pinned::Other(config.abi));
    }
    let records: Array<_, Uplink> = open(bpffs, "uplinks")?;
    let mut uplinks = Vec::new();
    for id in 1..=MAX_UPLINKS {
        let record = records.get(&id, 0).context("map `uplinks`")?;
        if record.mark != 0 {
            uplinks.push((u8::try_from(id)?, record));
        }
    }
    let table: Memory<Slot> = Memory::new("slots", pinned(bpffs, "slots")?)?;
    let bank = (config.bank & 1) as usize;
    let mut slots = [Vec::new(), Vec::new()];
    for at in 0..SLOTS {
        let slot = table.read(at)?;
        slots[Family::V4 as usize].push(slot.v4[bank]);
        slots[Family::V6 as usize].push(slot.v6[bank]);
    }
    Ok(Pinned::Ours(Maps { uplinks, slots }))
}

/// The programs that are attached, worded as [`wanted_programs`] does.
///
/// # Errors
/// When we may not look.
pub async fn programs(bpffs: &Path, hook: Hook, ports: &[Port], cgroup: &str) -> Result<Vec<Named>> {
    let mut found = Vec::new();
    for port in ports {
        for (side, program) in loader::attached(bpffs, hook, port).await? {
            found.push((format!("{} {side}", port.name), program.to_owned()));
        }
    }
    for index in loader::others(bpffs, ports)? {
        let name = nix::net::if_::if_indextoname(index);
        let name = name.map_or_else(
            |_| format!("interface {index}, which is gone"),
            |n| n.to_string_lossy().into_owned(),
        );
        found.push((name, "programs".into()));
    }
    if loader::attached_host(bpffs)? {
        found.push((sockets(cgroup), String::new()));
    }
    Ok(found)
}

/// The programs that belong there.
#[must_use]
pub fn wanted_programs(ports: &[Port], cgroup: Option<&str>) -> Vec<Named> {
    let port = |port: &Port| {
        let sides = loader::wanted(port).into_iter();
        let named = sides.map(|(side, program)| (format!("{} {side}", port.name), program.to_owned()));
        named.collect::<Vec<_>>()
    };
    let mut wanted: Vec<Named> = ports.iter().flat_map(port).collect();
    wanted.extend(cgroup.map(|c| (sockets(c), String::new())));
    wanted
}

fn sockets(cgroup: &str) -> String {
    format!("connect and sendmsg of sockets in cgroup {cgroup}")
}

/// The map pins, all in one: which there should be, and which there are.
#[must_use]
pub fn map_files(bpffs: &Path) -> (Vec<Named>, Vec<Named>) {
    let list = |names: Vec<&str>| {
        let text = format!("{}: {}", names.len(), names.join(", "));
        vec![("maps".to_owned(), text)]
    };
    let there: Vec<&str> = maps::NAMES
        .iter()
        .copied()
        .filter(|n| exists(&bpffs.join(n)))
        .collect();
    let present = match there.is_empty() {
        true => Vec::new(),
        false => list(there),
    };
    (list(maps::NAMES.to_vec()), present)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The aggregate interfaces that are there, by their outer ends.
#[must_use]
pub fn interfaces(host: &Host) -> Vec<Named> {
    let ours = host
        .interfaces
        .iter()
        .filter(|i| host.aggregates.contains(&i.index));
    let names: Vec<&str> = ours.map(|i| &*i.name).collect();
    let outer = names.iter().filter(|n| names.contains(&&*aggregate::inner(n)));
    outer.map(|n| veth(n)).collect()
}

/// The aggregate interface with this outer end.
#[must_use]
pub fn veth(outer: &str) -> Named {
    let inner = aggregate::inner(outer);
    (outer.to_owned(), format!("a veth pair, comes out at {inner}"))
}
