//! What a policy means, without any table.

use std::net::IpAddr;

use uplink_common::policy::has_ports;

use super::super::classify::Facts;
use super::super::compile::Surroundings;
use crate::config::{Domain, Field, Match, Policy};

/// The place of the first policy in force that matches.
pub(super) fn first(
    policies: &[Policy],
    active: &[bool],
    around: &Surroundings,
    flow: &Facts,
    names: &[&str],
) -> Option<u32> {
    let matches = |(p, active): (&Policy, &bool)| *active && matches(&p.matches, around, flow, names);
    let place = policies.iter().zip(active).position(matches)?;
    Some(place as u32)
}

fn matches(m: &Match, around: &Surroundings, flow: &Facts, names: &[&str]) -> bool {
    let ip = IpAddr::from;
    let ports = has_ports(flow.proto);
    let iif = |name: &String| {
        let index = if name == "lo" {
            Some(&1)
        } else {
            around.ifindex.get(name)
        };
        index == Some(&flow.iif)
    };
    let cgroup = |path: &String| {
        let id = around.cgroups.get(path);
        id.is_some_and(|id| flow.cgroups.contains(id))
    };
    satisfied(&m.src, |net| flow.src.is_some_and(|a| net.contains(&ip(a))))
        && satisfied(&m.dst, |net| net.contains(&ip(flow.dst)))
        && satisfied(&m.sport, |r| ports && r.contains(&flow.sport))
        && satisfied(&m.dport, |r| ports && r.contains(&flow.dport))
        && satisfied(&m.proto, |p| *p == flow.proto)
        && satisfied(&m.dscp, |d| Some(*d) == flow.dscp)
        && satisfied(&m.iif, iif)
        && satisfied(&m.mac, |mac| Some(*mac) == flow.mac)
        && satisfied(&m.uid, |r| flow.uid.is_some_and(|uid| r.contains(&uid)))
        && satisfied(&m.cgroup, cgroup)
        && (m.domain.is_empty() || m.domain.iter().any(|d| names.iter().any(|n| means(d, n))))
}

fn satisfied<T>(field: &Field<T>, is: impl Fn(&T) -> bool) -> bool {
    field.any.as_ref().is_none_or(|any| any.iter().any(&is)) && !field.not.iter().any(&is)
}

fn means(domain: &Domain, name: &str) -> bool {
    name == domain.name || domain.below && name.ends_with(&format!(".{}", domain.name))
}
