//! The records in the maps. Sizes are asserted: both sides must agree on every byte.

use crate::{Addr, Family, Filter, Seed};

/// Number of the contract between programs, maps and user space. Raised when a record, a map
/// or a meaning changes; pins of another ABI are refused, not reinterpreted.
pub const ABI: u32 = 6;

/// Entries of the slot table: a prime, as Maglev (Eisenbud et al., NSDI 2016) wants it, and
/// large enough that shares are within 0.1 points of the weights.
pub const SLOTS: u32 = 65_537;

/// Uplinks at most. Ids run from 1; record 0 stands for the kernel's own routes.
pub const MAX_UPLINKS: u32 = 64;

/// Default size of the flow table.
pub const DEFAULT_FLOWS: u32 = 262_144;

/// [`Config::flags`]: conntrack reassembles fragments, so only first fragments decide and their
/// ports count. Without it every fragment goes by addresses and protocol.
pub const DEFRAGMENTED: u32 = 1;
/// [`Config::flags`]: no packet may leave by an uplink with a private source address of others.
pub const UNTRANSLATED_LEAK: u32 = 2;
/// [`Config::flags`]: connections may come in by an uplink to hosts behind us under their own
/// addresses (NAT off, or prefix translation).
pub const TRANSIT: u32 = 4;
/// [`Config::flags`]: some uplink translates IPv6 prefixes.
pub const TRANSLATES: u32 = 8;
/// [`Config::flags`]: policies go by names, so DNS packets are shown to user space.
pub const LEARNS: u32 = 16;
/// [`Config::flags`]: a packet from outside with a source address of this host is refused, as the kernel would.
pub const GUARDS: u32 = 32;
/// [`Config::flags`]: pinned IPv4 flows go to their next hop past the kernel's forwarding, while the
/// heartbeat is fresh: see [`crate::hop`].
pub const NEXT_HOP_V4: u32 = 64;
/// [`Config::flags`]: the same for IPv6.
pub const NEXT_HOP_V6: u32 = 128;

/// [`Uplink::families`]: serves IPv4.
pub const SERVES_V4: u32 = 1;
/// [`Uplink::families`]: serves IPv6.
pub const SERVES_V6: u32 = 2;

impl Family {
    /// This family's bit of [`Uplink::families`].
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::V4 => SERVES_V4,
            Self::V6 => SERVES_V6,
        }
    }

    /// This family's bit of [`Config::flags`]: [`NEXT_HOP_V4`] or [`NEXT_HOP_V6`].
    #[inline(always)]
    #[must_use]
    pub const fn next_hop_flag(self) -> u32 {
        match self {
            Self::V4 => NEXT_HOP_V4,
            Self::V6 => NEXT_HOP_V6,
        }
    }
}

/// Map `config`, entry 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Config {
    /// [`ABI`]; zero until user space has written the record.
    pub abi: u32,
    /// Our bits of the mark.
    pub mask: u32,
    /// How far an id is shifted into the mark.
    pub shift: u32,
    /// The bank of the slot table that is live, 0 or 1.
    pub bank: u32,
    /// Highest uplink id in use.
    pub uplinks: u32,
    /// [`DEFRAGMENTED`], [`UNTRANSLATED_LEAK`], [`TRANSIT`], [`TRANSLATES`], [`LEARNS`], [`GUARDS`], [`NEXT_HOP_V4`],
    /// [`NEXT_HOP_V6`].
    pub flags: u32,
    /// Secret of the flow hash.
    pub seed: Seed,
    /// Cookie of our network namespace (`SO_NETNS_COOKIE`): a cgroup program sees the sockets of
    /// every namespace and leaves the others' alone.
    pub netns: u64,
    /// Seconds since boot when the daemon last said that it lives.
    pub heartbeat_s: u32,
    /// New flows are left to the kernel when the heartbeat is older than this; 0: never.
    pub stale_after_s: u32,
    /// The bank of the policies that is live, 0 or 1.
    pub policy_bank: u32,
    /// Index of the interface where this host's own packets come in again, the aggregate's inner end; 0: none.
    pub unguarded: u32,
    /// Which addresses are surely not in map `locals`.
    pub locals: Filter,
    /// Lines of map `recent`, less one: a power of two less one.
    pub recent: u32,
    /// Always zero.
    pub pad: u32,
}

