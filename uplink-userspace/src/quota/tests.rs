use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::config::Then;

const GB: u64 = 1_000_000_000;

fn quota(per: Period, starts: u8) -> Quota {
    let (bytes, then) = (200 * GB, Then::LastResort);
    Quota {
        bytes,
        per,
        starts,
        then,
    }
}

/// Monthly from the 15th, with a counter that stands at zero.
fn quotas() -> Quotas {
    let mut quotas = Quotas::default();
    quotas.set([("isp1".into(), quota(Period::Month, 15))]);
    count(&mut quotas, 0, date(2026, 11, 20));
    quotas
}

fn count(quotas: &mut Quotas, bytes: u64, today: Date) {
    quotas.count("isp1", Counter { id: 1, bytes }, today);
}

fn used(quotas: &Quotas) -> u64 {
    quotas.usage("isp1").unwrap().bytes
}

/// What another start makes of it.
fn restarted(quotas: &Quotas, same_maps: bool) -> Quotas {
    let text = serde_json::to_string(quotas.books()).unwrap();
    let mut restored = Quotas::restore(serde_json::from_str(&text).unwrap(), same_maps);
    restored.set(quotas.quotas.clone());
    restored
}

#[test]
fn periods_begin_when_people_expect() {
    let cases = [
        (Period::Day, 1, date(2026, 3, 1), date(2026, 3, 1)),
        (Period::Week, 1, date(2026, 11, 23), date(2026, 11, 23)),
        (Period::Week, 1, date(2026, 11, 22), date(2026, 11, 16)),
        (Period::Week, 1, date(2027, 1, 1), date(2026, 12, 28)),
        (Period::Month, 1, date(2026, 2, 28), date(2026, 2, 1)),
        (Period::Month, 15, date(2026, 11, 15), date(2026, 11, 15)),
        (Period::Month, 15, date(2026, 11, 14), date(2026, 10, 15)),
        (Period::Month, 28, date(2026, 3, 27), date(2026, 2, 28)),
        (Period::Month, 2, date(2027, 1, 1), date(2026, 12, 2)),
        (Period::Month, 28, date(2026, 5, 31), date(2026, 5, 28)),
    ];
    for (per, starts, today, start) in cases {
        assert_eq!(period_start(&quota(per, starts), today), start, "{today}");
    }
}

#[test]
fn usage_is_told_and_is_up_at_the_last_byte() {
    let mut quotas = quotas();
    count(&mut quotas, 151_290_000_000, date(2026, 11, 21));
    let text = |quotas: &Quotas| quotas.text("isp1").unwrap();
    assert_eq!(text(&quotas), "151.2 of 200 GB used since 2026-11-15");
    count(&mut quotas, 200 * GB - 1, date(2026, 11, 22));
    assert_eq!(text(&quotas), "199.9 of 200 GB used since 2026-11-15");
    assert!(!quotas.used_up("isp1"));
    count(&mut quotas, 200 * GB, date(2026, 11, 22));
    assert!(quotas.used_up("isp1"));
}

#[test]
fn units_follow_the_size_of_the_quota() {
    for (bytes, text) in [
        (1_500 * GB, "0.1 of 1.5 TB"),
        (GB, "151.0 of 1 GB"),
        (50_000_000, "151000.0 of 50 MB"),
    ] {
        let mut quotas = quotas();
        quotas.set([(
            "isp1".into(),
            Quota {
                bytes,
                ..quota(Period::Month, 15)
            },
        )]);
        count(&mut quotas, 151 * GB, date(2026, 11, 21));
        assert_eq!(
            quotas.text("isp1").unwrap(),
            format!("{text} used since 2026-11-15")
        );
    }
}

#[test]
fn an_uplink_without_a_quota_is_never_used_up_and_its_past_does_not_count() {
    let mut quotas = Quotas::default();
    count(&mut quotas, 900 * GB, date(2026, 11, 20));
    assert_eq!((quotas.usage("isp1"), quotas.text("isp1")), (None, None));
    assert!(!quotas.used_up("isp1"));
    quotas.set([("isp1".into(), quota(Period::Month, 15))]);
    count(&mut quotas, 901 * GB, date(2026, 11, 20));
    assert_eq!(used(&quotas), GB);
}

