use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;

use super::*;
use crate::config::{self, At, Choice, Domain, Field, Match, Prefer, Schedule};
use crate::policy::schedule::in_force;

const UPLINKS: &str = "[[uplink]]\nname = \"isp1\"\ninterface = \"e\"\ngateway = \"10.0.0.1\"\n\
                       [[uplink]]\nname = \"isp2\"\ninterface = \"e\"\ngateway = \"10.0.0.2\"\n";

/// What is said of two policies, "a" in line 9 and "b" in line 11, by their keys.
fn said(a: &str, b: &str) -> Option<(Kind, String)> {
    let policies = read(&[("a", a), ("b", b)]);
    let mut lints = lint(&policies);
    assert!(lints.len() <= 1, "{a} / {b}: {lints:?}");
    lints.pop().map(|lint| (lint.kind, lint.text))
}

fn read(policies: &[(&str, &str)]) -> Vec<Policy> {
    let one = |(name, keys): &(&str, &str)| {
        let keys = if keys.is_empty() {
            String::new()
        } else {
            format!(", {keys}")
        };
        format!("  {{ name = \"{name}\"{keys} }},\n")
    };
    let policies: String = policies.iter().map(one).collect();
    let text = format!("policy = [\n{policies}]\n{UPLINKS}");
    let config = config::parse("u.toml".as_ref(), text);
    config.unwrap_or_else(|e| panic!("{e}")).policies
}

#[rustfmt::skip] // One row, one line.
const SHADOWED: &[(&str, &str)] = &[
    ("", ""),
    ("", "match.dport = 443"),
    ("match.dport = '1-100'", "match.dport = [22, '80-100']"),
    ("match.dport = ['1-50', '51-100']", "match.dport = '40-60'"),
    ("match.dst = '10.0.0.0/8'", "match.dst = ['10.1.0.0/16', '10.2.3.4']"),
    ("match.dst = ['10.0.0.0/9', '10.128.0.0/9']", "match.dst = '10.0.0.0/8'"),
    ("match.dst = '2001:db8::/32'", "match = { dst = '2001:db8::1', proto = 'tcp' }"),
    ("match.not.dst = '10.0.0.0/8'", "match.dst = '192.0.2.0/24'"),
    ("match.not.dst = '10.0.0.0/9'", "match.not.dst = '10.0.0.0/8'"),
    ("match = { src = '10.0.0.0/8', not = { src = '10.1.0.0/16' } }", "match.src = '10.2.0.0/16'"),
    ("match.proto = ['tcp', 'udp']", "match.proto = 17"),
    ("match.dscp = [46, 0]", "match.dscp = 'ef'"),
    ("match.iif = ['eth0', 'eth1']", "match.iif = 'eth1'"),
    ("match.mac = ['02:00:00:00:00:01', '02:00:00:00:00:02']", "match.mac = '02:00:00:00:00:02'"),
    ("match.uid = '0-999'", "match.uid = [0, 500]"),
    ("match.cgroup = '/a'", "match.cgroup = '/a/b/c'"),
    ("match.cgroup = '/'", "match.cgroup = '/a'"),
    ("match.domain = '*.example.org'", "match.domain = ['example.org', 'www.example.org', '*.a.example.org']"),
    ("match.domain = ['a.org', 'b.org']", "match = { domain = 'b.org', dport = 443 }"),
    ("", "when.days = 'mon'"),
    ("when = { days = 'mon-fri', zone = 'UTC' }", "when = { days = 'tue', hours = '08:00-18:00', zone = 'UTC' }"),
    ("when = { days = 'sun-mon', zone = 'UTC' }", "when = { days = 'sun', hours = '22:00-06:00', zone = 'UTC' }"),
];

#[rustfmt::skip] // One row, one line.
const NOT_SHADOWED: &[(&str, &str)] = &[
    ("match.dport = 443", ""),
    ("match.dport = '1-100'", "match.dport = '100-101'"),
    ("match.dport = '0-65535'", "match.not.dport = 443"),
    ("match.src = ['0.0.0.0/0', '::/0']", ""),
    ("match.dst = '10.0.0.0/9'", "match.dst = '10.0.0.0/8'"),
    ("match.dst = '0.0.0.0/0'", "match.dst = '2001:db8::/32'"),
    ("match.not.dst = '10.0.0.0/8'", "match.dst = '10.1.0.0/16'"),
    ("match.not.dst = '10.0.0.0/8'", "match.not.dst = '10.0.0.0/9'"),
    ("match = { src = '10.0.0.0/8', not = { src = '10.1.0.0/16' } }", "match.src = '10.1.2.0/24'"),
    ("match.proto = 'tcp'", "match.proto = 'udp'"),
    ("match.cgroup = '/a/b'", "match.cgroup = '/a'"),
    ("match.cgroup = '/a'", "match.cgroup = '/ab'"),
    ("match.domain = 'example.org'", "match.domain = '*.example.org'"),
    ("match.domain = '*.example.org'", "match.domain = 'anexample.org'"),
    ("match.domain = 'example.org'", ""),
    ("when.days = 'mon'", ""),
    ("when = { days = 'mon-fri', zone = 'UTC' }", "when = { days = 'tue', zone = 'Europe/Berlin' }"),
    ("when = { days = 'sun', zone = 'UTC' }", "when = { days = 'sun', hours = '22:00-06:00', zone = 'UTC' }"),
];

