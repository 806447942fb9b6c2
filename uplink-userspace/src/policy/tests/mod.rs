//! The tables against what the configuration says.

mod large;
mod numbers;
mod random;
mod reference;
mod sentences;

use std::net::IpAddr;

use uplink_common::Addr;

use super::classify::{Facts, Verdict, classify};
use super::compile::{Compiled, Surroundings, compile};
use super::tables::Model;
use crate::config::{At, Choice, Domain, Field, Match, Policy};

fn policy(name: &str, matches: Match) -> Policy {
    Policy {
        name: At {
            value: name.to_owned(),
            span: 0..0,
        },
        line: 1,
        matches,
        when: Vec::new(),
        choice: Choice::default(),
        strict: false,
        sticky: None,
    }
}

fn any<T>(values: impl IntoIterator<Item = T>) -> Field<T> {
    Field {
        any: Some(values.into_iter().collect()),
        not: Vec::new(),
    }
}

fn not<T>(values: impl IntoIterator<Item = T>) -> Field<T> {
    Field {
        any: None,
        not: values.into_iter().collect(),
    }
}

fn nets<const N: usize>(texts: [&str; N]) -> [ipnet::IpNet; N] {
    texts.map(|t| t.parse().unwrap())
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn domain(name: &str, below: bool) -> Domain {
    Domain {
        name: name.to_owned(),
        below,
    }
}

/// Interfaces eth0 (2) and eth1 (3); cgroups a (10), a/b (11), a/b/c (12), d (13) below the root (1).
fn surroundings() -> Surroundings {
    let ifindex = [("eth0", 2), ("eth1", 3)];
    let cgroups = [("/", 1), ("a", 10), ("a/b", 11), ("a/b/c", 12), ("d", 13)];
    Surroundings {
        ifindex: ifindex.map(|(n, i)| (n.to_owned(), i)).into(),
        cgroups: cgroups.map(|(n, i)| (n.to_owned(), i)).into(),
    }
}

fn compiled(policies: &[Policy], active: &[bool]) -> Compiled {
    let numbers: Vec<u32> = (1..).take(policies.len()).collect();
    compile(
        policies,
        &numbers,
        &crate::config::groups(policies),
        active,
        &surroundings(),
    )
    .unwrap()
}

fn tables(policies: &[Policy]) -> Model {
    Model::new(compiled(policies, &vec![true; policies.len()]))
}

fn verdict(tables: &Model, flow: &Facts) -> Verdict {
    classify(tables, flow).unwrap()
}

/// TCP from 192.168.0.9 to a web server, by eth0.
fn forwarded(dst: &str) -> Facts {
    Facts {
        src: Some(addr("192.168.0.9")),
        dst: addr(dst),
        sport: 40_000,
        dport: 443,
        proto: 6,
        dscp: Some(0),
        iif: 2,
        mac: Some([2, 0, 0, 0, 0, 9]),
        uid: None,
        cgroups: Vec::new(),
        now_s: 100,
    }
}

/// The same of a socket of this host.
fn own(dst: &str) -> Facts {
    Facts {
        src: None,
        dscp: None,
        iif: 1,
        mac: None,
        uid: Some(1000),
        cgroups: vec![12, 11, 10, 1],
        ..forwarded(dst)
    }
}

/// Which of some policies, each alone, match.
fn matching(policies: &[Policy], flow: &Facts) -> Vec<bool> {
    let alone = |p: &Policy| verdict(&tables(std::slice::from_ref(p)), flow).place.is_some();
    let alone: Vec<bool> = policies.iter().map(alone).collect();
    let first = alone.iter().position(|m| *m).map(|place| place as u32);
    assert_eq!(
        verdict(&tables(policies), flow).place,
        first,
        "together as alone: {flow:?}"
    );
    alone
}
