//! Our bits of the packet mark.

/// The part of a mark that belongs to us, chosen by `[kernel] fwmark_mask`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mask(u32);

impl Mask {
    /// `None` unless the bits are contiguous and at least one is set.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits == 0 {
            return None;
        }
        let low = bits >> bits.trailing_zeros();
        if low & low.wrapping_add(1) != 0 {
            return None;
        }
        Some(Self(bits))
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// How far an uplink's id is shifted left.
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.0.trailing_zeros()
    }

    /// The highest uplink id that fits.
    #[must_use]
    pub const fn max_id(self) -> u32 {
        self.0 >> self.shift()
    }

    /// The mark of an uplink, other bits zero.
    #[must_use]
    pub const fn of(self, id: u8) -> u32 {
        ((id as u32) << self.shift()) & self.0
    }

    /// The mark of what is refused: all bits, which no uplink and no socket has. 0 where the mask has no room
    /// left, `highest` being the highest id in use.
    #[must_use]
    pub const fn of_refused(self, highest: u8) -> u32 {
        if self.max_id() > highest as u32 { self.0 } else { 0 }
    }

    /// The mark of this host's sockets placed on an uplink, told apart from [`Self::of`] so that
    /// they can be sent elsewhere when it dies: counted from the other end of the mask, `highest`
    /// being the highest id in use. Where the mask has no room left, the same as `of`.
    #[must_use]
    pub const fn of_host(self, id: u8, highest: u8) -> u32 {
        let other = self.max_id() - id as u32;
        if other > highest as u32 {
            (other << self.shift()) & self.0
        } else {
            self.of(id)
        }
    }
}

/// `mark` with our bits replaced by those of `ours`; everybody else's bits stay.
#[inline(always)]
#[must_use]
pub const fn merge(mark: u32, mask: u32, ours: u32) -> u32 {
    (mark & !mask) | (ours & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_mask_holds_127_uplinks_from_bit_24() {
        let m = Mask::new(0x7f00_0000).unwrap();
        assert_eq!((m.shift(), m.max_id()), (24, 127));
        assert_eq!(m.of(1), 0x100_0000);
    }

    #[test]
    fn host_marks_come_from_the_other_end_and_never_meet_an_uplinks() {
        let m = Mask::new(0x7f00_0000).unwrap();
        assert_eq!(m.of_host(1, 2), 0x7e00_0000);
        assert_eq!(m.of_host(63, 64), m.of(63));
        let narrow = Mask::new(3).unwrap();
        assert_eq!((narrow.of_host(1, 1), narrow.of_host(1, 2)), (2, 1));
        assert_eq!((narrow.of_refused(2), narrow.of_refused(3)), (3, 0));
        for highest in 1..=64 {
            for id in 1..=highest {
                let host = m.of_host(id, highest);
                assert!(host != m.of_refused(highest) && m.of(id) != m.of_refused(highest));
                assert!((1..=highest).all(|other| other == id || m.of(other) != host));
            }
        }
    }

    #[test]
    fn other_bits_are_never_touched() {
        assert_eq!(merge(0xffff_ffff, 0x7f00_0000, 0x100_0000), 0x81ff_ffff);
        assert_eq!(merge(0x80ff_00ff, 0x7f00_0000, 0), 0x80ff_00ff);
    }

    #[test]
    fn masks_with_holes_are_refused() {
        assert!(Mask::new(0).is_none());
        assert!(Mask::new(0x5000_0000).is_none());
        assert!(Mask::new(u32::MAX).is_some());
        assert!(Mask::new(1).is_some());
    }
}
