//! The fast path: what the kernel made of a flow's packets, half a cache line for each direction, so that the next
//! ones are rewritten and sent on before the kernel has made a packet of them.
//!
//! Sums are those of RFC 1071, in the byte order of the machine: a one's complement sum does not mind which.

use crate::{Family, FlowKey, Seed};

/// Lines of a bucket, which are neighbours: of IPv4 they share a cache line.
pub const LINES: u32 = 2;

/// A path that was seen once only is looked at again this soon, in seconds: conntrack believes in a stream of
/// datagrams that has gone on for two.
pub const FIRST_LOOK_S: u32 = 3;

/// Two looks within this time count as one, in seconds.
pub const APART_S: u32 = 2;

/// Records of map `ports`: an interface is found by the last byte of its index.
pub const PORTS: usize = 256;

/// [`Fast::families`]: IPv4.
pub const FAST_V4: u32 = 1;
/// [`Fast::families`]: IPv6.
pub const FAST_V6: u32 = 2;

/// Map `fast`, entry 0: whether there is a fast path, and which paths are valid.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fast {
    /// Paths of another generation are void. Raised whenever the kernel might treat a flow otherwise than it did. Never 0
    /// while the fast path is on.
    pub generation: u32,
    /// [`FAST_V4`], [`FAST_V6`].
    pub families: u32,
    /// A path that the kernel has not confirmed for so many seconds is not used before it has.
    pub look_again_s: u32,
    /// Buckets of the table of each family: powers of two.
    pub buckets: [u32; 2],
}

/// Packets between ingress and egress that one processor may have in hand: it takes them in lists.
pub const ASKED: usize = 1024;

/// What the kernel leaves as it is in a packet that it forwards plainly, and what it may change: compared and learned.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Print {
    /// Its flow.
    pub key: FlowKey,
    /// TCP: sequence number; UDP: zero.
    pub sequence: u32,
    /// TCP: acknowledgement number; UDP: length.
    pub acknowledged: u32,
    /// IPv4: TOS and identification; IPv6: traffic class and flow label.
    pub class: u32,
    /// From the IP header on, of the longest of its segments.
    pub longest: u32,
    /// Checksum of TCP or UDP.
    pub checksum: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always zero.
    pub pad: [u8; 4],
}

/// Map `asked`, by the last bits of its tag, per CPU: a packet that came in, whose path is to be learned when it leaves.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asked {
    /// `skb->hash`, by which it is known again; 0: nobody is here.
    pub tag: u32,
    /// Index of the interface that it came in by.
    pub ifindex: u32,
    /// [`Fast::generation`] before the kernel had it: what changes meanwhile makes void what is learned.
    pub generation: u32,
    /// The uplink that it came in by; 0: it comes from inside.
    pub from: u16,
    /// The policy that placed its flow; 0: none.
    pub policy: u16,
    /// Its headers.
    pub print: Print,
}

/// Map `ports`, by the last byte of the index: an interface that packets come in by and leave by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Port {
    /// Its index; 0: none of ours.
    pub ifindex: u32,
    /// Index of the interface that has the wire: another one where this is a VLAN.
    pub device: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Number of the VLAN; 0: none.
    pub vlan: u16,
}

/// Both ends of an IPv4 flow, as the packet has them.
#[repr(C)]
#[derive(Clone, Copy, Eq, Default, Debug)]
pub struct Ends4 {
    /// Source and destination address.
    pub addresses: [[u8; 4]; 2],
    /// Source and destination port.
    pub ports: [[u8; 2]; 2],
}

/// Both ends of an IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, Eq, Default, Debug)]
pub struct Ends6 {
    /// Source and destination address.
    pub addresses: [[u8; 16]; 2],
    /// Source and destination port.
    pub ports: [[u8; 2]; 2],
}

