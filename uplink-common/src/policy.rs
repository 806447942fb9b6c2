//! Policies as the programs read them. Each field of a flow is looked up once and answers with the set of policies that
//! it satisfies; the first member of the intersection decides (bit vectors: Lakshman and Stiliadis, SIGCOMM
//! 1998; their summaries: Baboescu and Varghese, SIGCOMM 2001). So the cost does not grow with their number.
//!
//! Everything is there twice, in two banks. User space fills the idle one and then switches
//! [`crate::Config::policy_bank`] with one store.

use crate::{Addr, Family};

/// Policies at most, schedules and names included.
pub const MAX_POLICIES: u32 = 1024;
/// Words of a [`Set`].
pub const WORDS: usize = MAX_POLICIES as usize / 64;
/// Sets in each bank. As many different combinations of policies may answer for a field's values.
pub const SETS: u32 = 16_384;
/// Prefixes of all fields together, in each bank.
pub const PREFIXES: u32 = 262_144;
/// Interfaces, MAC addresses and cgroups together, in each bank.
pub const EXACTS: u32 = 4_096;
/// Addresses that names were learned for.
pub const NAMES: u32 = 100_000;
/// Different answers to "which uplinks": what `use` says, each once.
pub const GROUPS: u32 = 256;
/// Slots of a group: a prime, as for [`crate::SLOTS`]; shares are within 0.1 points of the weights.
pub const GROUP_SLOTS: u32 = 1_021;

/// What policies look at. The number is the field's bit in [`Classifier::fields`].
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Field {
    /// Source address: map `prefixes`.
    Src,
    /// Destination address: map `prefixes`.
    Dst,
    /// Source port: map `values`.
    Sport,
    /// Destination port: map `values`.
    Dport,
    /// IP protocol: map `values`.
    Proto,
    /// Differentiated services code point: map `values`.
    Dscp,
    /// Interface where the packet came in, this host's own being 1 as `lo`: map `exact`.
    Iif,
    /// Who sent the frame: map `exact`.
    Mac,
    /// Whose socket it is: map `prefixes`.
    Uid,
    /// The cgroup of the process: map `exact`.
    Cgroup,
    /// What name the destination was looked up by: map `names`.
    Name,
}

/// How many [`Field`]s there are.
pub const FIELDS: usize = 11;

impl Field {
    /// Every field, in the order of the numbers.
    pub const ALL: [Self; FIELDS] = [
        Self::Src,
        Self::Dst,
        Self::Sport,
        Self::Dport,
        Self::Proto,
        Self::Dscp,
        Self::Iif,
        Self::Mac,
        Self::Uid,
        Self::Cgroup,
        Self::Name,
    ];

    /// Its bit in [`Classifier::fields`].
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What keys of the maps `prefixes` and `exact` begin with.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self, bank: u32) -> u32 {
        (bank & 1) << 8 | self as u32
    }
}

/// Map `fields`, by bank: what there is to look at.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Classifier {
    /// How many policies there are, in the order in which the first match wins; 0: none.
    pub policies: u32,
    /// The fields that any of them looks at, by [`Field::bit`].
    pub fields: u32,
    /// The set of the policies that are in force now, by their schedules.
    pub active: u32,
    /// By field, the set for what is in no table: the policies that do not mind.
    pub otherwise: [u32; FIELDS],
}

/// Map `sets`: policies, by their place in the order.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Set {
    /// Bit `n`: word `n` has a member.
    pub summary: u64,
    /// Bit `n % 64` of word `n / 64`: policy `n` is a member.
    pub words: [u64; WORDS],
}

impl Set {
    /// Nobody.
    pub const EMPTY: Self = Self {
        summary: 0,
        words: [0; WORDS],
    };

    /// Adds a policy by its place.
    pub const fn insert(&mut self, place: u32) {
        let word = place as usize / 64 % WORDS;
        self.words[word] |= 1 << (place % 64);
        self.summary |= 1 << word;
    }

