//! What the maps with keys hold of one bank.

use std::collections::HashMap;
use std::hash::Hash;

use uplink_common::policy::{ExactKey, PrefixKey, TAG_BITS};

use crate::policy::compile::Compiled;

/// A prefix as the kernel has it: its length, the tag's bits included, and its data.
pub(super) type TrieKey = (u32, PrefixKey);

/// Keys with their sets; `None` where a set was not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) prefixes: HashMap<TrieKey, Option<u32>>,
    pub(super) exact: HashMap<ExactKey, Option<u32>>,
}

impl Held {
    /// What a bank is to hold.
    pub(super) fn wanted(bank: u32, compiled: &Compiled) -> Self {
        let prefixes = compiled.prefixes.iter().map(|p| {
            let tag = p.field.tag(bank).to_be_bytes();
            let data = PrefixKey {
                tag,
                value: p.value.0,
            };
            ((TAG_BITS + p.length, data), Some(p.set))
        });
        let exact = compiled.exact.iter().map(|((field, value), set)| {
            let key = ExactKey {
                tag: field.tag(bank),
                pad: 0,
                value: *value,
            };
            (key, Some(*set))
        });
        Self {
            prefixes: prefixes.collect(),
            exact: exact.collect(),
        }
    }
}

/// The bank that a key's tag belongs to.
pub(super) const fn bank_of(tag: u32) -> usize {
    (tag >> 8 & 1) as usize
}

/// What has to go, and what has to be written.
pub(super) struct Changes<K> {
    pub(super) gone: Vec<K>,
    pub(super) new: Vec<(K, u32)>,
}

/// From what a map holds of a bank to what it is to hold.
pub(super) fn changes<K: Copy + Eq + Hash>(
    before: &HashMap<K, Option<u32>>,
    wanted: &HashMap<K, Option<u32>>,
) -> Changes<K> {
    let gone = before.keys().filter(|key| !wanted.contains_key(key)).copied();
    let new = wanted
        .iter()
        .filter(|(key, set)| before.get(key).is_none_or(|b| b.is_none() || b != *set))
        .filter_map(|(key, set)| Some((*key, (*set)?)));
    Changes {
        gone: gone.collect(),
        new: new.collect(),
    }
}

#[cfg(test)]
mod tests {
    use uplink_common::Addr;
    use uplink_common::policy::Field;

    use super::*;
    use crate::policy::Prefix;

    #[test]
    fn only_what_differs_is_written() {
        let before = HashMap::from([(1, Some(1)), (2, Some(2)), (3, Some(3)), (4, None)]);
        let wanted = HashMap::from([(2, Some(2)), (3, Some(9)), (4, Some(4)), (5, Some(5))]);
        let Changes { gone, mut new } = changes(&before, &wanted);
        new.sort_unstable();
        assert_eq!(gone, [1]);
        assert_eq!(new, [(3, 9), (4, 4), (5, 5)]);
    }

    #[test]
    fn keys_belong_to_a_bank() {
        let prefix = Prefix {
            field: Field::Dst,
            value: Addr::v4([10, 0, 0, 0]),
            length: 104,
            set: 7,
        };
        let compiled = Compiled {
            prefixes: vec![prefix],
            exact: [((Field::Iif, 2), 8)].into(),
            ..Compiled::default()
        };
        for bank in [0, 1] {
            let held = Held::wanted(bank, &compiled);
            let ((length, key), set) = held.prefixes.iter().next().unwrap();
            assert_eq!((*length, *set), (136, Some(7)));
            assert_eq!(key.tag, [0, 0, bank as u8, Field::Dst as u8]);
            assert_eq!(bank_of(u32::from_be_bytes(key.tag)), bank as usize);
            let (key, set) = held.exact.iter().next().unwrap();
            assert_eq!((bank_of(key.tag), key.value, *set), (bank as usize, 2, Some(8)));
        }
    }
}
