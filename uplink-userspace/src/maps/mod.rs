//! The BPF maps as user space writes and reads them.

pub mod fast;
mod groups;
pub mod memory;
pub mod policies;
mod record;
mod slots;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use ipnet::IpNet;
use uplink_common::policy::GROUP_SLOTS;
use uplink_common::recent::Line;
use uplink_common::record::{Config, Counter, NEXT_HOP_V4, NEXT_HOP_V6, Passive, Traffic, passive_index};
use uplink_common::{
    ABI, Addr, Family, Filter, FlowKey, MAX_UPLINKS, NextHop, Reason, SLOTS, Station, Translation, Uplink,
};

use crate::engine::{Path, Selection};
use crate::weights::Serving;
use crate::{resolve, table};

pub use record::{Settings, found_dead, name};
pub(crate) use record::{claims, record};

use fast::FastMaps;
use groups::GroupTables;
use policies::{NameTable, OtherNames, PolicyMaps};
use record::{between, name_bytes, voided};
use slots::SlotTable;

/// Name of the flow table; also that of its pin.
pub const FLOWS: &str = "flows";

/// Name of the table in front of it; see [`uplink_common::recent`].
pub const RECENT: &str = "recent";

/// Every map, which is pinned under its name.
pub const NAMES: &[&str] = &[
    "config",
    "uplinks",
    "slots",
    FLOWS,
    RECENT,
    "next_hops",
    "locals",
    "stations",
    "translations",
    "bypass",
    "leaks",
    "scratch",
    "counters",
    "sent",
    "received",
    "openings",
    "echoes",
    "passive",
    "policies",
    "fields",
    "sets",
    "prefixes",
    "values",
    "exact",
    "names",
    "other_names",
    "choices",
    "groups",
    "members",
    "sticky",
    "answers",
    "copy",
    "fast",
    "ports",
    "ways",
    "paths_v4",
    "paths_v6",
    "asked",
];

/// Handles to the maps.
pub struct Maps {
    config: Array<MapData, Config>,
    uplinks: Array<MapData, Uplink>,
    slots: SlotTable,
    groups: GroupTables,
    next_hops: HashMap<MapData, NextHop, u32>,
    locals: HashMap<MapData, Addr, u32>,
    stations: HashMap<MapData, Station, u32>,
    translations: Array<MapData, Translation>,
    bypass: LpmTrie<MapData, Addr, u32>,
    leaks: HashMap<MapData, FlowKey, u32>,
    counters: PerCpuArray<MapData, Counter>,
    sent: PerCpuArray<MapData, Traffic>,
    received: PerCpuArray<MapData, Traffic>,
    passive: PerCpuArray<MapData, Passive>,
    /// What policies look at, and what they do.
    pub policies: PolicyMaps,
    /// The addresses that names are known of; taken by whoever learns them.
    pub names: Option<NameTable>,
    /// Addresses that were looked up by other names; likewise.
    pub other_names: Option<OtherNames>,
    /// The fast path.
    pub fast: FastMaps,
    /// DNS packets; likewise.
    pub answers: Option<RingBuf<MapData>>,
    /// Lines of the map `recent`, less one.
    recent: u32,
    /// What was written last, to write differences only.
    addresses: Option<Addresses>,
}

/// What the program compares route answers and destinations with; values are uplink ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Route answers that mean an uplink.
    pub next_hops: Vec<(NextHop, u32)>,
    /// This host's addresses; 0 where it is no uplink's source, or several uplinks'.
    pub locals: Vec<(Addr, u32)>,
    /// Gateways by their MAC address.
    pub stations: Vec<(Station, u32)>,
    /// Destinations towards which this host's sockets are left alone.
    pub bypass: Vec<IpNet>,
    /// Index of the aggregate interface's inner end, where this host's own packets come in again; 0: none.
    pub unguarded: u32,
    /// By uplink id: the longest IP packets that leave by it whole, by family.
    pub mtus: BTreeMap<u8, [u32; 2]>,
}

