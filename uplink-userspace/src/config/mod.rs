//! The configuration file: what it can say, its defaults, and where each value stands, so that
//! every later complaint can point at a line and a column.

mod addresses;
mod health;
mod names;
mod nat;
mod observe;
mod parse;
mod policy;
mod probe;
mod problem;
mod reader;
mod sections;
mod syntax;
#[cfg(test)]
mod tests;
mod units;
mod uplinks;

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv6Net;
use uplink_common::mark::Mask;
use uplink_common::{Family, Seed};

pub use health::{Balance, By, Capacity, Health, Limits, Period, Quota, Then};
pub use observe::{Hooks, Metrics};
pub use parse::{load, parse};
pub use policy::{
    Choice, Dns, Domain, Field, Group, Match, Mpath, Policy, Prefer, Resolver, Schedule, Sticky, groups,
};
pub use probe::{Http, Kind, Probe, Target};
pub use problem::{Problem, Problems};
pub(crate) use problem::{shown, suggest};

/// A value and the bytes of the file it came from. Defaults carry an empty span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Byte range in [`File::text`].
    pub span: Range<usize>,
}

/// The file as read: for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path as the user gave it.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it came from.
    pub file: File,
    /// In the order of the file; the position gives the default table.
    pub uplinks: Vec<Uplink>,
    /// Where client traffic enters. Empty: the interfaces of the uplinks.
    pub lan: Vec<At<String>>,
    /// This host's own connections.
    pub local: Local,
    /// Source address translation, and what becomes of translated flows.
    pub nat: Nat,
    /// Probes of the uplinks that have none of their own.
    pub probe: Probe,
    /// What makes an uplink worse, and better again.
    pub health: Health,
    /// What the shares of new flows follow.
    pub balance: Balance,
    /// Numbers that must not collide with others on this host.
    pub kernel: Kernel,
    /// In the order of the file: the first that matches decides.
    pub policies: Vec<Policy>,
    /// Where names in policies come from.
    pub dns: Dns,
    /// The interface that stands for all uplinks, if there is one.
    pub mpath: Option<Mpath>,
    /// Where HTTP is served, if anywhere.
    pub metrics: Option<Metrics>,
    /// Programs that hear of changes, if any.
    pub hooks: Option<Hooks>,
}

/// One way to the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// 1 to 15 bytes, unique.
    pub name: At<String>,
    /// The interface it is reached by.
    pub interface: At<String>,
    /// IPv4 next hop and source, if it carries IPv4.
    pub v4: Option<Gateway>,
    /// IPv6 next hop and source, if it carries IPv6.
    pub v6: Option<Gateway>,
    /// 1 to 1000.
    pub weight: u32,
    /// Lower is preferred.
    pub tier: u32,
    /// Link MTU for routes through it, if given.
    pub mtu: Option<u32>,
    /// IPv6 prefix translation instead of source translation, if given.
    pub prefix6: Option<Prefixes>,
    /// Its routing table.
    pub table: At<u32>,
    /// `false` keeps it configured and takes it out of everything: its state is `disabled`.
    pub enabled: bool,
    /// How it is probed: `[probe]`, or what it says itself.
    pub probe: Probe,
    /// Where each of the probe's targets stands, in their order; empty spans for defaults.
    pub target_spans: Vec<Range<usize>>,
    /// What it can carry, as far as the user knows.
    pub capacity: Capacity,
    /// How much it may carry, if that is limited.
    pub quota: Option<Quota>,
}

impl Uplink {
    /// The next hop of a family, if it carries that.
    #[must_use]
    pub const fn gateway(&self, family: Family) -> Option<&Gateway> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// Where to point when its table is at fault: a default table stands nowhere, the name does.
    #[must_use]
    pub fn table_span(&self) -> Range<usize> {
        match self.table.span.is_empty() {
            true => self.name.span.clone(),
            false => self.table.span.clone(),
        }
    }
}

/// A next hop of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The next hop's address.
    pub address: At<NextHop>,
    /// Our address towards it; default: the interface's address in the gateway's subnet.
    pub source: Option<At<IpAddr>>,
}

