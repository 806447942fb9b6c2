//! What was learned: by which names each address was looked up, and until when each of them counts.
//!
//! Flows live longer than that: their pins hold them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::RandomState;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lru::LruCache;
use uplink_common::policy::NAMES;
use uplink_common::{Addr, Family};

use super::kept::Row;
use super::message::Address;
use super::{Answer, Counts, Outcome};

/// Addresses at most.
pub const MOST: usize = NAMES as usize;
/// Of these without any name that a policy asks for. They make room when others need it.
pub const MOST_OTHERS: usize = 8_192;
/// Names of an address that policies ask for, at most.
pub const MOST_WANTED: usize = 16;
/// Further names of an address, at most.
pub const MOST_UNWANTED: usize = 4;

/// Something that has to be written into the map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// An address is known by these names.
    Known {
        /// The address.
        address: IpAddr,
        /// All its names, in order.
        names: Vec<Arc<str>>,
        /// When the last of them is forgotten, in seconds on the clock that `learn` is told.
        expires_s: u64,
    },
    /// An address has no name any more.
    Gone {
        /// The address.
        address: IpAddr,
    },
}

/// How a name of an address is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// When it is forgotten.
    pub expires_s: u64,
    /// When it was last heard.
    pub heard_s: u64,
    /// From whom.
    pub server: IpAddr,
    /// The name that was asked for, of which this one may be an alias.
    pub question: Arc<str>,
    /// Whether a policy asks for it.
    pub wanted: bool,
}

/// What is known of an address.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Entry {
    names: BTreeMap<Arc<str>, Known>,
    /// When the first of the names is forgotten: its place in `due`.
    due_s: u64,
}

impl Entry {
    /// Its names and how they are known, in order.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, &Known)> {
        self.names.iter()
    }

    /// Whether a policy asks for any of its names.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.names.values().any(|known| known.wanted)
    }

    /// When the last of its names is forgotten.
    #[must_use]
    pub fn expires_s(&self) -> u64 {
        self.names.values().map(|k| k.expires_s).max().unwrap_or(0)
    }

    /// As it has to be written.
    #[must_use]
    pub fn change(&self, address: IpAddr) -> Change {
        Change::Known {
            address,
            names: self.names.keys().cloned().collect(),
            expires_s: self.expires_s(),
        }
    }

    /// Keeps a name, or keeps it for longer; never for less than it was promised. False: there is no room.
    fn keep(&mut self, name: &Arc<str>, mut known: Known) -> bool {
        match self.names.get(name) {
            Some(earlier) => known.expires_s = known.expires_s.max(earlier.expires_s),
            None if !self.has_room(known.wanted) => return false,
            None => {}
        }
        self.names.insert(Arc::clone(name), known);
        true
    }

    fn has_room(&self, wanted: bool) -> bool {
        let most = if wanted { MOST_WANTED } else { MOST_UNWANTED };
        self.names.values().filter(|k| k.wanted == wanted).count() < most
    }
}

/// Everything that was learned.
pub struct Learned {
    ttl_s: RangeInclusive<u64>,
    excluded: HashSet<IpAddr>,
    entries: HashMap<IpAddr, Entry>,
    /// Those without a name that a policy asks for, heard of longest ago first.
    others: LruCache<IpAddr, (), RandomState>,
    /// All of them by when their first name is forgotten.
    due: BTreeSet<(u64, IpAddr)>,
}

/// Where an answer came from, and when.
#[derive(Clone, Copy)]
struct Source<'a> {
    answer: &'a Answer,
    server: IpAddr,
    now_s: u64,
}

impl Learned {
    /// Nothing yet. Whatever an answer says, it counts for `ttl_s` at least and at most; `excluded` are addresses
    /// that are never learned.
    #[must_use]
    pub fn new(ttl_s: RangeInclusive<u64>, excluded: HashSet<IpAddr>) -> Self {
        Self {
            ttl_s,
            excluded,
            entries: HashMap::new(),
            others: LruCache::unbounded_with_hasher(RandomState::new()),
            due: BTreeSet::new(),
        }
    }

    /// An answer that is believed. `wanted` says whether a policy asks for a name.
    pub fn learn(
        &mut self,
        answer: &Answer,
        server: IpAddr,
        now_s: u64,
        wanted: impl Fn(&str) -> bool,
        counts: &mut Counts,
    ) -> Vec<Change> {
        let source = Source {
            answer,
            server,
            now_s,
        };
        // Hundreds of addresses may have the same long names.
        let names = answer.addresses.iter().flat_map(|found| &found.names);
        let mut sorted: HashMap<&str, bool> = HashMap::new();
        for name in names {
            sorted.entry(name).or_insert_with(|| wanted(name));
        }
        let wanted = |name: &str| sorted.get(name).copied().unwrap_or(false);
        let mut changes = Vec::new();
        if answer.addresses.is_empty() {
            counts.add(Outcome::NoAddress);
        }
        for found in &answer.addresses {
            counts.add(self.learn_one(found, source, &wanted, &mut changes));
        }
        changes
    }

    /// What an earlier daemon had learned, as far as its time is not over.
    pub fn restore(
        &mut self,
        rows: impl IntoIterator<Item = Row>,
        now_s: u64,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for (address, name, mut known) in rows.into_iter().map(Row::parts) {
            known.wanted = wanted(&name);
            let may = is_public(address) && !self.excluded.contains(&address) && known.expires_s > now_s;
            let is_new = !self.entries.contains_key(&address);
            if !may || (is_new && !self.make_room(known.wanted, &mut changes)) {
                continue;
            }
            let entry = self.entries.entry(address).or_default();
            entry.keep(&name, known);
            changes.push(entry.change(address));
            self.settle(address, &mut changes);
        }
        changes
    }