impl Addresses {
    fn filter(&self) -> Filter {
        self.locals.iter().map(|(address, _)| *address).collect()
    }
}

/// What one uplink carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Left by it; `flows` is what it was given.
    pub sent: Traffic,
    /// Came back by it.
    pub received: Traffic,
}

impl Maps {
    /// Handles to the maps of a loaded object, which keeps its own: programs that are loaded later need them.
    ///
    /// # Errors
    /// When the object lacks one, which means that it belongs to another version; or when there are too many open
    /// files.
    pub fn of(ebpf: &Ebpf) -> Result<Self> {
        let mut take = |name: &'static str| {
            let map = ebpf.map(name);
            let map = map.with_context(|| format!("the BPF object has no map `{name}`"))?;
            let handle = data(map).fd().as_fd().try_clone_to_owned()?;
            Ok(Map::from_map_data(MapData::from_fd(handle)?)?)
        };
        let (policies, names) = PolicyMaps::take(&mut take)?;
        let recent: Array<MapData, Line> = take(RECENT)?.try_into()?;
        Ok(Self {
            policies,
            names: Some(names),
            other_names: Some(OtherNames::new(take("other_names")?.try_into()?)),
            fast: FastMaps::take(&mut take)?,
            answers: Some(take("answers")?.try_into()?),
            config: take("config")?.try_into()?,
            uplinks: take("uplinks")?.try_into()?,
            slots: SlotTable::new(take("slots")?)?,
            groups: GroupTables::new(take("groups")?, take("members")?)?,
            next_hops: take("next_hops")?.try_into()?,
            locals: take("locals")?.try_into()?,
            stations: take("stations")?.try_into()?,
            translations: take("translations")?.try_into()?,
            bypass: take("bypass")?.try_into()?,
            leaks: take("leaks")?.try_into()?,
            counters: take("counters")?.try_into()?,
            sent: take("sent")?.try_into()?,
            received: take("received")?.try_into()?,
            passive: take("passive")?.try_into()?,
            recent: recent.len() - 1,
            addresses: None,
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
        let config = self.config()?;
        let highest = if config.abi == ABI { config.uplinks } else { 0 };
        for id in 1..=highest.min(MAX_UPLINKS) {
            let record = self.uplinks.get(&id, 0)?;
            if record.name[0] != 0 {
                found.push((id as u8, record));
            }
        }
        Ok(found)
    }

    /// Makes a selection live: new slots of everybody and of the groups into the other bank, records that gain a
    /// family, the switch of banks, then records that lose one and the void generations. At every step the
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
        let build = |serving: &Serving, size| table::build(&claims(uplinks, serving), size);
        let [v4, v6] = Family::ALL.map(|family| build(selection.family(family), SLOTS));
        self.slots.write(bank as usize, &v4, &v6)?;
        let group = |group: &[Serving; 2]| [0, 1].map(|family: usize| build(&group[family], GROUP_SLOTS));
        let groups: Vec<[Vec<u8>; 2]> = selection.groups.iter().map(group).collect();
        self.groups.write(bank, &groups)?;
        for u in uplinks {
            let old = self.uplinks.get(&u32::from(u.id), 0)?;
            self.uplinks
                .set(u32::from(u.id), between(u, selection, &old, self.mtu(u.id)), 0)?;
            self.translations
                .set(u32::from(u.id), u.translation.unwrap_or_default(), 0)?;
        }
        let highest = uplinks.iter().map(|u| u32::from(u.id)).max().unwrap_or(0);
        let mut config = settings.record(uplinks, bank, highest, self.recent, before);
        // At a first start they are known before there is any table.
        if let Some(addresses) = &self.addresses {
            config.locals = addresses.filter();
        }
        self.config
            .set(0, config, 0)
            .context("switching the slot table")?;
        self.verify(&config)?;
        for u in uplinks {
            let old = self.uplinks.get(&u32::from(u.id), 0)?;
            let new = voided(u.id, record(u, selection, &old, self.mtu(u.id)), selection);
            self.uplinks.set(u32::from(u.id), new, 0)?;
            if new.generation != old.generation {
                self.fast.advance()?;
            }
        }
        Ok(())
    }

