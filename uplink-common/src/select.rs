//! Which slot, which bank, which uplink: the rule that both sides follow.

use crate::{Family, SLOTS, Slot};

/// The slot of a hash. Multiply and shift (Lemire, 2019) instead of a division: the bias over
/// 65,537 slots is below 2^-15.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64) -> u32 {
    among(hash, SLOTS)
}

/// The same for a table of `slots`.
#[inline(always)]
#[must_use]
pub const fn among(hash: u64, slots: u32) -> u32 {
    (((hash & 0xffff_ffff) * slots as u64) >> 32) as u32
}

/// The uplink id in one bank of a slot.
#[inline(always)]
#[must_use]
pub const fn in_bank(slot: &Slot, family: Family, bank: u32) -> u8 {
    let ids = match family {
        Family::V4 => &slot.v4,
        Family::V6 => &slot.v6,
    };
    if bank & 1 == 0 { ids[0] } else { ids[1] }
}

/// A point in `0..total` for the walk over weights, from the half of the hash that the slot
/// does not use. `total` is at most 64 x 1000, so the product cannot overflow.
#[inline(always)]
#[must_use]
pub const fn point(hash: u64, total: u32) -> u32 {
    (((hash >> 32) * total as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_cover_the_table_and_stay_inside() {
        assert_eq!(slot(0), 0);
        assert_eq!(slot(u64::MAX), SLOTS - 1);
        assert_eq!(slot(u64::from(u32::MAX)), SLOTS - 1);
    }

    #[test]
    fn points_stay_below_the_total() {
        assert_eq!(point(u64::MAX, 4), 3);
        assert_eq!(point(0, 4), 0);
    }

    #[test]
    fn banks_and_families_are_told_apart() {
        let s = Slot {
            v4: [1, 2],
            v6: [3, 4],
        };
        assert_eq!(in_bank(&s, Family::V4, 0), 1);
        assert_eq!(in_bank(&s, Family::V4, 1), 2);
        assert_eq!(in_bank(&s, Family::V6, 0), 3);
        assert_eq!(in_bank(&s, Family::V6, 1), 4);
    }
}
