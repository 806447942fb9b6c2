//! When policies are in force. Schedules are about what a clock on the wall shows, so an hour that the clock
//! skips never comes, and one that it shows twice counts twice.

use std::iter;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan as _};

use crate::config::{Policy, Schedule};

/// Minutes of a day that is as long as most.
const DAY: u16 = 24 * 60;

/// How far ahead a change is looked for: an hour of one day of the week may be skipped by the clock, then the next is
/// two weeks off.
const HORIZON_DAYS: i64 = 15;

/// Whether flows are compared with the policy at all.
#[must_use]
pub fn in_force(policy: &Policy, now: Timestamp) -> bool {
    policy.when.is_empty() || policy.when.iter().any(|s| covers(s, now))
}

/// When the next policy comes into force or goes out of it, `None` if none does.
#[must_use]
pub fn next_change(policies: &[Policy], now: Timestamp) -> Option<Timestamp> {
    let changes = policies.iter().filter_map(|policy| change(policy, now));
    changes.min()
}

/// Nothing changes between two edges, so asking at each of them is enough.
fn change(policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    let mut edges: Vec<Timestamp> = policy.when.iter().flat_map(|s| edges(s, now)).collect();
    edges.sort_unstable();
    edges.dedup();
    let before = in_force(policy, now);
    edges.into_iter().find(|edge| in_force(policy, *edge) != before)
}

fn covers(schedule: &Schedule, now: Timestamp) -> bool {
    let wall = schedule.zone.to_datetime(now);
    let minute = wall.hour() as u16 * 60 + wall.minute() as u16;
    let today = wall.weekday().to_monday_zero_offset() as usize;
    let (from, to) = span(schedule);
    let begun = |day: usize| schedule.days.get(day % 7).is_some_and(|on| *on);
    (begun(today) && (from..to).contains(&minute))
        || (begun(today + 6) && (from..to).contains(&(minute + DAY)))
}

/// From and to in minutes after the midnight before, so that `to` is behind `from`.
pub(super) fn span(schedule: &Schedule) -> (u16, u16) {
    let (from, to) = schedule.hours;
    match from < to {
        true => (from, to),
        false => (from, to + DAY),
    }
}

/// The moments after `now` when the clock on the wall shows the beginning or the end, and those when it jumps.
fn edges(schedule: &Schedule, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let zone = &schedule.zone;
    let end = now.saturating_add((HORIZON_DAYS * 24).hours()).unwrap_or(now);
    let jumps = zone.following(now).map(|jump| jump.timestamp());
    let jumps = jumps.take_while(move |jump| *jump <= end);
    let yesterday = zone.to_datetime(now).date().saturating_sub(1.day());
    let days = iter::successors(Some(yesterday), |day| day.tomorrow().ok());
    let days = days.take(HORIZON_DAYS as usize + 2);
    let (from, to) = span(schedule);
    let shown = days.flat_map(move |day| [from, to].into_iter().flat_map(move |m| at(zone, day, m)));
    jumps.chain(shown).filter(move |edge| *edge > now)
}

/// When the clock shows that minute after the midnight of a day: once, twice, or never.
fn at(zone: &TimeZone, day: Date, minute: u16) -> impl Iterator<Item = Timestamp> {
    let minutes = Span::new().minutes(i64::from(minute));
    let wall: Option<DateTime> = day.to_datetime(Default::default()).checked_add(minutes).ok();
    let offsets = wall.map(|wall| match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
        AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
        // The jump itself is an edge.
        AmbiguousOffset::Gap { .. } => [None, None],
    });
    let offsets = offsets.into_iter().flatten().flatten();
    offsets.filter_map(move |offset| offset.to_timestamp(wall?).ok())
}

#[cfg(test)]
mod tests;
