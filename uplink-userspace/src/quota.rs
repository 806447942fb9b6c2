//! How much of its quota an uplink has used.
//!
//! The byte counters in the maps only grow, but they start over with every set of maps: at a
//! reboot and at a start after a clean stop, not at a start that adopts a killed daemon's maps. So
//! what is kept on disk is the usage together with the counter that it was computed from, and
//! [`Quotas::restore`] is told whether that counter goes on.

use std::collections::BTreeMap;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::config::{Period, Quota};

/// Periods that are kept of an uplink, however often its clock goes wrong.
const PERIODS: usize = 8;

/// What an uplink has carried in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The period's first day.
    pub period: Date,
    /// Bytes, both directions together.
    pub bytes: u64,
}

/// The byte counter of an uplink in the maps, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The id that it is counted under: a counter of another id is another uplink's past.
    pub id: u8,
    /// Bytes since the maps were made.
    pub bytes: u64,
}

/// The first day of the quota's period that `today` lies in.
#[must_use]
pub fn period_start(quota: &Quota, today: Date) -> Date {
    match quota.per {
        Period::Day => today,
        Period::Week => today.saturating_sub(today.weekday().to_monday_zero_offset().days()),
        Period::Month => {
            let starts = i8::try_from(quota.starts.clamp(1, 28)).unwrap_or(1);
            let month = if today.day() >= starts {
                today
            } else {
                today.saturating_sub(1.month())
            };
            month.first_of_month().saturating_add((starts - 1).days())
        }
    }
}

/// How far a counter had been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Counted {
    /// Not at all: what it says is not ours to judge.
    #[default]
    Never,
    /// It has started over since, whatever its id is now.
    StartsOver,
    /// Up to here.
    UpTo(Counter),
}

/// What is kept of one uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Bytes by the first day of the period. Several, because clocks go wrong.
    #[serde(default)]
    periods: BTreeMap<Date, u64>,
    /// The period that the clock named last.
    #[serde(default)]
    current: Option<Date>,
    #[serde(default)]
    counted: Counted,
}

impl Book {
    /// The bytes since the last look.
    fn advance(&mut self, counter: Counter) -> u64 {
        let counted = std::mem::replace(&mut self.counted, Counted::UpTo(counter));
        match counted {
            Counted::UpTo(last) if last.id == counter.id => match counter.bytes.checked_sub(last.bytes) {
                Some(more) => more,
                None => counter.bytes,
            },
            Counted::StartsOver => counter.bytes,
            Counted::Never | Counted::UpTo(_) => 0,
        }
    }

    /// Adds to the period that the clock names, and to later ones that it has named before: one
    /// of the two is wrong, and neither may forget. Only when the clock then goes on into a
    /// period of its own, it is believed, and the later ones are dropped.
    fn add(&mut self, period: Date, bytes: u64) {
        let goes_on = self.current.is_some_and(|current| current < period);
        if goes_on && !self.periods.contains_key(&period) {
            self.periods.split_off(&period);
        }
        self.periods.entry(period).or_insert(0);
        for total in self.periods.range_mut(period..).map(|(_, total)| total) {
            *total = total.saturating_add(bytes);
        }
        self.current = Some(period);
        while self.periods.range(..period).count() > 1 {
            self.periods.pop_first();
        }
        while self.periods.len() > PERIODS {
            let Some((&later, _)) = self.periods.range(period..).nth(1) else {
                break;
            };
            self.periods.remove(&later);
        }
    }

    /// The most that is known since the period began.
    fn usage(&self) -> Option<Usage> {
        let period = self.current?;
        let bytes = *self.periods.range(period..).map(|(_, total)| total).max()?;
        Some(Usage { period, bytes })
    }
}

/// The quotas and usage of all uplinks, by name.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    quotas: BTreeMap<String, Quota>,
    books: BTreeMap<String, Book>,
}

impl Quotas {
    /// Goes on with what was kept on disk. `same_maps` says that the counters are those that it
    /// was computed from, see [`crate::usage::Kept::maps`]; otherwise they have begun at zero
    /// since.
    #[must_use]
    pub fn restore(mut books: BTreeMap<String, Book>, same_maps: bool) -> Self {
        if !same_maps {
            for book in books.values_mut() {
                book.counted = Counted::StartsOver;
            }
        }
        let quotas = BTreeMap::new();
        Self { quotas, books }
    }

    /// Replaces all quotas. Usage stays, also that of uplinks without a quota, which may get it
    /// back; but a quota with other periods than before begins a new one.
    pub fn set(&mut self, quotas: impl IntoIterator<Item = (String, Quota)>) {
        self.quotas = quotas.into_iter().collect();
    }

    /// Takes in an uplink's counter, also of one without a quota, so that it is known from where
    /// to count when it gets one. The first look at a name that nothing was kept of counts
    /// nothing; a counter that went backwards has started over and counts from zero. `today` is
    /// the date in the host's time zone.
    pub fn count(&mut self, name: &str, counter: Counter, today: Date) {
        let book = self.books.entry(name.into()).or_default();
        let bytes = book.advance(counter);
        if let Some(quota) = self.quotas.get(name) {
            book.add(period_start(quota, today), bytes);
        }
    }

    /// What it has used in the period of the last look. `None` without a quota, and before the
    /// first look.
    #[must_use]
    pub fn usage(&self, name: &str) -> Option<Usage> {
        self.quotas.get(name)?;
        self.books.get(name)?.usage()
    }

    /// Whether it has used all it may in this period.
    #[must_use]
    pub fn used_up(&self, name: &str) -> bool {
        let quota = self.quotas.get(name);
        quota
            .zip(self.usage(name))
            .is_some_and(|(q, u)| u.bytes >= q.bytes)
    }

    /// The usage for people, such as "151.2 of 200 GB used since 2026-11-15".
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let (quota, usage) = (self.quotas.get(name)?, self.usage(name)?);
        let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB")];
        let fits = |(size, _): &(u64, &str)| quota.bytes >= *size;
        let (size, unit) = units.into_iter().find(fits).unwrap_or((1_000_000, "MB"));
        let (used, all) = (tenths(usage.bytes, size), tenths(quota.bytes, size));
        let all = all.strip_suffix(".0").unwrap_or(&all);
        Some(format!("{used} of {all} {unit} used since {}", usage.period))
    }

    /// What has to be kept on disk.
    #[must_use]
    pub fn books(&self) -> &BTreeMap<String, Book> {
        &self.books
    }
}

/// Rounded down, so that nothing looks used up before it is.
fn tenths(bytes: u64, size: u64) -> String {
    let tenths = bytes / (size / 10);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
