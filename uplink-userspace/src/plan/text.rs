//! The plan as `ip` commands.

use std::fmt;

use uplink_common::Family;

use super::{Action, Route, Rule, Selector, Via};

/// As the `ip` command that would add it, for `check --plan`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = if self.family == Family::V6 { "-6 " } else { "" };
        write!(f, "ip {flag}rule add priority {}", self.priority)?;
        match &self.selector {
            Selector::All => {}
            Selector::Mark { value, mask } => write!(f, " fwmark {value:#x}/{mask:#x}")?,
            Selector::From(source) => write!(f, " from {source}")?,
            Selector::Iif(name) => write!(f, " iif {name}")?,
        }
        match self.action {
            Action::Table(table) => write!(f, " lookup {table}")?,
            Action::Goto(priority) => write!(f, " goto {priority}")?,
            Action::Unreachable => write!(f, " unreachable")?,
        }
        if let Some(length) = self.suppress_prefixlength {
            write!(f, " suppress_prefixlength {length}")?;
        }
        match self.suppress_ifgroup {
            Some(group) => write!(f, " suppress_ifgroup {group}"),
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
        if let Some(advmss) = self.advmss {
            write!(f, " advmss {advmss}")?;
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
