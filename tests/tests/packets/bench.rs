//! The program under test, with real maps and real routes around it.

use std::os::fd::AsFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use uplink_common::mark::Mask;
use uplink_common::record::Config;
use uplink_common::{Addr, Family, FlowKey, NextHop, Pin, Reason, Seed, Slot, Uplink};
use uplink_userspace::config::NatMode;
use uplink_userspace::engine::{Path, Selection};
use uplink_userspace::maps::{Addresses, Maps, Settings};
use uplink_userspace::resolve::{self, Leg};
use uplink_userspace::table::Claim;
use uplink_userspace::weights::Serving;

use crate::rows::{Before, Row};

/// The hash's secret.
pub const SEED: Seed = Seed {
    k0: 0x0706_0504_0302_0100,
    k1: 0x0f0e_0d0c_0b0a_0908,
};

/// Our bits of the mark.
pub const MASK: u32 = 0x7f00_0000;
const NAMES: [&str; 2] = ["isp1", "isp2"];

/// Offsets within `struct __sk_buff` (linux/bpf.h).
const CTX: usize = 192;
const CTX_MARK: usize = 8;
const CTX_IFINDEX: usize = 40;

pub struct Bench {
    ebpf: Ebpf,
    maps: Maps,
    hands: Hands,
    uplinks: Vec<resolve::Uplink>,
    ifindex: u32,
    counted: Vec<(Reason, u64)>,
}

/// The maps as a person with `bpftool` has them.
struct Hands {
    config: Array<MapData, Config>,
    uplinks: Array<MapData, Uplink>,
    slots: Array<MapData, Slot>,
    flows: HashMap<MapData, FlowKey, Pin>,
}

/// What the program made of a frame.
pub struct Outcome {
    pub reason: Reason,
    pub mark: u32,
}

impl Bench {
    /// Moves this thread into a namespace of its own and builds everything there.
    pub fn new() -> Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        network()?;
        let ifindex = nix::net::if_::if_nametoindex("eth0")?;
        let object = std::env::var_os("UPLINK_BPF_OBJECT").context("UPLINK_BPF_OBJECT is not set")?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("flows", 65_536)
            .load_file(object)?;
        program(&mut ebpf)?.load()?;
        let hands = Hands::new(&ebpf)?;
        let maps = Maps::take(&mut ebpf)?;
        let uplinks = vec![uplink(1, 3, ifindex), uplink(2, 1, ifindex)];
        let mut bench = Self {
            ebpf,
            maps,
            hands,
            uplinks,
            ifindex,
            counted: Vec::new(),
        };
        bench.addresses()?;
        bench.serve(&[(1, 3), (2, 1)], false);
        bench.counted = bench.maps.counters()?;
        Ok(bench)
    }

    /// Puts flows and maps into the state that a row starts from.
    pub fn prepare(&mut self, row: &Row) {
        self.serve(&[(1, 3), (2, 1)], false);
        let pinned: Vec<FlowKey> = self.hands.flows.keys().filter_map(Result::ok).collect();
        pinned.iter().for_each(|key| self.forget(key));
        match row.before {
            Before::Nothing => {}
            Before::Same => drop(self.run(&row.frame, row.mark_in)),
            Before::Died => {
                let other = 3 - (self.run(&row.frame, row.mark_in).mark >> 24) as u8;
                self.serve(&[(other, 1)], true);
            }
            Before::WeightsEdited => self.edit_weights([5, 5]),
            Before::SlotsBroken => self.break_slots(),
            Before::NoConfig => self
                .hands
                .config
                .set(0, Config::default(), 0)
                .expect("map `config`"),
        }
    }

    /// Runs one frame; the outcome is the counter that moved, and exactly one must.
    pub fn run(&mut self, frame: &[u8], mark: u32) -> Outcome {
        let mut ctx = [0; CTX];
        ctx[CTX_MARK..CTX_MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        ctx[CTX_IFINDEX..CTX_IFINDEX + 4].copy_from_slice(&self.ifindex.to_ne_bytes());
        let mut after = [0; CTX];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&ctx);
        options.ctx_out = Some(&mut after);
        let program = program(&mut self.ebpf).expect("the program");
        let result = program.test_run(options).expect("BPF_PROG_TEST_RUN");
        // TC_ACT_UNSPEC: the packet goes on, whatever it is.
        assert_eq!(result.return_value, u32::MAX);
        let counted = self.maps.counters().expect("counters");
        let moved = counted
            .iter()
            .zip(&self.counted)
            .filter(|(now, was)| now.1 != was.1);
        let moved: Vec<Reason> = moved.map(|(now, _)| now.0).collect();
        self.counted = counted;
        let [reason] = moved[..] else {
            panic!("one packet, outcomes {moved:?}")
        };
        let mark = u32::from_ne_bytes(after[CTX_MARK..CTX_MARK + 4].try_into().expect("four bytes"));
        Outcome { reason, mark }
    }

    /// Publishes a table; the others' pins are void where they `died`.
    pub fn serve(&mut self, serving: &[(u8, u32)], died: bool) {
        let gone = |u: &&resolve::Uplink| died && serving.iter().all(|(id, _)| *id != u.id);
        let path = |u: &resolve::Uplink| Family::ALL.map(|family| Path { uplink: u.id, family });
        let selection = Selection {
            v4: Serving(serving.to_vec()),
            v6: Serving(serving.to_vec()),
            voided: self.uplinks.iter().filter(gone).flat_map(path).collect(),
        };
        let mask = Mask::new(MASK).expect("a valid mask");
        let settings = Settings {
            mask,
            seed: SEED,
            nat: NatMode::Masquerade,
            netns: 0,
            stale_after_s: 0,
        };
        self.maps
            .publish(&self.uplinks, &selection, &settings)
            .expect("publishing");
    }

    /// What the table of the beginning is built from.
    pub fn claims(&self) -> Vec<Claim> {
        let claim = |u: &resolve::Uplink| Claim {
            id: u.id,
            name: u.name.clone(),
            weight: u.weight,
        };
        self.uplinks.iter().map(claim).collect()
    }

    /// Changes weights as `bpftool map update` does.
    pub fn edit_weights(&mut self, weights: [u32; 2]) {
        for (id, weight) in (1..).zip(weights) {
            let record = self.hands.uplinks.get(&id, 0).expect("map `uplinks`");
            self.hands
                .uplinks
                .set(id, Uplink { weight, ..record }, 0)
                .expect("map `uplinks`");
        }
    }

    fn break_slots(&mut self) {
        for slot in 0..uplink_common::SLOTS {
            self.hands
                .slots
                .set(
                    slot,
                    Slot {
                        v4: [99; 2],
                        v6: [200; 2],
                    },
                    0,
                )
                .expect("map `slots`");
        }
    }

    /// Removes a flow's pin, if it has one.
    pub fn forget(&mut self, key: &FlowKey) {
        let _ = self.hands.flows.remove(key);
    }

    /// A flow's pin.
    pub fn pin(&self, key: &FlowKey) -> Option<Pin> {
        self.hands.flows.get(key, 0).ok()
    }

    fn addresses(&mut self) -> Result<()> {
        let mut hops = Vec::new();
        let mut locals = Vec::new();
        for u in &self.uplinks {
            for leg in [u.v4, u.v6].into_iter().flatten() {
                hops.push((
                    NextHop {
                        gateway: leg.gateway.into(),
                        ifindex: u.ifindex,
                    },
                    u32::from(u.id),
                ));
                locals.push((Addr::from(leg.source), u32::from(u.id)));
            }
        }
        self.maps.set_addresses(&Addresses {
            next_hops: hops,
            locals,
            ..Addresses::default()
        })
    }
}