// By words: the derived comparison calls a loop.
impl PartialEq for Ends4 {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let words = |ends: &Self| (ends.addresses.map(u32::from_ne_bytes), ports_word(&ends.ports));
        let (([a, b], c), ([d, e], f)) = (words(self), words(other));
        (a ^ d) | (b ^ e) | (c ^ f) == 0
    }
}

impl PartialEq for Ends6 {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let words = |ends: &Self| (words(&ends.addresses[0]), words(&ends.addresses[1]));
        let (([a, b], [c, d]), ([e, f], [g, h])) = (words(self), words(other));
        let ports = ports_word(&self.ports) ^ ports_word(&other.ports);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | ports as u64 == 0
    }
}

/// One end of a flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct End<A> {
    /// Its address.
    pub address: A,
    /// Its port.
    pub port: [u8; 2],
}

/// Map `ways`: what the flows to one next hop have in common.
#[repr(C)]
#[derive(Clone, Copy, Eq, Default, Debug)]
pub struct Way {
    /// [`Fast::generation`] in which it is valid. Until that ends, nothing else comes here.
    pub generation: u32,
    /// MAC address of the next hop.
    pub next: [u8; 6],
    /// Number of the policy that placed the flows; 0: none.
    pub policy: u16,
    /// Last byte of the index of the interface that the packets come in by.
    pub entry: u8,
    /// The same for the interface that they leave by.
    pub exit: u8,
    /// The uplink that they come in by; 0: they come from inside.
    pub from: u8,
    /// The uplink that they leave by; 0: they go inside.
    pub to: u8,
}

impl PartialEq for Way {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (self.words(), other.words());
        (a ^ c) | (b ^ d) == 0
    }
}

impl Way {
    #[inline(always)]
    const fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f] = self.next;
        let [g, h, i, j] = self.generation.to_ne_bytes();
        let [k, l] = self.policy.to_ne_bytes();
        [
            u64::from_ne_bytes([g, h, i, j, a, b, c, d]),
            u64::from_ne_bytes([e, f, k, l, self.entry, self.exit, self.from, self.to]),
        ]
    }

    /// Where it may be in the map: here, or in one of the [`WAY_TRIES`] from here on.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self) -> u32 {
        let [a, b] = self.words();
        finish(stir(stir(0, a), b)) as u32
    }
}

/// Records of map `ways`.
pub const MAX_WAYS: usize = 16_384;
/// A way that finds others in so many places is not noted: its flows go the kernel's way.
pub const WAY_TRIES: u32 = 8;

/// [`Path::flags`]: the other direction is known, too. Before, conntrack takes the flow for a new one, and rules may mind every packet.
pub const ANSWERED: u8 = 1;
/// [`Path::flags`]: it was seen twice, apart from each other.
pub const TWICE: u8 = 2;
/// [`Path::flags`]: it leaves by an uplink, and its source is what changes; otherwise its destination.
pub const OUTWARD: u8 = 4;

/// Maps `paths_v4` and `paths_v6`: the path of a flow in one direction. Two of IPv4 share a cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Path<E: Ends> {
    /// As it comes in.
    pub ends: E,
    /// [`Fast::generation`] when it was learned; 0: nothing is here.
    pub generation: u32,
    /// What one of its ends is when it leaves: the source of what leaves by an uplink, else the destination.
    pub becomes: End<E::Address>,
    /// Place of its [`Way`] in the map.
    pub way: u16,
    /// The longest packet that was seen to leave whole, bytes from its IP header on.
    pub longest: u16,
    /// The last bits of the seconds since boot when the kernel last sent such a packet this way.
    pub looked_s: u16,
    /// [`Path::checked`]. Two processors may write one line at the same time.
    pub check: u16,
    /// IP protocol number.
    pub proto: u8,
    /// [`ANSWERED`], [`TWICE`], [`OUTWARD`].
    pub flags: u8,
    /// Always zero: so many of them fill cache lines.
    pub pad: E::Pad,
}

