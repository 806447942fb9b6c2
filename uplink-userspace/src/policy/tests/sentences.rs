//! One case for every sentence about what policies mean.

use uplink_common::policy::{Field as Looked, STICKY_BOTH, STICKY_SOURCE, STRICT};

use super::super::choices;
use super::super::compile::in_force;
use super::*;
use crate::config::Sticky;

fn with(change: impl FnOnce(&mut Match)) -> Policy {
    let mut matches = Match::default();
    change(&mut matches);
    policy("p", matches)
}

#[test]
fn without_policies_nothing_decides() {
    let tables = tables(&[]);
    assert_eq!(tables.compiled.classifier.policies, 0);
    assert_eq!(verdict(&tables, &forwarded("8.8.8.8")).place, None);
}

#[test]
fn a_policy_that_asks_for_nothing_takes_all_and_looks_at_nothing() {
    let tables = tables(&[with(|_| ())]);
    assert_eq!(tables.compiled.classifier.fields, 0);
    assert_eq!(verdict(&tables, &own("fd00::1")).place, Some(0));
}

#[test]
fn the_first_that_matches_decides() {
    let wide = with(|m| m.dst = any(nets(["10.0.0.0/8"])));
    let narrow = with(|m| m.dst = any(nets(["10.1.0.0/16"])));
    let tables = tables(&[narrow, wide]);
    for (dst, place) in [("10.1.0.1", Some(0)), ("10.2.0.1", Some(1)), ("11.0.0.1", None)] {
        assert_eq!(verdict(&tables, &forwarded(dst)).place, place, "{dst}");
    }
}

#[test]
fn what_is_refused_stays_so_further_in() {
    let policies = [with(|m| {
        m.dst = any(nets(["10.0.0.0/8", "10.1.2.0/24"]));
        m.dst.not = nets(["10.1.0.0/16"]).into();
    })];
    for (dst, matches) in [("10.2.0.1", true), ("10.1.0.1", false), ("10.1.2.1", false)] {
        assert_eq!(matching(&policies, &forwarded(dst)), [matches], "{dst}");
    }
}

#[test]
fn a_short_ipv6_prefix_is_not_ipv4() {
    let policies = [
        with(|m| m.dst = any(nets(["::/0"]))),
        with(|m| m.dst = not(nets(["::/0"]))),
        with(|m| m.dst = any(nets(["0.0.0.0/0"]))),
        with(|m| m.dst = any(nets(["::/0", "10.0.0.0/8"]))),
    ];
    assert_eq!(
        matching(&policies, &forwarded("8.8.8.8")),
        [false, true, true, false]
    );
    assert_eq!(
        matching(&policies, &forwarded("10.0.0.1")),
        [false, true, true, true]
    );
    assert_eq!(
        matching(&policies, &forwarded("2001:db8::1")),
        [true, false, false, true]
    );
}

#[test]
fn sockets_have_no_source_code_point_or_mac() {
    let policies = [
        with(|m| m.src = any(nets(["0.0.0.0/0", "::/0"]))),
        with(|m| m.src = not(nets(["0.0.0.0/0", "::/0"]))),
        with(|m| m.dscp = any([0])),
        with(|m| m.dscp = not([0])),
        with(|m| m.mac = any([[2, 0, 0, 0, 0, 9]])),
        with(|m| m.mac = not([[2, 0, 0, 0, 0, 9]])),
    ];
    let here = [true, false, true, false, true, false];
    assert_eq!(matching(&policies, &forwarded("8.8.8.8")), here);
    assert_eq!(matching(&policies, &own("8.8.8.8")), here.map(|m| !m));
}

#[test]
fn forwarded_flows_satisfy_no_user_and_no_cgroup() {
    let policies = [
        with(|m| m.uid = any([0..=u32::MAX])),
        with(|m| m.uid = not([0..=u32::MAX])),
        with(|m| m.cgroup = any(["/".to_owned()])),
        with(|m| m.cgroup = not(["/".to_owned()])),
    ];
    let own_ones = [true, false, true, false];
    assert_eq!(matching(&policies, &own("8.8.8.8")), own_ones);
    assert_eq!(matching(&policies, &forwarded("8.8.8.8")), own_ones.map(|m| !m));
}