#[test]
fn a_new_period_starts_from_zero() {
    let mut quotas = quotas();
    count(&mut quotas, 250 * GB, date(2026, 12, 14));
    assert!(quotas.used_up("isp1"));
    count(&mut quotas, 251 * GB, date(2026, 12, 15));
    let usage = Usage {
        period: date(2026, 12, 15),
        bytes: GB,
    };
    assert_eq!(quotas.usage("isp1"), Some(usage));
    assert!(!quotas.used_up("isp1"));
}

#[test]
fn nothing_is_lost_or_counted_twice_over_a_kill_and_a_clean_stop() {
    let mut quotas = quotas();
    count(&mut quotas, 10 * GB, date(2026, 11, 20));
    // Killed; the maps went on counting.
    let mut quotas = restarted(&quotas, true);
    count(&mut quotas, 13 * GB, date(2026, 11, 20));
    assert_eq!(used(&quotas), 13 * GB);
    // Stopped; the new maps have already counted more than the old ones.
    let mut quotas = restarted(&quotas, false);
    count(&mut quotas, 20 * GB, date(2026, 11, 20));
    assert_eq!(used(&quotas), 33 * GB);
}

#[test]
fn a_counter_that_went_backwards_counts_from_zero() {
    let mut quotas = quotas();
    count(&mut quotas, 10 * GB, date(2026, 11, 20));
    count(&mut quotas, 2 * GB, date(2026, 11, 20));
    assert_eq!(used(&quotas), 12 * GB);
}

#[test]
fn the_counter_of_another_id_is_somebody_elses_past() {
    let mut quotas = quotas();
    count(&mut quotas, 10 * GB, date(2026, 11, 20));
    quotas.count(
        "isp1",
        Counter {
            id: 7,
            bytes: 90 * GB,
        },
        date(2026, 11, 20),
    );
    quotas.count(
        "isp1",
        Counter {
            id: 7,
            bytes: 91 * GB,
        },
        date(2026, 11, 20),
    );
    assert_eq!(used(&quotas), 11 * GB);
    // New maps, new ids: all of it is ours.
    let mut quotas = restarted(&quotas, false);
    quotas.count("isp1", Counter { id: 3, bytes: GB }, date(2026, 11, 20));
    assert_eq!(used(&quotas), 12 * GB);
}

#[test]
fn a_clock_that_begins_in_1970_forgets_nothing() {
    let mut quotas = quotas();
    count(&mut quotas, 199 * GB, date(2026, 11, 20));
    let mut quotas = restarted(&quotas, false);
    count(&mut quotas, GB, date(1970, 1, 1));
    assert!(quotas.used_up("isp1"));
    count(&mut quotas, 2 * GB, date(2026, 11, 20));
    assert_eq!(used(&quotas), 201 * GB);
}

#[test]
fn a_clock_that_was_ahead_neither_forgets_nor_counts_for_ever() {
    let mut quotas = quotas();
    count(&mut quotas, 100 * GB, date(2026, 11, 20));
    count(&mut quotas, 101 * GB, date(2099, 1, 1));
    count(&mut quotas, 102 * GB, date(2026, 11, 21));
    assert_eq!(used(&quotas), 101 * GB);
    count(&mut quotas, 103 * GB, date(2026, 12, 20));
    assert_eq!(used(&quotas), GB);
}

#[test]
fn a_clock_that_is_set_back_over_midnight_keeps_both_periods() {
    let mut quotas = quotas();
    count(&mut quotas, 100 * GB, date(2026, 12, 14));
    count(&mut quotas, 101 * GB, date(2026, 12, 15));
    count(&mut quotas, 102 * GB, date(2026, 12, 14));
    assert_eq!(used(&quotas), 101 * GB);
    count(&mut quotas, 103 * GB, date(2026, 12, 15));
    assert_eq!(used(&quotas), 3 * GB);
}

