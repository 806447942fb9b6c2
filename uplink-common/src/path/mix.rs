//! Quick mixing of words: for places in tables, and to tell a line that two processors wrote at once.

/// Of splitmix64 (Steele, Lea and Flood, 2014), as in [`crate::filter`].
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
pub(super) const fn stir(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(32)
}

#[inline(always)]
pub(super) const fn finish(hash: u64) -> u64 {
    (hash ^ hash >> 32).wrapping_mul(MULTIPLIER)
}

#[inline(always)]
pub(super) const fn turn(sum: u64, word: u64) -> u64 {
    sum.rotate_left(9).wrapping_add(word)
}
