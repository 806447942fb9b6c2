//! What an answer is drawn from.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use uplink_common::policy::{Choice, Members, StickyKey};
use uplink_common::record::Config;
use uplink_common::{Addr, Family, FlowKey, NextHop, Pin, Slot, Translation, Uplink};

use super::answer::Name;
use super::question::Flow;
use crate::engine::Engine;
use crate::maps::fast::Learned;
use crate::policy::classify::Tables;

/// The maps, and the kernel's routes. Every read may fail, which is the reader's error to tell.
pub trait World {
    /// The tables of the policies that are live.
    type Policies: Tables;

    /// Those tables.
    fn policies(&self) -> &Self::Policies;
    /// What the policy at a place does.
    ///
    /// # Errors
    /// When it cannot be read; likewise below.
    fn choice(&self, place: u32) -> Result<Choice>;
    /// The configuration record.
    ///
    /// # Errors
    /// As above.
    fn config(&self) -> Result<Config>;
    /// The record of an uplink.
    ///
    /// # Errors
    /// As above.
    fn uplink(&self, id: u32) -> Result<Uplink>;
    /// How an uplink translates prefixes.
    ///
    /// # Errors
    /// As above.
    fn translation(&self, id: u32) -> Result<Translation>;
    /// An entry of the slot table.
    ///
    /// # Errors
    /// As above.
    fn slot(&self, at: u32) -> Result<Slot>;
    /// An entry of the tables of groups.
    ///
    /// # Errors
    /// As above.
    fn group_slot(&self, at: u32) -> Result<Slot>;
    /// Who is in a group.
    ///
    /// # Errors
    /// As above.
    fn members(&self, group: u32) -> Result<Members>;
    /// The pin of a flow.
    ///
    /// # Errors
    /// As above.
    fn pin(&self, key: &FlowKey) -> Result<Option<Pin>>;
    /// What the fast path knows of a flow.
    ///
    /// # Errors
    /// As above.
    fn path(&self, key: &FlowKey) -> Result<Option<Learned>>;
    /// The uplink that a client keeps.
    ///
    /// # Errors
    /// As above.
    fn kept(&self, key: &StickyKey) -> Result<Option<Pin>>;
    /// Whether an address is this host's.
    ///
    /// # Errors
    /// As above.
    fn is_local(&self, address: Addr) -> Result<bool>;
    /// Whether this host's sockets are left alone towards an address.
    ///
    /// # Errors
    /// As above.
    fn is_bypassed(&self, address: Addr) -> Result<bool>;
    /// Whether a route answer means an uplink.
    ///
    /// # Errors
    /// As above.
    fn is_ours(&self, hop: &NextHop) -> Result<bool>;
    /// Where the kernel would send it.
    ///
    /// # Errors
    /// As above.
    fn route(&self, ask: &Ask) -> Result<Routed>;
    /// Seconds since boot.
    fn now_s(&self) -> u32;
}

/// A question to the kernel's routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Source, where there is one yet.
    pub src: Option<IpAddr>,
    /// Destination.
    pub dst: IpAddr,
    /// Protocol.
    pub proto: u8,
    /// Ports, where they are known.
    pub ports: Option<(u16, u16)>,
    /// Where it comes in; `None`: it begins here.
    pub iif: Option<u32>,
    /// Its mark.
    pub mark: u32,
    /// Whose socket it is.
    pub uid: Option<u32>,
}

/// The kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed {
    /// It leaves.
    By(Way),
    /// It is for this host, or for everybody on the link.
    Local,
    /// Nowhere; in the kernel's words.
    Nowhere(String),
}

/// How it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Next hop; none on a connected network.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// The table that has the route; 0 where the kernel does not tell.
    pub table: u32,
    /// The source address that the kernel would choose, for what begins here.
    pub source: Option<IpAddr>,
}

/// Where the flow is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// Name and index of the interface where it comes in; unused for a socket of this host.
    pub iif: (String, u32),
    /// The interfaces where clients enter.
    pub lan: Vec<String>,
    /// The process's cgroup, as it was asked for.
    pub cgroup: Option<String>,
    /// That one and those above it, the deepest first, as the kernel numbers them.
    pub cgroups: Vec<u64>,
    /// Whether this host's sockets are steered.
    pub local: bool,
    /// The configuration file.
    pub file: String,
    /// By name of a policy, the fields that it asks for, by `Field::bit`.
    pub minds: Vec<(String, u32)>,
}

/// What only a running daemon knows.
#[derive(Clone, Debug)]
pub struct Known {
    /// A copy of the engine.
    pub engine: Engine,
    /// The engine's time.
    pub now: Duration,
    /// The names that the destination was looked up by.
    pub names: Vec<Name>,
}

impl Ask {
    /// A flow, without any mark.
    pub(super) fn of(flow: &Flow, scene: &Scene) -> Self {
        let src = match flow.src {
            super::Source::Socket => None,
            super::Source::Address(ip) => Some(ip),
        };
        Self {
            src,
            dst: flow.dst,
            proto: flow.proto,
            ports: flow.sport.zip(flow.dport).filter(|_| flow.is_tcp_or_udp()),
            iif: src.map(|_| scene.iif.1),
            mark: 0,
            uid: flow.uid,
        }
    }
}

impl Way {
    /// As the programs compare it.
    pub(super) fn next_hop(&self) -> NextHop {
        NextHop::new(self.gateway.map_or(Addr::default(), Addr::from), self.ifindex)
    }
}

/// The generation of valid pins.
pub(super) const fn generation(record: &Uplink, family: Family) -> u32 {
    match family {
        Family::V4 => record.generation[0],
        Family::V6 => record.generation[1],
    }
}