impl<E: Ends> Path<E> {
    /// What [`Path::check`] has to be, by everything else and by all of the way.
    #[inline(always)]
    #[must_use]
    pub fn checked(&self, way: &Way) -> u16 {
        let numbers = (self.way as u64) << 48
            | (self.longest as u64) << 32
            | (self.looked_s as u64) << 16
            | (self.proto as u64) << 8
            | self.flags as u64;
        let [a, b] = way.words();
        let sum = turn(turn(turn(self.generation as u64, numbers), a), b);
        let sum = turn(self.ends.mix(sum), self.becomes.port_word() as u64);
        let sum = E::mix_address(&self.becomes.address, sum);
        (finish(sum) >> 48) as u16
    }

    /// Whether the same flow's packets become the same by both.
    #[inline(always)]
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        self.is_outward() == other.is_outward()
            && self.becomes.port_word() == other.becomes.port_word()
            && E::is_address(&self.becomes.address, &other.becomes.address)
    }

    /// Whether it leaves by an uplink.
    #[inline(always)]
    #[must_use]
    pub const fn is_outward(&self) -> bool {
        self.flags & OUTWARD != 0
    }

    /// Its ends when it leaves.
    #[inline(always)]
    #[must_use]
    pub fn leaves(&self) -> E {
        self.ends.with(self.is_outward(), &self.becomes)
    }

    /// Seconds since the kernel last sent such a packet, by the last bits of this time.
    #[inline(always)]
    #[must_use]
    pub const fn age_s(&self, now_s: u32) -> u32 {
        (now_s as u16).wrapping_sub(self.looked_s) as u32
    }

    /// What the checksum of the IPv4 header and that of TCP or UDP change by, the TTL left aside.
    #[inline(always)]
    #[must_use]
    pub fn deltas(&self) -> [u16; 2] {
        let before = self.ends.end(self.is_outward());
        let addresses = [E::sum_of(&before.address), E::sum_of(&self.becomes.address)];
        let ports = [before.port, self.becomes.port].map(|port| u16::from_ne_bytes(port) as u32);
        [
            delta(addresses[0], addresses[1]),
            delta(addresses[0] + ports[0], addresses[1] + ports[1]),
        ]
    }
}

impl<A> End<A> {
    #[inline(always)]
    const fn port_word(&self) -> u16 {
        u16::from_ne_bytes(self.port)
    }
}

/// A path is told from one that is 2^16 seconds older by its generation, which has to change before: at least this often,
/// in seconds.
pub const GENERATION_S: u32 = 1 << 15;

/// The ends of a flow in one of the families.
pub trait Ends: Copy + PartialEq + 'static {
    /// Which family they are of.
    const FAMILY: Family;
    /// An address of it.
    type Address: Copy + PartialEq + 'static;
    /// What fills a line of the table.
    type Pad: Copy + PartialEq + 'static;

    /// The source, or the destination.
    #[must_use]
    fn end(&self, source: bool) -> End<Self::Address>;

    /// With another source, or destination.
    #[must_use]
    fn with(&self, source: bool, end: &End<Self::Address>) -> Self;

    /// As seen from the other end.
    #[must_use]
    fn reversed(&self) -> Self;

    /// A quick hash for the places in the table, of which each half names one: a collision costs time and nothing else. The
    /// seed keeps outsiders from choosing places.
    fn place(&self, seed: Seed, proto: u8) -> u64;

    /// Sum of the pairs of bytes of an address, not folded.
    fn sum_of(address: &Self::Address) -> u32;

    /// The same of both addresses.
    fn sum_of_addresses(&self) -> u32;

    /// Mixes everything into one word, to tell a line that two processors wrote at once.
    fn mix(&self, before: u64) -> u64;

    /// Whether two addresses are the same; by words, as the derived comparison calls a loop.
    fn is_address(a: &Self::Address, b: &Self::Address) -> bool;

    /// As [`Self::mix`], of one address.
    fn mix_address(address: &Self::Address, before: u64) -> u64;
}

