//! Random policies and flows against a matcher that looks at one value at a time.

use std::net::IpAddr;

use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;

use super::super::*;
use super::policy;
use crate::config::{Domain, Field, Match, Schedule};
use crate::policy::schedule::in_force;

/// A flow as a packet and a socket tell of it.
#[derive(Clone, Debug)]
struct Flow {
    src: Option<IpAddr>,
    dst: IpAddr,
    ports: Option<(u16, u16)>,
    proto: u8,
    dscp: u8,
    iif: String,
    mac: Option<[u8; 6]>,
    uid: Option<u32>,
    cgroup: Option<String>,
    names: Vec<String>,
    time: Timestamp,
}

/// Written from the documentation of [`Match`], one value at a time. What `not` says of an absent value is not told
/// there, so `absent` has it both ways.
fn matches(policy: &Policy, flow: &Flow, absent: bool) -> bool {
    fn one<T, V>(field: &Field<T>, value: Option<&V>, absent: bool, is: impl Fn(&T, &V) -> bool) -> bool {
        let Some(value) = value else {
            return field.is_free() || field.any.is_none() && absent;
        };
        let any = field
            .any
            .as_ref()
            .is_none_or(|any| any.iter().any(|t| is(t, value)));
        any && !field.not.iter().any(|t| is(t, value))
    }
    let m = &policy.matches;
    let below = |path: &String, of: &String| path == "/" || of == path || of.starts_with(&format!("{path}/"));
    let named = |domain: &Domain, name: &String| {
        *name == domain.name || domain.below && name.ends_with(&format!(".{}", domain.name))
    };
    in_force(policy, flow.time)
        && one(&m.src, flow.src.as_ref(), absent, |t, v| t.contains(v))
        && one(&m.dst, Some(&flow.dst), absent, |t, v| t.contains(v))
        && one(&m.sport, flow.ports.as_ref(), absent, |t, v| t.contains(&v.0))
        && one(&m.dport, flow.ports.as_ref(), absent, |t, v| t.contains(&v.1))
        && one(&m.proto, Some(&flow.proto), absent, |t, v| t == v)
        && one(&m.dscp, Some(&flow.dscp), absent, |t, v| t == v)
        && one(&m.iif, Some(&flow.iif), absent, |t, v| t == v)
        && one(&m.mac, flow.mac.as_ref(), absent, |t, v| t == v)
        && one(&m.uid, flow.uid.as_ref(), absent, |t, v| t.contains(v))
        && one(&m.cgroup, flow.cgroup.as_ref(), absent, |t, v| below(t, v))
        && (m.domain.is_empty()
            || flow
                .names
                .iter()
                .any(|name| m.domain.iter().any(|d| named(d, name))))
}

/// Few values, so that policies and flows meet.
const PREFIXES: [&str; 8] = [
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.128.0.0/9",
    "10.1.0.0/16",
    "10.1.2.3/32",
    "2001:db8::/32",
    "2001:db8::/33",
    "0.0.0.0/0",
];
const ADDRESSES: [&str; 6] = [
    "10.1.2.3",
    "10.1.9.9",
    "10.200.0.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:db8:ffff::1",
];
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/ab", "/a/b/c"];
const NAMES: [&str; 5] = ["org", "a.org", "b.a.org", "aa.org", "c.b.a.org"];
const ZONES: [&str; 2] = ["UTC", "Europe/Berlin"];

fn pick<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(values.to_vec())
}

fn any_field<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Field<T>> {
    let any = prop::option::weighted(0.3, prop::collection::vec(value.clone(), 1..4));
    let not = prop::option::weighted(0.2, prop::collection::vec(value, 1..3));
    (any, not).prop_map(|(any, not)| Field {
        any,
        not: not.unwrap_or_default(),
    })
}

fn any_match() -> impl Strategy<Value = Match> {
    let net = || pick(&PREFIXES).prop_map(|p| p.parse().unwrap()).boxed();
    let port = || (0..4_u16, 0..3_u16).prop_map(|(from, n)| from..=from + n).boxed();
    let uid = (0..4_u32, 0..3_u32).prop_map(|(from, n)| from..=from + n).boxed();
    let name = || pick(&["e0", "e1"]).prop_map(str::to_owned).boxed();
    let path = pick(&PATHS).prop_map(str::to_owned).boxed();
    let domain = (pick(&NAMES), any::<bool>()).prop_map(|(name, below)| Domain {
        name: name.into(),
        below,
    });
    let domains = prop::option::weighted(0.3, prop::collection::vec(domain, 1..3));
    let mac = (0..2_u8).prop_map(|n| [2, 0, 0, 0, 0, n]).boxed();
    let first = (
        any_field(net()),
        any_field(net()),
        any_field(port()),
        any_field(port()),
    );
    let then = (
        any_field(pick(&[1_u8, 6, 17]).boxed()),
        any_field(0..3_u8),
        any_field(name()),
    );
    let last = (any_field(mac), any_field(uid), any_field(path), domains);
    (first, then, last).prop_map(
        |((src, dst, sport, dport), (proto, dscp, iif), (mac, uid, cgroup, domain))| Match {
            src,
            dst,
            sport,
            dport,
            proto,
            dscp,
            iif,
            mac,
            uid,
            cgroup,
            domain: domain.unwrap_or_default(),
        },
    )
}

