//! Ranges of numbers: ports, protocols, code points, user ids.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Subnets;
use uplink_common::policy::{Field, MAX_POLICIES, Set};

use super::full::Full;
use super::lists::{Item, Lists};
use super::prefixes::{Prefix, uid_value};
use super::sets::{Sets, collect};

/// From and to, both included. Wider than any field, so that there is a number behind the last one.
type Span = (u64, u64);

/// Gives every stretch of numbers up to `last`, with the set that all of it answers.
pub(super) fn sweep<T: Clone + Into<u64>>(
    lists: &Lists<RangeInclusive<T>>,
    last: u64,
    mut each: impl FnMut(Span, &Set) -> Result<(), Full>,
) -> Result<(), Full> {
    let edges = edges(lists);
    let mut inside = Inside::new(&lists.free);
    let mut from = 0;
    for together in edges.chunk_by(|a, b| a.value.0 == b.value.0) {
        let at = together.first().map_or(from, |edge| edge.value.0);
        if at > from {
            each((from, at - 1), &inside.set)?;
            from = at;
        }
        together.iter().for_each(|edge| inside.cross(edge));
    }
    if from <= last {
        each((from, last), &inside.set)?;
    }
    Ok(())
}

/// Where a range begins (true), and where it has just ended.
fn edges<T: Clone + Into<u64>>(lists: &Lists<RangeInclusive<T>>) -> Vec<Item<(u64, bool)>> {
    let mut edges = Vec::with_capacity(2 * lists.items.len());
    for item in lists.items.iter().filter(|i| !is_empty(i.value)) {
        let (first, last) = (item.value.start().clone().into(), item.value.end().clone().into());
        edges.push(item.with((first, true)));
        edges.push(item.with((last + 1, false)));
    }
    edges.sort_unstable();
    edges
}

fn is_empty<T: Clone + Into<u64>>(range: &RangeInclusive<T>) -> bool {
    range.start().clone().into() > range.end().clone().into()
}

/// How many ranges of each policy we are inside of.
struct Inside {
    free: Set,
    /// By place: of those that are wanted, of those that are refused.
    counts: Vec<[u32; 2]>,
    set: Set,
}

impl Inside {
    fn new(free: &Set) -> Self {
        Self {
            free: *free,
            counts: vec![[0; 2]; MAX_POLICIES as usize],
            set: *free,
        }
    }

    fn cross(&mut self, edge: &Item<(u64, bool)>) {
        let Some(counts) = self.counts.get_mut(edge.place as usize) else {
            return;
        };
        let count = &mut counts[usize::from(edge.not)];
        *count = count.wrapping_add_signed(if edge.value.1 { 1 } else { -1 });
        let [wanted, refused] = *counts;
        let satisfied = (wanted > 0 || self.free.contains(edge.place)) && refused == 0;
        if satisfied {
            self.set.insert(edge.place);
        } else {
            self.set = self.set.without(&collect([edge.place]));
        }
    }
}

/// The prefixes for lists of user ids. They do not overlap, and those that nobody asks for are left out.
pub(super) fn uids(
    lists: &Lists<RangeInclusive<u32>>,
    sets: &mut Sets,
    found: &mut Vec<Prefix>,
) -> Result<(), Full> {
    sweep(lists, u64::from(u32::MAX), |(first, last), set| {
        if *set == lists.free {
            return Ok(());
        }
        let set = sets.intern(set)?;
        // The least prefixes that make up a range are the same for all numbers of 32 bits.
        let number = |n: u64| Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX));
        let parts = Ipv4Subnets::new(number(first), number(last), 0);
        found.extend(parts.map(|part| Prefix {
            field: Field::Uid,
            value: uid_value(part.network().into()),
            length: u32::from(part.prefix_len()),
            set,
        }));
        Ok(())
    })
}
