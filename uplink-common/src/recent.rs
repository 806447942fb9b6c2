//! Map `recent`, in front of the flow table: what its pins say, a cache line for four flows, found without a chain.
//!
//! A flow is known by its keyed hash alone: among a million flows two have the same 64 bits once in 37 million tables, and
//! then one of them goes the other's way for a second. So an entry has two words, and the table a quarter of the
//! pages that it would have with keys in it: at 100,000 flows the way to memory is what costs.
//!
//! A copy counts within the second that it was made in. So whoever edits, deletes or evicts a pin need not know of copies.

use crate::Pin;

/// Flows that share a line.
pub const WAYS: usize = 4;

/// A pin in one word: from the lowest bit on the uplink (8 bits), whether the flow may pass the kernel (1), the policy (16), the
/// generation (11) and the second since boot (28: eight years).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Short(pub u64);

const PASSES: u32 = 8;
const POLICY: u32 = 9;
const GENERATION: u32 = 25;
const SECOND: u32 = 36;
const GENERATIONS: u32 = (1 << (SECOND - GENERATION)) - 1;
const SECONDS: u32 = (1 << (64 - SECOND)) - 1;

impl Short {
    /// What a pin says within this second.
    #[inline(always)]
    #[must_use]
    pub const fn new(pin: &Pin, now_s: u32) -> Self {
        let passes = (pin.seen == pin.uplink) as u64;
        Self(
            pin.uplink as u64
                | passes << PASSES
                | (pin.policy as u64) << POLICY
                | ((pin.generation & GENERATIONS) as u64) << GENERATION
                | (now_s as u64) << SECOND,
        )
    }

    /// [`Pin::uplink`].
    #[inline(always)]
    #[must_use]
    pub const fn uplink(self) -> u32 {
        self.0 as u32 & 0xff
    }

    /// Whether [`Pin::seen`] is the uplink.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        self.0 >> PASSES & 1 != 0
    }

    /// [`Pin::policy`].
    #[inline(always)]
    #[must_use]
    pub const fn policy(self) -> u32 {
        (self.0 >> POLICY) as u32 & 0xffff
    }

    /// Whether it is of a generation; within a second they cannot come round.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(self, generation: u32) -> bool {
        (self.0 >> GENERATION) as u32 & GENERATIONS == generation & GENERATIONS
    }

    /// How many seconds old it is.
    #[inline(always)]
    #[must_use]
    pub const fn age_s(self, now_s: u32) -> u32 {
        now_s.wrapping_sub((self.0 >> SECOND) as u32) & SECONDS
    }
}

/// A flow and what its pin says. Two CPUs may write an entry at once: then the hash is nobody's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Recent {
    /// [`crate::hash::flow`] of the flow, exclusive or `pin`.
    pub tag: u64,
    /// Its pin.
    pub pin: Short,
}

impl Recent {
    /// The entry of a flow, given its hash.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, pin: Short) -> Self {
        Self {
            tag: hash ^ pin.0,
            pin,
        }
    }

    /// Whether it is the flow with this hash.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, hash: u64) -> bool {
        self.tag ^ self.pin.0 == hash
    }
}

/// An entry of the map: the flows that [`place`] puts here.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Line(pub [Recent; WAYS]);

/// How many lines there are for a flow table of so many entries: a power of two, with room for about as many flows.
#[must_use]
pub const fn lines(flows: u32) -> u32 {
    1 << (flows as u64 * 9 / 8 / WAYS as u64).ilog2()
}

/// The line of a flow, given its hash, where `most` is the highest.
#[inline(always)]
#[must_use]
pub const fn place(hash: u64, most: u32) -> u32 {
    (hash >> 32) as u32 & most
}

const _: () = assert!(size_of::<Line>() == 64);

#[cfg(feature = "user")]
// SAFETY: plain old data: integers only, no padding, every bit pattern valid.
unsafe impl aya::Pod for Line {}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: Pin = Pin {
        uplink: 64,
        seen: 64,
        policy: 1024,
        generation: 0xffff_f801,
        last_used_s: 0,
        created_s: 0,
    };

    #[test]
    fn a_pin_fits_into_a_word() {
        let short = Short::new(&PIN, 0x0fff_ffff);
        assert_eq!((short.uplink(), short.passes(), short.policy()), (64, true, 1024));
        assert!(short.is_of(PIN.generation) && !short.is_of(PIN.generation + 1));
        assert_eq!(short.age_s(0x0fff_ffff), 0);
        assert_eq!(short.age_s(0x1000_0001), 2);
        let most = Pin {
            uplink: u8::MAX,
            seen: 0,
            policy: u16::MAX,
            generation: u32::MAX,
            ..PIN
        };
        let short = Short::new(&most, u32::MAX);
        assert_eq!(
            (short.uplink(), short.passes(), short.policy()),
            (255, false, 65_535)
        );
        assert!(short.is_of(u32::MAX) && short.age_s(u32::MAX) == 0 && short.age_s(u32::MAX - 1) > 1);
    }

    /// Every field alone: with another uplink, policy, generation or second the halves of two entries are nobody's.
    #[test]
    fn halves_of_two_entries_are_nobodys() {
        const HASHES: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
        let pin = Short::new(&PIN, 7);
        for bit in 0..64 {
            let other = Short(pin.0 ^ 1 << bit);
            for (one, two) in [(HASHES[0], HASHES[0]), (HASHES[0], HASHES[1])] {
                let torn = Recent {
                    tag: Recent::new(one, pin).tag,
                    pin: other,
                };
                assert!(!torn.is(one) && !torn.is(two), "{bit}");
            }
        }
        assert!(Recent::new(HASHES[1], pin).is(HASHES[1]));
    }

    #[test]
    fn there_is_room_for_about_as_many_flows_as_pins() {
        for flows in [1024, 100_000, 262_144, 1_000_000, 2_000_000, 4_194_304] {
            let room = lines(flows) * WAYS as u32;
            assert!(lines(flows).is_power_of_two());
            assert!(room <= flows / 8 * 9 && room > flows / 2, "{flows}: {room}");
        }
    }
}