    fn mtu(&self, id: u8) -> [u32; 2] {
        let known = self.addresses.as_ref().and_then(|a| a.mtus.get(&id));
        known.copied().unwrap_or_default()
    }

    /// Switches next-hop mode by one store, which no other part of the configuration sees.
    ///
    /// # Errors
    /// When the kernel refuses; what was so stays so.
    pub fn set_next_hop(&mut self, settings: &Settings) -> Result<()> {
        let config = self.config()?;
        let flags = config.flags & !(NEXT_HOP_V4 | NEXT_HOP_V6) | settings.next_hop_flags();
        Ok(self.config.set(0, Config { flags, ..config }, 0)?)
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
    /// When the kernel refuses a write (more than 256 next hops, 1,024 addresses or stations).
    pub fn set_addresses(&mut self, addresses: &Addresses) -> Result<()> {
        if self.addresses.as_ref() == Some(addresses) {
            return Ok(());
        }
        self.addresses = None;
        replace(&mut self.next_hops, &addresses.next_hops).context("map `next_hops`")?;
        replace(&mut self.locals, &fitting(&addresses.locals)).context("map `locals`")?;
        self.filter(addresses).context("map `config`")?;
        replace(&mut self.stations, &addresses.stations).context("map `stations`")?;
        self.set_bypass(&addresses.bypass).context("map `bypass`")?;
        self.set_mtus(&addresses.mtus).context("map `uplinks`")?;
        self.addresses = Some(addresses.clone());
        Ok(())
    }

    /// Behind the map: an address that the filter knows too early is only looked up in vain.
    fn filter(&mut self, addresses: &Addresses) -> Result<()> {
        let config = Config {
            locals: addresses.filter(),
            unguarded: addresses.unguarded,
            ..self.config()?
        };
        Ok(self.config.set(0, config, 0)?)
    }

    /// Of the uplinks that have a record; the others get it with theirs.
    fn set_mtus(&mut self, mtus: &BTreeMap<u8, [u32; 2]>) -> Result<()> {
        for (id, record) in self.uplinks()? {
            let mtu = mtus.get(&id).copied().unwrap_or_default();
            if record.mtu != mtu {
                self.uplinks.set(u32::from(id), Uplink { mtu, ..record }, 0)?;
            }
        }
        Ok(())
    }

    fn set_bypass(&mut self, prefixes: &[IpNet]) -> Result<()> {
        let wanted: Vec<(u32, Addr)> = if prefixes.len() >= BYPASS_CAPACITY {
            // Rather steer no socket at all than one that is somebody else's.
            vec![(0, Addr::default())]
        } else {
            prefixes.iter().map(trie_prefix).collect()
        };
        let kept: std::collections::HashSet<(u32, [u8; 16])> =
            wanted.iter().map(|(l, a)| (*l, a.0)).collect();
        let present = self.bypass.keys().filter_map(Result::ok);
        let stale = present.filter(|key: &Key<Addr>| !kept.contains(&(key.prefix_len(), key.data().0)));
        let stale: Vec<Key<Addr>> = stale.collect();
        if self.add_bypass(&wanted).is_ok() {
            return self.remove_bypass(&stale);
        }
        // There may be no room for both: no socket is steered while they change places.
        let everything = (0, Addr::default());
        self.remove_bypass(stale.get(..1).unwrap_or_default())?;
        self.add_bypass(&[everything])?;
        self.remove_bypass(stale.get(1..).unwrap_or_default())?;
        self.add_bypass(&wanted)?;
        match wanted.contains(&everything) {
            true => Ok(()),
            false => self.remove_bypass(&[Key::new(everything.0, everything.1)]),
        }
    }

    fn add_bypass(&mut self, prefixes: &[(u32, Addr)]) -> Result<()> {
        for (length, address) in prefixes {
            self.bypass.insert(&Key::new(*length, *address), 0, 0)?;
        }
        Ok(())
    }

    fn remove_bypass(&mut self, keys: &[Key<Addr>]) -> Result<()> {
        for key in keys {
            self.bypass.remove(key)?;
        }
        Ok(())
    }

    /// Takes the flows that were seen leaving without NAT since the last call.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_leaks(&mut self) -> Result<Vec<FlowKey>> {
        let leaked: Vec<FlowKey> = self.leaks.keys().filter_map(Result::ok).collect();
        for key in &leaked {
            // An old one may have made room meanwhile.
            policies::absent(self.leaks.remove(key))?;
        }
        Ok(leaked)
    }