    /// Whether a policy is a member.
    #[must_use]
    pub const fn contains(&self, place: u32) -> bool {
        self.words[place as usize / 64 % WORDS] & 1 << (place % 64) != 0
    }

    /// The members of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// The members of either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// The members that are not the other's.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// The first in order.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        let word = self.words.iter().position(|w| *w != 0)?;
        Some(word as u32 * 64 + self.words[word].trailing_zeros())
    }

    fn combine(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut both = Self::EMPTY;
        for (i, word) in both.words.iter_mut().enumerate() {
            *word = with(self.words[i], other.words[i]);
            both.summary |= u64::from(*word != 0) << i;
        }
        both
    }
}

/// The index of a set in map `sets`.
#[inline(always)]
#[must_use]
pub const fn set_index(bank: u32, set: u32) -> u32 {
    (bank & 1) * SETS + set
}

/// The data of a key of map `prefixes`. Its length is [`TAG_BITS`] and that of the prefix, which for
/// addresses is counted over the 16 bytes of an [`Addr`]; user ids are in the first four bytes of it, network
/// byte order.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PrefixKey {
    /// [`Field::tag`], network byte order.
    pub tag: [u8; 4],
    /// The value, an [`Addr`]'s bytes.
    pub value: [u8; 16],
}

/// Bits of [`PrefixKey::tag`].
pub const TAG_BITS: u32 = 32;

/// Key of map `exact`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ExactKey {
    /// [`Field::tag`].
    pub tag: u32,
    /// Always zero: the whole key is hashed.
    pub pad: u32,
    /// An interface index or cgroup id as a number; a MAC address as the number of its six bytes read as a
    /// big-endian one.
    pub value: u64,
}

/// A MAC address as [`ExactKey::value`].
#[inline(always)]
#[must_use]
pub const fn mac_value(mac: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]])
}

/// Where source ports begin in map `values`.
pub const SPORTS: u32 = 0;
/// Behind the 65,536 ports: what has none.
pub const NO_PORT: u32 = 65_536;
/// Where destination ports begin.
pub const DPORTS: u32 = 65_537;
/// Where protocols begin.
pub const PROTOS: u32 = 2 * 65_537;
/// Where code points begin.
pub const DSCPS: u32 = PROTOS + 256;
/// Entries of map `values`, which are indices of sets, in each bank.
pub const VALUES: u32 = DSCPS + 64;

/// The index of a value in map `values`: `base` is one of [`SPORTS`], [`DPORTS`], [`PROTOS`], [`DSCPS`].
#[inline(always)]
#[must_use]
pub const fn value_index(bank: u32, base: u32, value: u32) -> u32 {
    (bank & 1) * VALUES + base + value
}

/// Whether flows of a protocol have ports: TCP, UDP, SCTP, UDP-Lite. In others the key's ports are something
/// else.
#[inline(always)]
#[must_use]
pub const fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 132 | 136)
}

/// Map `names`, by address: the policies that want it by the name that it was looked up by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Name {
    /// The set, by bank.
    pub set: [u32; 2],
    /// Seconds since boot when it is forgotten.
    pub expires_s: u32,
}

/// Map `choices`, by bank and place: what a policy does.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Choice {
    /// The policy's number in map `policies`, from 1; it stays with the name.
    pub policy: u32,
    /// Its group; its slots in map `groups` begin at `group` times [`GROUP_SLOTS`].
    pub group: u32,
    /// [`STRICT`].
    pub flags: u32,
    /// [`STICKY_SOURCE`], [`STICKY_BOTH`], or 0.
    pub sticky: u32,
    /// How many seconds after its last new flow a client is forgotten.
    pub sticky_s: u32,
    /// Its line in the file.
    pub line: u32,
    /// Its name, padded with zeros.
    pub name: [u8; 32],
}

/// [`Choice::flags`]: while none of its uplinks lives, refuse rather than use another.
pub const STRICT: u32 = 1;
/// [`Choice::sticky`]: a client keeps its uplink.
pub const STICKY_SOURCE: u32 = 1;
/// [`Choice::sticky`]: a client keeps its uplink towards a destination.
pub const STICKY_BOTH: u32 = 2;