#[test]
fn what_an_earlier_policy_takes_whole_is_shadowed() {
    for (a, b) in SHADOWED {
        let text = "policy \"b\" (line 3) never matches: \"a\" (line 2) takes all of it";
        assert_eq!(said(a, b), Some((Kind::Shadowed, text.into())), "{a} / {b}");
    }
    for (a, b) in NOT_SHADOWED {
        assert_eq!(said(a, b), None, "{a} / {b}");
    }
}

#[test]
fn equal_matches_with_another_choice_contradict() {
    for (a, b) in [
        ("", ""),
        ("match.dport = '1-10'", "match.dport = ['1-5', '6-10']"),
        (
            "match.dst = ['10.0.0.0/9', '10.128.0.0/9']",
            "match.dst = '10.0.0.0/8'",
        ),
        (
            "match.src = '10.0.0.0/8'",
            "match.src = '10.0.0.0/8', when.days = 'mon'",
        ),
    ] {
        let comma = |keys: &str, rest: &str| match keys {
            "" => rest.to_owned(),
            keys => format!("{keys}, {rest}"),
        };
        let text =
            "policy \"b\" (line 3) never matches: \"a\" (line 2) matches the same and chooses otherwise";
        let found = said(&comma(a, "use = 'isp1'"), &comma(b, "use = 'isp2'"));
        assert_eq!(found, Some((Kind::Contradiction, text.into())), "{a} / {b}");
        let found = said(&comma(a, "strict = true"), b);
        assert_eq!(found.map(|f| f.0), Some(Kind::Contradiction), "{a} / {b}");
    }
    // By day so, by night so.
    let day = "when = { hours = '08:00-18:00', zone = 'UTC' }, use = 'isp1'";
    let night = "when = { hours = '18:00-08:00', zone = 'UTC' }, use = 'isp2'";
    assert_eq!(said(day, night), None);
}

#[test]
fn what_takes_away_all_that_it_asks_for_is_empty() {
    let text = "policy \"b\" (line 3) never matches: its `not` takes away all of dport";
    let found = said(
        "match.dst = '10.0.0.0/8'",
        "match = { dport = '10-20', not = { dport = '0-100' } }",
    );
    assert_eq!(found, Some((Kind::Empty, text.into())));
}

#[test]
fn partial_overlaps_are_told() {
    let dst = "match = { dst = ['10.0.0.0/8', '192.0.2.0/24'] }, use = 'isp1'";
    let text = "policies \"a\" (line 2) and \"b\" (line 3) overlap in dst: what both match goes to the first";
    let other = "match = { dst = ['192.0.2.0/24', '198.51.100.0/24'] }, use = 'isp2'";
    assert_eq!(said(dst, other), Some((Kind::Overlap, text.into())));
    for (a, b) in [
        // The same choice, or none of the same field.
        (
            dst,
            "match = { dst = ['192.0.2.0/24', '198.51.100.0/24'] }, use = 'isp1'",
        ),
        (dst, "match = { src = '10.0.0.0/8' }, use = 'isp2'"),
        // The general behind the special.
        (dst, "match = { dst = '0.0.0.0/0' }, use = 'isp2'"),
        (dst, "use = 'isp2'"),
        // They never meet.
        (
            "match = { dport = '1-10', proto = 'tcp' }, use = 'isp1'",
            "match = { dport = '5-15', proto = 'udp' }, use = 'isp2'",
        ),
    ] {
        assert_eq!(said(a, b), None, "{a} / {b}");
    }
    let policies = read(&[
        ("a", dst),
        ("b", dst),
        (
            "c",
            "match = { dst = ['192.0.2.0/23', '10.0.0.0/9'] }, use = 'isp1'",
        ),
        ("d", other),
    ]);
    let last = lint(&policies).pop().unwrap();
    assert_eq!((last.first, last.second), (0, 3));
    // The second never matches, so there is nothing to tell of it.
    assert!(
        last.text.ends_with("goes to the first; so with 1 more"),
        "{}",
        last.text
    );
}

#[test]
fn warnings_have_a_name_and_a_remedy() {
    let warnings = warnings(&read(&[("a", ""), ("b", "")]));
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].code, "policy-shadowed");
    assert!(!warnings[0].remedy.is_empty());
    assert!(super::warnings(&[]).is_empty());
}

#[test]
fn a_thousand_policies_with_a_hundred_thousand_prefixes_are_no_burden() {
    let prefix = |i: u32| {
        let address = std::net::Ipv4Addr::from(i.wrapping_mul(2_654_435_761) & 0xffff_ff00);
        IpNet::new_assert(address.into(), 24)
    };
    let policies: Vec<Policy> = (0..1000_u32)
        .map(|n| {
            let mut matches = Match::default();
            matches.dst.any = Some((n * 100..(n + 1) * 100).map(prefix).collect());
            policy(n, matches, Vec::new())
        })
        .collect();
    let begun = Instant::now();
    let lints = lint(&policies);
    let took = begun.elapsed();
    println!("{} lints in {took:?}", lints.len());
    assert!(took.as_secs() < 20, "{took:?}");
}

fn policy(n: u32, matches: Match, when: Vec<Schedule>) -> Policy {
    Policy {
        name: At {
            value: format!("p{n}"),
            span: 0..0,
        },
        line: n + 1,
        matches,
        when,
        choice: Choice {
            tiers: vec![vec![(format!("isp{}", n % 3), None)]],
            prefer: Prefer::Balance,
        },
        strict: false,
        sticky: None,
    }
}

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