/// Of splitmix64 (Steele, Lea and Flood, 2014), as in [`crate::filter`].
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
const fn stir(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(32)
}

#[inline(always)]
const fn finish(hash: u64) -> u64 {
    (hash ^ hash >> 32).wrapping_mul(MULTIPLIER)
}

/// The first lines of the two buckets that a flow may be in, by its [`Ends::place`]. With one bucket only, a fifth of all flows
/// would find no room in a table that is three quarters full; with the emptier one of two, a twentieth (Azar, Broder, Karlin and
/// Upfal, 1994).
#[inline(always)]
#[must_use]
pub const fn places(place: u64, buckets: u32) -> [u32; 2] {
    let mask = buckets.wrapping_sub(1);
    [
        ((place >> 32) as u32 & mask) * LINES,
        (place as u32 & mask) * LINES,
    ]
}

#[inline(always)]
const fn turn(sum: u64, word: u64) -> u64 {
    sum.rotate_left(9).wrapping_add(word)
}

#[inline(always)]
const fn pairs32(bytes: [u8; 4]) -> u32 {
    let word = u32::from_ne_bytes(bytes);
    (word >> 16) + (word & 0xffff)
}

#[inline(always)]
const fn ports_word(ports: &[[u8; 2]; 2]) -> u32 {
    let [[a, b], [c, d]] = *ports;
    u32::from_ne_bytes([a, b, c, d])
}

impl Ends for Ends4 {
    const FAMILY: Family = Family::V4;
    type Address = [u8; 4];
    type Pad = [u32; 0];

    #[inline(always)]
    fn end(&self, source: bool) -> End<[u8; 4]> {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        let (address, port) = if source { (a, c) } else { (b, d) };
        End { address, port }
    }

    #[inline(always)]
    fn with(&self, source: bool, end: &End<[u8; 4]>) -> Self {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        let (addresses, ports) = if source {
            ([end.address, b], [end.port, d])
        } else {
            ([a, end.address], [c, end.port])
        };
        Self { addresses, ports }
    }

    #[inline(always)]
    fn reversed(&self) -> Self {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        Self {
            addresses: [b, a],
            ports: [d, c],
        }
    }

    #[inline(always)]
    fn place(&self, seed: Seed, proto: u8) -> u64 {
        let [a, b] = self.addresses.map(u32::from_ne_bytes);
        let hash = stir(seed.k0, (a as u64) << 32 | b as u64);
        let hash = stir(hash, (ports_word(&self.ports) as u64) << 8 | proto as u64);
        finish(hash)
    }

    #[inline(always)]
    fn sum_of(address: &[u8; 4]) -> u32 {
        pairs32(*address)
    }

    #[inline(always)]
    fn sum_of_addresses(&self) -> u32 {
        pairs32(self.addresses[0]) + pairs32(self.addresses[1])
    }

    #[inline(always)]
    fn mix(&self, before: u64) -> u64 {
        let [a, b] = self.addresses.map(u32::from_ne_bytes);
        let sum = turn(before, (a as u64) << 32 | b as u64);
        turn(sum, ports_word(&self.ports) as u64)
    }

    #[inline(always)]
    fn is_address(a: &[u8; 4], b: &[u8; 4]) -> bool {
        u32::from_ne_bytes(*a) == u32::from_ne_bytes(*b)
    }

    #[inline(always)]
    fn mix_address(address: &[u8; 4], before: u64) -> u64 {
        turn(before, u32::from_ne_bytes(*address) as u64)
    }
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u64; 2] {
    let b = address;
    [
        u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
    ]
}

#[inline(always)]
const fn pairs64(word: u64) -> u32 {
    ((word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48)) as u32
}

impl Ends for Ends6 {
    const FAMILY: Family = Family::V6;
    type Address = [u8; 16];
    type Pad = [u32; 15];

