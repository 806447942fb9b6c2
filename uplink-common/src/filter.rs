//! Which addresses are surely not in a small set: a Bloom filter with one hash (Bloom, 1970).

use crate::Addr;

const WORDS: usize = 4;
/// Odd, with its bits spread: 2^64 divided by the golden ratio (Knuth, TAOCP 3, section 6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// 256 bits, so that with ten members one in 25 of all other addresses has to be looked up.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Filter([u64; WORDS]);

impl Filter {
    /// Every address may be a member.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// Puts an address in.
    pub const fn add(&mut self, address: &Addr) {
        let (word, bit) = place(address);
        self.0[word] |= bit;
    }

    /// Whether the address may be a member; `false` is certain.
    #[inline(always)]
    #[must_use]
    pub const fn may_hold(&self, address: &Addr) -> bool {
        let (word, bit) = place(address);
        self.0[word] & bit != 0
    }
}

impl FromIterator<Addr> for Filter {
    fn from_iter<T: IntoIterator<Item = Addr>>(addresses: T) -> Self {
        let mut filter = Self::default();
        addresses.into_iter().for_each(|address| filter.add(&address));
        filter
    }
}

#[inline(always)]
const fn place(address: &Addr) -> (usize, u64) {
    let [a, b] = address.words();
    let hash = (a ^ b).wrapping_mul(MULTIPLIER) >> 56;
    ((hash >> 6) as usize & (WORDS - 1), 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> Addr {
        Addr::v4(n.to_be_bytes())
    }

    #[test]
    fn members_are_never_missed_and_few_others_pass() {
        let mut v6 = [0x20; 16];
        v6[15] = 7;
        let members: [Addr; 10] = core::array::from_fn(|n| {
            if n == 0 {
                Addr::v6(v6)
            } else {
                v4(0xc0a8_0100 + n as u32)
            }
        });
        let filter: Filter = members.into_iter().collect();
        assert!(members.iter().all(|member| filter.may_hold(member)));
        let strangers = (0..10_000).map(|n| v4(0x0808_0000 + 7 * n));
        let passed = strangers.filter(|address| filter.may_hold(address)).count();
        assert!((200..800).contains(&passed), "{passed} of 10,000");
        assert!(!Filter::default().may_hold(&v4(1)) && Filter::ALL.may_hold(&v4(1)));
    }
}
