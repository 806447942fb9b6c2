//! What has to change, computed on plain data.

use std::cmp::Reverse;

use uplink_common::Family;

use crate::plan::{Route, Rule, Via};

/// The kernel's metric for an IPv6 route that asks for none.
const V6_METRIC: u32 = 1024;

/// What has to be added, and the positions of what has to be removed afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diff<T> {
    /// In the order to add it.
    pub add: Vec<T>,
    /// Positions in the list of what is there.
    pub remove: Vec<usize>,
}

/// A route as the kernel would print it, so that two of them can be compared.
pub(super) fn normal(route: &Route) -> Route {
    let mut route = route.clone();
    route.to = route.to.trunc();
    if route.family == Family::V6 && route.metric == 0 {
        route.metric = V6_METRIC;
    }
    match &mut route.via {
        Via::Hops(hops) => {
            hops.sort();
            if let [only] = hops.as_mut_slice() {
                only.weight = 1;
            }
        }
        Via::Unreachable => (route.source, route.mtu, route.advmss) = (None, None, None),
        Via::Link { .. } => {}
    }
    route
}

/// Whether one replaces the other when added with `NLM_F_REPLACE`.
fn same_place(a: &Route, b: &Route) -> bool {
    (a.family, a.table, a.to, a.metric) == (b.family, b.table, b.to, b.metric)
}

/// Routes to add or replace, connected ones first since gateways are looked up in them; then
/// those to delete. `None` stands for one of ours that we would never make.
pub(super) fn routes(wanted: &[Route], present: &[Option<Route>]) -> Diff<Route> {
    let mut wanted: Vec<Route> = wanted.iter().map(normal).collect();
    wanted.sort_by_key(|route| (route.via.clone(), Reverse(route.to.prefix_len())));
    wanted.dedup();
    let is_there = |route: &Route| present.iter().flatten().any(|p| p == route);
    let (_, add): (Vec<_>, Vec<_>) = wanted.iter().cloned().partition(is_there);
    let mut replaced: Vec<&Route> = add.iter().collect();
    let mut remove = Vec::new();
    for (position, route) in present.iter().enumerate() {
        let Some(route) = route else {
            remove.push(position);
            continue;
        };
        if wanted.contains(route) {
            continue;
        }
        // The kernel replaces the first route in that place: it is gone without our help.
        match replaced.iter().position(|r| same_place(r, route)) {
            Some(found) => drop(replaced.swap_remove(found)),
            None => remove.push(position),
        }
    }
    Diff { add, remove }
}

/// Rules to add, then those to delete. The same rule twice is once too often.
pub(super) fn rules<T: Clone + Ord>(wanted: &[T], present: &[Option<T>]) -> Diff<T> {
    let mut add = wanted.to_vec();
    add.sort();
    add.dedup();
    let mut remove = Vec::new();
    for (position, rule) in present.iter().enumerate() {
        let found = add.iter().position(|a| Some(a) == rule.as_ref());
        match found {
            Some(found) => drop(add.remove(found)),
            None => remove.push(position),
        }
    }
    Diff { add, remove }
}

/// What happens to one route or rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// It stays.
    Keep(T),
    /// It is not there yet.
    Add(T),
    /// The second takes the place of the first.
    Replace(T, T),
    /// It goes. `None` stands for one of ours that we would never make.
    Remove(Option<T>),
}

/// [`routes`], told one by one.
pub(super) fn route_steps(wanted: &[Route], present: &[Option<Route>]) -> Vec<Step<Route>> {
    let diff = routes(wanted, present);
    steps(
        wanted.iter().map(normal).collect(),
        present,
        diff,
        same_place,
        false,
    )
}

/// [`rules`], told one by one.
pub(super) fn rule_steps(wanted: &[Rule], present: &[Option<Rule>]) -> Vec<Step<Rule>> {
    let diff = rules(wanted, present);
    let same = |a: &Rule, b: &Rule| (a.family, a.priority) == (b.family, b.priority);
    steps(wanted.to_vec(), present, diff, same, true)
}