    #[inline(always)]
    fn end(&self, source: bool) -> End<[u8; 16]> {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        let (address, port) = if source { (a, c) } else { (b, d) };
        End { address, port }
    }

    #[inline(always)]
    fn with(&self, source: bool, end: &End<[u8; 16]>) -> Self {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        let (addresses, ports) = if source {
            ([end.address, b], [end.port, d])
        } else {
            ([a, end.address], [c, end.port])
        };
        Self { addresses, ports }
    }

    #[inline(always)]
    fn reversed(&self) -> Self {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        Self {
            addresses: [b, a],
            ports: [d, c],
        }
    }

    #[inline(always)]
    fn place(&self, seed: Seed, proto: u8) -> u64 {
        let ([a, b], [c, d]) = (words(&self.addresses[0]), words(&self.addresses[1]));
        let hash = stir(stir(seed.k0, a), b);
        let hash = stir(stir(hash, c), d);
        let hash = stir(hash, (ports_word(&self.ports) as u64) << 8 | proto as u64);
        finish(hash)
    }

    #[inline(always)]
    fn sum_of(address: &[u8; 16]) -> u32 {
        let [a, b] = words(address);
        pairs64(a) + pairs64(b)
    }

    #[inline(always)]
    fn sum_of_addresses(&self) -> u32 {
        Self::sum_of(&self.addresses[0]) + Self::sum_of(&self.addresses[1])
    }

    #[inline(always)]
    fn mix(&self, before: u64) -> u64 {
        let ([a, b], [c, d]) = (words(&self.addresses[0]), words(&self.addresses[1]));
        let sum = turn(turn(turn(turn(before, a), b), c), d);
        turn(sum, ports_word(&self.ports) as u64)
    }

    #[inline(always)]
    fn is_address(a: &[u8; 16], b: &[u8; 16]) -> bool {
        let ([a, b], [c, d]) = (words(a), words(b));
        (a ^ c) | (b ^ d) == 0
    }

    #[inline(always)]
    fn mix_address(address: &[u8; 16], before: u64) -> u64 {
        let [a, b] = words(address);
        turn(turn(before, a), b)
    }
}

/// Folds a sum of 16-bit words into one.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

/// What a checksum changes by when words that sum up to `before` are exchanged for words that sum up to `after` (RFC
/// 1624, equation 3: the sum of `~m + m'`).
#[inline(always)]
#[must_use]
pub const fn delta(before: u32, after: u32) -> u16 {
    fold(!fold(before) as u32 + after)
}

/// The checksum behind a change.
#[inline(always)]
#[must_use]
pub const fn apply(checksum: u16, delta: u16) -> u16 {
    !fold(!checksum as u32 + delta as u32)
}

/// What one hop less changes the sum of an IPv4 header by.
pub const HOP: u16 = !u16::from_ne_bytes([1, 0]);

/// Whether a checksum is none yet: the sum of the pseudo-header alone, which the card would complete.
#[inline(always)]
#[must_use]
pub const fn is_unfinished(checksum: u16, addresses: u32, proto: u8, length: u16) -> bool {
    let pseudo =
        addresses + u16::from_ne_bytes([0, proto]) as u32 + u16::from_ne_bytes(length.to_be_bytes()) as u32;
    fold(pseudo) == checksum
}

