//! The BPF maps as user space writes and reads them.

use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use uplink_common::record::{Config, Counter, DEFRAGMENTED, Traffic};
use uplink_common::{
    ABI, Addr, Family, FlowKey, MAX_UPLINKS, NextHop, Pin, Reason, SLOTS, Seed, Slot, Uplink,
};

use crate::config::NatMode;
use crate::engine::{Path, Selection};
use crate::{resolve, table};

/// Name of the flow table; also that of its pin.
pub const FLOWS: &str = "flows";

/// Every map, which is pinned under its name.
pub const NAMES: &[&str] = &[
    "config",
    "uplinks",
    "slots",
    FLOWS,
    "next_hops",
    "locals",
    "counters",
    "sent",
    "received",
    "policies",
];

/// Handles to the maps.
pub struct Maps {
    config: Array<MapData, Config>,
    uplinks: Array<MapData, Uplink>,
    slots: SlotTable,
    next_hops: HashMap<MapData, NextHop, u32>,
    locals: HashMap<MapData, Addr, u32>,
    counters: PerCpuArray<MapData, Counter>,
    sent: PerCpuArray<MapData, Traffic>,
    received: PerCpuArray<MapData, Traffic>,
}

/// What the program compares route answers and destinations with; values are uplink ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Route answers that mean an uplink.
    pub next_hops: Vec<(NextHop, u32)>,
    /// This host's addresses; 0 where it is no uplink's source.
    pub locals: Vec<(Addr, u32)>,
}

/// What one uplink carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Steered to it.
    pub sent: Traffic,
    /// Came back by it.
    pub received: Traffic,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// When the object lacks one, which means that it belongs to another version.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name)
                .with_context(|| format!("the BPF object has no map `{name}`"))
        };
        Ok(Self {
            config: take("config")?.try_into()?,
            uplinks: take("uplinks")?.try_into()?,
            slots: SlotTable::new(take("slots")?)?,
            next_hops: take("next_hops")?.try_into()?,
            locals: take("locals")?.try_into()?,
            counters: take("counters")?.try_into()?,
            sent: take("sent")?.try_into()?,
            received: take("received")?.try_into()?,
        })
    }

    /// The configuration record; all zero before the first start.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn config(&self) -> Result<Config> {
        Ok(self.config.get(&0, 0)?)
    }

    /// The uplink records with their ids, those in use only.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn uplinks(&self) -> Result<Vec<(u8, Uplink)>> {
        let mut found = Vec::new();
        for id in 1..=MAX_UPLINKS {
            let record = self.uplinks.get(&id, 0)?;
            if record.name[0] != 0 {
                found.push((id as u8, record));
            }
        }
        Ok(found)
    }

    /// Makes a selection live: new slots into the other bank, records that gain a family, the
    /// switch of banks, then records that lose one and the void generations. At every step the
    /// program finds a table that is whole.
    ///
    /// # Errors
    /// When the kernel refuses a write; the table that was live stays live.
    pub fn publish(
        &mut self,
        uplinks: &[resolve::Uplink],
        selection: &Selection,
        settings: &Settings,
    ) -> Result<()> {
        let before = self.config()?;
        let bank = (before.bank & 1) ^ 1;
        let v4 = table::build(&claims(uplinks, selection, Family::V4));
        let v6 = table::build(&claims(uplinks, selection, Family::V6));
        self.slots.write(bank as usize, &v4, &v6);
        for u in uplinks {
            let old = self.uplinks.get(&u32::from(u.id), 0)?;
            let mut record = record(u, selection, &old);
            record.families |= if same_name(&old, u) { old.families } else { 0 };
            self.uplinks.set(u32::from(u.id), record, 0)?;
        }
        let highest = uplinks.iter().map(|u| u32::from(u.id)).max().unwrap_or(0);
        let config = settings.record(bank, highest, before);
        self.config
            .set(0, config, 0)
            .context("switching the slot table")?;
        self.verify(&config)?;
        for u in uplinks {
            let old = self.uplinks.get(&u32::from(u.id), 0)?;
            self.uplinks.set(
                u32::from(u.id),
                voided(u.id, record(u, selection, &old), selection),
                0,
            )?;
        }
        Ok(())
    }

    /// Reads back what the program will read.
    fn verify(&self, wanted: &Config) -> Result<()> {
        let found = self.config()?;
        if found != *wanted {
            bail!("the map `config` holds {found:?} instead of {wanted:?}: is somebody else writing it?");
        }
        Ok(())
    }

    /// Sets which route answers mean an uplink, and which addresses are this host's.
    ///
    /// # Errors
    /// When the kernel refuses a write (more than 256 next hops or 1,024 addresses).
    pub fn set_addresses(&mut self, addresses: &Addresses) -> Result<()> {
        replace(&mut self.next_hops, &addresses.next_hops).context("map `next_hops`")?;
        replace(&mut self.locals, &addresses.locals).context("map `locals`")
    }

    /// Voids what flows were told while routes were different: the pins on the kernel's routes.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn routes_changed(&mut self) -> Result<()> {
        let mut kernel = self.uplinks.get(&0, 0)?;
        kernel.generation = kernel.generation.map(|g| g.wrapping_add(1));
        kernel.name = name_bytes("kernel");
        Ok(self.uplinks.set(0, kernel, 0)?)
    }

    /// Removes records of uplinks that are not configured any more.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn forget_others(&mut self, uplinks: &[resolve::Uplink]) -> Result<()> {
        for (id, old) in self.uplinks()? {
            if uplinks.iter().all(|u| u.id != id) {
                let generation = old.generation.map(|g| g.wrapping_add(1));
                self.uplinks.set(
                    u32::from(id),
                    Uplink {
                        generation,
                        ..Uplink::default()
                    },
                    0,
                )?;
            }
        }
        Ok(())
    }

    /// Packets by outcome.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>> {
        let total = |reason: &Reason| {
            let per_cpu = self.counters.get(&(*reason as u32), 0)?;
            Ok((*reason, per_cpu.iter().map(|c| c.packets).sum()))
        };
        Reason::ALL.iter().map(total).collect()
    }

    /// What an uplink carried since its maps were made.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn carried(&self, id: u8) -> Result<Carried> {
        let sum = |map: &PerCpuArray<MapData, Traffic>| -> Result<Traffic> {
            let per_cpu = map.get(&u32::from(id), 0)?;
            Ok(per_cpu.iter().fold(Traffic::default(), |a, b| Traffic {
                packets: a.packets + b.packets,
                bytes: a.bytes + b.bytes,
                flows: a.flows + b.flows,
            }))
        };
        Ok(Carried {
            sent: sum(&self.sent)?,
            received: sum(&self.received)?,
        })
    }
}

