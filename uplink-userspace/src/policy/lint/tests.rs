mod model;

use std::time::Instant;

use ipnet::IpNet;

use super::*;
use crate::config::{self, At, Choice, Match, Prefer, Schedule};

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
    let warnings = warnings(&read(&[("a", ""), ("b", "")]), 10);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].code, "policy-shadowed");
    assert!(!warnings[0].remedy.is_empty());
    assert!(super::warnings(&[], 10).is_empty());
    let many: Vec<(String, &str)> = (0..20).map(|n| (format!("p{n}"), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, m)| (&**name, *m)).collect();
    let few = super::warnings(&read(&many), 10);
    assert_eq!(few.len(), 11);
    assert_eq!(
        few[10].text,
        "9 more such policies: `uplink check` names them all"
    );
    assert_eq!(super::warnings(&read(&many), usize::MAX).len(), 19);
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
