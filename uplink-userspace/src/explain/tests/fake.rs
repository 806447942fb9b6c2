//! A host with two uplinks, a LAN and some policies, as its maps would have it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path as File;
use std::time::Duration;

use anyhow::Result;
use uplink_common::policy::{Choice, GROUP_SLOTS, Members, StickyKey};
use uplink_common::record::{Config, DEFRAGMENTED};
use uplink_common::{ABI, Addr, Family, FlowKey, NextHop, Pin, SLOTS, Seed, Slot, Translation, Uplink};

use crate::config;
use crate::engine::{Engine, Event, Path, Settings};
use crate::explain::world::{Ask, Routed, Way};
use crate::explain::{Answer, Known, Question, Scene, World, explain, minds};
use crate::health::Outage;
use crate::host::{Host, Interface};
use crate::maps::fast::Learned;
use crate::policy::compile::{Surroundings, compile};
use crate::policy::tables::Model;
use crate::weights::Serving;
use crate::{maps, resolve, table};

const FILE: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"
gateway6 = "fd00:1::1"
weight = 3
[[uplink]]
name = "isp2"
interface = "eth0"
gateway = "10.0.0.1"
gateway6 = "fd00:2::1"
[lan]
interfaces = ["lan0"]
[[policy]]
name = "voip"
match = { proto = "udp", dport = "5060-5090" }
use = ["isp2"]
strict = true
[[policy]]
name = "bank"
match = { dst = ["203.0.113.64/26"], dport = "443" }
use = { isp1 = 1, isp2 = 1 }
sticky = "source"
[[policy]]
name = "backup"
match = { uid = 34 }
use = ["isp2"]
[[policy]]
name = "video"
match = { domain = ["*.example.org"], not = { src = "10.9.0.200" } }
use = ["isp1"]
"#;

/// Numbers of the policies are their places, from 1.
pub(super) const BANK: u32 = 2;
/// Seconds since boot.
pub(super) const NOW_S: u32 = 10_000;

pub(super) struct Fake {
    pub record: Config,
    pub records: Vec<Uplink>,
    pub engine: Engine,
    pub pins: HashMap<FlowKey, Pin>,
    pub path: Option<Learned>,
    pub kept: HashMap<StickyKey, Pin>,
    pub bypass: HashSet<Addr>,
    /// What the kernel does with what has no mark.
    pub unmarked: Routed,
    pub scene: Scene,
    pub tables: Model,
    slots: Vec<Slot>,
    groups: Vec<Slot>,
}

impl Fake {
    pub fn new() -> Self {
        let config = config::parse(File::new("uplink.toml"), FILE.into()).unwrap();
        let uplinks = resolve::resolve(&config, &host(), &BTreeMap::new())
            .unwrap()
            .uplinks;
        let engine = Engine::new(uplinks, Settings::of(&config), &[], &[]);
        let policies = &config.policies;
        let numbers: Vec<u32> = (1..).take(policies.len()).collect();
        let active = vec![true; policies.len()];
        let groups = config::groups(policies);
        let compiled = compile(policies, &numbers, &groups, &active, &Surroundings::default()).unwrap();
        let mut fake = Self {
            record: Config {
                abi: ABI,
                mask: 0x7f00_0000,
                shift: 24,
                uplinks: 2,
                flags: DEFRAGMENTED,
                seed: Seed { k0: 1, k1: 2 },
                ..Config::default()
            },
            records: Vec::new(),
            engine,
            pins: HashMap::new(),
            path: None,
            kept: HashMap::new(),
            bypass: HashSet::new(),
            unmarked: by("192.168.1.1", 2, 254),
            scene: Scene {
                iif: ("lan0".into(), 3),
                lan: vec!["lan0".into()],
                local: true,
                file: "uplink.toml".into(),
                minds: minds(policies),
                ..Scene::default()
            },
            tables: Model::new(compiled),
            slots: Vec::new(),
            groups: Vec::new(),
        };
        fake.publish();
        fake
    }

    /// Takes an uplink down, in the maps too.
    pub fn down(&mut self, id: u8) {
        let paths = Family::ALL.map(|family| (Path { uplink: id, family }, Some(Outage::Carrier)));
        self.engine
            .handle(Duration::from_secs(5), Event::Outages(paths.into()));
        self.publish();
        if let Some(record) = self.records.get_mut(usize::from(id)) {
            record.generation = [1; 2];
        }
    }

    fn publish(&mut self) {
        let (uplinks, selection) = (self.engine.uplinks(), self.engine.selection());
        let build = |serving: &Serving, size| table::build(&maps::claims(uplinks, serving), size);
        let both = |v4: &Serving, v6: &Serving, size| -> Vec<Slot> {
            let slot = |(v4, v6)| Slot {
                v4: [v4, 0],
                v6: [v6, 0],
            };
            build(v4, size)
                .into_iter()
                .zip(build(v6, size))
                .map(slot)
                .collect()
        };
        let slots = both(&selection.v4, &selection.v6, SLOTS);
        let groups = selection.groups.iter();
        let groups = groups.flat_map(|[v4, v6]| both(v4, v6, GROUP_SLOTS)).collect();
        let record = |u: &resolve::Uplink| {
            let serves = |family: &Family| {
                selection.serves(Path {
                    uplink: u.id,
                    family: *family,
                })
            };
            let families = Family::ALL.into_iter().filter(serves);
            let mut name = [0; 16];
            name[..u.name.len()].copy_from_slice(u.name.as_bytes());
            Uplink {
                weight: u.weight,
                built_weight: u.weight,
                families: families.fold(0, |bits, family| bits | family.bit()),
                mark: u.mark,
                host_mark: u.host_mark,
                source: Family::ALL.map(|f| u.leg(f).map_or(Addr::default(), |leg| leg.source.into())),
                name,
                ..Uplink::default()
            }
        };
        let records = [Uplink::default()].into_iter().chain(uplinks.iter().map(record));
        self.records = records.collect();
        (self.slots, self.groups) = (slots, groups);
    }