/// Map `uplinks`, by id. Record 0 is the kernel: a pin on it means "leave this flow alone".
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Uplink {
    /// By family: pins of another generation are void. Raised when the uplink dies in that
    /// family; for record 0 when routes change.
    pub generation: [u32; 2],
    /// Share of new flows, relative to the others; 0 takes none. May be edited by hand.
    pub weight: u32,
    /// The weight that the slot table was built with.
    pub built_weight: u32,
    /// Address families that new flows may use here now: [`SERVES_V4`], [`SERVES_V6`].
    pub families: u32,
    /// The mark of its packets, our bits only.
    pub mark: u32,
    /// The mark of this host's sockets that were placed here, our bits only.
    pub host_mark: u32,
    /// Interface index.
    pub ifindex: u32,
    /// By family: our address towards it; all zero where it serves no such family.
    pub source: [Addr; 2],
    /// By family: the next hop; all zero where it serves no such family.
    pub gateway: [Addr; 2],
    /// By family: the longest IP packet in bytes that leaves here whole; 0: not known.
    pub mtu: [u32; 2],
    /// The configured name, padded with zeros.
    pub name: [u8; 16],
}

/// Map `slots`: the uplink of a slot, for each family in two banks. [`Config::bank`] says
/// which is live, so a new table is written beside the old one and taken with one store.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Slot {
    /// Uplink ids for IPv4, by bank.
    pub v4: [u8; 2],
    /// Uplink ids for IPv6, by bank.
    pub v6: [u8; 2],
}

/// Map `flows`: the uplink that a flow keeps.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pin {
    /// Uplink id; 0 leaves the flow to the kernel.
    pub uplink: u8,
    /// The uplink that the flow was last seen leaving by on the kernel's way; 0: not yet, or so long ago
    /// that the kernel is to be asked again. Of use in next-hop mode alone.
    pub seen: u8,
    /// [`crate::policy::Choice::policy`] of the policy that placed it; 0: none did.
    pub policy: u16,
    /// [`Uplink::generation`] when the pin was made.
    pub generation: u32,
    /// Seconds since boot when a packet last refreshed it.
    pub last_used_s: u32,
    /// Seconds since boot when it was made.
    pub created_s: u32,
}

/// A forwarded flow that was silent for so many seconds begins anew: conntrack has forgotten it (`nf_conntrack_udp_timeout_stream`
/// is 120 s), or its mark has the last word as long as it has not. Ports are used again and again, and nobody wants today's
/// connections where some other one was put when that uplink was the only one.
pub const PIN_IDLE_S: u32 = 600;

/// Key of map `next_hops`: what a route lookup answers when it means one of our uplinks.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct NextHop {
    /// The gateway.
    pub gateway: Addr,
    /// The interface.
    pub ifindex: u32,
    /// Always zero: the whole key is hashed.
    pub pad: u32,
}

impl NextHop {
    /// A gateway by an interface; the unspecified address where there is no gateway.
    #[inline(always)]
    #[must_use]
    pub const fn new(gateway: Addr, ifindex: u32) -> Self {
        Self {
            gateway,
            ifindex,
            pad: 0,
        }
    }
}

/// Key of map `stations`: who sent a frame, or whom it is for. The value is the uplink whose
/// gateway that is, or [`AMBIGUOUS`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Station {
    /// The interface.
    pub ifindex: u32,
    /// The other end's MAC address.
    pub mac: [u8; 6],
    /// Always zero: the whole key is hashed.
    pub pad: [u8; 2],
}

/// Value of map `stations`: several uplinks' gateways have this MAC address.
pub const AMBIGUOUS: u32 = 0;

/// Map `translations`, by uplink id: IPv6 prefix translation (RFC 6296), see [`crate::npt`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Translation {
    /// The prefix inside, host bits zero.
    pub internal: Addr,
    /// The provider's prefix, host bits zero.
    pub external: Addr,
    /// Length of both in bits, 1 to 64; 0 where nothing is translated.
    pub length: u32,
    /// Added (one's complement) to a 16-bit word of the address on the way out, so that
    /// checksums stay as they are.
    pub adjustment: u32,
}

/// Map `counters`: packets of one outcome, per CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
}