#[test]
fn ranges_of_users_have_exact_ends() {
    let policies = [
        with(|m| m.uid = any([1000..=1999])),
        with(|m| m.uid = not([1000..=1999])),
    ];
    for (uid, inside) in [(999, false), (1000, true), (1999, true), (2000, false)] {
        let flow = Facts {
            uid: Some(uid),
            ..own("8.8.8.8")
        };
        assert_eq!(matching(&policies, &flow), [inside, !inside], "{uid}");
    }
    let outside = tables(&policies[..1]);
    let users = outside.compiled.prefixes.iter();
    let (first, all) = users.fold((u128::MAX, 0), |(first, all), p| {
        assert_eq!(p.field, Looked::Uid);
        (
            first.min(u128::from_be_bytes(p.value.0)),
            all + (1u64 << (32 - p.length)),
        )
    });
    assert_eq!(first, 1000 << 96, "in the first four bytes, network byte order");
    assert_eq!(all, 1000, "no more entries than the range needs");
}

#[test]
fn what_has_no_ports_satisfies_no_port() {
    let policies = [
        with(|m| m.dport = any([0..=u16::MAX])),
        with(|m| m.dport = not([443..=443])),
        with(|m| m.sport = any([40_000..=40_000])),
    ];
    let tcp = forwarded("8.8.8.8");
    assert_eq!(matching(&policies, &tcp), [true, false, true]);
    let gre = Facts { proto: 47, ..tcp };
    assert_eq!(matching(&policies, &gre), [false, true, false]);
}

#[test]
fn an_inverted_range_is_empty() {
    let policies = [with(|m| {
        m.dport = any([std::ops::RangeInclusive::new(500, 400)]);
    })];
    for dport in [399, 400, 450, 500, 501] {
        let flow = Facts {
            dport,
            ..forwarded("8.8.8.8")
        };
        assert_eq!(matching(&policies, &flow), [false], "{dport}");
    }
}

#[test]
fn an_interface_that_is_not_there_matches_nothing() {
    let policies = [
        with(|m| m.iif = any(["ppp7".to_owned()])),
        with(|m| m.iif = not(["ppp7".to_owned()])),
        with(|m| m.iif = any(["ppp7".to_owned(), "eth0".to_owned()])),
        with(|m| m.iif = any(["lo".to_owned()])),
    ];
    assert_eq!(
        matching(&policies, &forwarded("8.8.8.8")),
        [false, true, true, false]
    );
    assert_eq!(matching(&policies, &own("8.8.8.8")), [false, true, false, true]);
}

#[test]
fn a_cgroup_means_all_below_it() {
    let path = |p: &str| [p.to_owned()];
    let policies = [
        with(|m| m.cgroup = any(path("a"))),
        with(|m| m.cgroup = any(path("/a/b/"))),
        with(|m| m.cgroup = any(path("d"))),
        with(|m| {
            m.cgroup = any(path("a"));
            m.cgroup.not = path("a/b").into();
        }),
        with(|m| m.cgroup = any(path("gone"))),
        with(|m| m.cgroup = not(path("gone"))),
    ];
    let mut around = surroundings();
    around.cgroups.insert("/a/b/".to_owned(), 11);
    let tables = Model::new(
        compile(
            &policies,
            &[],
            &crate::config::groups(&policies),
            &[true; 6],
            &around,
        )
        .unwrap(),
    );
    let satisfied = |cgroups: &[u64]| {
        let flow = Facts {
            cgroups: cgroups.to_vec(),
            ..own("8.8.8.8")
        };
        let set = verdict(&tables, &flow).looks.first().unwrap().set;
        (0..6).map(|p| set.contains(p)).collect::<Vec<_>>()
    };
    assert_eq!(
        satisfied(&[12, 11, 10, 1]),
        [true, true, false, false, false, true]
    );
    assert_eq!(satisfied(&[10, 1]), [true, false, false, true, false, true]);
    assert_eq!(satisfied(&[77, 13, 1]), [false, false, true, false, false, true]);
}