    pub fn ask(&self, src: &str, dst: &str) -> Answer {
        self.asks(&Question {
            src: src.into(),
            dst: dst.into(),
            ..Question::default()
        })
    }

    pub fn asks(&self, question: &Question) -> Answer {
        let known = Known {
            engine: self.engine.clone(),
            now: Duration::from_secs(20),
            names: Vec::new(),
        };
        explain(&question.flow().unwrap(), &self.scene, self, Some(&known)).unwrap()
    }
}

pub(super) fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

pub(super) fn by(gateway: &str, ifindex: u32, table: u32) -> Routed {
    Routed::By(Way {
        gateway: Some(gateway.parse().unwrap()),
        ifindex,
        interface: format!("eth{}", ifindex - 2),
        table,
        source: None,
    })
}

/// As the programs make it.
pub(super) fn pin(uplink: u8, policy: u16, used_s: u32) -> Pin {
    Pin {
        uplink,
        seen: 0,
        policy,
        generation: 0,
        last_used_s: used_s,
        created_s: used_s.saturating_sub(10),
    }
}

fn host() -> Host {
    let interface = |index, name: &str, addresses: &[&str]| Interface {
        index,
        name: name.into(),
        running: true,
        mtu: [1500; 2],
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        deprecated: vec![],
    };
    let wan = [
        "192.168.1.100/24",
        "10.0.0.100/24",
        "fd00:1::100/64",
        "fd00:2::100/64",
    ];
    Host {
        interfaces: vec![
            interface(2, "eth0", &wan),
            interface(3, "lan0", &["10.9.0.1/24", "fd00:9::1/64"]),
        ],
        ..Host::default()
    }
}

impl World for Fake {
    type Policies = Model;

    fn policies(&self) -> &Model {
        &self.tables
    }

    fn choice(&self, place: u32) -> Result<Choice> {
        Ok(self.tables.compiled.choices[place as usize])
    }

    fn config(&self) -> Result<Config> {
        Ok(self.record)
    }

    fn uplink(&self, id: u32) -> Result<Uplink> {
        Ok(self.records.get(id as usize).copied().unwrap_or_default())
    }

    fn translation(&self, _id: u32) -> Result<Translation> {
        Ok(Translation::default())
    }

    fn slot(&self, at: u32) -> Result<Slot> {
        Ok(self.slots[at as usize])
    }

    fn group_slot(&self, at: u32) -> Result<Slot> {
        Ok(self.groups[at as usize])
    }

    fn members(&self, group: u32) -> Result<Members> {
        let first = (group * GROUP_SLOTS) as usize;
        let slots = &self.groups[first..first + GROUP_SLOTS as usize];
        let mask = |id: fn(&Slot) -> u8| {
            let ids = slots.iter().map(id).filter(|id| *id != 0);
            ids.fold(0, |mask, id| mask | 1_u64 << (id - 1))
        };
        Ok(Members {
            v4: [mask(|s| s.v4[0]), 0],
            v6: [mask(|s| s.v6[0]), 0],
        })
    }

    fn pin(&self, key: &FlowKey) -> Result<Option<Pin>> {
        Ok(self.pins.get(key).copied())
    }

    fn path(&self, key: &FlowKey) -> Result<Option<Learned>> {
        Ok(self.path.filter(|_| self.pins.contains_key(key)))
    }

    fn kept(&self, key: &StickyKey) -> Result<Option<Pin>> {
        Ok(self.kept.get(key).copied())
    }

    fn is_local(&self, address: Addr) -> Result<bool> {
        Ok(host().has(address.into()))
    }

    fn is_bypassed(&self, address: Addr) -> Result<bool> {
        Ok(self.bypass.contains(&address))
    }

    fn is_ours(&self, hop: &NextHop) -> Result<bool> {
        let gateways = ["192.168.1.1", "10.0.0.1", "fd00:1::1", "fd00:2::1"].map(addr);
        Ok(hop.ifindex == 2 && gateways.contains(&hop.gateway))
    }

    fn route(&self, ask: &Ask) -> Result<Routed> {
        let ours = self
            .engine
            .uplinks()
            .iter()
            .find(|u| [u.mark, u.host_mark].contains(&ask.mark));
        let Some(u) = ours else {
            return Ok(self.unmarked.clone());
        };
        let family = if ask.dst.is_ipv4() { Family::V4 } else { Family::V6 };
        let gateway = u.leg(family).map(|leg| leg.gateway.to_string()).unwrap();
        Ok(by(&gateway, 2, u.table))
    }

    fn now_s(&self) -> u32 {
        NOW_S
    }
}
