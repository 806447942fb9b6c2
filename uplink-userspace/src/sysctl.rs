//! The sysctls that forwarding between several uplinks needs, and the way back.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uplink_common::Family;

use crate::aggregate;
use crate::plan::Sysctl;
use crate::resolve::Uplink;

const ROOT: &str = "/proc/sys";
const ACCEPT_LOCAL: &str = "/accept_local";
/// Any number but 0 means yes. This one nobody else writes, so that it tells who did.
const OURS: &str = "2";
const V4_FORWARD: &str = "net/ipv4/ip_forward";
const V6_FORWARD: &str = "net/ipv6/conf/all/forwarding";
/// Conntrack takes TCP segments beyond the window that it knows. In next-hop mode it does not see every one.
pub const LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
/// 1: conntrack tells the end of every connection; 2: of those that began while somebody listened.
pub const EVENTS: &str = "net/netfilter/nf_conntrack_events";
/// What the kernel changes by itself when forwarding is switched, below `conf/*`.
const V4_SIDE_EFFECTS: [&str; 3] = ["forwarding", "accept_redirects", "send_redirects"];
const V6_SIDE_EFFECTS: [&str; 3] = ["forwarding", "accept_ra", "accept_redirects"];

/// How things were before we came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved(pub Vec<Entry>);

/// One sysctl and the value it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path below `/proc/sys`.
    pub path: String,
    /// Its value.
    pub value: String,
}

/// A sysctl that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path below `/proc/sys`.
    pub path: String,
    /// The value before.
    pub from: String,
    /// The value now.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} (was {})", self.path, self.to, self.from)
    }
}

impl Saved {
    /// What [`guards`] asked for.
    #[must_use]
    pub fn guards(&self) -> Self {
        let guards = self.0.iter().filter(|e| e.path.ends_with(ACCEPT_LOCAL));
        Self(guards.cloned().collect())
    }

    /// Takes `value` for that of a sysctl which is not there yet.
    pub fn assume(&mut self, path: &str, value: &str) {
        if self.0.iter().all(|e| e.path != path) {
            let (path, value) = (path.to_owned(), value.to_owned());
            self.0.push(Entry { path, value });
        }
    }

    /// Takes the values of `earlier` where it has them: they were read before anything changed.
    pub fn prefer(&mut self, earlier: Self) {
        self.0.retain(|e| earlier.0.iter().all(|o| o.path != e.path));
        self.0.extend(earlier.0);
    }
}

/// The present value of a sysctl, `None` if there is no such sysctl here.
#[must_use]
pub fn read(path: &str) -> Option<String> {
    value(path).ok()
}

