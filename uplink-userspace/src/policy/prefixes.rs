//! Prefixes of addresses: what the longest match answers.

use ipnet::IpNet;
use uplink_common::Addr;
use uplink_common::policy::{Field, Set};

use super::full::Full;
use super::lists::{Answer, Item, Lists};
use super::sets::Sets;

/// An entry of the map `prefixes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Whose.
    pub field: Field,
    /// Its network, all zero behind the prefix.
    pub value: Addr,
    /// Its length over the bytes of [`Addr`].
    pub length: u32,
    /// The index of the set for what has its longest match here.
    pub set: u32,
}

/// A network as a number, and its length. So sorted, a prefix follows those that cover it.
type Key = (u128, u32);

/// Where IPv4 is in an [`Addr`].
const IPV4: Key = (0xffff << 32, 96);

/// The entries for lists of addresses. What would answer the same as the prefix around it is left out.
pub(super) fn addresses(
    field: Field,
    lists: &Lists<IpNet>,
    sets: &mut Sets,
    found: &mut Vec<Prefix>,
) -> Result<(), Full> {
    let mut items: Vec<Item<Key>> = lists.items.iter().map(|i| i.with(key(i.value))).collect();
    items.sort_unstable();
    let mut keys: Vec<Key> = items.iter().map(|i| i.value).chain([IPV4]).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut rest = items.as_slice();
    let mut walk = Walk::new(&lists.free);
    for key in keys {
        let own = rest.partition_point(|item| item.value <= key);
        let (own, others) = rest.split_at(own);
        rest = others;
        if let Some(set) = walk.enter(key, own) {
            found.push(Prefix {
                field,
                value: Addr(key.0.to_be_bytes()),
                length: key.1,
                set: sets.intern(&set)?,
            });
        }
    }
    Ok(())
}

fn key(net: &IpNet) -> Key {
    let value = u128::from_be_bytes(Addr::from(net.network()).0);
    let own = u32::from(net.prefix_len());
    (value, if net.addr().is_ipv4() { IPV4.1 + own } else { own })
}

/// On the way through sorted prefixes: those that cover the present one.
struct Walk {
    free: Set,
    around: Vec<(Key, Answer)>,
}

impl Walk {
    const fn new(free: &Set) -> Self {
        Self {
            free: *free,
            around: Vec::new(),
        }
    }

    /// The set of the next prefix, unless the one around it has the same.
    fn enter(&mut self, key: Key, own: &[Item<Key>]) -> Option<Set> {
        while self
            .around
            .last()
            .is_some_and(|(around, _)| !covers(*around, key))
        {
            self.around.pop();
        }
        let around = self.around.last().map(|(_, answer)| *answer);
        // A short IPv6 prefix does not mean the IPv4 addresses that are written inside it.
        let mut answer = around.filter(|_| key != IPV4).unwrap_or(Answer::new(&self.free));
        own.iter().for_each(|item| answer.take(item));
        self.around.push((key, answer));
        let before = around.map_or(self.free, |a| a.set());
        Some(answer.set()).filter(|set| *set != before)
    }
}

fn covers(outer: Key, inner: Key) -> bool {
    outer.1 <= inner.1 && masked(inner.0, outer.1) == outer.0
}

/// The first bits of a number, the others zero.
pub(super) const fn masked(value: u128, length: u32) -> u128 {
    match 128 - length {
        128.. => 0,
        behind => value >> behind << behind,
    }
}

/// A user id as a value of the map `prefixes`.
#[must_use]
pub const fn uid_value(uid: u32) -> Addr {
    Addr(((uid as u128) << 96).to_be_bytes())
}