/// What goes into the configuration record beside the bank.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Our bits of the mark.
    pub mask: uplink_common::mark::Mask,
    /// Secret of the hash, kept across restarts.
    pub seed: Seed,
    /// Tells whether conntrack reassembles fragments.
    pub nat: NatMode,
}

impl Settings {
    fn record(&self, bank: u32, uplinks: u32, before: Config) -> Config {
        let flags = if self.nat == NatMode::Masquerade {
            DEFRAGMENTED
        } else {
            0
        };
        let (mask, shift) = (self.mask.bits(), self.mask.shift());
        let uplinks = if before.abi == ABI {
            uplinks.max(before.uplinks)
        } else {
            uplinks
        };
        Config {
            abi: ABI,
            mask,
            shift,
            bank,
            uplinks,
            flags,
            seed: self.seed,
            ..before
        }
    }
}

/// Live pins by uplink id; 0 is the kernel's own routes.
///
/// # Errors
/// When the pin cannot be opened.
pub fn count_flows(pin: &std::path::Path) -> Result<Vec<u64>> {
    let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
    let flows: HashMap<_, FlowKey, Pin> = Map::from_map_data(map)?.try_into()?;
    let mut count = vec![0; MAX_UPLINKS as usize + 1];
    // Entries that go or come meanwhile are counted or not: this is a figure for people.
    for (_, pin) in flows.iter().filter_map(Result::ok) {
        if let Some(n) = count.get_mut(pin.uplink as usize) {
            *n += 1;
        }
    }
    Ok(count)
}

/// Paths that the records call unserved: an earlier daemon had found them dead.
#[must_use]
pub fn found_dead(records: &[(u8, Uplink)], uplinks: &[resolve::Uplink]) -> Vec<Path> {
    let mut dead = Vec::new();
    for u in uplinks {
        let Some((_, record)) = records.iter().find(|(id, r)| *id == u.id && same_name(r, u)) else {
            continue;
        };
        for family in Family::ALL {
            if u.leg(family).is_some() && record.families & family.bit() == 0 {
                dead.push(Path { uplink: u.id, family });
            }
        }
    }
    dead
}

