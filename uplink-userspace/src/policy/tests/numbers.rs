//! Numbers of policies.

use uplink_common::policy::MAX_POLICIES;

use super::super::Numbers;

#[test]
fn a_number_stays_with_its_name() {
    let mut numbers = Numbers::default();
    let first = numbers.assign(["a", "b"]);
    assert_eq!((first.numbers, first.fresh), (vec![1, 2], vec![1, 2]));
    let swapped = numbers.assign(["b", "a"]);
    assert_eq!((swapped.numbers, swapped.fresh), (vec![2, 1], vec![]));
    let without = numbers.assign(["c", "b"]);
    assert_eq!((without.numbers, without.fresh), (vec![3, 2], vec![3]));
    let back = numbers.assign(["a"]);
    assert_eq!((back.numbers, back.fresh), (vec![1], vec![]));
}

#[test]
fn numbers_are_given_again_only_when_all_are_taken_the_oldest_first() {
    let mut numbers = Numbers::default();
    let names: Vec<String> = (0..MAX_POLICIES).map(|n| format!("p{n}")).collect();
    numbers.assign(names.iter().map(String::as_str));
    numbers.assign(names.iter().skip(1).map(String::as_str));
    numbers.assign(names.iter().skip(2).map(String::as_str));
    let two = numbers.assign(names.iter().skip(2).map(String::as_str).chain(["new", "newer"]));
    assert_eq!(two.fresh, [1, 2]);
    assert_eq!(two.numbers.len(), MAX_POLICIES as usize);
    let back = numbers.assign(names.iter().skip(1).map(String::as_str));
    assert_eq!(back.fresh, [1], "`new` vanished and gave its number");
}

#[test]
fn what_an_earlier_daemon_left_goes_on() {
    let left = [("a", 7), ("b", 7), ("c", 0), ("d", 5000)].map(|(n, i)| (n.to_owned(), i));
    let mut numbers = Numbers::known(left);
    let assigned = numbers.assign(["b", "a"]);
    assert_eq!((assigned.numbers, assigned.fresh), (vec![1, 7], vec![1]));
}
