//! The state we want the kernel to be in, computed whole. `routes`, `nat` and `sysctl` apply
//! the difference to what is there; `check --plan` prints it.

use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::Family;

/// Everything outside the BPF maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Policy routing rules.
    pub rules: Vec<Rule>,
    /// Routes in our tables.
    pub routes: Vec<Route>,
    /// The whole nftables table `inet uplink`, as `nft -f` reads it.
    pub nft: String,
    /// Sysctls, in the order they must be set.
    pub sysctls: Vec<Sysctl>,
}

/// A policy routing rule with our protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Address family.
    pub family: Family,
    /// Its place.
    pub priority: u32,
    /// What it matches.
    pub selector: Selector,
    /// Where it looks.
    pub table: u32,
    /// Ignore answers with a prefix this short or shorter.
    pub suppress_prefixlength: Option<u32>,
}

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Everything.
    All,
    /// `mark & mask == value`.
    Mark {
        /// The value.
        value: u32,
        /// The mask.
        mask: u32,
    },
    /// This source address.
    From(IpAddr),
}

/// A route with our protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Address family.
    pub family: Family,
    /// Its table.
    pub table: u32,
    /// Destination.
    pub to: IpNet,
    /// Priority among routes to the same destination (`metric` of `ip route`).
    pub metric: u32,
    /// What it does.
    pub via: Via,
    /// Preferred source.
    pub source: Option<IpAddr>,
    /// MTU.
    pub mtu: Option<u32>,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Directly connected.
    Link {
        /// Interface index.
        ifindex: u32,
    },
    /// One next hop, or several by weight (as `ip route` counts, 1 to 256).
    Hops(Vec<Hop>),
    /// ICMP unreachable: nothing falls through to another table.
    Unreachable,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Gateway.
    pub gateway: IpAddr,
    /// Interface index.
    pub ifindex: u32,
    /// Weight, 1 to 256.
    pub weight: u16,
}

/// A sysctl and the value we need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Path below `/proc/sys`, with slashes: interface names may contain dots.
    pub path: String,
    /// The value.
    pub value: String,
}