fn periods() -> impl Strategy<Value = Quota> {
    let per = prop::sample::select(vec![Period::Day, Period::Week, Period::Month]);
    (per, 1u8..=28).prop_map(|(per, starts)| quota(per, starts))
}

/// A day of some thirty years.
fn day(number: i32) -> Date {
    date(2020, 1, 1).saturating_add(number.days())
}

/// What happens between two looks.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Killed,
    Stopped,
}

proptest! {
    /// Every day lies in one period, which began at most 31 days ago, on a day that begins one.
    #[test]
    fn periods_tile_the_calendar(quota in periods(), number in 0i32..12_000) {
        let (today, start) = (day(number), period_start(&quota, day(number)));
        prop_assert!(start <= today && today.saturating_sub(31.days()) < start);
        prop_assert_eq!(period_start(&quota, start), start);
        let tomorrow = period_start(&quota, day(number + 1));
        prop_assert!(tomorrow == start || tomorrow == day(number + 1));
    }

    /// While the clock goes forwards, usage is what was carried since the period began,
    /// whatever becomes of the daemon and of the maps.
    #[test]
    fn usage_is_exact(
        quota in periods(),
        looks in prop::collection::vec((
            0i32..40,
            0u64..1000,
            prop::sample::select(vec![Between::Nothing, Between::Killed, Between::Stopped]),
        ), 1..60),
    ) {
        let mut quotas = Quotas::default();
        quotas.set([("isp1".into(), quota)]);
        let (mut number, mut counter) = (0, 0);
        count(&mut quotas, counter, day(number));
        let mut usage = quotas.usage("isp1").unwrap();
        for (days, bytes, between) in looks {
            number += days;
            counter += bytes;
            match between {
                Between::Nothing => {}
                Between::Killed => quotas = restarted(&quotas, true),
                Between::Stopped => {
                    quotas = restarted(&quotas, false);
                    counter = bytes;
                }
            }
            count(&mut quotas, counter, day(number));
            let period = period_start(&quota, day(number));
            let before = if period == usage.period { usage.bytes } else { 0 };
            usage = Usage { period, bytes: before + bytes };
            prop_assert_eq!(quotas.usage("isp1"), Some(usage));
        }
    }

    /// However long the clock is wrong in the past, once it is right again all is there.
    #[test]
    fn a_clock_in_the_past_forgets_nothing(
        quota in periods(),
        number in 4000i32..12_000,
        wrong in prop::collection::vec(0i32..3900, 1..20),
    ) {
        let mut quotas = Quotas::default();
        quotas.set([("isp1".into(), quota)]);
        count(&mut quotas, 0, day(number));
        count(&mut quotas, 1000, day(number));
        let mut wrong = wrong;
        wrong.sort_unstable_by(|a, b| b.cmp(a));
        for (i, past) in wrong.iter().enumerate() {
            count(&mut quotas, 1001 + i as u64, day(*past));
            prop_assert_eq!(used(&quotas), 1001 + i as u64);
        }
        count(&mut quotas, 2000, day(number));
        prop_assert_eq!(used(&quotas), 2000);
    }

    /// Any counter at any date: no panic, little is kept.
    #[test]
    fn senseless_clocks_and_counters_do_no_harm(
        looks in prop::collection::vec((any::<u64>(), any::<u8>(), -9999i16..=9999, 1i8..=12, 1i8..=28), 1..50),
        quota in periods(),
    ) {
        let mut quotas = Quotas::default();
        quotas.set([("isp1".into(), quota)]);
        for (bytes, id, year, month, day) in looks {
            quotas.count("isp1", Counter { id, bytes }, date(year, month, day));
            prop_assert!(quotas.text("isp1").is_some());
            prop_assert!(quotas.books["isp1"].periods.len() <= PERIODS);
        }
    }
}
