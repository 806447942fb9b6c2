//! Values that are looked up whole: interfaces, MAC addresses, cgroups.

use std::collections::BTreeMap;
use std::iter::successors;

use uplink_common::policy::{Set, mac_value};

use super::compile::Surroundings;
use super::lists::{Answer, Item, Lists};

/// The sets by value.
pub(super) type Answers = BTreeMap<u64, Set>;

/// This host's own, as `Iif`: the index of the loopback interface.
const LO: u32 = 1;

pub(super) fn interfaces(lists: &Lists<String>, surroundings: &Surroundings) -> Answers {
    let index = |name: &String| match name.as_str() {
        "lo" => Some(LO),
        other => surroundings.ifindex.get(other).copied(),
    };
    answers(lists, |name| index(name).map(u64::from))
}

pub(super) fn stations(lists: &Lists<[u8; 6]>) -> Answers {
    answers(lists, |mac| Some(mac_value(*mac)))
}

fn answers<T>(lists: &Lists<T>, number: impl Fn(&T) -> Option<u64>) -> Answers {
    let mut found: BTreeMap<u64, Answer> = BTreeMap::new();
    for item in &lists.items {
        if let Some(number) = number(item.value) {
            let answer = found.entry(number).or_insert(Answer::new(&lists.free));
            answer.take(item);
        }
    }
    found.into_iter().map(|(n, answer)| (n, answer.set())).collect()
}

/// A process is in its cgroup and in all above; the programs take the deepest that is here, so each has what those
/// above it give.
pub(super) fn cgroups(lists: &Lists<String>, surroundings: &Surroundings) -> Answers {
    let mut own: BTreeMap<&str, (u64, Vec<Item<()>>)> = BTreeMap::new();
    for item in &lists.items {
        if let Some(id) = surroundings.cgroups.get(item.value) {
            let (_, items) = own.entry(trimmed(item.value)).or_insert((*id, Vec::new()));
            items.push(item.with(()));
        }
    }
    let set = |path: &str| {
        let mut answer = Answer::new(&lists.free);
        let lists = lineage(path).filter_map(|above| own.get(above));
        lists.flat_map(|(_, items)| items).for_each(|i| answer.take(i));
        answer.set()
    };
    own.iter().map(|(path, (id, _))| (*id, set(path))).collect()
}

fn trimmed(path: &str) -> &str {
    path.trim_matches('/')
}

/// A cgroup, the one it is in, and so on to the root, which is empty.
fn lineage(path: &str) -> impl Iterator<Item = &str> {
    successors(Some(path), |p| match p.rsplit_once('/') {
        Some((above, _)) => Some(above),
        None if p.is_empty() => None,
        None => Some(""),
    })
}
