//! IPv6-to-IPv6 prefix translation, stateless and checksum-neutral (RFC 6296).
//!
//! Both prefixes have the same length, at most 64 bits. Prefixes of up to 48 bits are made up for
//! in the subnet word (section 3.4), longer ones in the first word of the interface identifier
//! that is not 0xffff (section 3.5).

use crate::{Addr, Translation};

/// The words that may take the adjustment, of the eight words of an address.
const SUBNET_WORD: usize = 3;
const FIRST_IDENTIFIER_WORD: usize = 4;
const WORDS: usize = 8;

impl Translation {
    /// From an internal to an external prefix of the same length. Host bits must be zero.
    #[must_use]
    pub const fn new(internal: Addr, external: Addr, length: u32) -> Self {
        let difference = add(sum(&internal), !sum(&external));
        Self {
            internal,
            external,
            length,
            adjustment: difference as u32,
        }
    }

    /// Replaces the internal prefix by the external one. `false`, and nothing done, where the
    /// address is outside the prefix or cannot be translated.
    #[inline(always)]
    pub fn outward(&self, address: &mut Addr) -> bool {
        self.rewrite(address, &self.internal, &self.external, self.adjustment as u16)
    }

    /// The way back of [`Self::outward`].
    #[inline(always)]
    pub fn inward(&self, address: &mut Addr) -> bool {
        self.rewrite(address, &self.external, &self.internal, !(self.adjustment as u16))
    }

    #[inline(always)]
    fn rewrite(&self, address: &mut Addr, from: &Addr, to: &Addr, adjustment: u16) -> bool {
        let length = self.length;
        if length == 0 || length > 64 {
            return false;
        }
        let mask = u64::MAX << (64 - length);
        if (high(address) ^ high(from)) & mask != 0 {
            return false;
        }
        let Some(word) = adjustable(address, length) else {
            return false;
        };
        let translated = (high(address) & !mask) | (high(to) & mask);
        set_high(address, translated);
        let old = get(address, word);
        let new = add(old, adjustment);
        // 0xffff and 0 are the same sum; only 0 survives the way back.
        set(address, word, if new == 0xffff { 0 } else { new });
        true
    }
}

/// The word that takes the adjustment; `None` for the addresses that RFC 6296 gives up.
#[inline(always)]
fn adjustable(address: &Addr, length: u32) -> Option<usize> {
    if length <= 48 {
        return (get(address, SUBNET_WORD) != 0xffff).then_some(SUBNET_WORD);
    }
    let mut word = FIRST_IDENTIFIER_WORD;
    while word < WORDS {
        if get(address, word) != 0xffff {
            return Some(word);
        }
        word += 1;
    }
    None
}

#[inline(always)]
const fn get(address: &Addr, word: usize) -> u16 {
    u16::from_be_bytes([address.0[(2 * word) & 14], address.0[(2 * word + 1) & 15]])
}

#[inline(always)]
const fn set(address: &mut Addr, word: usize, value: u16) {
    let [a, b] = value.to_be_bytes();
    address.0[(2 * word) & 14] = a;
    address.0[(2 * word + 1) & 15] = b;
}

#[inline(always)]
fn high(address: &Addr) -> u64 {
    let a = &address.0;
    u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]])
}

#[inline(always)]
fn set_high(address: &mut Addr, value: u64) {
    let bytes = value.to_be_bytes();
    let mut i = 0;
    while i < 8 {
        address.0[i] = bytes[i];
        i += 1;
    }
}

/// One's complement addition.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// One's complement sum of a prefix.
const fn sum(address: &Addr) -> u16 {
    let mut total = 0;
    let mut word = 0;
    while word < WORDS {
        total = add(total, get(address, word));
        word += 1;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<core::net::IpAddr>().unwrap())
    }

    fn neutral(a: &Addr, b: &Addr) -> bool {
        // 0 and 0xffff are equal in one's complement.
        sum(a) % 0xffff == sum(b) % 0xffff
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6296, section 3.1 with the addresses of its appendix B.
        let t = Translation::new(addr("fd01:203:405::"), addr("2001:db8:1::"), 48);
        let mut a = addr("fd01:203:405:1::1234");
        assert!(t.outward(&mut a));
        assert_eq!(a, addr("2001:db8:1:d550::1234"));
        assert!(t.inward(&mut a));
        assert_eq!(a, addr("fd01:203:405:1::1234"));
    }

    #[test]
    fn longer_prefixes_adjust_the_identifier_and_come_back() {
        let t = Translation::new(addr("fd00:10::"), addr("2001:db8:a:b::"), 64);
        for text in ["fd00:10::2", "fd00:10::ffff:1:2:3", "fd00:10::ffff:ffff:2:3"] {
            let before = addr(text);
            let mut a = before;
            assert!(t.outward(&mut a), "{text}");
            assert_eq!(a.0[..8], addr("2001:db8:a:b::").0[..8]);
            assert!(neutral(&a, &before), "{text} {a:?}");
            assert!(t.inward(&mut a));
            assert_eq!(a, before);
        }
    }

    #[test]
    fn what_is_outside_or_untranslatable_stays() {
        let t = Translation::new(addr("fd00:10::"), addr("2001:db8::"), 48);
        for text in ["fd00:11::2", "2001:db8::1", "fd00:10:0:ffff::1"] {
            let mut a = addr(text);
            assert!(!t.outward(&mut a), "{text}");
            assert_eq!(a, addr(text));
        }
        assert!(!Translation::default().outward(&mut addr("::1")));
    }
}
