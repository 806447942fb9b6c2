//! The maps, under the names that `bpftool` shows. Writing them by hand can misroute, never crash.

use aya_ebpf::{
    bindings::bpf_fib_lookup as Lookup,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use uplink_common::{
    Addr, FlowKey, MAX_UPLINKS, NextHop, Pin, SLOTS, Slot, Station, Translation, Uplink,
    record::{Config, Counter, DEFAULT_FLOWS, Echo, Opening, Passive, Policy, Traffic},
};

use crate::parse::Packet;

/// `BPF_F_MMAPABLE`: user space writes a whole table by plain stores.
const MMAPABLE: usize = 1 << 10;
const RECORDS: usize = MAX_UPLINKS as usize + 1;

/// Entry 0: seed, mark bits, live bank.
#[btf_map(name = "config")]
pub static CONFIG: Array<Config, 1> = Array::new();

/// By id; 0 is the kernel.
#[btf_map(name = "uplinks")]
pub static UPLINKS: Array<Uplink, RECORDS> = Array::new();

/// By the slot of the flow's hash.
#[btf_map(name = "slots")]
pub static SLOT_TABLE: Array<Slot, { SLOTS as usize }, MMAPABLE> = Array::new();

/// The uplink that each live flow keeps.
#[btf_map(name = "flows")]
pub static FLOWS: LruHashMap<FlowKey, Pin, { DEFAULT_FLOWS as usize }> = LruHashMap::new();

/// What a route lookup answers when it means one of our uplinks; value: uplink id.
#[btf_map(name = "next_hops")]
pub static NEXT_HOPS: HashMap<NextHop, u32, 256> = HashMap::new();

/// This host's addresses, to leave early what is addressed to it; value: the uplink whose
/// source it is, or 0. A cache: the route lookup decides where it is stale.
#[btf_map(name = "locals")]
pub static LOCALS: HashMap<Addr, u32, 1024> = HashMap::new();

/// Whose MAC address means an uplink; value: its id, or `AMBIGUOUS`.
#[btf_map(name = "stations")]
pub static STATIONS: HashMap<Station, u32, 1024> = HashMap::new();

/// IPv6 prefix translation, by uplink id.
#[btf_map(name = "translations")]
pub static TRANSLATIONS: Array<Translation, RECORDS> = Array::new();

/// Destinations that somebody else's routes may claim: sockets of this host towards them are
/// left alone. IPv4 prefixes are 96 bits longer here.
#[btf_map(name = "bypass")]
pub static BYPASS: LpmTrie<Addr, u32, 16_384> = LpmTrie::new();

/// Flows that left by an uplink with a private source address; user space makes them start anew.
#[btf_map(name = "leaks")]
pub static LEAKS: LruHashMap<FlowKey, u32, 8_192> = LruHashMap::new();

/// Room for the packet in hand. On the stack the verifier would remember what every way
/// through the parser wrote there, and look at all that follows once for each.
#[btf_map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// What a packet program works on.
#[repr(C)]
pub struct Scratch {
    /// The packet in hand.
    pub packet: Packet,
    /// Its flow, seen from the other end.
    pub reverse: FlowKey,
    /// A question to the routing tables.
    pub question: Lookup,
}

/// By [`uplink_common::Reason`].
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<Counter, { uplink_common::reason::COUNT as usize }> = PerCpuArray::new();

/// Sent by uplink id.
#[btf_map(name = "sent")]
pub static SENT: PerCpuArray<Traffic, RECORDS> = PerCpuArray::new();

/// Received by uplink id.
#[btf_map(name = "received")]
pub static RECEIVED: PerCpuArray<Traffic, RECORDS> = PerCpuArray::new();

/// Connections and DNS queries without an answer yet, by the packet that left.
#[btf_map(name = "openings")]
pub static OPENINGS: LruHashMap<FlowKey, Opening, 16_384> = LruHashMap::new();

/// By [`uplink_common::record::passive_index`]: the timestamp that the path waits for.
#[btf_map(name = "echoes")]
pub static ECHOES: Array<Echo, { 2 * RECORDS }> = Array::new();

/// By [`uplink_common::record::passive_index`]: what the users' packets tell.
#[btf_map(name = "passive")]
pub static PASSIVE: PerCpuArray<Passive, { 2 * RECORDS }> = PerCpuArray::new();

/// By policy number; 0 balances over all uplinks.
#[btf_map(name = "policies")]
pub static POLICIES: PerCpuArray<Policy, 1> = PerCpuArray::new();
