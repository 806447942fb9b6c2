//! The program under test, with real maps and real routes around it.

mod cost;
mod first;
mod halves;
mod hands;
mod policies;
mod told;

use anyhow::{Context as _, Result};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use uplink_common::hash;
use uplink_common::mark::Mask;
use uplink_common::recent::Line;
use uplink_common::{Addr, Family, FlowKey, NextHop, Pin, Reason, Seed, Slot, Translation, Uplink};
use uplink_common::{
    recent,
    record::{AMBIGUOUS, Config},
};
use uplink_userspace::config::NatMode;
use uplink_userspace::engine::{Path, Selection};
use uplink_userspace::loader;
use uplink_userspace::maps::policies::NameTable;
use uplink_userspace::maps::{Addresses, Maps, Settings};
use uplink_userspace::resolve;
use uplink_userspace::table::Claim;
use uplink_userspace::weights::Serving;

pub use halves::{Runner, Writer};
pub use policies::Rules;

use hands::Hands;

use crate::rows::{Before, Row};
use crate::world::{network, station, uplink};

/// The hash's secret.
pub const SEED: Seed = Seed {
    k0: 0x0706_0504_0302_0100,
    k1: 0x0f0e_0d0c_0b0a_0908,
};

/// Our bits of the mark.
pub const MASK: u32 = 0x7f00_0000;

pub const INGRESS: &str = "uplink_ingress";
pub const EGRESS: &str = "uplink_egress";
pub const COUNT: &str = "uplink_count";
const HOST: [&str; 4] = [
    "uplink_connect4",
    "uplink_connect6",
    "uplink_sendmsg4",
    "uplink_sendmsg6",
];

/// The gateways' MAC addresses, by uplink id.
pub const GATEWAY_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];
/// A MAC address that both gateways have.
pub const SHARED_MAC: [u8; 6] = [2, 0, 0, 0, 1, 3];

/// Size of the flow table.
const FLOWS: u32 = 65_536;

/// The router's address in the LAN, which the map knows.
const LAN_ADDRESS: [u8; 4] = [172, 16, 0, 1];

/// Offsets within `struct __sk_buff` (linux/bpf.h).
const CTX: usize = 192;
const CTX_MARK: usize = 8;
const CTX_PRIORITY: usize = 32;
const CTX_IFINDEX: usize = 40;
const CTX_GSO_SIZE: usize = 176;

/// `TC_ACT_UNSPEC`: the packet goes on.
pub const GOES_ON: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
const DROPPED: u32 = 2;
/// `TC_ACT_REDIRECT`.
pub const REDIRECTED: u32 = 7;

pub struct Bench {
    ebpf: Ebpf,
    maps: Maps,
    names: NameTable,
    hands: Hands,
    uplinks: Vec<resolve::Uplink>,
    ifindex: u32,
    counted: Vec<(Reason, u64)>,
    /// As the next publication says it.
    pub nat: NatMode,
    /// `skb->priority` of the next frames.
    pub priority: u32,
    /// Silence of the daemon that is borne, in seconds.
    pub stale_after_s: u32,
    /// Whether policies go by names, as the next publication says it.
    pub learns: bool,
    /// Whether packets from outside with an address of this host are refused, as the next publication says it.
    pub guards: bool,
    /// Next-hop mode, as the next publication says it.
    pub next_hop: bool,
    /// The longest packets that leave by either uplink, as the next addresses say it.
    pub mtu: u32,
    /// `skb->gso_size` of the next frames.
    pub gso_size: u32,
    netns: u64,
}

/// Counted beside a packet's outcome, and only where policies go by names.
const BESIDE: [Reason; 4] = [
    Reason::Named,
    Reason::Nameless,
    Reason::Overheard,
    Reason::Unheard,
];

/// What the program made of a frame.
pub struct Outcome {
    pub reason: Reason,
    /// What was counted beside it.
    pub beside: Vec<Reason>,
    pub mark: u32,
    pub frame: Vec<u8>,
}