/// The name in a record.
#[must_use]
pub fn name(record: &Uplink) -> String {
    let end = record
        .name
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(record.name.len());
    String::from_utf8_lossy(&record.name[..end]).into_owned()
}

fn claims(uplinks: &[resolve::Uplink], selection: &Selection, family: Family) -> Vec<table::Claim> {
    let serving = selection.family(family);
    let claim = |u: &resolve::Uplink| {
        let weight = serving.weight(u.id);
        (weight > 0).then(|| table::Claim {
            id: u.id,
            name: u.name.clone(),
            weight,
        })
    };
    uplinks.iter().filter_map(claim).collect()
}

fn record(u: &resolve::Uplink, selection: &Selection, old: &Uplink) -> Uplink {
    let serves = |family: Family| {
        if selection.family(family).weight(u.id) > 0 {
            family.bit()
        } else {
            0
        }
    };
    let fresh = u32::from(!same_name(old, u));
    Uplink {
        generation: old.generation.map(|g| g.wrapping_add(fresh)),
        weight: u.weight,
        built_weight: u.weight,
        families: serves(Family::V4) | serves(Family::V6),
        mark: u.mark,
        host_mark: u.host_mark,
        ifindex: u.ifindex,
        source: Family::ALL.map(|f| u.leg(f).map_or(Addr::default(), |leg| leg.source.into())),
        name: name_bytes(&u.name),
    }
}

fn voided(id: u8, mut record: Uplink, selection: &Selection) -> Uplink {
    for path in selection.voided.iter().filter(|p| p.uplink == id) {
        let generation = &mut record.generation[path.family as usize];
        *generation = generation.wrapping_add(1);
    }
    record
}

fn same_name(record: &Uplink, u: &resolve::Uplink) -> bool {
    record.name == name_bytes(&u.name)
}

fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

/// Makes a hash map hold exactly these entries: adds first, so that nothing is missing meanwhile.
fn replace<K: aya::Pod + PartialEq>(map: &mut HashMap<MapData, K, u32>, wanted: &[(K, u32)]) -> Result<()> {
    for (key, value) in wanted {
        map.insert(*key, *value, 0)?;
    }
    let stale: Vec<K> = map
        .keys()
        .filter_map(Result::ok)
        .filter(|k| wanted.iter().all(|(w, _)| w != k))
        .collect();
    for key in stale {
        map.remove(&key)?;
    }
    Ok(())
}

/// The slot table in our address space: a whole table is written by plain stores, without
/// 65,537 system calls.
struct SlotTable {
    memory: NonNull<u8>,
    length: usize,
    _map: MapData,
}

/// Elements of an array map lie at multiples of eight bytes (`array_map_alloc` of the kernel).
const STRIDE: usize = 8;

impl SlotTable {
    fn new(map: Map) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map `slots` is no array")
        };
        let length = SLOTS as usize * STRIDE;
        // SAFETY: a fresh shared mapping of a map that is kept open beside it.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                std::os::fd::AsRawFd::as_raw_fd(&map.fd().as_fd()),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping the map `slots`");
        }
        let memory = NonNull::new(memory.cast()).context("mapping the map `slots`")?;
        Ok(Self {
            memory,
            length,
            _map: map,
        })
    }

    /// Fills one bank of every slot.
    fn write(&mut self, bank: usize, v4: &[u8], v6: &[u8]) {
        for (i, (v4, v6)) in v4.iter().zip(v6).enumerate().take(SLOTS as usize) {
            // SAFETY: `i` is below SLOTS, so slot and both banks lie within the mapping; single
            // bytes, which the program reads whole.
            unsafe {
                let slot = self.memory.as_ptr().add(i * STRIDE).cast::<Slot>();
                (&raw mut (*slot).v4)
                    .cast::<u8>()
                    .add(bank & 1)
                    .write_volatile(*v4);
                (&raw mut (*slot).v6)
                    .cast::<u8>()
                    .add(bank & 1)
                    .write_volatile(*v6);
            }
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, with its length.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
