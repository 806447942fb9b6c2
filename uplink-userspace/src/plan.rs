//! The state we want the kernel to be in, computed whole. `routes`, `nat` and `sysctl` apply
//! the difference to what is there; `check --plan` prints it.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uplink_common::Family;

use crate::config::Kernel;
use crate::engine::Selection;
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

/// Priorities within our block, relative to `[kernel] rule_priority`.
const MARK_RULES: u32 = 0;
const SOURCE_RULES: u32 = 128;
/// Directly in front of `main` (32766) and behind every VPN's rules (wg-quick's are at 32764).
const CATCH_ALL_PRIORITY: u32 = 32765;
/// Our default routes; anything below the backstop will do.
const METRIC: u32 = 100;
/// An emptied table must not fall through to `main`, which may mean another ISP.
const BACKSTOP_METRIC: u32 = u32::MAX;
/// The kernel's limit for a next hop's weight.
const MAX_HOP_WEIGHT: u32 = 256;

/// Rules and routes for what serves now. `usable` tells uplinks whose interface is up: a route
/// over a link that is down cannot be installed, only its backstop.
#[must_use]
pub fn routing(
    uplinks: &[Uplink],
    selection: &Selection,
    kernel: &Kernel,
    usable: impl Fn(&Uplink) -> bool,
) -> (Vec<Rule>, Vec<Route>) {
    let (mut rules, mut routes) = (Vec::new(), Vec::new());
    for family in Family::ALL {
        if uplinks.iter().all(|u| u.leg(family).is_none()) {
            continue;
        }
        rules.extend(common_rules(family, kernel));
        for u in uplinks {
            let Some(leg) = u.leg(family) else { continue };
            rules.extend(uplink_rules(family, u, leg, kernel));
            routes.extend(uplink_routes(family, u, leg, usable(u)));
        }
        let serving = selection.family(family);
        let hops = hops(uplinks, serving, family, &usable);
        if !hops.is_empty() {
            let to = default_route(family);
            let via = Via::Hops(hops);
            let table = kernel.rule_priority;
            routes.push(Route {
                family,
                table,
                to,
                metric: METRIC,
                via,
                source: None,
                mtu: None,
            });
        }
    }
    (rules, routes)
}

/// `main` without its default in front, so that connected networks, static routes and VPNs in
/// it keep working for marked packets; the multipath table behind everything else.
fn common_rules(family: Family, kernel: &Kernel) -> [Rule; 2] {
    const MAIN: u32 = 254;
    [
        Rule {
            family,
            priority: kernel.rule_priority,
            selector: Selector::All,
            table: MAIN,
            suppress_prefixlength: Some(0),
        },
        Rule {
            family,
            priority: CATCH_ALL_PRIORITY,
            selector: Selector::All,
            table: kernel.rule_priority,
            suppress_prefixlength: None,
        },
    ]
}

fn uplink_rules(family: Family, u: &Uplink, leg: &Leg, kernel: &Kernel) -> [Rule; 2] {
    let id = u32::from(u.id);
    let rule = |offset: u32, selector| Rule {
        family,
        priority: kernel.rule_priority + offset + id,
        selector,
        table: u.table,
        suppress_prefixlength: None,
    };
    let mark = Selector::Mark {
        value: u.mark,
        mask: kernel.fwmark_mask.bits(),
    };
    [
        rule(MARK_RULES, mark),
        rule(SOURCE_RULES, Selector::From(leg.source)),
    ]
}

fn uplink_routes(family: Family, u: &Uplink, leg: &Leg, usable: bool) -> Vec<Route> {
    let route = |to, metric, via| Route {
        family,
        table: u.table,
        to,
        metric,
        via,
        source: None,
        mtu: None,
    };
    let mut routes = vec![route(default_route(family), BACKSTOP_METRIC, Via::Unreachable)];
    if usable {
        let hop = Hop {
            gateway: leg.gateway,
            ifindex: u.ifindex,
            weight: 1,
        };
        let connected = route(leg.prefix, METRIC, Via::Link { ifindex: u.ifindex });
        let default = route(default_route(family), METRIC, Via::Hops(vec![hop]));
        let source = Some(leg.source);
        routes.push(Route {
            source,
            mtu: u.mtu,
            ..connected
        });
        routes.push(Route {
            source,
            mtu: u.mtu,
            ..default
        });
    }
    routes
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

fn default_route(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = if self.family == Family::V6 { "-6 " } else { "" };
        write!(f, "ip {flag}rule add priority {}", self.priority)?;
        match self.selector {
            Selector::All => {}
            Selector::Mark { value, mask } => write!(f, " fwmark {value:#x}/{mask:#x}")?,
            Selector::From(source) => write!(f, " from {source}")?,
        }
        write!(f, " lookup {}", self.table)?;
        match self.suppress_prefixlength {
            Some(n) => write!(f, " suppress_prefixlength {n}"),
            None => Ok(()),
        }
    }
}