/// Maps `sent` and `received`, by uplink id, per CPU: what left by the uplink and what came back.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Packets, counted at the interface towards the provider; several in one where the kernel or the
    /// card segments them later or has put them together.
    pub packets: u64,
    /// Their bytes at the link layer.
    pub bytes: u64,
    /// New flows that were given this uplink; in `sent` only.
    pub flows: u64,
}

/// Buckets of [`Passive::rtt_log2`].
pub const RTT_BUCKETS: usize = 24;

/// Map `passive`, by [`passive_index`], per CPU: what the users' own packets tell about a path.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Passive {
    /// TCP connections that began: first SYNs sent by the uplink.
    pub opened: u64,
    /// Of those, the ones that the other end answered, be it with SYN and ACK or with RST.
    pub answered: u64,
    /// SYNs sent again.
    pub retransmitted: u64,
    /// DNS queries over UDP.
    pub queries: u64,
    /// Of those, the ones that were answered.
    pub responses: u64,
    /// Sum of the round-trip times, microseconds.
    pub rtt_us: u64,
    /// How many they were: SYNs sent once and answered, and TCP timestamps that came back.
    pub rtts: u64,
    /// The same by the whole part of their binary logarithm in microseconds.
    pub rtt_log2: [u64; RTT_BUCKETS],
}

/// Value of map `openings`, by the key of the packet that left: a connection or a DNS query that waits
/// for its first answer.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Opening {
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`) when the first SYN, or the latest query, left.
    pub sent_ns: u64,
    /// The uplink that it left by.
    pub uplink: u32,
    /// SYNs that left after the first: with any, the answer tells no round-trip time (Karn and
    /// Partridge, 1987). For DNS the queries without an answer, of which one socket may have many.
    pub more: u32,
}

/// Map `echoes`, by [`passive_index`]: the TCP timestamp (RFC 7323) that a path waits to see again.
/// One at a time, so that a packet of an established connection costs no look-up by hash.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Echo {
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`) when it left.
    pub sent_ns: u64,
    /// TSval of the packet that left.
    pub tsval: u32,
    /// The last four bytes of its destination address.
    pub remote: [u8; 4],
    /// Its source port, network byte order.
    pub sport: [u8; 2],
    /// Its destination port, network byte order.
    pub dport: [u8; 2],
    /// 1 while its echo is awaited.
    pub awaited: u32,
}

/// `SO_PRIORITY` of the daemon's probes: what tells them from the users' packets, which alone count in
/// map `passive`. The low four bits are zero, best effort, so that queues treat both alike; the rest
/// names no class of a queue that anybody is likely to have.
pub const PROBE_PRIORITY: u32 = 0x7570_6c00;

/// The index of a path in map `passive`.
#[inline(always)]
#[must_use]
pub const fn passive_index(uplink: u32, family: Family) -> u32 {
    2 * uplink + family as u32
}

/// Map `policies`, by number, per CPU. Number 0 is the rule for what no policy matches: balance
/// over all uplinks; its packets are not counted.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Policy {
    /// New flows that it placed or refused.
    pub flows: u64,
    /// Packets of the flows that it placed.
    pub packets: u64,
}

const _: () = assert!(size_of::<Policy>() == 16);
const _: () = assert!(size_of::<Passive>() == 56 + 8 * RTT_BUCKETS);
const _: () = assert!(size_of::<Opening>() == 16);
const _: () = assert!(size_of::<Echo>() == 24);
const _: () = assert!(size_of::<Config>() == 104);
const _: () = assert!(size_of::<Uplink>() == 120);
const _: () = assert!(size_of::<Station>() == 12);
const _: () = assert!(size_of::<Translation>() == 40);
const _: () = assert!(size_of::<Slot>() == 4);
const _: () = assert!(size_of::<Pin>() == 16);
const _: () = assert!(size_of::<NextHop>() == 24);
const _: () = assert!(size_of::<Traffic>() == 24);

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: each is `repr(C)`, `Copy`, made of integers and byte arrays only, without padding
    // (sizes are asserted above), so every bit pattern is valid.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Uplink {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Slot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Pin {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NextHop {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Traffic {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Policy {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Passive {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Opening {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Echo {}
    // SAFETY: as above; the pad bytes are a named field.
    unsafe impl aya::Pod for Station {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Translation {}
    // SAFETY: as above; the pad bytes are a named field.
    unsafe impl aya::Pod for crate::FlowKey {}
    // SAFETY: sixteen bytes.
    unsafe impl aya::Pod for Addr {}
}