/// A frame behind a program.
pub struct Passed {
    pub mark: u32,
    /// What the program returned.
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Bench {
    /// Moves this thread into a namespace of its own and builds everything there.
    pub fn new() -> Result<Self> {
        Self::with_flows(FLOWS)
    }

    /// As [`Self::new`], with a flow table of this size.
    pub fn with_flows(flows: u32) -> Result<Self> {
        Self::build(&mut EbpfLoader::new(), flows)
    }

    fn build(loader: &mut EbpfLoader<'_>, flows: u32) -> Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        network()?;
        let ifindex = nix::net::if_::if_nametoindex("eth0")?;
        let object = std::env::var_os("UPLINK_BPF_OBJECT").context("UPLINK_BPF_OBJECT is not set")?;
        let mut ebpf = loader
            .map_max_entries("flows", flows)
            .map_max_entries("recent", recent::lines(flows))
            .load_file(object)?;
        for name in [INGRESS, EGRESS, COUNT] {
            classifier(&mut ebpf, name)?.load()?;
        }
        let hands = Hands::new(&ebpf)?;
        let mut maps = Maps::of(&ebpf)?;
        let names = maps.names.take().context("the map `names`")?;
        let uplinks = vec![uplink(1, 3, ifindex), uplink(2, 1, ifindex)];
        let mut bench = Self {
            ebpf,
            maps,
            names,
            hands,
            uplinks,
            ifindex,
            counted: Vec::new(),
            nat: NatMode::Masquerade,
            priority: 0,
            stale_after_s: 0,
            learns: false,
            guards: true,
            next_hop: false,
            mtu: 1500,
            gso_size: 0,
            netns: loader::namespace_cookie().context("the namespace's cookie")?,
        };
        bench.addresses(Vec::new())?;
        bench.serve(&[(1, 3), (2, 1)], false);
        bench.counted = bench.maps.counters()?;
        Ok(bench)
    }

    /// Puts flows and maps into the state that a row starts from.
    pub fn prepare(&mut self, row: &Row) {
        self.stale_after_s = if row.before == Before::DaemonSilent { 5 } else { 0 };
        self.learns = matches!(row.before, Before::Learns(_));
        self.serve_all();
        self.no_policies();
        let pinned: Vec<FlowKey> = self.hands.flows.keys().filter_map(Result::ok).collect();
        pinned.iter().for_each(|key| self.forget(key));
        match row.before {
            Before::Nothing | Before::DaemonSilent => {}
            Before::Same => drop(self.run(&row.frame, row.mark_in)),
            Before::Died => {
                let other = 3 - (self.run(&row.frame, row.mark_in).mark >> 24) as u8;
                self.serve(&[(other, 1)], true);
            }
            Before::NobodyLeft => self.one_policy(true, &[]),
            Before::Learns(known) => self.listen(known, row),
            Before::WeightsEdited => self.edit_weights([5, 5]),
            Before::SlotsBroken => self.break_slots(),
            Before::NoConfig => self
                .hands
                .config
                .set(0, Config::default(), 0)
                .expect("map `config`"),
        }
    }

    /// Runs one frame inward; the outcome is the counter that moved, and exactly one must.
    pub fn run(&mut self, frame: &[u8], mark: u32) -> Outcome {
        self.run_at(self.ifindex, frame, mark)
    }

    /// The same at another interface than `eth0`.
    pub fn run_at(&mut self, ifindex: u32, frame: &[u8], mark: u32) -> Outcome {
        let Passed { mark, frame, action } = self.pass_at(ifindex, INGRESS, frame, mark);
        let (beside, outcomes): (Vec<Reason>, _) = self.moved().into_iter().partition(|r| BESIDE.contains(r));
        assert!(
            self.learns || beside.is_empty(),
            "{beside:?} without names in policies"
        );
        let [reason] = outcomes[..] else {
            panic!("one packet, more or fewer outcomes: {outcomes:?}")
        };
        let expected = match reason {
            Reason::Forwarded => REDIRECTED,
            Reason::Spoofed => DROPPED,
            _ => GOES_ON,
        };
        assert_eq!(action, expected, "{reason:?}");
        Outcome {
            reason,
            beside,
            mark,
            frame,
        }
    }

    /// Runs one frame through a program, and lets it go on.
    pub fn pass(&mut self, program: &str, frame: &[u8], mark: u32) -> Passed {
        let passed = self.pass_at(self.ifindex, program, frame, mark);
        assert!(passed.action != DROPPED, "{program} drops");
        passed
    }

    /// The same at another interface than `eth0`.
    pub fn pass_at(&mut self, ifindex: u32, program: &str, frame: &[u8], mark: u32) -> Passed {
        let ctx = self.context_at(ifindex, mark);
        let (mut after, mut out) = ([0; CTX], vec![0; frame.len()]);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&ctx);
        options.ctx_out = Some(&mut after);
        let name = program;
        let program = classifier(&mut self.ebpf, name).expect("the program");
        let result = program.test_run(options).expect("BPF_PROG_TEST_RUN");
        let action = result.return_value;
        assert!(
            matches!(action, GOES_ON | DROPPED) || (self.next_hop && name == INGRESS),
            "{action}"
        );
        let mark = u32::from_ne_bytes(after[CTX_MARK..CTX_MARK + 4].try_into().expect("four bytes"));
        Passed {
            mark,
            action,
            frame: out,
        }
    }

