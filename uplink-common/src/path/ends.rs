//! Both ends of a flow, of either family.
//!
//! All by words: the comparisons that Rust derives call a loop, which programs pay for.

use super::checksum::{pairs32, pairs64};
use super::mix::{finish, stir, turn};
use crate::{Family, Seed};

/// One end of a flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct End<A> {
    /// Its address.
    pub address: A,
    /// Its port.
    pub port: [u8; 2],
}

impl<A> End<A> {
    #[inline(always)]
    pub(super) const fn port_word(&self) -> u16 {
        u16::from_ne_bytes(self.port)
    }
}

/// Both ends, as the packet has them.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Both<A> {
    /// Source and destination address.
    pub addresses: [A; 2],
    /// Source and destination port.
    pub ports: [[u8; 2]; 2],
}

/// Of an IPv4 flow.
pub type Ends4 = Both<[u8; 4]>;
/// Of an IPv6 flow.
pub type Ends6 = Both<[u8; 16]>;

/// An address of one of the families.
pub trait Address: Copy + PartialEq + 'static {
    /// Which family.
    const FAMILY: Family;
    /// What fills a line of the table.
    type Pad: Copy + PartialEq + 'static;

    /// Whether they are the same.
    fn is(&self, other: &Self) -> bool;

    /// Sum of its pairs of bytes, not folded.
    fn sum(&self) -> u32;

    /// Mixes it into a word.
    fn mix(&self, before: u64) -> u64;

    /// Mixes both into a word.
    fn mix_both(both: &[Self; 2], before: u64) -> u64;

    /// As [`Self::mix_both`], so well that places in a table can be made of it.
    fn stir_both(both: &[Self; 2], before: u64) -> u64;
}

/// The ends of a flow in one of the families.
pub trait Ends: Copy + PartialEq + 'static {
    /// Which family they are of.
    const FAMILY: Family;
    /// An address of it.
    type Address: Address;
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

    /// Sum of the pairs of bytes of both addresses, not folded.
    fn sum_of_addresses(&self) -> u32;

    /// Mixes everything into one word, to tell a line that two processors wrote at once.
    fn mix(&self, before: u64) -> u64;
}

impl<A> Both<A> {
    #[inline(always)]
    const fn ports_word(&self) -> u32 {
        let [[a, b], [c, d]] = self.ports;
        u32::from_ne_bytes([a, b, c, d])
    }
}

impl<A: Address> PartialEq for Both<A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (&self.addresses, &other.addresses);
        a.is(c) & b.is(d) & (self.ports_word() == other.ports_word())
    }
}

impl<A: Address> Eq for Both<A> {}

impl<A: Address> Ends for Both<A> {
    const FAMILY: Family = A::FAMILY;
    type Address = A;
    type Pad = A::Pad;

    #[inline(always)]
    fn end(&self, source: bool) -> End<A> {
        let ([a, b], [c, d]) = (self.addresses, self.ports);
        let (address, port) = if source { (a, c) } else { (b, d) };
        End { address, port }
    }

    #[inline(always)]
    fn with(&self, source: bool, end: &End<A>) -> Self {
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
        let hash = A::stir_both(&self.addresses, seed.k0);
        finish(stir(hash, (self.ports_word() as u64) << 8 | proto as u64))
    }

    #[inline(always)]
    fn sum_of_addresses(&self) -> u32 {
        self.addresses[0].sum() + self.addresses[1].sum()
    }

    #[inline(always)]
    fn mix(&self, before: u64) -> u64 {
        turn(A::mix_both(&self.addresses, before), self.ports_word() as u64)
    }
}

/// Both IPv4 addresses in a word.
#[inline(always)]
fn word(both: &[[u8; 4]; 2]) -> u64 {
    let [a, b] = both.map(u32::from_ne_bytes);
    (a as u64) << 32 | b as u64
}

impl Address for [u8; 4] {
    const FAMILY: Family = Family::V4;
    type Pad = [u32; 0];

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        u32::from_ne_bytes(*self) == u32::from_ne_bytes(*other)
    }

    #[inline(always)]
    fn sum(&self) -> u32 {
        pairs32(u32::from_ne_bytes(*self))
    }

    #[inline(always)]
    fn mix(&self, before: u64) -> u64 {
        turn(before, u32::from_ne_bytes(*self) as u64)
    }

    #[inline(always)]
    fn mix_both(both: &[Self; 2], before: u64) -> u64 {
        turn(before, word(both))
    }

    #[inline(always)]
    fn stir_both(both: &[Self; 2], before: u64) -> u64 {
        stir(before, word(both))
    }
}

/// An IPv6 address in two words.
#[inline(always)]
fn words(address: &[u8; 16]) -> [u64; 2] {
    let b = address;
    [
        u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
    ]
}

impl Address for [u8; 16] {
    const FAMILY: Family = Family::V6;
    type Pad = [u32; 1];

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (words(self), words(other));
        (a ^ c) | (b ^ d) == 0
    }

    #[inline(always)]
    fn sum(&self) -> u32 {
        let [a, b] = words(self);
        pairs64(a) + pairs64(b)
    }

    #[inline(always)]
    fn mix(&self, before: u64) -> u64 {
        let [a, b] = words(self);
        turn(turn(before, a), b)
    }

    #[inline(always)]
    fn mix_both(both: &[Self; 2], before: u64) -> u64 {
        both[1].mix(both[0].mix(before))
    }

    #[inline(always)]
    fn stir_both(both: &[Self; 2], before: u64) -> u64 {
        let ([a, b], [c, d]) = (words(&both[0]), words(&both[1]));
        stir(stir(stir(stir(before, a), b), c), d)
    }
}
