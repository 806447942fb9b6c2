//! Many policies, many prefixes, and too many.

use std::time::Instant;

use uplink_common::policy::{EXACTS, GROUPS, MAX_POLICIES, PREFIXES, SETS, Set};

use super::super::{Full, Limit, Sets};
use super::*;

/// A network of 32 bits by its number.
fn net(number: u32, length: u8) -> ipnet::IpNet {
    let address = std::net::Ipv4Addr::from(number);
    ipnet::IpNet::new(address.into(), length).unwrap()
}

/// A thousand policies, each with one network and ninety-nine inside the network of another.
fn nested() -> Vec<Policy> {
    let list = |p: u32| {
        let outer = net(0x0a00_0000 + (p << 14), 18);
        let other = 0x0a00_0000 + (((p + 1) % 1000) << 14);
        let inner = (0..99).map(move |i| net(other + (i << 7), 25));
        std::iter::once(outer).chain(inner)
    };
    let one = |p| {
        let dst = any(list(p));
        policy(
            &format!("p{p}"),
            Match {
                dst,
                ..Match::default()
            },
        )
    };
    (0..1000).map(one).collect()
}

#[test]
fn a_thousand_policies_and_a_hundred_thousand_prefixes_compile() {
    let policies = nested();
    let begun = Instant::now();
    let compiled = compiled(&policies, &[true; 1000]);
    println!("1,000 policies, 100,000 prefixes: {:?}", begun.elapsed());
    assert_eq!(compiled.prefixes.len(), 100_000);
    assert_eq!(compiled.classifier.policies, 1000);
    // Nobody, all that are in force (as many as do not mind the other fields), one for each outer network, one for
    // each pair of networks.
    assert_eq!(compiled.sets.as_slice().len(), 2002);
    let tables = Model::new(compiled);
    let place = |dst: u32| verdict(&tables, &forwarded(&std::net::Ipv4Addr::from(dst).to_string())).place;
    // In the network of 8 are the small ones of 7: the earlier wins there, and behind them there is 8 alone.
    assert_eq!(place(0x0a00_0000 + (8 << 14) + 5), Some(7));
    assert_eq!(place(0x0a00_0000 + (8 << 14) + (99 << 7)), Some(8));
    assert_eq!(place(0x0900_0000), None);
}

fn refused(policies: &[Policy]) -> Full {
    compile(
        policies,
        &[],
        &crate::config::groups(policies),
        &[],
        &surroundings(),
    )
    .unwrap_err()
}

fn full(limit: Limit, wanted: usize) -> Full {
    Full { limit, wanted }
}

#[test]
fn what_is_too_much_is_named() {
    let free = || policy("p", Match::default());
    let many = vec![free(); MAX_POLICIES as usize + 1];
    assert_eq!(refused(&many), full(Limit::Policies, many.len()));

    let mut many = vec![free(); GROUPS as usize + 1];
    for (i, p) in many.iter_mut().enumerate() {
        p.choice.tiers = vec![vec![(format!("isp{i}"), None)]];
    }
    assert_eq!(refused(&many), full(Limit::Groups, many.len()));

    let dst = any((0..=PREFIXES).map(|i| net(i << 8, 24)));
    let many = policy(
        "p",
        Match {
            dst,
            ..Match::default()
        },
    );
    assert_eq!(refused(&[many]), full(Limit::Prefixes, PREFIXES as usize + 1));

    let mac = any((0..=EXACTS).map(|i| {
        let [a, b, c, d] = i.to_be_bytes();
        [2, 0, a, b, c, d]
    }));
    let many = policy(
        "p",
        Match {
            mac,
            ..Match::default()
        },
    );
    let error = refused(&[many]);
    assert_eq!(error, full(Limit::Exacts, EXACTS as usize + 1));
    let text = error.to_string();
    assert!(
        text.contains("need 4097 different values") && text.contains("room for 4096"),
        "{text}"
    );
}

/// Every pair of policies meets in a prefix of its own.
#[test]
fn too_many_combinations_are_refused_and_names_keep_their_room() {
    let mut lists = vec![Vec::new(); 200];
    let pairs = (0..200usize).flat_map(|a| (0..a).map(move |b| (a, b)));
    for (n, (a, b)) in (0u32..).zip(pairs) {
        lists[a].push(net(n << 8, 24));
        lists[b].push(net(n << 8, 24));
    }
    let one = |dst| {
        policy(
            "p",
            Match {
                dst: any(dst),
                ..Match::default()
            },
        )
    };
    let policies: Vec<Policy> = lists.into_iter().map(one).collect();
    let error = refused(&policies);
    assert_eq!(error, full(Limit::Sets, Limit::Sets.room() + 1));
    assert!(error.to_string().contains("overlapping prefixes"));
    assert!(Limit::Sets.room() + 4_000 < SETS as usize);
}

#[test]
fn names_use_the_room_that_is_left_and_known_sets_cost_nothing() {
    let mut sets = Sets::default();
    let pair = |n: u32| {
        let mut set = Set::EMPTY;
        set.insert(n % 1000);
        set.insert(1000 + n / 1000);
        set
    };
    let room = Limit::LearnedSets.room() as u32 - 1;
    for n in 0..room {
        assert_eq!(sets.learn(&pair(n)), Ok(n + 1));
    }
    let full = full(Limit::LearnedSets, room as usize + 2);
    assert_eq!(sets.learn(&pair(room)), Err(full));
    assert_eq!(sets.learn(&pair(5)), Ok(6));
    assert_eq!(sets.learn(&Set::EMPTY), Ok(0));
}