/// What to put back later: the present value of everything in `wanted`, and of everything
/// that changes by itself when `wanted` switches forwarding on.
pub fn snapshot(wanted: &[Sysctl]) -> io::Result<Saved> {
    let mut paths: BTreeSet<String> = wanted.iter().map(|s| s.path.clone()).collect();
    for (family, prefix) in [(Family::V4, "net/ipv4/"), (Family::V6, "net/ipv6/")] {
        if wanted.iter().any(|s| s.path.starts_with(prefix)) {
            paths.extend(side_effects(family)?);
        }
    }
    let mut saved = Vec::new();
    for path in paths {
        match value(&path) {
            Ok(value) => saved.push(Entry { path, value }),
            // The interface went meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Saved(saved))
}

/// Writes what differs, in this order, and says what that was.
pub fn apply(wanted: &[Sysctl]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for Sysctl { path, value: to } in wanted {
        let from = value(path).with_context(|| format!("reading sysctl {path}"))?;
        if from != *to {
            write(path, to).with_context(|| {
                format!(
                    "setting sysctl {path} to {to} (it is {from}): if /proc/sys is read-only here, \
                     set it from a file in /etc/sysctl.d"
                )
            })?;
            changes.push(Change {
                path: path.clone(),
                from,
                to: to.clone(),
            });
        }
    }
    Ok(changes)
}

/// Puts everything back: first what changes others by itself, then what still differs. What
/// belongs to an interface that has gone is left out. Tries all, reports the first failure.
pub fn restore(saved: &Saved) -> Result<Vec<Change>> {
    let mut entries: Vec<&Entry> = saved.0.iter().collect();
    entries.sort_by_key(|entry| influence(&entry.path));
    let (mut changes, mut failure) = (Vec::new(), None);
    for Entry { path, value: to } in entries {
        let Ok(from) = value(path) else { continue };
        if from == *to {
            continue;
        }
        let (path, to) = (path.clone(), to.clone());
        match write(&path, &to) {
            Ok(()) => changes.push(Change { path, from, to }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("setting sysctl {path} back to {to} (it is {from})");
                failure.get_or_insert(anyhow::Error::new(error).context(what));
            }
        }
    }
    failure.map_or(Ok(changes), Err)
}

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

/// Where there are rules, the kernel looks up the way back to the source of every packet, to find that it is not one of
/// this host's addresses (`fib_validate_source` in net/ipv4/fib_frontend.c). Told to accept such, it need not look, and
/// our programs do, for next to nothing.
///
/// Nothing where somebody else accepts such packets on purpose, and not where a reverse path filter looks anyway.
#[must_use]
pub fn guards(uplinks: &[Uplink], lan: &[String], read: impl Fn(&str) -> Option<String>) -> Vec<Sysctl> {
    let path = |interface: &str, name: &str| format!("net/ipv4/conf/{interface}{name}");
    let is = |interface: &str, name: &str| read(&path(interface, name)).unwrap_or_default();
    let outside = uplink_interfaces(uplinks, Family::V4);
    if outside.is_empty() || is("all", ACCEPT_LOCAL) != "0" || is("all", "/rp_filter") != "0" {
        return Vec::new();
    }
    let unfiltered = |interface: &&str| is(interface, "/rp_filter") == "0";
    let ours: Vec<&str> = every_interface(&outside, lan)
        .into_iter()
        .filter(unfiltered)
        .collect();
    if ours
        .iter()
        .any(|interface| !matches!(&*is(interface, ACCEPT_LOCAL), "0" | OURS))
    {
        return Vec::new();
    }
    let want = |interface: &&str| Sysctl {
        path: path(interface, ACCEPT_LOCAL),
        value: OURS.to_owned(),
    };
    ours.iter().map(want).collect()
}

/// Whether it is one of [`guards`].
#[must_use]
pub fn is_guard(sysctl: &Sysctl) -> bool {
    sysctl.path.ends_with(ACCEPT_LOCAL) && sysctl.value == OURS
}

/// [`guards`], which are for when the programs look, and all others.
#[must_use]
pub fn apart(sysctls: Vec<Sysctl>) -> (Vec<Sysctl>, Vec<Sysctl>) {
    sysctls.into_iter().partition(is_guard)
}

/// Puts back the [`guards`] that are not `wanted` any longer, while our programs still look.
pub fn release(saved: &Saved, wanted: &[Sysctl]) -> Result<Vec<Change>> {
    let mut gone = saved.guards();
    let ours = |e: &Entry| read(&e.path).as_deref() == Some(OURS);
    gone.0
        .retain(|e| ours(e) && wanted.iter().all(|s| s.path != e.path));
    restore(&gone)
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

fn uplink_interfaces(uplinks: &[Uplink], family: Family) -> BTreeSet<&str> {
    let with_leg = uplinks.iter().filter(|u| u.leg(family).is_some());
    with_leg.map(|u| u.interface.as_str()).collect()
}

fn every_interface<'a>(outside: &BTreeSet<&'a str>, lan: &'a [String]) -> BTreeSet<&'a str> {
    let lan = lan.iter().map(String::as_str);
    outside.iter().copied().chain(lan).collect()
}

/// Zero for what changes everything else when written, one for what changes interfaces that
/// nobody configured, two for the rest.
fn influence(path: &str) -> u8 {
    match path {
        V4_FORWARD | V6_FORWARD => 0,
        _ if path.contains("/conf/default/") => 1,
        _ => 2,
    }
}

fn side_effects(family: Family) -> io::Result<Vec<String>> {
    let (conf, names) = match family {
        Family::V4 => ("net/ipv4/conf", V4_SIDE_EFFECTS),
        Family::V6 => ("net/ipv6/conf", V6_SIDE_EFFECTS),
    };
    let mut paths = vec![
        if family == Family::V4 {
            V4_FORWARD
        } else {
            V6_FORWARD
        }
        .to_owned(),
    ];
    for entry in std::fs::read_dir(full(conf))? {
        let interface = entry?.file_name();
        let interface = interface.to_string_lossy();
        paths.extend(names.iter().map(|name| format!("{conf}/{interface}/{name}")));
    }
    Ok(paths)
}

fn full(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn value(path: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(full(path))?.trim_end().to_owned())
}

fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(full(path), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Leg;

    fn leg(gateway: &str, source: &str) -> Leg {
        Leg {
            gateway: gateway.parse().unwrap(),
            source: source.parse().unwrap(),
            prefix: format!("{gateway}/24").parse().unwrap(),
        }
    }

    fn uplink(id: u8, interface: &str, six: bool) -> Uplink {
        Uplink {
            id,
            name: format!("isp{id}"),
            interface: interface.to_owned(),
            ifindex: id.into(),
            v4: Some(leg("10.0.0.1", "10.0.0.2")),
            v6: six.then(|| leg("fe80::1", "2001:db8::2")),
            weight: 1,
            tier: 0,
            mtu: None,
            table: 20000,
            mark: 0x100_0000,
            host_mark: 0,
            translation: None,
        }
    }

    fn paths(wanted: &[Sysctl]) -> Vec<String> {
        wanted.iter().map(|s| format!("{}={}", s.path, s.value)).collect()
    }

    fn has(wanted: &[Sysctl], text: &str) -> bool {
        paths(wanted).iter().any(|p| p.contains(text))
    }

    #[test]
    fn one_interface_needs_no_loose_filter_and_no_v6() {
        let up = [uplink(1, "eth0", false), uplink(2, "eth0", false)];
        let wanted = desired(&up, &["lan0".into()], |_| Some("1".into()));
        let expected = [
            "net/ipv4/ip_forward=1",
            "net/ipv4/conf/all/accept_redirects=0",
            "net/ipv4/conf/all/send_redirects=0",
            "net/ipv4/conf/eth0/send_redirects=0",
            "net/ipv4/conf/lan0/send_redirects=0",
            "net/ipv4/conf/eth0/arp_announce=2",
            "net/ipv4/conf/eth0/arp_ignore=1",
            "net/ipv4/fib_multipath_hash_policy=1",
            "net/ipv4/tcp_fwmark_accept=1",
            "net/ipv4/fwmark_reflect=1",
        ];
        assert_eq!(paths(&wanted), expected);
    }

    #[test]
    fn several_interfaces_turn_a_strict_filter_loose_and_leave_others_alone() {
        let up = [uplink(1, "eth0", false), uplink(2, "eth1", false)];
        let strict = |path: &str| {
            Some(
                if path.ends_with("eth0/rp_filter") {
                    "1"
                } else {
                    "0"
                }
                .into(),
            )
        };
        let wanted = desired(&up, &[], strict);
        assert!(has(&wanted, "eth0/rp_filter=2"));
        assert!(!has(&wanted, "eth1/rp_filter"));
        let by_all = |path: &str| Some(if path.contains("all/rp_filter") { "1" } else { "0" }.into());
        assert!(has(&desired(&up, &[], by_all), "eth1/rp_filter=2"));
        let loose_already = |path: &str| Some(if path.contains("all/rp_filter") { "2" } else { "1" }.into());
        assert!(!has(&desired(&up, &[], loose_already), "rp_filter"));
    }

    #[test]
    fn the_aggregate_interface_takes_our_own_packets_and_loosens_strict_filters() {
        let one = [uplink(1, "eth0", false)];
        let filters = |value: &'static str| {
            move |path: &str| Some(if path.ends_with("rp_filter") { value } else { "0" }.to_owned())
        };
        let pair = [
            "net/ipv4/conf/mpath0-in/forwarding=1",
            "net/ipv4/conf/mpath0-in/accept_local=1",
            "net/ipv4/conf/mpath0-in/rp_filter=2",
        ];
        assert_eq!(paths(&of_aggregate(&one, "mpath0", filters("0"))), pair);
        let strict = paths(&of_aggregate(&one, "mpath0", filters("1")));
        assert_eq!(strict[3..], ["net/ipv4/conf/eth0/rp_filter=2"]);
        let six = of_aggregate(&[uplink(1, "eth0", true)], "mpath0", filters("0"));
        assert!(has(&six, "net/ipv6/conf/mpath0/disable_ipv6=0") && has(&six, "mpath0-in/disable_ipv6=0"));
        assert_eq!(of_aggregate(&one, "mpath0", |_| None), []);
    }

    #[test]
    fn advertisements_are_kept_before_forwarding_is_on() {
        let up = [uplink(1, "eth0", true)];
        let read = |path: &str| Some(if path.contains("lan0/accept_ra") { "0" } else { "1" }.into());
        let wanted = paths(&desired(&up, &["lan0".into()], read));
        let place = |text: &str| wanted.iter().position(|p| p.contains(text));
        assert!(place("eth0/accept_ra=2").unwrap() < place("ipv6/conf/all/forwarding=1").unwrap());
        assert_eq!(place("lan0/accept_ra"), None);
    }

    #[test]
    fn what_does_not_exist_is_not_wanted() {
        assert_eq!(desired(&[uplink(1, "eth0", true)], &[], |_| None), []);
    }

    #[test]
    fn the_plan_is_the_same_once_it_is_applied() {
        let up = [uplink(1, "eth0", true), uplink(2, "eth1", true)];
        let before = desired(&up, &[], |_| Some("1".into()));
        let after = desired(&up, &[], |path| {
            let set = before.iter().find(|s| s.path == path);
            Some(set.map_or("1", |s| &s.value).to_owned())
        });
        assert_eq!(before, after);
    }
}
