//! Each field of policies as regions. A flow without such a value (no ports, no socket of ours) is at a place
//! where only those are who do not ask for one.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::region::{Point, Region};
use crate::config::{Domain, Field, Match, Policy, Schedule};
use crate::policy::schedule;

/// A field for complaints.
#[derive(Clone, Copy)]
pub(super) struct About {
    /// Its key.
    pub name: &'static str,
    /// Whether it is about time rather than flows.
    pub is_time: bool,
    /// Whether partial overlaps in it are worth a word.
    pub is_told: bool,
}

const fn about(name: &'static str, is_told: bool) -> About {
    About {
        name,
        is_time: false,
        is_told,
    }
}

/// The fields, in the order of [`regions`].
pub(super) const FIELDS: [About; 12] = [
    about("src", true),
    about("dst", true),
    about("sport", true),
    about("dport", true),
    about("domain", true),
    about("proto", false),
    about("dscp", false),
    about("iif", false),
    about("mac", false),
    about("uid", false),
    about("cgroup", false),
    About {
        name: "when",
        is_time: true,
        is_told: false,
    },
];

/// What is not absent and has no other kind.
const VALUE: u8 = 1;

const WEEK: u128 = 7 * 24 * 60;

/// By field and policy.
pub(super) fn regions(policies: &[Policy]) -> [Vec<Region>; 12] {
    let iif = Names::of(policies, |m| both(&m.iif).map(|name| vec![&**name]));
    let cgroup = Names::of(policies, |m| both(&m.cgroup).map(|path| steps(path)));
    let domain = Names::of(policies, |m| m.domain.iter().map(labels));
    let zones = Zones::of(policies);
    let each = |region: &dyn Fn(&Match) -> Region| policies.iter().map(|p| region(&p.matches)).collect();
    [
        each(&|m| field(&m.src, prefix)),
        each(&|m| field(&m.dst, prefix)),
        each(&|m| field(&m.sport, numbers)),
        each(&|m| field(&m.dport, numbers)),
        each(&|m| domains(&domain, &m.domain)),
        each(&|m| field(&m.proto, |n| number(*n))),
        each(&|m| field(&m.dscp, |n| number(*n))),
        each(&|m| field(&m.iif, |name| iif.range(&[name], true))),
        each(&|m| field(&m.mac, mac)),
        each(&|m| field(&m.uid, numbers)),
        each(&|m| field(&m.cgroup, |path| cgroup.range(&steps(path), true))),
        policies.iter().map(|p| zones.region(&p.when)).collect(),
    ]
}

fn field<T>(field: &Field<T>, range: impl Fn(&T) -> (Point, Point)) -> Region {
    let any = field.any.as_ref().map_or_else(Region::everything, |any| {
        Region::of(any.iter().map(&range).collect())
    });
    match field.not.is_empty() {
        true => any,
        false => any.without(&Region::of(field.not.iter().map(&range).collect())),
    }
}

fn domains(names: &Names<'_>, domains: &[Domain]) -> Region {
    match domains.is_empty() {
        true => Region::everything(),
        false => Region::of(domains.iter().map(|d| names.range(&labels(d), d.below)).collect()),
    }
}

fn prefix(net: &IpNet) -> (Point, Point) {
    match net {
        IpNet::V4(net) => {
            let end = |address: std::net::Ipv4Addr| (4, address.to_bits().into());
            (end(net.network()), end(net.broadcast()))
        }
        IpNet::V6(net) => ((6, net.network().to_bits()), (6, net.broadcast().to_bits())),
    }
}

fn number(number: impl Into<u128>) -> (Point, Point) {
    let point = (VALUE, number.into());
    (point, point)
}

fn numbers<T: Copy + Into<u128>>(range: &RangeInclusive<T>) -> (Point, Point) {
    ((VALUE, (*range.start()).into()), (VALUE, (*range.end()).into()))
}

fn mac(mac: &[u8; 6]) -> (Point, Point) {
    number(uplink_common::policy::mac_value(*mac))
}

fn both<T>(field: &Field<T>) -> impl Iterator<Item = &T> {
    field.any.iter().flatten().chain(&field.not)
}

/// From the root, as the kernel would walk.
fn steps(path: &str) -> Vec<&str> {
    path.split('/')
        .filter(|step| !matches!(*step, "" | "."))
        .collect()
}

/// From the root.
fn labels(domain: &Domain) -> Vec<&str> {
    domain.name.split('.').rev().collect()
}

/// Names in trees, numbered so that all below one follow it: each has a point for itself and one for what is below it
/// and has no name here.
struct Names<'p>(Vec<Vec<&'p str>>);

impl<'p> Names<'p> {
    fn of<I: Iterator<Item = Vec<&'p str>>>(policies: &'p [Policy], names: impl Fn(&'p Match) -> I) -> Self {
        let mut names: Vec<_> = policies.iter().flat_map(|p| names(&p.matches)).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    fn range(&self, name: &[&str], below: bool) -> (Point, Point) {
        let at = self.0.partition_point(|other| **other < *name);
        let point = |place: usize| (VALUE, place as u128);
        if !below {
            return (point(2 * at), point(2 * at));
        }
        // What is nowhere in the tree is below its root only.
        if name.is_empty() {
            return ((VALUE, 0), (VALUE, u128::MAX));
        }
        let rest = self.0.get(at..).unwrap_or_default();
        let end = at + rest.partition_point(|other| other.starts_with(name));
        (point(2 * at), point((2 * end).saturating_sub(1)))
    }
}

/// Weeks of all clocks, one behind the other.
struct Zones<'p>(Vec<&'p jiff::tz::TimeZone>);

impl<'p> Zones<'p> {
    fn of(policies: &'p [Policy]) -> Self {
        let mut zones = Vec::new();
        for schedule in policies.iter().flat_map(|p| &p.when) {
            if !zones.contains(&&schedule.zone) {
                zones.push(&schedule.zone);
            }
        }
        Self(zones)
    }

    fn region(&self, when: &[Schedule]) -> Region {
        match when.is_empty() {
            true => Region::everything(),
            false => Region::of(when.iter().flat_map(|s| self.ranges(s)).collect()),
        }
    }

    fn ranges(&self, schedule: &Schedule) -> Vec<(Point, Point)> {
        let zone = self.0.iter().position(|zone| **zone == schedule.zone);
        let week = zone.unwrap_or(self.0.len()) as u128 * WEEK;
        let (from, to) = schedule::span(schedule);
        let days = schedule.days.iter().zip(0_u128..).filter(|(on, _)| **on);
        let part = |from: u128, to: u128| ((VALUE, week + from), (VALUE, week + to - 1));
        let parts = days.flat_map(|(_, day)| {
            let (from, to) = (day * 1440 + u128::from(from), day * 1440 + u128::from(to));
            match to.checked_sub(WEEK).filter(|over| *over > 0) {
                // Sunday's night is over on Monday.
                Some(over) if from < WEEK => vec![part(from, WEEK), part(0, over)],
                _ => vec![part(from, to)],
            }
        });
        parts.collect()
    }
}