    /// A frame's `struct __sk_buff`, as far as the kernel takes it.
    fn context(&self, mark: u32) -> [u8; CTX] {
        self.context_at(self.ifindex, mark)
    }

    fn context_at(&self, ifindex: u32, mark: u32) -> [u8; CTX] {
        let mut ctx = [0; CTX];
        ctx[CTX_MARK..CTX_MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        ctx[CTX_PRIORITY..CTX_PRIORITY + 4].copy_from_slice(&self.priority.to_ne_bytes());
        ctx[CTX_IFINDEX..CTX_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        ctx[CTX_GSO_SIZE..CTX_GSO_SIZE + 4].copy_from_slice(&self.gso_size.to_ne_bytes());
        ctx
    }

    /// The counters that moved since the last look.
    pub fn moved(&mut self) -> Vec<Reason> {
        let counted = self.maps.counters().expect("counters");
        let pairs = counted.iter().zip(&self.counted);
        let moved = pairs
            .filter(|(now, was)| now.1 != was.1)
            .map(|(now, _)| now.0)
            .collect();
        self.counted = counted;
        moved
    }

    /// Packets counted so far, whatever became of them.
    pub fn total(&self) -> u64 {
        self.maps.counters().expect("counters").iter().map(|c| c.1).sum()
    }

    /// Publishes a table; the others' pins are void where they `died`.
    pub fn serve(&mut self, serving: &[(u8, u32)], died: bool) {
        let gone = |u: &&resolve::Uplink| died && serving.iter().all(|(id, _)| *id != u.id);
        let path = |u: &resolve::Uplink| Family::ALL.map(|family| Path { uplink: u.id, family });
        let selection = Selection {
            v4: Serving(serving.to_vec()),
            v6: Serving(serving.to_vec()),
            groups: Vec::new(),
            voided: self.uplinks.iter().filter(gone).flat_map(path).collect(),
        };
        let mask = Mask::new(MASK).expect("a valid mask");
        let settings = Settings {
            mask,
            seed: SEED,
            nat: self.nat,
            netns: self.netns,
            stale_after_s: self.stale_after_s,
            learns: self.learns,
            guards: self.guards,
            next_hop: [self.next_hop; 2],
        };
        self.maps
            .publish(&self.uplinks, &selection, &settings)
            .expect("publishing");
    }

    /// Both uplinks, by the weights of the beginning.
    pub fn serve_all(&mut self) {
        self.serve(&[(1, 3), (2, 1)], false);
    }

    /// Gives an uplink a prefix of its own for the hosts inside.
    pub fn translate(&mut self, id: u8, translation: Translation) {
        self.uplinks[usize::from(id) - 1].translation = Some(translation);
        self.serve_all();
    }

    /// The daemon says that it lives.
    pub fn heartbeat(&mut self, now_s: u32) {
        self.maps.heartbeat(now_s).expect("map `config`");
    }

    /// Flows that left without NAT.
    pub fn leaks(&mut self) -> Vec<FlowKey> {
        self.maps.take_leaks().expect("map `leaks`")
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
        self.plant(key, Line::default());
    }

    /// Whether a flow is addressed to this host.
    pub fn is_local(&self, key: &FlowKey) -> bool {
        let sources = self.uplinks.iter().flat_map(|u| [u.v4, u.v6]).flatten();
        let mut locals = sources
            .map(|leg| Addr::from(leg.source))
            .chain([Addr::v4(LAN_ADDRESS)]);
        locals.any(|a| a == key.dst)
    }

    /// A flow's pin.
    pub fn pin(&self, key: &FlowKey) -> Option<Pin> {
        self.hands.flows.get(key, 0).ok()
    }

    /// A flow's hash.
    pub fn hash(&self, key: &FlowKey) -> u64 {
        hash::flow(SEED, key)
    }

    /// Which line of map `recent` is a flow's.
    pub fn line(&self, key: &FlowKey) -> u32 {
        self.hands.place(SEED, key)
    }

    /// What is there.
    pub fn copies(&self, key: &FlowKey) -> Line {
        self.hands.copies(self.line(key))
    }

    /// Puts something else there.
    pub fn plant(&mut self, key: &FlowKey, line: Line) {
        self.hands.plant(self.line(key), line);
    }

    /// Changes a flow's pin, and lets nobody remember the old one.
    pub fn edit_pin(&mut self, key: &FlowKey, edit: impl FnOnce(&mut Pin)) {
        self.edit_pin_alone(key, edit);
        self.plant(key, Line::default());
    }

    /// Changes a flow's pin as a person does, who does not know of map `recent`.
    pub fn edit_pin_alone(&mut self, key: &FlowKey, edit: impl FnOnce(&mut Pin)) {
        let mut pin = self.pin(key).expect("a pin");
        edit(&mut pin);
        self.hands.flows.insert(key, pin, 0).expect("map `flows`");
    }

    /// Attaches the programs of this host's sockets to the root cgroup; they leave with the bench.
    pub fn attach_host(&mut self) {
        let root = loader::cgroup_directory("/").expect("a cgroup v2 mount");
        for name in HOST {
            let program: &mut CgroupSockAddr = self
                .ebpf
                .program_mut(name)
                .expect("the program")
                .try_into()
                .expect("its type");
            program.load().expect("loading");
            let root = std::fs::File::open(&root).expect("the root cgroup");
            program.attach(root, CgroupAttachMode::Single).expect("attaching");
        }
    }

    /// Instructions that the verifier looked at, by program.
    pub fn verified(&mut self) -> Vec<(String, u32)> {
        let programs = self.ebpf.programs();
        let loaded = programs.filter_map(|(name, p)| Some((name.to_owned(), p.info().ok()?)));
        loaded
            .filter_map(|(name, info)| Some((name, info.verified_instruction_count()?)))
            .collect()
    }

    /// The uplink that a socket's mark names.
    pub fn uplink_of_host_mark(&self, mark: u32) -> Option<usize> {
        let found = self.uplinks.iter().find(|u| u.host_mark == mark);
        found.map(|u| usize::from(u.id))
    }

    /// Pins of this host's sockets.
    pub fn host_flows(&self) -> usize {
        let keys = self.hands.flows.keys().filter_map(Result::ok);
        keys.filter(|k| k.src.0[..8] == [1, 0, 0, 0, 0, 0, 0, 0]).count()
    }

    /// Gives a prefix to somebody else.
    pub fn bypass(&mut self, prefix: &str) {
        let bypass = vec![prefix.parse().expect("a prefix")];
        self.addresses(bypass).expect("the maps");
    }

    /// As `mtu` says now.
    pub fn publish_mtu(&mut self) {
        self.addresses(Vec::new()).expect("the maps");
    }

    fn addresses(&mut self, bypass: Vec<IpNet>) -> Result<()> {
        let mut addresses = Addresses {
            bypass,
            ..Addresses::default()
        };
        for u in &self.uplinks {
            let (id, ifindex) = (u32::from(u.id), u.ifindex);
            for leg in [u.v4, u.v6].into_iter().flatten() {
                let gateway = leg.gateway.into();
                addresses.next_hops.push((NextHop::new(gateway, ifindex), id));
                addresses.locals.push((Addr::from(leg.source), id));
            }
            let mac = GATEWAY_MACS[usize::from(u.id) - 1];
            addresses.stations.push((station(ifindex, mac), id));
            addresses.mtus.insert(u.id, [self.mtu; 2]);
        }
        addresses.locals.push((Addr::v4(LAN_ADDRESS), 0));
        let shared = station(self.ifindex, SHARED_MAC);
        addresses.stations.push((shared, AMBIGUOUS));
        self.maps.set_addresses(&addresses)
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf.program_mut(name).context("no such program")?.try_into()?)
}
