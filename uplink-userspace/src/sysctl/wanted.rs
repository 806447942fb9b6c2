//! What forwarding between several uplinks needs.

use std::collections::BTreeSet;

use uplink_common::Family;

use super::{V4_FORWARD, V6_FORWARD};
use crate::aggregate;
use crate::plan::Sysctl;
use crate::resolve::Uplink;

/// Conntrack takes TCP segments beyond the window that it knows. In next-hop mode it does not see every one.
pub const LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
/// 1: conntrack tells the end of every connection; 2: of those that began while somebody listened.
pub const EVENTS: &str = "net/netfilter/nf_conntrack_events";

/// The sysctls that `uplinks` need, in the order to set them. `read` is how things are: only
/// what exists is wanted, and some only where the present value does harm.
#[must_use]
pub fn desired(uplinks: &[Uplink], lan: &[String], read: impl Fn(&str) -> Option<String>) -> Vec<Sysctl> {
    let mut wanted = Vec::new();
    if uplinks.iter().any(|u| u.v4.is_some()) {
        desired_v4(uplinks, lan, &read, &mut wanted);
    }
    if uplinks.iter().any(|u| u.v6.is_some()) {
        desired_v6(uplinks, lan, &read, &mut wanted);
    }
    let mut seen = BTreeSet::new();
    wanted.retain(|s| read(&s.path).is_some() && seen.insert(s.path.clone()));
    wanted
}

type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

fn desired_v4(uplinks: &[Uplink], lan: &[String], read: Read<'_>, wanted: &mut Vec<Sysctl>) {
    let mut want = |path: String, value: &str| {
        let value = value.to_owned();
        wanted.push(Sysctl { path, value });
    };
    let conf = |interface: &str, name: &str| format!("net/ipv4/conf/{interface}/{name}");
    let outside = uplink_interfaces(uplinks, Family::V4);
    want(V4_FORWARD.to_owned(), "1");
    // Switching forwarding sets this one too, so it comes afterwards.
    want(conf("all", "accept_redirects"), "0");
    // The kernel sends redirects if either says so: on one NIC they would tell clients to
    // talk to a gateway past us.
    want(conf("all", "send_redirects"), "0");
    for interface in every_interface(&outside, lan) {
        want(conf(interface, "send_redirects"), "0");
    }
    for interface in &outside {
        // With several subnets on one NIC each gateway must see the address it knows.
        want(conf(interface, "arp_announce"), "2");
        want(conf(interface, "arp_ignore"), "1");
        // A strict filter compares devices: it drops what comes in by another uplink's.
        if outside.len() > 1 && filters(interface, read) {
            want(conf(interface, "rp_filter"), "2");
        }
    }
    want("net/ipv4/fib_multipath_hash_policy".to_owned(), "1");
    // The reply to what came in marked carries the same mark: of a server's connection, and what
    // the kernel itself answers (resets, echo replies).
    want("net/ipv4/tcp_fwmark_accept".to_owned(), "1");
    want("net/ipv4/fwmark_reflect".to_owned(), "1");
}

/// Whether an interface has a strict reverse path filter, or has a loose one of its own already.
fn filters(interface: &str, read: Read<'_>) -> bool {
    let number = |of: &str| {
        let value = read(&format!("net/ipv4/conf/{of}/rp_filter"));
        value.and_then(|v| v.parse().ok()).unwrap_or(0u8)
    };
    let own = number(interface);
    own == 2 || own.max(number("all")) == 1
}

/// What the aggregate interface needs beside [`desired`]. What is set for its two ends goes with
/// them.
#[must_use]
pub fn of_aggregate(uplinks: &[Uplink], outer: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Sysctl> {
    let inner = aggregate::inner(outer);
    let mut wanted = Vec::new();
    let mut want = |path: String, value: &str| {
        let value = value.to_owned();
        wanted.push(Sysctl { path, value });
    };
    for (name, value) in [("forwarding", "1"), ("accept_local", "1"), ("rp_filter", "2")] {
        want(format!("net/ipv4/conf/{inner}/{name}"), value);
    }
    // A strict filter asks for the way back, which may lead into the aggregate interface.
    for interface in uplink_interfaces(uplinks, Family::V4) {
        if filters(interface, &read) {
            want(format!("net/ipv4/conf/{interface}/rp_filter"), "2");
        }
    }
    if uplinks.iter().any(|u| u.v6.is_some()) {
        for end in [outer, &inner] {
            want(format!("net/ipv6/conf/{end}/disable_ipv6"), "0");
        }
        want(format!("net/ipv6/conf/{inner}/forwarding"), "1");
    }
    wanted.retain(|s| read(&s.path).is_some());
    wanted
}

fn desired_v6(uplinks: &[Uplink], lan: &[String], read: Read<'_>, wanted: &mut Vec<Sysctl>) {
    let mut want = |path: String, value: &str| {
        let value = value.to_owned();
        wanted.push(Sysctl { path, value });
    };
    for interface in every_interface(&uplink_interfaces(uplinks, Family::V6), lan) {
        let path = format!("net/ipv6/conf/{interface}/accept_ra");
        // With 1, switching forwarding on throws away the routes that came by advertisement.
        if matches!(read(&path).as_deref(), Some("1" | "2")) {
            want(path, "2");
        }
    }
    want(V6_FORWARD.to_owned(), "1");
    want("net/ipv6/fib_multipath_hash_policy".to_owned(), "1");
    // `tcp_fwmark_accept` of IPv4 counts for both.
    want("net/ipv4/tcp_fwmark_accept".to_owned(), "1");
    want("net/ipv6/fwmark_reflect".to_owned(), "1");
}

pub(super) fn uplink_interfaces(uplinks: &[Uplink], family: Family) -> BTreeSet<&str> {
    let with_leg = uplinks.iter().filter(|u| u.leg(family).is_some());
    with_leg.map(|u| u.interface.as_str()).collect()
}

pub(super) fn every_interface<'a>(outside: &BTreeSet<&'a str>, lan: &'a [String]) -> BTreeSet<&'a str> {
    let lan = lan.iter().map(String::as_str);
    outside.iter().copied().chain(lan).collect()
}
