//! Random policies over small universes, so that everything meets everything.

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::classify::Facts;
use super::super::tables::Model;
use super::{compiled, domain, policy, reference, surroundings, verdict};
use crate::config::{Domain, Field, Match, Policy};

const NETS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "192.168.0.0/16",
    "::/0",
    "::/64",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::5/128",
    "8000::/1",
];
const ADDRESSES: [&str; 10] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.3.1",
    "10.2.0.1",
    "192.168.7.7",
    "8.8.8.8",
    "2001:db8:1::5",
    "2001:db8:1::6",
    "2001:db8:2::1",
    "fd00::1",
];
const NAMES: [&str; 5] = ["a.org", "x.a.org", "y.x.a.org", "xa.org", "org"];
const CGROUPS: [&str; 6] = ["/", "a", "a/b", "a/b/c", "d", "missing"];
const IIFS: [&str; 4] = ["lo", "eth0", "eth1", "missing"];

fn field<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Field<T>> {
    let lists = (
        weighted(0.5, vec(value.clone(), 0..4)),
        prop_oneof![3 => Just(Vec::new()), 1 => vec(value, 1..3)],
    );
    let asked = lists.prop_map(|(any, not)| Field { any, not });
    prop_oneof![3 => Just(Field::default()), 1 => asked]
}

fn range<T>(values: &'static [T]) -> impl Strategy<Value = std::ops::RangeInclusive<T>> + Clone
where
    T: Copy + Ord + std::fmt::Debug,
{
    (select(values), select(values)).prop_map(|(a, b)| a.min(b)..=a.max(b))
}

fn net() -> impl Strategy<Value = IpNet> + Clone {
    select(&NETS[..]).prop_map(|n| n.parse().unwrap())
}

fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(of).prop_map(str::to_owned)
}

fn domains() -> impl Strategy<Value = Vec<Domain>> {
    let one = (select(&NAMES[..]), any::<bool>()).prop_map(|(name, below)| domain(name, below));
    prop_oneof![3 => Just(Vec::new()), 1 => vec(one, 1..3)]
}

const PORTS: [u16; 6] = [0, 1, 79, 80, 81, u16::MAX];
const UIDS: [u32; 6] = [0, 1, 999, 1000, 1001, u32::MAX];

fn mac() -> impl Strategy<Value = [u8; 6]> + Clone {
    (1u8..4).prop_map(|n| [2, 0, 0, 0, 0, n])
}

fn matches() -> impl Strategy<Value = Match> {
    let addresses = (field(net()), field(net()));
    let numbers = (
        field(range(&PORTS)),
        field(range(&PORTS)),
        field(select(&[1u8, 6, 17][..])),
        field(0u8..3),
    );
    let whole = (field(text(&IIFS)), field(mac()));
    let own = (field(range(&UIDS)), field(text(&CGROUPS)));
    (addresses, numbers, whole, own, domains()).prop_map(|(a, n, w, o, domain)| Match {
        src: a.0,
        dst: a.1,
        sport: n.0,
        dport: n.1,
        proto: n.2,
        dscp: n.3,
        iif: w.0,
        mac: w.1,
        uid: o.0,
        cgroup: o.1,
        domain,
    })
}

fn cgroups() -> impl Strategy<Value = Vec<u64>> {
    let lineages: [&[u64]; 6] = [
        &[12, 11, 10, 1],
        &[99, 11, 10, 1],
        &[98, 10, 1],
        &[13, 1],
        &[97, 1],
        &[],
    ];
    select(lineages.map(<[u64]>::to_vec).to_vec())
}

fn flow() -> impl Strategy<Value = Facts> {
    let address = || select(&ADDRESSES[..]).prop_map(super::addr);
    let numbers = (
        select(&PORTS[..]),
        select(&PORTS[..]),
        select(&[1u8, 6, 17, 47][..]),
        of(0u8..4),
    );
    let own = (of(select(&UIDS[..])), cgroups());
    (of(address()), address(), numbers, 1u32..5, of(mac()), own).prop_map(|(src, dst, n, iif, mac, own)| {
        Facts {
            src,
            dst,
            sport: n.0,
            dport: n.1,
            proto: n.2,
            dscp: n.3,
            iif,
            mac,
            uid: own.0,
            cgroups: own.1,
            now_s: 100,
        }
    })
}

/// The names of a destination, and whether they are still known at 100 s.
fn known() -> impl Strategy<Value = (Vec<&'static str>, bool)> {
    (subsequence(NAMES.to_vec(), 0..3), prop::bool::weighted(0.8))
}

fn policies() -> impl Strategy<Value = Vec<(Policy, bool)>> {
    let one = (matches(), prop::bool::weighted(0.9)).prop_map(|(m, active)| (policy("p", m), active));
    vec(one, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_tables_mean_what_the_configuration_says(
        policies in policies(),
        flows in vec((flow(), known()), 20),
    ) {
        let (policies, active): (Vec<Policy>, Vec<bool>) = policies.into_iter().unzip();
        let compiled = compiled(&policies, &active);
        for (flow, (names, fresh)) in flows {
            let mut tables = Model::new(compiled.clone());
            let expires_s = if fresh { flow.now_s + 1 } else { flow.now_s };
            tables.learn(flow.dst, names.iter().copied(), expires_s).unwrap();
            let names = if fresh { &names[..] } else { &[] };
            let expected = reference::first(&policies, &active, &surroundings(), &flow, names);
            prop_assert_eq!(verdict(&tables, &flow).place, expected, "{:?} {:?}", flow, names);
        }
    }
}
