//! `[[policy]]`, `[[group]]`, `[dns]` and `[mpath]`: who goes where.

mod choice;
mod files;
mod matching;
pub(super) mod mpath;
pub(super) mod names;
mod outside;
pub(super) mod read;
mod values;
mod when;

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::At;

/// Which flows, by which uplinks. The first that matches decides; what none matches is balanced over all uplinks.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// 1 to 31 bytes, unique among policies.
    pub name: At<String>,
    /// Its first line in the file, from 1.
    pub line: u32,
    /// Which flows; empty: all.
    pub matches: Match,
    /// When it is in force; empty: always.
    pub when: Vec<Schedule>,
    /// By which uplinks.
    pub choice: Choice,
    /// While none of them lives: refuse rather than use another.
    pub strict: bool,
    /// Whether clients keep their uplink.
    pub sticky: Option<Sticky>,
}

/// What a flow has to be like. A flow matches when every field does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Source addresses. Flows of this host's own sockets have none yet.
    pub src: Field<IpNet>,
    /// Destination addresses.
    pub dst: Field<IpNet>,
    /// Source ports; what has no ports satisfies none.
    pub sport: Field<RangeInclusive<u16>>,
    /// Destination ports, likewise.
    pub dport: Field<RangeInclusive<u16>>,
    /// IP protocols.
    pub proto: Field<u8>,
    /// Differentiated services code points, 0 to 63.
    pub dscp: Field<u8>,
    /// Names of interfaces where packets come in; "lo" is this host itself.
    pub iif: Field<String>,
    /// Who sent the frame.
    pub mac: Field<[u8; 6]>,
    /// Whose socket it is; forwarded flows satisfy none.
    pub uid: Field<RangeInclusive<u32>>,
    /// Cgroups below the cgroup v2 mount, with all below them; forwarded flows satisfy none.
    pub cgroup: Field<String>,
    /// Names that the destination was looked up by; never negated.
    pub domain: Vec<Domain>,
}

/// What is asked of one field: to be among `any`, if that is given, and not among `not`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<T> {
    /// One of these; `None`: whatever.
    pub any: Option<Vec<T>>,
    /// None of these; most often empty.
    pub not: Vec<T>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self {
            any: None,
            not: Vec::new(),
        }
    }
}

impl<T> Field<T> {
    /// Whether it asks for anything.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.any.is_none() && self.not.is_empty()
    }
}

/// A name, ASCII, lower case, without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// The name.
    pub name: String,
    /// Written with `*.` in front: all names below it, too.
    pub below: bool,
}

impl Domain {
    /// Whether it means this name, which is lower case and without a dot at its end.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let below = |rest: &str| self.below && rest.ends_with('.');
        name.strip_suffix(&*self.name)
            .is_some_and(|rest| rest.is_empty() || below(rest))
    }
}

/// Days and hours.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Days of the week on which `hours` begin, Monday first.
    pub days: [bool; 7],
    /// Minutes since midnight, from and to. `from` above `to` goes on into the next day; equal: the whole day.
    pub hours: (u16, u16),
    /// Whose clock.
    pub zone: jiff::tz::TimeZone,
}

/// By which uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Choice {
    /// Tiers, the first preferred; in each names of uplinks, and the weights that are given here instead of theirs.
    /// Empty: all uplinks with their own tiers and weights.
    pub tiers: Vec<Vec<(String, Option<u32>)>>,
    /// Whom of the best tier that lives.
    pub prefer: Prefer,
}

/// Whom of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Prefer {
    /// All of them, by their weights.
    #[default]
    Balance,
    /// The one with the shortest round-trip time.
    LowestLatency,
    /// The one with the least loss.
    LowestLoss,
}

/// A client's flows go by one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Whether the destination counts, too.
    pub destination: bool,
    /// How long after its last new flow a client keeps its uplink, 1 s to 24 h; default 1 h.
    pub time: Duration,
}

/// `[dns]`: where names in policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Whose answers count, and whom we ask ourselves.
    pub resolvers: Vec<At<Resolver>>,
    /// An answer counts for at least this long; default 60 s.
    pub ttl_min: Duration,
    /// And at most this long; default 1 day.
    pub ttl_max: Duration,
}

/// Whose answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// Those of `/etc/resolv.conf`, and whomever LAN clients ask.
    Auto,
    /// This one.
    At(IpAddr),
}

/// `[mpath]`: the interface that stands for all uplinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mpath {
    /// Its name, 1 to 15 bytes.
    pub interface: At<String>,
}

impl Policy {
    /// Where it stands in the file.
    #[must_use]
    pub const fn span(&self) -> &Range<usize> {
        &self.name.span
    }

    /// What it may use.
    #[must_use]
    pub fn group(&self) -> Group {
        Group {
            choice: self.choice.clone(),
            strict: self.strict,
        }
    }
}

/// What a policy may use: policies that may use the same share one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    /// By which uplinks.
    pub choice: Choice,
    /// There is nobody else for it, so it uses even those that were drained, or whose quota is used up.
    pub strict: bool,
}

/// The different groups of some policies, in the order in which they first appear: their position is the number
/// of the group, and [`Policy::group`] is what to look for.
#[must_use]
pub fn groups(policies: &[Policy]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for group in policies.iter().map(Policy::group) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}
