//! Policies on the bench: written by the daemon's own code; the groups' slots are set by hand.

use std::collections::HashMap;

use uplink_common::policy::{Capture, GROUP_SLOTS, Members, StickyKey};
use uplink_common::{Addr, Family, Pin, Slot, flow, record};
use uplink_userspace::config::{self, Policy};
use uplink_userspace::maps::Maps;
use uplink_userspace::maps::policies::{NameTable, PolicyReader};
use uplink_userspace::policy::compile::{Compiled, Surroundings, compile};

use super::{Bench, INGRESS};
use crate::policy::{FAR_AWAY_S, named, plain};
use crate::rows::{Known, Row};

/// Policies with all that is known around them.
pub struct Rules {
    pub policies: Vec<Policy>,
    /// By place.
    pub numbers: Vec<u32>,
    /// By place, whether their schedules have them in force.
    pub active: Vec<bool>,
    pub around: Surroundings,
    /// Addresses with their names, and when they are forgotten.
    pub learned: HashMap<Addr, (Vec<&'static str>, u32)>,
}

impl Rules {
    /// All in force, numbered from 1, nothing around.
    pub fn new(policies: Vec<Policy>) -> Self {
        Self {
            numbers: (1..).take(policies.len()).collect(),
            active: vec![true; policies.len()],
            policies,
            around: Surroundings::default(),
            learned: HashMap::new(),
        }
    }

    /// Fills the idle bank and makes it live.
    pub(super) fn write(&self, maps: &mut Maps, names: &mut NameTable) {
        let learned = self.learned.iter();
        let learned = learned.map(|(address, (names, until))| (*address, names.iter().copied(), *until));
        let idle = maps.idle_policies().expect("map `config`");
        let left_out = maps.policies.write(idle, &self.compiled(), names, learned);
        assert_eq!(left_out.expect("the maps"), 0, "addresses without room");
        maps.switch_policies().expect("map `config`");
    }

    fn compiled(&self) -> Compiled {
        let groups = config::groups(&self.policies);
        compile(&self.policies, &self.numbers, &groups, &self.active, &self.around).expect("room for all")
    }
}

impl Bench {
    /// Fills the idle bank and makes it live.
    pub fn obey(&mut self, rules: &Rules) {
        rules.write(&mut self.maps, &mut self.names);
    }

    /// Gives each group of these policies the uplinks that they name.
    pub fn settle_groups(&mut self, policies: &[Policy]) {
        for (number, group) in (0..).zip(config::groups(policies)) {
            let names = group.choice.tiers.iter().flatten().map(|(name, _)| name.as_str());
            let ids: Vec<u8> = names.filter_map(|name| self.id_of(name)).collect();
            self.group(number, &ids);
        }
    }

    fn id_of(&self, name: &str) -> Option<u8> {
        self.uplinks.iter().find(|u| u.name == name).map(|u| u.id)
    }

    /// Gives a group these uplinks in equal shares, in both banks; nobody where there are none.
    pub fn group(&mut self, group: u32, ids: &[u8]) {
        self.group_slots(group, ids, [true; 2]);
        self.group_members(group, ids);
    }

    /// Only the slots, and only in some banks.
    pub fn group_slots(&mut self, group: u32, ids: &[u8], banks: [bool; 2]) {
        for slot in 0..GROUP_SLOTS {
            let id = ids.get(slot as usize % ids.len().max(1)).copied().unwrap_or(0);
            let index = group * GROUP_SLOTS + slot;
            let mut record: Slot = self.hands.groups.get(&index, 0).expect("map `groups`");
            for bank in (0..2).filter(|b| banks[*b]) {
                (record.v4[bank], record.v6[bank]) = (id, id);
            }
            self.hands.groups.set(index, record, 0).expect("map `groups`");
        }
    }

    /// Only who has slots.
    pub fn group_members(&mut self, group: u32, ids: &[u8]) {
        let members = ids.iter().fold(0, |bits, id| bits | 1_u64 << (id - 1));
        let members = Members {
            v4: [members; 2],
            v6: [members; 2],
        };
        self.hands.members.set(group, members, 0).expect("map `members`");
    }

    /// The bank of the slots that is live.
    pub fn bank(&self) -> usize {
        self.hands.config.get(&0, 0).expect("map `config`").bank as usize & 1
    }

    /// Nobody's policies.
    pub fn no_policies(&mut self) {
        self.obey(&Rules::new(Vec::new()));
    }

    /// One policy for everything, by these uplinks.
    pub fn one_policy(&mut self, strict: bool, ids: &[u8]) {
        self.obey(&Rules::new(vec![Policy {
            strict,
            ..plain("all")
        }]));
        self.group(0, ids);
    }

    /// A policy by a name, of whose addresses this much is known.
    pub fn listen(&mut self, known: Known, row: &Row) {
        let mut rules = Rules::new(vec![named("a.org")]);
        let flow = crate::reference::flow(&row.frame).expect("a flow");
        match known {
            Known::Wanted => drop(rules.learned.insert(flow.dst, (vec!["a.org"], FAR_AWAY_S))),
            Known::Unwanted => self.hands.name_nobody_wants(flow.dst, FAR_AWAY_S),
            Known::Nothing | Known::TooMuch => self.hands.name_nobody_wants(flow.dst, 1),
        }
        self.obey(&rules);
        self.group(0, &[1]);
        self.heard();
        if known == Known::TooMuch {
            self.fill_answers(&row.frame);
        }
        self.moved();
    }

    fn fill_answers(&mut self, frame: &[u8]) {
        let mut long = frame.to_vec();
        long.resize(1_500, 0);
        for _ in 0..2_000 {
            self.pass(INGRESS, &long, 0);
        }
        for _ in 0..100 {
            self.pass(INGRESS, frame, 0);
        }
        self.forget(&crate::reference::flow(frame).expect("a flow"));
    }

    /// The DNS packets that were shown since the last call.
    pub fn heard(&mut self) -> Vec<(Capture, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(record) = self.hands.answers.next() {
            let (head, bytes) = record.split_at(size_of::<Capture>());
            let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
            let capture = Capture {
                length: word(0),
                whole: word(4),
                ifindex: word(8),
                inward: word(12),
            };
            all.push((capture, bytes.to_vec()));
        }
        all
    }

    /// The live policies as `explain` reads them.
    pub fn reader(&self) -> PolicyReader {
        PolicyReader::take(&mut |name| self.hands.another(name)).expect("the maps")
    }

    /// What a policy placed so far.
    pub fn placed(&self, number: u32) -> record::Policy {
        self.maps.policies.counter(number).expect("map `policies`")
    }

    /// By pin of this host's sockets, whether it is for IPv4, and the uplink.
    pub fn host_uplinks(&self) -> Vec<(bool, u8)> {
        let pins = self.hands.flows.iter().filter_map(Result::ok);
        let sockets = pins.filter(|(key, _)| flow::is_socket(&key.src));
        sockets
            .map(|(key, pin)| (key.dst.family() == Family::V4, pin.uplink))
            .collect()
    }

    /// The clients that keep their uplink.
    pub fn sticky(&self) -> Vec<(StickyKey, Pin)> {
        self.hands.sticky.iter().filter_map(Result::ok).collect()
    }

    /// Makes a client's last new flow as old as this; older than the host's uptime, too, as the clock wraps.
    pub fn age_sticky(&mut self, seconds: u32) {
        for (key, mut pin) in self.sticky() {
            pin.last_used_s = pin.last_used_s.wrapping_sub(seconds);
            self.hands.sticky.insert(key, pin, 0).expect("map `sticky`");
        }
    }
}
