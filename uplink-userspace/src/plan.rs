//! The state we want the kernel to be in, computed whole. `routes`, `nat` and `sysctl` apply
//! the difference to what is there; `check --plan` prints it.

mod text;

#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::{Family, MAX_UPLINKS};

use crate::config::Kernel;
use crate::engine::Selection;
use crate::foreign;
use crate::host::MAIN;
use crate::resolve::{Leg, Uplink};
use crate::weights::Serving;

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
    /// What it does.
    pub action: Action,
    /// Ignore answers with a prefix this short or shorter.
    pub suppress_prefixlength: Option<u32>,
    /// Ignore answers that lead out by an interface of this group.
    pub suppress_ifgroup: Option<u32>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Look into this table.
    Table(u32),
    /// Go on at the rule with this priority.
    Goto(u32),
    /// ICMP unreachable.
    Unreachable,
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
    /// What came in by this interface, by name.
    Iif(String),
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
    /// The segment size that TCP asks the other end for.
    pub advmss: Option<u32>,
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

/// Priorities that are ours, from `[kernel] rule_priority` on.
pub(crate) const BLOCK: u32 = 256;
/// Within our block: 0 is for `main`, then come three groups, each with room for every id, then what is refused.
const MARK_RULES: u32 = 0;
const HOST_RULES: u32 = 64;
const SOURCE_RULES: u32 = 128;
const REFUSED_RULE: u32 = 250;
/// The last two: where the way of what comes out of the aggregate interface ends.
pub(crate) const AGGREGATE_RULES: u32 = BLOCK - 2;
/// Directly in front of `main` (32766) and behind every VPN's rules (wg-quick's are at 32764).
pub(crate) const CATCH_ALL_PRIORITY: u32 = 32765;
/// Our default routes; anything below the backstop will do.
const METRIC: u32 = 100;
/// An emptied table must not fall through to `main`, which may mean another ISP.
const BACKSTOP_METRIC: u32 = u32::MAX;
/// The kernel's limit for a next hop's weight.
const MAX_HOP_WEIGHT: u32 = 256;

// Ids run from 1, so the last of a group is at the first of the next.
const _: () = assert!(MARK_RULES + MAX_UPLINKS <= HOST_RULES && HOST_RULES + MAX_UPLINKS <= SOURCE_RULES);
const _: () = assert!(SOURCE_RULES + MAX_UPLINKS < REFUSED_RULE && REFUSED_RULE < AGGREGATE_RULES);

/// Rules and routes for what serves now.
///
/// `usable` tells what routes can be installed for: a link that is up, an address that is there.
/// For the rest there is only the backstop. `moved` tells the dead whose place others have taken:
/// this host's sockets there go with everybody else's traffic. `strict`: some policy has flows refused.
#[must_use]
pub fn routing(
    uplinks: &[Uplink],
    selection: &Selection,
    kernel: &Kernel,
    strict: bool,
    usable: impl Fn(&Uplink, Family) -> bool,
    moved: impl Fn(&Uplink, Family) -> bool,
) -> (Vec<Rule>, Vec<Route>) {
    let (mut rules, mut routes) = (Vec::new(), Vec::new());
    for family in Family::ALL {
        if uplinks.iter().all(|u| u.leg(family).is_none()) {
            continue;
        }
        let usable = |u: &Uplink| usable(u, family);
        rules.extend(common_rules(family, kernel));
        rules.extend(refusal(family, uplinks, kernel).filter(|_| strict));
        for u in uplinks {
            let Some(leg) = u.leg(family) else { continue };
            rules.push(mark_rule(family, u, kernel));
            rules.extend(host_rule(family, u, kernel, moved(u, family)));
            if owns_source(family, u, leg, uplinks) {
                rules.push(source_rule(family, u, leg, kernel));
            }
            routes.extend(uplink_routes(family, u, leg, usable(u)));
        }
        let hops = hops(uplinks, selection.family(family), family, usable);
        if !hops.is_empty() {
            let via = Via::Hops(hops);
            routes.push(default_route(family, kernel.rule_priority, METRIC, via));
        }
    }
    (rules, routes)
}

/// `main` without its default in front, so that connected networks, static routes and VPNs in
/// it keep working for marked packets; the multipath table behind everything else.
fn common_rules(family: Family, kernel: &Kernel) -> [Rule; 2] {
    [
        Rule {
            family,
            priority: kernel.rule_priority,
            selector: Selector::All,
            action: Action::Table(MAIN),
            suppress_prefixlength: Some(0),
            suppress_ifgroup: None,
        },
        Rule {
            family,
            priority: CATCH_ALL_PRIORITY,
            selector: Selector::All,
            action: Action::Table(kernel.rule_priority),
            suppress_prefixlength: None,
            suppress_ifgroup: None,
        },
    ]
}