    /// Forgets names whose time is over.
    pub fn expire(&mut self, now_s: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(&(due_s, address)) = self.due.first()
            && due_s <= now_s
        {
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.names.retain(|_, known| known.expires_s > now_s);
                if !entry.names.is_empty() {
                    changes.push(entry.change(address));
                }
                self.settle(address, &mut changes);
            }
        }
        changes
    }

    /// Policies have changed: sorts all names anew. What every address has to be written as is in
    /// [`Self::iter`]; the changes that are returned are addresses for which there is no room any more.
    pub fn sort(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        let addresses: Vec<IpAddr> = self.entries.keys().copied().collect();
        for address in addresses {
            if let Some(entry) = self.entries.get_mut(&address) {
                for (name, known) in &mut entry.names {
                    known.wanted = wanted(name);
                }
                self.settle(address, &mut changes);
            }
        }
        changes
    }

    /// `[dns]` has changed: it counts for what is learned from now on.
    pub fn limit(&mut self, ttl_s: RangeInclusive<u64>) {
        self.ttl_s = ttl_s;
    }

    /// Other addresses are never to be learned; those that were are forgotten.
    pub fn exclude(&mut self, excluded: HashSet<IpAddr>) -> Vec<Change> {
        let mut changes = Vec::new();
        for address in &excluded {
            self.forget(*address, &mut changes);
        }
        self.excluded = excluded;
        changes
    }

    /// What is known of an address.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.get(&address)
    }

    /// Everything.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Entry)> {
        self.entries.iter().map(|(address, entry)| (*address, entry))
    }

    /// How many addresses are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn learn_one(
        &mut self,
        found: &Address,
        source: Source<'_>,
        wanted: &impl Fn(&str) -> bool,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        let address = found.address;
        if !is_public(address) {
            return Outcome::Private;
        }
        if self.excluded.contains(&address) {
            return Outcome::Excluded;
        }
        let is_wanted = found.names.iter().any(|name| wanted(name));
        if !self.entries.contains_key(&address) && !self.make_room(is_wanted, changes) {
            return Outcome::TooMany;
        }
        let known = Known {
            expires_s: source.now_s + self.ttl(found.ttl_s),
            heard_s: source.now_s,
            server: source.server,
            question: Arc::clone(&source.answer.question.name),
            wanted: false,
        };
        let kept = self.keep(found, &known, wanted, changes);
        match (kept, is_wanted) {
            (false, _) => Outcome::TooMany,
            (true, true) => Outcome::Learned,
            (true, false) => Outcome::NotWanted,
        }
    }

    /// False: there was no room for some of the names.
    fn keep(
        &mut self,
        found: &Address,
        known: &Known,
        wanted: &impl Fn(&str) -> bool,
        changes: &mut Vec<Change>,
    ) -> bool {
        let entry = self.entries.entry(found.address).or_default();
        let before = (entry.names.len(), entry.expires_s());
        let mut kept = true;
        for name in &found.names {
            let wanted = wanted(name);
            // An alias that no policy asks for is no loss beside the name that one does.
            kept &= entry.keep(
                name,
                Known {
                    wanted,
                    ..known.clone()
                },
            ) || !wanted;
        }
        if before != (entry.names.len(), entry.expires_s()) {
            changes.push(entry.change(found.address));
        }
        self.settle(found.address, changes);
        kept
    }

    fn ttl(&self, ttl_s: u32) -> u64 {
        u64::from(ttl_s).min(*self.ttl_s.end()).max(*self.ttl_s.start())
    }

    /// Whether there is room for one more address. Those that no policy asks for make it.
    fn make_room(&mut self, wanted: bool, changes: &mut Vec<Change>) -> bool {
        let is_full = self.entries.len() >= MOST;
        if is_full || !wanted && self.others.len() >= MOST_OTHERS {
            let Some((oldest, ())) = self.others.pop_lru() else {
                return false;
            };
            self.forget(oldest, changes);
        }
        true
    }

    /// Puts an entry where its names belong, after they have changed.
    fn settle(&mut self, address: IpAddr, changes: &mut Vec<Change>) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        self.due.remove(&(entry.due_s, address));
        let Some(due_s) = entry.names.values().map(|k| k.expires_s).min() else {
            self.forget(address, changes);
            return;
        };
        entry.due_s = due_s;
        self.due.insert((due_s, address));
        if entry.is_wanted() {
            self.others.pop(&address);
            return;
        }
        self.others.put(address, ());
        if self.others.len() > MOST_OTHERS
            && let Some((oldest, ())) = self.others.pop_lru()
        {
            self.forget(oldest, changes);
        }
    }

    fn forget(&mut self, address: IpAddr, changes: &mut Vec<Change>) {
        self.others.pop(&address);
        if let Some(entry) = self.entries.remove(&address) {
            self.due.remove(&(entry.due_s, address));
            changes.push(Change::Gone { address });
        }
    }
}

/// Whether policies may steer to it by name. A mapped IPv4 address is nothing that travels.
fn is_public(address: IpAddr) -> bool {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => return false,
        IpAddr::V6(_) => Family::V6,
    };
    let address = Addr::from(address);
    address.is_routable(family) && !address.is_private(family)
}
