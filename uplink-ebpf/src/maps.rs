//! The maps, under the names that `bpftool` shows. Writing them by hand can misroute, never crash.

use aya_ebpf::{
    bindings::bpf_fib_lookup as Lookup,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    macros::btf_map,
};
use uplink_common::{
    Addr, FlowKey, MAX_UPLINKS, NextHop, Pin, SLOTS, Slot, Station, Translation, Uplink,
    path::{self, Asked, Ends4, Ends6, Fast, Path, Port, Print, Way},
    policy::{
        CAPTURED, Capture, Choice, Classifier, EXACTS, ExactKey, GROUP_SLOTS, GROUPS, MAX_POLICIES, Members,
        NAMES as MAX_NAMES, Name, PREFIXES as MAX_PREFIXES, PrefixKey, SETS as MAX_SETS, Set, StickyKey,
        VALUES as MAX_VALUES,
    },
    recent::{Line, lines},
    record::{Config, Counter, DEFAULT_FLOWS, Echo, Opening, Passive, Policy, Traffic},
};

use crate::{parse::Packet, policy::About};

/// `BPF_F_MMAPABLE`: user space writes a whole table by plain stores.
const MMAPABLE: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`: memory is taken as it is needed; for maps that user space alone fills.
const NO_PREALLOC: usize = 1;
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

/// In front of `flows`. Memory that can be mapped begins on a page, so that no entry lies in two cache lines.
#[btf_map(name = "recent")]
pub static RECENT: Array<Line, { lines(DEFAULT_FLOWS) as usize }, MMAPABLE> = Array::new();

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
    /// What a policy may mind beside the flow.
    pub about: About,
    /// What is compared of it for the fast path.
    pub print: Print,
    /// So many packets more are not asked about: the table had no room for the last path.
    pub unasked: u64,
    /// An IPv4 path that is being learned.
    pub path4: Path<Ends4>,
    /// An IPv6 path that is being learned.
    pub path6: Path<Ends6>,
    /// A question to `prefixes`.
    pub prefix: Key<PrefixKey>,
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
pub static POLICIES: PerCpuArray<Policy, { MAX_POLICIES as usize + 1 }> = PerCpuArray::new();

/// By bank: what policies look at.
#[btf_map(name = "fields")]
pub static CLASSIFIER: Array<Classifier, 2> = Array::new();

/// Sets of policies, in two banks.
#[btf_map(name = "sets")]
pub static SETS: Array<Set, { 2 * MAX_SETS as usize }, MMAPABLE> = Array::new();

/// The set for the longest prefix of an address or user id, in two banks.
#[btf_map(name = "prefixes")]
pub static PREFIXES: LpmTrie<PrefixKey, u32, { 2 * MAX_PREFIXES as usize }> = LpmTrie::new();

/// The sets for ports, protocols and code points, in two banks.
#[btf_map(name = "values")]
pub static VALUES: Array<u32, { 2 * MAX_VALUES as usize }, MMAPABLE> = Array::new();

/// The sets for interfaces, MAC addresses and cgroups, in two banks.
#[btf_map(name = "exact")]
pub static EXACT: HashMap<ExactKey, u32, { 2 * EXACTS as usize }> = HashMap::new();

/// Addresses that policies want by the name that they were looked up by.
#[btf_map(name = "names")]
pub static NAMES: HashMap<Addr, Name, { MAX_NAMES as usize }, NO_PREALLOC> = HashMap::new();

/// Addresses that were looked up by a name which no policy wants; value: seconds since boot when that is
/// forgotten.
#[btf_map(name = "other_names")]
pub static OTHER_NAMES: LruHashMap<Addr, u32, 16_384> = LruHashMap::new();

/// What a policy does, by its place in the order, in two banks.
#[btf_map(name = "choices")]
pub static CHOICES: Array<Choice, { 2 * MAX_POLICIES as usize }> = Array::new();

/// The slots of every group of uplinks.
#[btf_map(name = "groups")]
pub static GROUP_TABLE: Array<Slot, { (GROUPS * GROUP_SLOTS) as usize }, MMAPABLE> = Array::new();

/// Who has slots in a group.
#[btf_map(name = "members")]
pub static MEMBERS: Array<Members, { GROUPS as usize }, MMAPABLE> = Array::new();

/// The uplinks that clients keep.
#[btf_map(name = "sticky")]
pub static STICKY: LruHashMap<StickyKey, Pin, 32_768> = LruHashMap::new();

/// Entry 0: whether there is a fast path, and which paths are valid.
#[btf_map(name = "fast")]
pub static FAST: Array<Fast, 1> = Array::new();

/// The interfaces that packets come in by and leave by, by the last byte of their index.
#[btf_map(name = "ports")]
pub static PORTS: Array<Port, { path::PORTS }> = Array::new();

/// What the flows to one next hop have in common. User space says how many.
#[btf_map(name = "ways")]
pub static WAYS: Array<Way, 1, MMAPABLE> = Array::new();

/// What became of a flow's packets, in buckets of neighbouring lines. User space says how many.
#[btf_map(name = "paths_v4")]
pub static PATHS_V4: Array<Path<Ends4>, { path::LINES as usize }, MMAPABLE> = Array::new();

/// The same for IPv6.
#[btf_map(name = "paths_v6")]
pub static PATHS_V6: Array<Path<Ends6>, { path::LINES as usize }, MMAPABLE> = Array::new();

/// Packets on their way through the kernel.
#[btf_map(name = "asked")]
pub static ASKED: PerCpuArray<Asked, { path::ASKED }> = PerCpuArray::new();

/// DNS packets on their way to user space.
#[btf_map(name = "answers")]
pub static ANSWERS: RingBuf<(), { 1 << 18 }> = RingBuf::new();

/// Room for the DNS packet in hand.
#[btf_map(name = "copy")]
pub static COPY: PerCpuArray<Copied, 1> = PerCpuArray::new();

/// A DNS packet, as it goes to user space.
#[repr(C)]
pub struct Copied {
    /// What there is of it.
    pub capture: Capture,
    /// From its IP header on.
    pub bytes: [u8; CAPTURED as usize],
}