/// `removes`: what is replaced is among what is removed; otherwise the kernel does that by itself.
fn steps<T: Clone + Ord>(
    mut wanted: Vec<T>,
    present: &[Option<T>],
    mut diff: Diff<T>,
    same: impl Fn(&T, &T) -> bool,
    removes: bool,
) -> Vec<Step<T>> {
    wanted.sort();
    wanted.dedup();
    let listed = |at: &usize| present.get(*at).and_then(Option::as_ref);
    let mut old: Vec<usize> = match removes {
        true => diff.remove.clone(),
        false => (0..present.len())
            .filter(|at| !diff.remove.contains(at) && listed(at).is_some_and(|p| !wanted.contains(p)))
            .collect(),
    };
    let mut steps = Vec::new();
    for item in wanted {
        if !diff.add.contains(&item) {
            steps.push(Step::Keep(item));
            continue;
        }
        let place = old
            .iter()
            .position(|at| listed(at).is_some_and(|p| same(p, &item)));
        let replaced = place.map(|place| old.swap_remove(place));
        diff.remove.retain(|at| Some(*at) != replaced);
        steps.push(match replaced.as_ref().and_then(listed) {
            Some(before) => Step::Replace(before.clone(), item),
            None => Step::Add(item),
        });
    }
    let gone = diff.remove.iter().filter_map(|at| present.get(*at));
    steps.extend(gone.cloned().map(Step::Remove));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Hop;

    fn route(to: &str, via: Via) -> Route {
        let to: ipnet::IpNet = to.parse().unwrap();
        let family = if to.addr().is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        Route {
            family,
            table: 20001,
            to,
            metric: 0,
            via,
            source: None,
            mtu: None,
            advmss: None,
        }
    }

    fn hop(gateway: &str, weight: u16) -> Hop {
        Hop {
            gateway: gateway.parse().unwrap(),
            ifindex: 2,
            weight,
        }
    }

    fn present(routes: &[Route]) -> Vec<Option<Route>> {
        routes.iter().map(|r| Some(normal(r))).collect()
    }

    #[test]
    fn what_the_kernel_prints_differently_is_not_a_difference() {
        let mut ten = route("10.0.0.1/24", Via::Link { ifindex: 2 });
        ten.to = "10.0.0.0/24".parse().unwrap();
        let mut six = route("::/0", Via::Hops(vec![hop("fe80::1", 7)]));
        six.metric = V6_METRIC;
        six.via = Via::Hops(vec![hop("fe80::1", 1)]);
        let mut unreachable = route("0.0.0.0/0", Via::Unreachable);
        unreachable.mtu = Some(1400);
        let swapped = Via::Hops(vec![hop("10.0.0.2", 3), hop("10.0.0.1", 2)]);
        let sorted = Via::Hops(vec![hop("10.0.0.1", 2), hop("10.0.0.2", 3)]);
        let wanted = [
            route("10.0.0.1/24", Via::Link { ifindex: 2 }),
            route("::/0", Via::Hops(vec![hop("fe80::1", 7)])),
            unreachable,
            route("1.0.0.0/8", swapped),
        ];
        let kernel = [
            ten,
            six,
            route("0.0.0.0/0", Via::Unreachable),
            route("1.0.0.0/8", sorted),
        ];
        let diff = routes(&wanted, &present(&kernel));
        assert_eq!((diff.add, diff.remove), (vec![], vec![]));
    }

    #[test]
    fn a_changed_route_is_replaced_and_not_deleted() {
        let old = route("0.0.0.0/0", Via::Hops(vec![hop("10.0.0.1", 1)]));
        let new = route("0.0.0.0/0", Via::Hops(vec![hop("10.0.0.2", 1)]));
        let diff = routes(std::slice::from_ref(&new), &present(std::slice::from_ref(&old)));
        assert_eq!((diff.add, diff.remove), (vec![new.clone()], vec![]));
        let diff = routes(&[new], &present(&[old.clone(), old]));
        assert_eq!(diff.remove, [1]);
    }

    #[test]
    fn another_metric_is_another_route() {
        let old = route("0.0.0.0/0", Via::Unreachable);
        let mut new = old.clone();
        new.metric = 9;
        let diff = routes(std::slice::from_ref(&new), &present(&[old]));
        assert_eq!((diff.add, diff.remove), (vec![new], vec![0]));
    }

    #[test]
    fn connected_routes_come_first_and_strangers_go() {
        let wanted = [
            route("0.0.0.0/0", Via::Unreachable),
            route("0.0.0.0/0", Via::Hops(vec![hop("10.0.0.1", 1)])),
            route("10.0.0.0/24", Via::Link { ifindex: 2 }),
        ];
        let diff = routes(&wanted, &[None]);
        assert!(matches!(diff.add[0].via, Via::Link { .. }));
        assert!(matches!(diff.add[2].via, Via::Unreachable));
        assert_eq!(diff.remove, [0]);
    }

    #[test]
    fn one_rule_of_a_pair_stays() {
        let diff = rules(&[1, 2, 2], &[Some(1), Some(1), None]);
        assert_eq!((diff.add, diff.remove), (vec![2], vec![1, 2]));
    }

    #[test]
    fn steps_tell_what_the_difference_does() {
        let old = route("0.0.0.0/0", Via::Hops(vec![hop("10.0.0.1", 1)]));
        let new = route("0.0.0.0/0", Via::Hops(vec![hop("10.0.0.2", 1)]));
        let kept = route("10.0.0.0/24", Via::Link { ifindex: 2 });
        let gone = route("10.9.0.0/24", Via::Link { ifindex: 2 });
        let mut there = present(&[old.clone(), kept.clone(), gone.clone()]);
        there.push(None);
        let steps = route_steps(&[new.clone(), kept.clone()], &there);
        let wanted = [
            Step::Replace(old, new),
            Step::Keep(kept),
            Step::Remove(Some(gone)),
            Step::Remove(None),
        ];
        assert_eq!(steps, wanted);
    }

    #[test]
    fn a_rule_at_the_place_of_another_is_a_change() {
        let rule = |priority, table| Rule {
            family: Family::V4,
            priority,
            selector: crate::plan::Selector::All,
            action: crate::plan::Action::Table(table),
            suppress_prefixlength: None,
            suppress_ifgroup: None,
        };
        let there = [Some(rule(1, 7)), Some(rule(2, 7)), Some(rule(2, 7)), None];
        let steps = rule_steps(&[rule(1, 8), rule(2, 7), rule(3, 7)], &there);
        let wanted = [
            Step::Replace(rule(1, 7), rule(1, 8)),
            Step::Keep(rule(2, 7)),
            Step::Add(rule(3, 7)),
            Step::Remove(Some(rule(2, 7))),
            Step::Remove(None),
        ];
        assert_eq!(steps, wanted);
    }
}