/// A next hop as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// This one.
    Fixed(IpAddr),
    /// That of the default route which DHCP, router advertisements or an administrator put on
    /// the interface.
    Auto,
}

/// IPv6 prefix translation (RFC 6296) through one uplink: two different prefixes of the same
/// length, 1 to 64 bits, host bits zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// `[nat] prefix6`.
    pub internal: Ipv6Net,
    /// The provider's; those of different uplinks do not overlap.
    pub external: At<Ipv6Net>,
}

/// Which connections of this host itself are steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Whether any are.
    pub enabled: bool,
    /// Those of processes in this cgroup: a path below the cgroup v2 mount that starts with "/"
    /// and has no ".." in it.
    pub cgroup: At<String>,
}

/// Source address translation, and what becomes of flows whose uplink changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Whether packets get the uplink's address.
    pub mode: NatMode,
    /// What happens to the connections of an uplink that died.
    pub on_failover: OnFailover,
    /// What happens to flows on an uplink that lives and is no longer preferred.
    pub on_failback: OnFailback,
    /// How long `drain` leaves them, 1 s to 24 h.
    pub drain_time: Duration,
    /// The prefix inside that uplinks with a `prefix6` translate; 1 to 64 bits, host bits zero.
    pub prefix6: Option<At<Ipv6Net>>,
}

/// What happens to the connections of an uplink that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailover {
    /// They are forgotten and start anew elsewhere.
    Reroute,
    /// As [`Self::Reroute`], and both ends of a TCP connection get a RST.
    Reset,
}

/// What happens to flows on an uplink that lives and takes no new ones, because a better tier
/// came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailback {
    /// They finish where they are.
    Pin,
    /// They may finish for [`Nat::drain_time`], then they are moved as at a failover.
    Drain,
    /// They are moved at once.
    Reset,
}

/// Whether packets get the uplink's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatMode {
    /// The source address fits the uplink.
    Masquerade,
    /// Addresses stay: the gateways route our prefixes back.
    Off,
}

/// Our share of the kernel's number spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Our bits of the mark.
    pub fwmark_mask: Mask,
    /// First of a block of 256 priorities, and the number of the catch-all table.
    pub rule_priority: u32,
    /// Tags our routes and rules.
    pub protocol: u8,
    /// Hook of the packet path.
    pub attach: Attach,
    /// A start found that the fast path suits this host, where the file leaves that open. Not in the file.
    pub suits_fast: bool,
    /// Who sends a pinned flow's packets to the gateway.
    pub mode: Mode,
    /// Entries of the flow table.
    pub flows: u32,
    /// The programs leave new flows to the kernel when the daemon has been gone for this long,
    /// 5 s to 24 h; `None`: never.
    pub stale_after: Option<Duration>,
    /// Secret of the hash, where the file says from what to make it: routers with the same one
    /// and the same uplinks choose alike. `None`: at random, once.
    pub seed: Option<Seed>,
}

impl Kernel {
    /// Whether the file leaves it to a start whether there is a fast path.
    #[must_use]
    pub const fn may_be_fast(&self) -> bool {
        matches!((self.attach, self.mode), (Attach::Auto, Mode::Auto))
    }

    /// Whether known flows may take the fast path.
    #[must_use]
    pub const fn is_fast(&self) -> bool {
        matches!(self.attach, Attach::Xdp) || self.suits_fast && self.may_be_fast()
    }
}

/// Who sends a pinned flow's packets to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The programs where nothing needs the kernel's forwarding, else the kernel.
    Auto,
    /// The kernel, by the packet's mark.
    Mark,
    /// The programs, past the kernel's forwarding; never with NAT.
    NextHop,
}

/// Hook of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// tcx where the kernel has it (6.6), else clsact; and the fast path where the host suits it.
    Auto,
    /// A tcx link.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
    /// tcx or clsact, and known flows take the fast path at the wire wherever that can be had.
    Xdp,
}