/// The index of a choice in map `choices`.
#[inline(always)]
#[must_use]
pub const fn choice_index(bank: u32, place: u32) -> u32 {
    (bank & 1) * MAX_POLICIES + place
}

/// Map `members`, by group: the uplinks that have slots in it, bit `id - 1` each.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Members {
    /// For IPv4, by bank ([`crate::Config::bank`]).
    pub v4: [u64; 2],
    /// For IPv6, by bank.
    pub v6: [u64; 2],
}

impl Members {
    /// Whether an uplink is among them.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, family: Family, bank: u32, uplink: u32) -> bool {
        let both = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let members = if bank & 1 == 0 { both[0] } else { both[1] };
        uplink != 0 && members >> ((uplink - 1) & 63) & 1 != 0
    }
}

/// Key of map `sticky`, whose values are [`crate::Pin`]s.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct StickyKey {
    /// The client; all zero for this host.
    pub src: Addr,
    /// The destination, where it counts, else all zero.
    pub dst: Addr,
    /// [`Choice::policy`].
    pub policy: u32,
    /// 4 or 6: an all-zero client does not tell.
    pub family: u32,
}

/// What map `answers` brings: the beginning of a DNS packet, from its IP header on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Capture {
    /// Bytes that follow.
    pub length: u32,
    /// Bytes of the whole packet, without the link layer.
    pub whole: u32,
    /// The interface.
    pub ifindex: u32,
    /// 0: it left there; 1: it came in there; [`FROM_GATEWAY`]: it came in from an uplink's gateway.
    pub inward: u32,
}

/// Value of [`Capture::inward`].
pub const FROM_GATEWAY: u32 = 2;

/// Bytes of a DNS packet that are looked at.
pub const CAPTURED: u32 = 4_096;

const _: () = assert!(size_of::<Classifier>() == 12 + 4 * FIELDS);
const _: () = assert!(size_of::<Set>() == 8 + 8 * WORDS);
const _: () = assert!(size_of::<PrefixKey>() == 20);
const _: () = assert!(size_of::<ExactKey>() == 16);
const _: () = assert!(size_of::<Name>() == 12);
const _: () = assert!(size_of::<Choice>() == 56);
const _: () = assert!(size_of::<Members>() == 32);
const _: () = assert!(size_of::<StickyKey>() == 40);
const _: () = assert!(size_of::<Capture>() == 16);

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: each is `repr(C)`, `Copy`, made of integers and byte arrays only, without padding
    // (sizes are asserted above), so every bit pattern is valid.
    unsafe impl aya::Pod for Classifier {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Set {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PrefixKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ExactKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Name {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Choice {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Members {}
    // SAFETY: as above.
    unsafe impl aya::Pod for StickyKey {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_know_their_members_and_the_first() {
        let (mut a, mut b) = (Set::EMPTY, Set::EMPTY);
        assert_eq!(a.first(), None);
        for place in [70, 64, 1023] {
            a.insert(place);
        }
        b.insert(1023);
        b.insert(3);
        assert_eq!(
            (a.first(), b.first(), a.and(&b).first()),
            (Some(64), Some(3), Some(1023))
        );
        assert_eq!(a.or(&b).first(), Some(3));
        assert_eq!(a.or(&b).without(&b).words, a.without(&b).words);
        assert_eq!((b.without(&a).first(), b.without(&b)), (Some(3), Set::EMPTY));
        assert_eq!((a.summary, a.and(&b).summary), (1 << 1 | 1 << 15, 1 << 15));
        assert!(a.contains(70) && !a.contains(71));
    }

    #[test]
    fn fields_are_told_apart_by_bank() {
        for (i, field) in Field::ALL.iter().enumerate() {
            assert_eq!(*field as usize, i);
        }
        assert_ne!(Field::Src.tag(0), Field::Src.tag(1));
        assert_eq!(value_index(1, SPORTS, 0), VALUES);
        assert_eq!(value_index(0, DSCPS, 63), VALUES - 1);
    }
}
