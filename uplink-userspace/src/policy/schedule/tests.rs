use jiff::Unit;
use proptest::prelude::*;

use super::*;
use crate::config::{At, Choice, Match};

fn zone(name: &str) -> TimeZone {
    jiff::tz::TimeZoneDatabase::bundled().get(name).unwrap()
}

fn policy(when: Vec<Schedule>) -> Policy {
    Policy {
        name: At {
            value: "p".into(),
            span: 0..0,
        },
        line: 1,
        matches: Match::default(),
        when,
        choice: Choice::default(),
        strict: false,
        sticky: None,
    }
}

fn schedule(days: &[usize], hours: (u16, u16), name: &str) -> Schedule {
    Schedule {
        days: std::array::from_fn(|day| days.contains(&day)),
        hours,
        zone: zone(name),
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const ALL: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

/// All changes from one moment to another.
fn changes(when: Vec<Schedule>, from: &str, to: &str) -> Vec<String> {
    let policies = [policy(when)];
    let (mut now, end) = (time(from), time(to));
    let mut found = Vec::new();
    while let Some(next) = next_change(&policies, now).filter(|t| *t <= end) {
        assert!(next > now);
        let on = if in_force(&policies[0], next) { "on" } else { "off" };
        found.push(format!("{next} {on}"));
        now = next;
    }
    found
}

#[test]
fn without_a_schedule_a_policy_is_always_in_force() {
    let now = time("2026-01-01T00:00:00Z");
    assert!(in_force(&policy(vec![]), now));
    assert_eq!(next_change(&[policy(vec![])], now), None);
    for hours in [(0, 1440), (0, 0), (480, 480)] {
        let whole = policy(vec![schedule(&ALL, hours, "Europe/Berlin")]);
        assert!(in_force(&whole, now));
        assert_eq!(next_change(&[whole], now), None, "{hours:?}");
    }
}

#[test]
fn working_hours_are_those_of_the_zone() {
    let work = schedule(&[0, 1, 2, 3, 4], (480, 1080), "Europe/Berlin");
    // Thursday to Monday, in winter.
    assert_eq!(
        changes(vec![work], "2026-01-08T12:00:00Z", "2026-01-12T08:00:00Z"),
        [
            "2026-01-08T17:00:00Z off",
            "2026-01-09T07:00:00Z on",
            "2026-01-09T17:00:00Z off",
            "2026-01-12T07:00:00Z on",
        ]
    );
}

#[test]
fn a_night_belongs_to_the_day_on_which_it_begins() {
    // Fridays from 22:00 to 06:00.
    let night = schedule(&[4], (1320, 360), "UTC");
    assert_eq!(
        changes(vec![night], "2026-01-05T00:00:00Z", "2026-01-16T21:59:59Z"),
        ["2026-01-09T22:00:00Z on", "2026-01-10T06:00:00Z off"]
    );
    // Sunday's night ends on Monday.
    let night = schedule(&[6], (1320, 360), "UTC");
    assert!(in_force(
        &policy(vec![night.clone()]),
        time("2026-01-05T05:59:59Z")
    ));
    assert!(!in_force(&policy(vec![night]), time("2026-01-05T06:00:00Z")));
}

#[test]
fn schedules_that_meet_are_one() {
    let when = vec![
        schedule(&[0], (480, 720), "UTC"),
        schedule(&[0], (720, 1440), "UTC"),
        schedule(&[1], (0, 60), "UTC"),
    ];
    assert_eq!(
        changes(when, "2026-01-05T00:00:00Z", "2026-01-08T00:00:00Z"),
        ["2026-01-05T08:00:00Z on", "2026-01-06T01:00:00Z off"]
    );
}

#[test]
fn a_day_may_have_23_hours_or_25() {
    let day = |hours| vec![schedule(&ALL, hours, "Europe/Berlin")];
    // 2026-03-29 has no 02:00 to 03:00: what begins at 02:30 begins at 03:00.
    assert_eq!(
        changes(day((150, 300)), "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
        ["2026-03-29T01:00:00Z on", "2026-03-29T03:00:00Z off"]
    );
    // What lies within the gap does not come at all.
    assert_eq!(
        changes(day((130, 170)), "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
        <[String; 0]>::default()
    );
    // 2026-10-25 has 02:00 to 03:00 twice.
    assert_eq!(
        changes(day((150, 300)), "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
        [
            "2026-10-25T00:30:00Z on",
            "2026-10-25T01:00:00Z off",
            "2026-10-25T01:30:00Z on",
            "2026-10-25T04:00:00Z off",
        ]
    );
    // From midnight to midnight it is 23 and 25 hours.
    for (date, hours) in [("2026-03-28T12:00:00Z", 23), ("2026-10-24T12:00:00Z", 25)] {
        let sunday = [policy(vec![schedule(&[6], (0, 1440), "Europe/Berlin")])];
        let begins = next_change(&sunday, time(date)).unwrap();
        let ends = next_change(&sunday, begins).unwrap();
        assert_eq!((ends - begins).total(Unit::Hour).unwrap() as i64, hours);
    }
}

#[test]
fn lord_howe_moves_its_clocks_by_half_an_hour() {
    let when = |hours| vec![schedule(&ALL, hours, "Australia/Lord_Howe")];
    // 2026-10-04: 02:00 at +10:30 is followed by 02:30 at +11.
    assert_eq!(
        changes(when((130, 180)), "2026-10-03T06:00:00Z", "2026-10-04T06:00:00Z"),
        ["2026-10-03T15:30:00Z on", "2026-10-03T16:00:00Z off"]
    );
    // 2026-04-05: 02:00 at +11 is followed by 01:30 at +10:30.
    assert_eq!(
        changes(when((100, 115)), "2026-04-04T06:00:00Z", "2026-04-05T06:00:00Z"),
        [
            "2026-04-04T14:40:00Z on",
            "2026-04-04T14:55:00Z off",
            "2026-04-04T15:10:00Z on",
            "2026-04-04T15:25:00Z off",
        ]
    );
}

#[test]
fn an_hour_that_is_skipped_comes_a_week_later() {
    // Sundays from 02:00 to 03:00, the Sunday without that hour being the next.
    let hour = vec![schedule(&[6], (120, 180), "Europe/Berlin")];
    assert_eq!(
        changes(hour, "2026-03-22T03:00:00Z", "2026-04-05T00:30:00Z"),
        ["2026-04-05T00:00:00Z on"]
    );
}

#[test]
fn the_end_of_time_is_no_problem() {
    let when = vec![schedule(&ALL, (480, 1080), "Europe/Berlin")];
    for now in [Timestamp::MIN, Timestamp::MAX] {
        let _ = next_change(&[policy(when.clone())], now);
        let _ = in_force(&policy(when.clone()), now);
    }
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let zones = [
        "UTC",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/St_Johns",
    ];
    let days = proptest::array::uniform7(any::<bool>());
    let zone_name = prop::sample::select(zones.to_vec());
    (days, 0..1440_u16, 0..=1440_u16, zone_name).prop_map(|(days, from, to, name)| Schedule {
        days,
        hours: (from, to),
        zone: zone(name),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Walks through two days minute by minute.
    #[test]
    fn the_next_change_is_the_first_minute_that_differs(
        when in prop::collection::vec(any_schedule(), 1..4),
        // Around the changes of all those zones' clocks, and Samoa's move over the date line.
        from in prop::sample::select(vec![
            "2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z", "2026-04-04T06:00:00Z",
            "2026-10-03T06:00:00Z", "2011-12-29T12:00:00Z", "2026-03-08T00:00:00Z", "2026-07-01T00:00:00Z",
        ]),
        offset in 0..1440_i64,
    ) {
        let policies = [policy(when)];
        let now = time(from) + offset.minutes();
        let before = in_force(&policies[0], now);
        let minutes = (1..=2880_i64).map(|m| now + m.minutes());
        let walked = minutes.into_iter().find(|t| in_force(&policies[0], *t) != before);
        let told = next_change(&policies, now);
        match walked {
            Some(walked) => prop_assert_eq!(told, Some(walked)),
            None => prop_assert!(told.is_none_or(|t| t > now + 2880.minutes())),
        }
    }
}