impl Hands {
    fn new(ebpf: &Ebpf) -> Result<Self> {
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

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    Ok(ebpf
        .program_mut("uplink_ingress")
        .context("no such program")?
        .try_into()?)
}

fn uplink(id: u8, weight: u32, ifindex: u32) -> resolve::Uplink {
    let leg = |gateway: &str, source: &str, prefix: &str| Leg {
        gateway: gateway.parse().expect("an address"),
        source: source.parse().expect("an address"),
        prefix: prefix.parse().expect("a prefix"),
    };
    let v4 = match id {
        1 => leg("192.168.1.1", "192.168.1.100", "192.168.1.0/24"),
        _ => leg("10.0.0.1", "10.0.0.100", "10.0.0.0/24"),
    };
    let v6 = leg(
        &format!("fd00:{id}::1"),
        &format!("fd00:{id}::100"),
        &format!("fd00:{id}::/64"),
    );
    resolve::Uplink {
        id,
        name: NAMES[usize::from(id) - 1].into(),
        interface: "eth0".into(),
        ifindex,
        v4: Some(v4),
        v6: Some(v6),
        weight,
        tier: 1,
        mtu: None,
        table: 20_000 + u32::from(id),
        mark: u32::from(id) << 24,
        host_mark: 0,
        translation: None,
    }
}

/// A router as the article has it, without anybody else.
fn network() -> Result<()> {
    const COMMANDS: &str = "link set lo up
link add eth0 address 02:00:00:00:00:01 type veth peer name peer
link set peer up
link set eth0 up
address add 192.168.1.100/24 dev eth0
address add 10.0.0.100/24 dev eth0
address add 172.16.0.1/24 dev eth0
address add 172.16.9.1/32 dev lo
address add fd00:1::100/64 dev eth0 nodad
address add fd00:2::100/64 dev eth0 nodad
address add fd00:10::1/64 dev eth0 nodad
route add default via 192.168.1.1
route add 198.18.0.0/24 via 172.16.0.9
route add unreachable 198.19.0.0/24
route add default via fd00:1::1";
    for line in COMMANDS.lines() {
        let status = Command::new("ip")
            .args(line.split_whitespace())
            .status()
            .context("running ip")?;
        ensure!(status.success(), "ip {line}");
    }
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/{path}"), "1").with_context(|| path.to_owned())?;
    }
    Ok(())
}
