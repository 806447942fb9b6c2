//! What the engine hears and says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uplink_common::Family;

use crate::health::{Outage, Verdict};
use crate::weights::{Rate, Serving};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A probe was answered.
    Answered {
        /// Which path was probed.
        path: Path,
        /// Which target of the path's family was asked, in the order of the file.
        target: u8,
        /// Round of the probe.
        round: u64,
        /// Round-trip time.
        rtt: Duration,
    },
    /// A probe was lost.
    Lost {
        /// Which path was probed.
        path: Path,
        /// Which target of the path's family was asked, in the order of the file.
        target: u8,
        /// Round of the probe.
        round: u64,
        /// How long ago it was sent.
        waited: Duration,
    },
    /// Somebody wants this uplink, by id, to take no new flows. Nothing happens where
    /// [`Engine::may_drain`] says no.
    Drain(u8),
    /// Somebody wants it back.
    Enable(u8),
    /// Paths carry nothing, for reasons that need no probe, or can again (`None`). What happens
    /// to several at once is told at once: uplinks that fail together keep their flows.
    Outages(BTreeMap<Path, Option<Outage>>),
    /// What uplinks carry now, by id.
    Carried(BTreeMap<u8, Rate>),
    /// The uplinks whose quota is used up, by id.
    UsedUp(BTreeSet<u8>),
    /// Time went by.
    Tick,
}

/// One address family of one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Uplink id.
    pub uplink: u8,
    /// Address family.
    pub family: Family,
}

/// What to do about it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make this the table of new flows, in the maps and in the kernel's multipath route.
    Publish(Selection),
    /// Forget the connections of an uplink that died, so that its flows start anew elsewhere.
    /// Only after the table that avoids it is live.
    Abandon(Path),
    /// The path lives and takes no new flows any more, because a better one came back:
    /// `[nat] on_failback` says what becomes of its flows. After the table that avoids it. Never for a path that
    /// policies go on using.
    Retire(Path),
    /// The path was drained by hand and takes new flows all the same: nobody else answers.
    Recall(Path),
    /// Tell people.
    Announce(Change),
}

/// The uplinks of new flows, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// For IPv4.
    pub v4: Serving,
    /// For IPv6.
    pub v6: Serving,
    /// By group of policies, in the order of [`crate::config::groups`], for IPv4 and IPv6. Nobody where none
    /// of its uplinks serves: `strict` says what that means.
    pub groups: Vec<[Serving; 2]>,
    /// Paths whose pins are void from this table on; set in [`Command::Publish`] only, so that
    /// publishing the table again voids nothing twice.
    pub voided: Vec<Path>,
}

impl Selection {
    /// The uplinks of a family.
    #[must_use]
    pub const fn family(&self, family: Family) -> &Serving {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Whether new flows use the path: those that no policy matches, or those of some group.
    #[must_use]
    pub fn serves(&self, path: Path) -> bool {
        self.family(path.family).weight(path.uplink) > 0 || self.serves_group(path)
    }

    /// Whether flows of some group of policies use the path.
    #[must_use]
    pub fn serves_group(&self, path: Path) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|g| g[path.family as usize].weight(path.uplink) > 0)
    }

    pub(super) fn family_mut(&mut self, family: Family) -> &mut Serving {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A flip that people should hear about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What flipped.
    pub path: Path,
    /// What it is now.
    pub to: Verdict,
    /// It is dead and serves all the same: nobody else answers either.
    pub kept: bool,
}