fn any_when() -> impl Strategy<Value = Vec<Schedule>> {
    let days = proptest::array::uniform7(any::<bool>());
    let hour = || (0..=24_u16).prop_map(|h| h * 60);
    let one = (days, hour(), hour(), pick(&ZONES)).prop_map(|(days, from, to, zone)| Schedule {
        days,
        hours: (from % 1440, to),
        zone: jiff::tz::TimeZone::get(zone).unwrap(),
    });
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3)]
}

/// Mostly fields of one kind, so that one policy often contains another.
fn any_policies() -> impl Strategy<Value = Vec<Policy>> {
    let kept = prop::collection::vec(any::<bool>(), 11);
    let one = (any_match(), kept, any_when()).prop_map(|(mut m, kept, when)| {
        let only = Match::default();
        let mut kept = kept.into_iter();
        let mut drop = || !kept.next().unwrap_or(true);
        if drop() {
            m.src = only.src
        }
        if drop() {
            m.sport = only.sport
        }
        if drop() {
            m.proto = only.proto
        }
        if drop() {
            m.dscp = only.dscp
        }
        if drop() {
            m.iif = only.iif
        }
        if drop() {
            m.mac = only.mac
        }
        if drop() {
            m.uid = only.uid
        }
        if drop() {
            m.cgroup = only.cgroup
        }
        (m, when)
    });
    prop::collection::vec(one, 2..7).prop_map(|list| {
        let numbered = list.into_iter().zip(0..);
        numbered.map(|((m, when), n)| policy(n, m, when)).collect()
    })
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let address = || pick(&ADDRESSES).prop_map(|a| a.parse::<IpAddr>().unwrap());
    let ports = prop::option::weighted(0.8, (0..6_u16, 0..6_u16));
    let mac = prop::option::of((0..3_u8).prop_map(|n| [2, 0, 0, 0, 0, n]));
    let cgroup = prop::option::of(pick(&["/", "/a", "/a/b", "/ab", "/a/b/c", "/x"]).prop_map(str::to_owned));
    let names = prop::collection::vec(pick(&["org", "a.org", "b.a.org", "aa.org", "x.aa.org"]), 0..3);
    let first = (
        prop::option::of(address()),
        address(),
        ports,
        pick(&[1, 6, 17, 50]),
        0..4_u8,
    );
    let last = (
        pick(&["e0", "e1", "e2"]),
        mac,
        prop::option::of(0..7_u32),
        cgroup,
        names,
        0..168_i64,
    );
    (first, last).prop_map(
        |((src, dst, ports, proto, dscp), (iif, mac, uid, cgroup, names, hour))| Flow {
            src,
            dst,
            ports,
            proto,
            dscp,
            iif: iif.into(),
            mac,
            uid,
            cgroup,
            names: names.into_iter().map(str::to_owned).collect(),
            time: "2026-03-23T00:30:00Z".parse::<Timestamp>().unwrap() + hour.hours(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_policy_that_never_matches_gets_no_flow(
        policies in any_policies(),
        flows in prop::collection::vec(any_flow(), 60),
        absent in any::<bool>(),
    ) {
        let never: Vec<Lint> = lint(&policies).into_iter().filter(|l| l.kind != Kind::Overlap).collect();
        for flow in &flows {
            let decides = policies.iter().position(|p| matches(p, flow, absent));
            for lint in &never {
                prop_assert_ne!(decides, Some(lint.second), "{:?}\n{:?}", lint, flow);
                if lint.kind == Kind::Contradiction {
                    let (a, b) = (&policies[lint.first], &policies[lint.second]);
                    let always = |p: &Policy| policy(0, p.matches.clone(), Vec::new());
                    prop_assert_eq!(matches(&always(a), flow, absent), matches(&always(b), flow, absent));
                }
            }
        }
    }
}