#[test]
fn a_schedule_keeps_a_policy_out_and_changes_nothing_else() {
    let policies = [with(|_| ()), with(|m| m.proto = any([6]))];
    let (night, day) = (
        compiled(&policies, &[false, true]),
        compiled(&policies, &[true; 2]),
    );
    assert_eq!(night.classifier.fields, day.classifier.fields);
    assert_eq!(verdict(&Model::new(night), &forwarded("8.8.8.8")).place, Some(1));
    assert_eq!(verdict(&Model::new(day), &forwarded("8.8.8.8")).place, Some(0));
    assert_eq!(in_force(&[false, true]).first(), Some(1));
}

#[test]
fn names_are_matched_by_whole_labels_and_forgotten_in_time() {
    let policies = [
        with(|m| m.domain = vec![domain("a.org", false)]),
        with(|m| m.domain = vec![domain("a.org", true)]),
        with(|_| ()),
    ];
    let place = |name: &str, now_s| {
        let mut tables = tables(&policies);
        tables.learn(addr("8.8.8.8"), [name], 200).unwrap();
        let flow = Facts {
            now_s,
            ..forwarded("8.8.8.8")
        };
        verdict(&tables, &flow).place
    };
    for (name, expected) in [("a.org", 0), ("x.y.a.org", 1), ("xa.org", 2), ("org", 2), ("", 2)] {
        assert_eq!(place(name, 100), Some(expected), "{name}");
    }
    assert_eq!((place("a.org", 199), place("a.org", 200)), (Some(0), Some(2)));
}

#[test]
fn two_names_on_one_address_the_earlier_policy_wins() {
    let policies = [
        with(|m| m.domain = vec![domain("a.org", false)]),
        with(|m| m.domain = vec![domain("b.org", false)]),
    ];
    let mut tables = tables(&policies);
    let domains = &tables.compiled.domains;
    assert!(domains.wants("b.org") && !domains.wants("c.org"));
    tables
        .learn(addr("8.8.8.8"), ["b.org", "a.org", "c.org"], 200)
        .unwrap();
    assert_eq!(verdict(&tables, &forwarded("8.8.8.8")).place, Some(0));
}

#[test]
fn a_verdict_says_what_kept_a_policy_from_matching() {
    let policies = [with(|m| {
        m.proto = any([17]);
        m.dport = any([443..=443]);
        m.dst = any(nets(["10.0.0.0/8"]));
    })];
    let verdict = verdict(&tables(&policies), &forwarded("8.8.8.8"));
    let missed: Vec<Looked> = verdict.missed(0).collect();
    assert_eq!(missed, [Looked::Dst, Looked::Proto]);
    let listed: Vec<bool> = verdict.looks.iter().map(|l| l.listed).collect();
    assert_eq!(listed, [false, true, true], "dst, dport, proto");
}

#[test]
fn records_say_what_a_policy_does() {
    let mut policies = [with(|_| ()), with(|_| ()), with(|_| ())];
    policies[0].name.value = "a".repeat(40);
    policies[0].strict = true;
    policies[1].choice.tiers = vec![vec![("isp1".to_owned(), None)]];
    for (policy, destination) in policies.iter_mut().skip(1).zip([false, true]) {
        let time = std::time::Duration::from_secs(60);
        policy.sticky = Some(Sticky { destination, time });
    }
    let numbers = [7, 3, 9];
    let compiled = compile(
        &policies,
        &numbers,
        &crate::config::groups(&policies),
        &[true; 3],
        &surroundings(),
    )
    .unwrap();
    let all = |of: fn(&uplink_common::policy::Choice) -> u32| -> Vec<u32> {
        compiled.choices.iter().map(of).collect()
    };
    assert_eq!(all(|c| c.policy), numbers);
    // The same uplinks, but one of the policies is strict.
    assert_eq!(all(|c| c.group), [0, 1, 2]);
    assert_eq!(all(|c| c.flags), [STRICT, 0, 0]);
    assert_eq!(all(|c| c.sticky), [0, STICKY_SOURCE, STICKY_BOTH]);
    assert_eq!(all(|c| c.sticky_s), [0, 60, 60]);
    let names: Vec<String> = compiled.choices.iter().map(choices::name).collect();
    assert_eq!(names, [&"a".repeat(31), "p", "p"]);
}
