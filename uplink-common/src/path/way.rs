//! What the flows to one next hop have in common.

use super::mix::{finish, stir};

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

/// Of the first byte of a MAC address: it is not a single station's.
const GROUP: u8 = 1;

impl Way {
    /// What it becomes when nobody may take it any more. It keeps its place until the generation ends: the next one to the same address
    /// has to come somewhere else, or old paths would be valid again.
    #[must_use]
    pub const fn closed(mut self) -> Self {
        self.next[0] |= GROUP;
        self
    }

    /// Whether nobody may take it any more.
    #[inline(always)]
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.next[0] & GROUP != 0
    }

    #[inline(always)]
    pub(super) const fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f] = self.next;
        let [g, h, i, j] = self.generation.to_ne_bytes();
        let [k, l] = self.policy.to_ne_bytes();
        [
            u64::from_ne_bytes([g, h, i, j, a, b, c, d]),
            u64::from_ne_bytes([e, f, k, l, self.entry, self.exit, self.from, self.to]),
        ]
    }

    /// Whether a way that is there has nowhere else to go if it is closed.
    #[must_use]
    pub const fn is_last_try(&self, number: u32) -> bool {
        let tries = number.wrapping_sub(self.place()) & (MAX_WAYS as u32 - 1);
        tries + 1 >= WAY_TRIES
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

const _: () = assert!(size_of::<Way>() == 16);
