//! Sums of RFC 1071, in the byte order of the machine: a one's complement sum does not mind which.

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

/// Sum of the pairs of bytes of a word.
#[inline(always)]
pub(super) const fn pairs32(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// As [`pairs32`].
#[inline(always)]
pub(super) const fn pairs64(word: u64) -> u32 {
    ((word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48)) as u32
}