    /// Tells the programs that the daemon lives.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heartbeat(&mut self, now_s: u32) -> Result<()> {
        let config = Config {
            heartbeat_s: now_s,
            ..self.config()?
        };
        Ok(self.config.set(0, config, 0)?)
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

    /// What the users' packets told of a path since the maps were made.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn passive(&self, path: Path) -> Result<Passive> {
        let index = passive_index(u32::from(path.uplink), path.family);
        let per_cpu = self.passive.get(&index, 0)?;
        Ok(per_cpu.iter().fold(Passive::default(), sum))
    }
}

fn sum(a: Passive, b: &Passive) -> Passive {
    Passive {
        opened: a.opened + b.opened,
        answered: a.answered + b.answered,
        retransmitted: a.retransmitted + b.retransmitted,
        queries: a.queries + b.queries,
        responses: a.responses + b.responses,
        rtt_us: a.rtt_us + b.rtt_us,
        rtts: a.rtts + b.rtts,
        rtt_log2: std::array::from_fn(|i| a.rtt_log2[i] + b.rtt_log2[i]),
    }
}

/// Room in the map `bypass`, as the BPF object declares it.
const BYPASS_CAPACITY: usize = 16_384;
/// Room in the map `locals`.
const LOCALS_CAPACITY: usize = 1_024;

/// A prefix as the trie counts it: over the 16 bytes of an [`Addr`].
fn trie_prefix(net: &IpNet) -> (u32, Addr) {
    const MAPPED: u32 = 96;
    let own = u32::from(net.prefix_len());
    let length = if net.addr().is_ipv4() { MAPPED + own } else { own };
    (length, Addr::from(net.network()))
}

/// The data of a map, whatever its type.
pub(crate) fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(d)
        | Map::PerCpuArray(d)
        | Map::HashMap(d)
        | Map::LruHashMap(d)
        | Map::LpmTrie(d)
        | Map::RingBuf(d) => d,
        other => unreachable!("the BPF object has no map of this type: {other:?}"),
    }
}

/// As many addresses as there is room for. What is not there costs a look at the routes, which know all of them, so those of
/// uplinks, whose number is asked for, come first.
fn fitting(locals: &[(Addr, u32)]) -> Vec<(Addr, u32)> {
    let (uplinks, others): (Vec<_>, Vec<_>) = locals.iter().copied().partition(|(_, uplink)| *uplink != 0);
    uplinks.into_iter().chain(others).take(LOCALS_CAPACITY).collect()
}

/// Makes a hash map hold exactly these entries: adds first, so that nothing is missing meanwhile, where there is room for that.
fn replace<K: aya::Pod + Eq + std::hash::Hash>(
    map: &mut HashMap<MapData, K, u32>,
    wanted: &[(K, u32)],
) -> Result<()> {
    let kept: std::collections::HashSet<K> = wanted.iter().map(|(key, _)| *key).collect();
    let stale = map
        .keys()
        .filter_map(Result::ok)
        .filter(|key| !kept.contains(key));
    let stale: Vec<K> = stale.collect();
    let add = |map: &mut HashMap<MapData, K, u32>| {
        let mut wanted = wanted.iter();
        wanted.try_for_each(|(key, value)| map.insert(*key, *value, 0))
    };
    let added = add(map);
    for key in stale {
        map.remove(&key)?;
    }
    Ok(added.or_else(|_| add(map))?)
}
