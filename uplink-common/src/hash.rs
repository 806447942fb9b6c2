//! The keyed hash that spreads flows.

use core::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::FlowKey;

/// The secret key of the hash, so that nobody outside can choose his uplink by his ports.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seed {
    /// First half.
    pub k0: u64,
    /// Second half.
    pub k1: u64,
}

/// SipHash-1-3 (Aumasson and Bernstein, 2012) of a flow key.
#[inline(always)]
#[must_use]
pub fn flow(seed: Seed, key: &FlowKey) -> u64 {
    let mut h = SipHasher13::new_with_keys(seed.k0, seed.k1);
    for w in key.words() {
        h.write_u64(w);
    }
    h.finish()
}