/// Answers what a strict policy has no uplink for, so that nobody waits for a timeout. None where the mask has no
/// room for that mark; [`crate::resolve::resolve`] does not let such a configuration through.
fn refusal(family: Family, uplinks: &[Uplink], kernel: &Kernel) -> Option<Rule> {
    let highest = uplinks.iter().map(|u| u.id).max().unwrap_or(0);
    let mark = kernel.fwmark_mask.of_refused(highest);
    (mark != 0).then_some(Rule {
        family,
        priority: kernel.rule_priority + REFUSED_RULE,
        selector: marked(mark, kernel),
        action: Action::Unreachable,
        suppress_prefixlength: None,
        suppress_ifgroup: None,
    })
}

fn mark_rule(family: Family, u: &Uplink, kernel: &Kernel) -> Rule {
    let selector = marked(u.mark, kernel);
    rule(family, u, kernel, MARK_RULES, selector)
}

/// For this host's sockets. Their source address is fixed once they are connected, so it is this
/// rule that takes the long-lived ones off a dead uplink, in front of the one for that address.
/// Both of its forms have one priority: the new one is added behind the old one, which goes then,
/// so some rule always matches. None where marks of sockets cannot be told from other marks.
fn host_rule(family: Family, u: &Uplink, kernel: &Kernel, moved: bool) -> Option<Rule> {
    let selector = marked(u.host_mark, kernel);
    let own = rule(family, u, kernel, HOST_RULES, selector);
    let table = if moved { kernel.rule_priority } else { u.table };
    (u.host_mark != u.mark).then_some(Rule {
        action: Action::Table(table),
        ..own
    })
}

fn source_rule(family: Family, u: &Uplink, leg: &Leg, kernel: &Kernel) -> Rule {
    rule(family, u, kernel, SOURCE_RULES, Selector::From(leg.source))
}

/// An address that several uplinks share tells nothing; it stands for the first of them, so that
/// the answer is always the same.
fn owns_source(family: Family, u: &Uplink, leg: &Leg, uplinks: &[Uplink]) -> bool {
    let mut others = uplinks.iter().filter(|other| other.id < u.id);
    others.all(|other| other.leg(family).is_none_or(|l| l.source != leg.source))
}

fn rule(family: Family, u: &Uplink, kernel: &Kernel, group: u32, selector: Selector) -> Rule {
    Rule {
        family,
        priority: kernel.rule_priority + group + u32::from(u.id),
        selector,
        action: Action::Table(u.table),
        suppress_prefixlength: None,
        suppress_ifgroup: None,
    }
}

const fn marked(value: u32, kernel: &Kernel) -> Selector {
    let mask = kernel.fwmark_mask.bits();
    Selector::Mark { value, mask }
}

fn uplink_routes(family: Family, u: &Uplink, leg: &Leg, usable: bool) -> Vec<Route> {
    let backstop = default_route(family, u.table, BACKSTOP_METRIC, Via::Unreachable);
    if !usable {
        return vec![backstop];
    }
    let hop = Hop {
        gateway: leg.gateway,
        ifindex: u.ifindex,
        weight: 1,
    };
    let default = default_route(family, u.table, METRIC, Via::Hops(vec![hop]));
    let connected = Route {
        to: leg.prefix,
        via: Via::Link { ifindex: u.ifindex },
        source: Some(leg.source),
        mtu: u.mtu,
        ..default.clone()
    };
    let default = Route {
        source: Some(leg.source),
        mtu: u.mtu,
        advmss: u.mtu.map(|mtu| segment(family, mtu)),
        ..default
    };
    vec![backstop, connected, default]
}

/// The largest TCP segment in a packet of `mtu` bytes without options.
const fn segment(family: Family, mtu: u32) -> u32 {
    mtu.saturating_sub(match family {
        Family::V4 => 20 + 20,
        Family::V6 => 40 + 20,
    })
}

fn hops(uplinks: &[Uplink], serving: &Serving, family: Family, usable: impl Fn(&Uplink) -> bool) -> Vec<Hop> {
    let max = serving
        .0
        .iter()
        .map(|(_, w)| *w)
        .max()
        .unwrap_or(1)
        .max(MAX_HOP_WEIGHT);
    let hop = |u: &Uplink| {
        let gateway = u.leg(family)?.gateway;
        let weight = serving.weight(u.id);
        let scaled = (weight * MAX_HOP_WEIGHT).div_ceil(max).max(1);
        (weight > 0 && usable(u)).then_some(Hop {
            gateway,
            ifindex: u.ifindex,
            weight: scaled as u16,
        })
    };
    uplinks.iter().filter_map(hop).collect()
}

fn default_route(family: Family, table: u32, metric: u32, via: Via) -> Route {
    Route {
        family,
        table,
        to: foreign::anywhere(family),
        metric,
        via,
        source: None,
        mtu: None,
        advmss: None,
    }
}