/// As the `ip` command that would add it, for `check --plan`; interfaces by index.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = if self.family == Family::V6 { "-6 " } else { "" };
        let kind = if self.via == Via::Unreachable {
            "unreachable "
        } else {
            ""
        };
        write!(
            f,
            "ip {flag}route add {kind}{} table {} metric {}",
            self.to, self.table, self.metric
        )?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        match &self.via {
            Via::Unreachable => Ok(()),
            Via::Link { ifindex } => write!(f, " dev if{ifindex}"),
            Via::Hops(hops) if hops.len() == 1 => {
                write!(f, " via {} dev if{}", hops[0].gateway, hops[0].ifindex)
            }
            Via::Hops(hops) => hops.iter().try_for_each(|h| {
                write!(
                    f,
                    " nexthop via {} dev if{} weight {}",
                    h.gateway, h.ifindex, h.weight
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tests::uplink;
    use uplink_common::mark::Mask;

    fn kernel() -> Kernel {
        let fwmark_mask = Mask::new(0x7f00_0000).unwrap();
        let attach = crate::config::Attach::Auto;
        Kernel {
            fwmark_mask,
            rule_priority: 20000,
            protocol: 117,
            attach,
            flows: 1024,
            stale_after: None,
        }
    }

    fn plan(serving: &[(u8, u32)], up: bool) -> (Vec<String>, Vec<String>) {
        let uplinks = [uplink(1, 3, 1), uplink(2, 1, 1)];
        let selection = Selection {
            v4: Serving(serving.to_vec()),
            ..Selection::default()
        };
        let (rules, routes) = routing(&uplinks, &selection, &kernel(), |_| up);
        (
            rules.iter().map(ToString::to_string).collect(),
            routes.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn rules_stand_in_the_order_of_authority() {
        let (rules, _) = plan(&[(1, 3), (2, 1)], true);
        assert_eq!(
            rules,
            [
                "ip rule add priority 20000 lookup 254 suppress_prefixlength 0",
                "ip rule add priority 32765 lookup 20000",
                "ip rule add priority 20001 fwmark 0x1000000/0x7f000000 lookup 20001",
                "ip rule add priority 20129 from 10.0.1.100 lookup 20001",
                "ip rule add priority 20002 fwmark 0x2000000/0x7f000000 lookup 20002",
                "ip rule add priority 20130 from 10.0.2.100 lookup 20002",
            ]
        );
    }

    #[test]
    fn the_catch_all_has_the_weights_of_those_that_serve() {
        let (_, routes) = plan(&[(1, 3), (2, 1)], true);
        assert_eq!(
            routes.last().unwrap(),
            "ip route add 0.0.0.0/0 table 20000 metric 100 \
             nexthop via 10.0.1.1 dev if2 weight 3 nexthop via 10.0.2.1 dev if2 weight 1"
        );
        let (_, routes) = plan(&[(2, 1)], true);
        assert!(
            routes
                .last()
                .unwrap()
                .ends_with("metric 100 via 10.0.2.1 dev if2")
        );
    }

    #[test]
    fn a_link_that_is_down_leaves_only_the_backstop() {
        let (_, routes) = plan(&[(1, 1), (2, 1)], false);
        assert_eq!(
            routes,
            [
                "ip route add unreachable 0.0.0.0/0 table 20001 metric 4294967295",
                "ip route add unreachable 0.0.0.0/0 table 20002 metric 4294967295",
            ]
        );
    }

    #[test]
    fn large_weights_are_scaled_to_what_a_next_hop_can_carry() {
        let (_, routes) = plan(&[(1, 1000), (2, 1)], true);
        assert!(
            routes
                .last()
                .unwrap()
                .contains("weight 256 nexthop via 10.0.2.1 dev if2 weight 1")
        );
    }
}