const _: () = assert!(size_of::<Print>() == 64);
const _: () = assert!(size_of::<Way>() == 16);
const _: () = assert!(size_of::<Path<Ends4>>() == 32);
const _: () = assert!(size_of::<Path<Ends6>>() == 128);
const _: () = assert!(size_of::<Port>() == 16);
const _: () = assert!(size_of::<Fast>() == 20);

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: `repr(C)`, `Copy`, integers and byte arrays only, without padding (sizes are asserted above), so every bit
    // pattern is valid.
    unsafe impl aya::Pod for Fast {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Port {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Way {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Path<Ends4> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Path<Ends6> {}
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    const ENDS: Ends4 = Ends4 {
        addresses: [[172, 16, 0, 9], [203, 0, 113, 7]],
        ports: [[0x9c, 0x40], [0x01, 0xbb]],
    };

    fn checksum(words: &[u16]) -> u16 {
        !fold(words.iter().map(|w| u32::from(*w)).sum())
    }

    #[test]
    fn a_checksum_follows_every_change() {
        for first in (0..=u16::MAX).step_by(7) {
            for (second, becomes) in [(0, 0xffff), (1, 2), (0xfffe, first), (first, 0)] {
                let before = [first, second, 0x1234];
                let after = [first, becomes, 0x1234];
                let delta = delta(u32::from(second), u32::from(becomes));
                let (got, right) = (apply(checksum(&before), delta), checksum(&after));
                // Of both zeros of one's complement either is right.
                let zero = |sum| sum == 0 || sum == 0xffff;
                assert!(got == right || zero(got) && zero(right), "{first:#x} {second:#x}");
            }
        }
    }

    #[test]
    fn one_hop_less_is_what_later_says() {
        for other in 0..=u16::MAX {
            let [high, low] = other.to_be_bytes();
            let [_, _, a, b] = crate::hop::later([64, 17, high, low]);
            let got = apply(u16::from_ne_bytes([high, low]), HOP);
            let right = u16::from_ne_bytes([a, b]);
            let zero = |sum| sum == 0 || sum == 0xffff;
            assert!(got == right || zero(got) && zero(right), "{other:#x}");
        }
    }

    #[test]
    fn an_unfinished_checksum_is_told() {
        let addresses = ENDS.sum_of_addresses();
        let length = 28_u16;
        let pseudo =
            fold(addresses + u32::from(u16::from_be_bytes([0, 17]).to_be()) + u32::from(length.to_be()));
        assert!(is_unfinished(pseudo, addresses, 17, length));
        assert!(!is_unfinished(!pseudo, addresses, 17, length));
        assert!(!is_unfinished(pseudo, addresses, 6, length));
    }

    const WAY: Way = Way {
        generation: 7,
        next: [2, 0, 0, 0, 0, 1],
        policy: 3,
        entry: 4,
        exit: 5,
        from: 0,
        to: 1,
    };

    fn path() -> Path<Ends4> {
        Path {
            ends: ENDS,
            generation: 7,
            becomes: End {
                address: [192, 168, 1, 100],
                port: [0x10, 0x92],
            },
            way: 9,
            longest: 1500,
            looked_s: 65_530,
            check: 0,
            proto: 17,
            flags: OUTWARD,
            pad: [],
        }
    }

    #[test]
    fn a_check_minds_every_bit_of_a_path_and_of_its_way() {
        let (path, right) = (path(), path().checked(&WAY));
        type Change = fn(&mut Path<Ends4>, &mut Way, u32);
        let fields: [(&str, u32, Change); 16] = [
            ("source", 32, |p, _, n| {
                p.ends.addresses[0][(n / 8) as usize] ^= 1 << (n % 8)
            }),
            ("destination", 32, |p, _, n| {
                p.ends.addresses[1][(n / 8) as usize] ^= 1 << (n % 8)
            }),
            ("ports", 32, |p, _, n| {
                p.ends.ports[(n / 16) as usize][(n / 8 % 2) as usize] ^= 1 << (n % 8)
            }),
            ("generation", 32, |p, _, n| p.generation ^= 1 << n),
            ("new address", 32, |p, _, n| {
                p.becomes.address[(n / 8) as usize] ^= 1 << (n % 8)
            }),
            ("new port", 16, |p, _, n| {
                p.becomes.port[(n / 8) as usize] ^= 1 << (n % 8)
            }),
            ("place of the way", 16, |p, _, n| p.way ^= 1 << n),
            ("longest", 16, |p, _, n| p.longest ^= 1 << n),
            ("time", 16, |p, _, n| p.looked_s ^= 1 << n),
            ("protocol", 8, |p, _, n| p.proto ^= 1 << n),
            ("flags", 8, |p, _, n| p.flags ^= 1 << n),
            ("the way's generation", 32, |_, w, n| w.generation ^= 1 << n),
            ("next hop", 48, |_, w, n| w.next[(n / 8) as usize] ^= 1 << (n % 8)),
            ("policy", 16, |_, w, n| w.policy ^= 1 << n),
            ("interfaces", 16, |_, w, n| {
                if n < 8 {
                    w.entry ^= 1 << n
                } else {
                    w.exit ^= 1 << (n - 8)
                }
            }),
            ("uplinks", 16, |_, w, n| {
                if n < 8 {
                    w.from ^= 1 << n
                } else {
                    w.to ^= 1 << (n - 8)
                }
            }),
        ];
        for (what, bits, change) in fields {
            for n in 0..bits {
                let (mut path, mut way) = (path, WAY);
                change(&mut path, &mut way, n);
                assert_ne!(path.checked(&way), right, "bit {n} of {what}");
            }
        }
        let known = Path { check: 1, ..path };
        assert_eq!(known.checked(&WAY), right, "not by itself");
    }

    /// Sums as RFC 1071 has them, over what the packet is before and after.
    #[test]
    fn the_end_that_changes_is_the_source_outward_and_the_destination_inward() {
        let words = |ends: &Ends4, ports: bool| -> Vec<u16> {
            let addresses = ends.addresses.concat();
            let ports = ends.ports.concat().into_iter().filter(|_| ports);
            let bytes: Vec<u8> = addresses.into_iter().chain(ports).collect();
            bytes
                .chunks(2)
                .map(|b| u16::from_ne_bytes([b[0], b[1]]))
                .collect()
        };
        for (flags, source) in [(OUTWARD, true), (ANSWERED, false)] {
            let path = Path { flags, ..path() };
            let left = path.leaves();
            assert_eq!(left.end(source), path.becomes);
            assert_eq!(left.end(!source), ENDS.end(!source));
            for (ports, delta) in [false, true].into_iter().zip(path.deltas()) {
                let (before, after) = (checksum(&words(&ENDS, ports)), checksum(&words(&left, ports)));
                assert_eq!(
                    apply(before, delta),
                    after,
                    "outward: {source}, with ports: {ports}"
                );
            }
        }
    }

    #[test]
    fn an_age_goes_on_when_the_seconds_begin_again() {
        assert_eq!(path().age_s(65_530), 0);
        assert_eq!(path().age_s(65_536 + 10), 16);
        const { assert!(GENERATION_S < 1 << 16) }
    }

    #[test]
    fn ways_that_differ_are_elsewhere() {
        let of = |n: u16| Way {
            next: [2, 0, 0, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]],
            ..WAY
        };
        let places: BTreeSet<u32> = (0..1000).map(|n| of(n).place() % MAX_WAYS as u32).collect();
        assert!(places.len() > 950, "{} places of a thousand", places.len());
    }

    #[test]
    fn a_table_that_is_three_quarters_full_has_room_for_nineteen_of_twenty() {
        const BUCKETS: u32 = 4096;
        let seed = Seed { k0: 0x1234, k1: 0 };
        let mut taken = [0; BUCKETS as usize];
        let (all, mut without) = (BUCKETS * LINES * 3 / 4, 0);
        for n in 0..all {
            let ends = Ends4 {
                ports: [(n as u16 ^ 0x5a5a).to_be_bytes(), [0, 80]],
                ..ENDS
            };
            let [a, b] = places(ends.place(seed, 6), BUCKETS).map(|line| (line / LINES) as usize);
            let emptier = if taken[a] <= taken[b] { a } else { b };
            if taken[emptier] < LINES {
                taken[emptier] += 1;
            } else {
                without += 1;
            }
        }
        assert!(without * 18 < all, "{without} of {all}");
    }
}
