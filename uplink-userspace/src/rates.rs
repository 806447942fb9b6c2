//! How much every uplink carries, and the most it has carried: what users who do not know their
//! capacity are told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time constant of the shown rate.
const SMOOTHING: Duration = Duration::from_secs(2);
/// A capacity is a mean over this time: shorter peaks are the queue of a network card.
const SUSTAINED: Duration = Duration::from_secs(3);
/// What was measured counts half after this time: lines are changed, and neighbours come.
const HALF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The least that the configuration takes as a capacity, bits per second.
const LEAST: f64 = 8e3;

/// Bits per second, both never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Towards us.
    pub down: f64,
    /// From us.
    pub up: f64,
}

impl Rate {
    fn map2(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            down: f(self.down, other.down),
            up: f(self.up, other.up),
        }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        self.map2(self, |x, _| x * factor)
    }
}

/// The part of the way from a smoothed value to a new sample, 0 to 1, when `elapsed` has gone by
/// since the sample before: `1 - exp(-elapsed / constant)`, so that irregular samples weigh as
/// much as the time they stand for.
pub(crate) fn gain(elapsed: Duration, constant: Duration) -> f64 {
    -(-elapsed.as_secs_f64() / constant.as_secs_f64()).exp_m1()
}

/// What remains after `elapsed` of a capacity that was measured as 1.
#[must_use]
pub fn decay(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

/// What an uplink's counters showed.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Duration,
    received: u64,
    sent: u64,
}

impl Reading {
    /// The mean rate since an `earlier` reading. `None` where no time has gone by or a counter
    /// jumped back.
    fn rate_since(&self, earlier: &Self) -> Option<Rate> {
        let seconds = self.at.checked_sub(earlier.at)?.as_secs_f64();
        let bits = |now: u64, then: u64| now.checked_sub(then).map(|bytes| bytes as f64 * 8.0);
        let bits = Rate {
            down: bits(self.received, earlier.received)?,
            up: bits(self.sent, earlier.sent)?,
        };
        (seconds > 0.0).then(|| bits.times(seconds.recip()))
    }
}

/// What is known of one uplink.
#[derive(Clone, Debug, Default)]
struct Meter {
    /// Oldest first; the first one is the only one that may be older than [`SUSTAINED`].
    readings: VecDeque<Reading>,
    smoothed: Option<Rate>,
    capacity: Option<Rate>,
}

impl Meter {
    fn observe(&mut self, reading: Reading) {
        let Some(last) = self.readings.back().copied() else {
            self.readings.push_back(reading);
            return;
        };
        if reading.at <= last.at {
            return;
        }
        let Some(rate) = reading.rate_since(&last) else {
            self.smoothed = None;
            self.readings = VecDeque::from([reading]);
            return;
        };
        let elapsed = reading.at - last.at;
        self.smoothed = Some(self.smoothed.map_or(rate, |old| {
            old.map2(rate, |old, new| old + gain(elapsed, SMOOTHING) * (new - old))
        }));
        self.readings.push_back(reading);
        self.capacity = self.capacity.map(|c| c.times(decay(elapsed)));
        self.record(reading);
    }

    /// Raises the capacity to the mean rate of the last three seconds, if that is more.
    fn record(&mut self, now: Reading) {
        let old = |r: &Reading| now.at - r.at >= SUSTAINED;
        while self.readings.get(1).is_some_and(old) {
            self.readings.pop_front();
        }
        let sustained = self.readings.front().filter(|r| old(r));
        if let Some(rate) = sustained.and_then(|first| now.rate_since(first)) {
            self.capacity = Some(self.capacity.unwrap_or_default().map2(rate, f64::max));
        }
    }
}

/// The rates of all uplinks, by id.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    meters: BTreeMap<u8, Meter>,
}

impl Rates {
    /// Takes in the byte counters of an uplink at `now` (since the daemon's start). Two looks at
    /// the same instant count once; a counter that jumped back starts the uplink's rate anew, but
    /// keeps its capacity.
    pub fn observe(&mut self, now: Duration, id: u8, received_bytes: u64, sent_bytes: u64) {
        self.meters.entry(id).or_default().observe(Reading {
            at: now,
            received: received_bytes,
            sent: sent_bytes,
        });
    }

    /// The rate now, smoothed over about two seconds. `None` until two looks.
    #[must_use]
    pub fn of(&self, id: u8) -> Option<Rate> {
        self.meters.get(&id)?.smoothed
    }

    /// The highest mean rate over three seconds that was seen in each direction, halved every
    /// seven days. A lower bound of what the line can carry: nobody may have asked for more.
    /// `None` until it was looked at for three seconds.
    #[must_use]
    pub fn capacity(&self, id: u8) -> Option<Rate> {
        self.meters.get(&id)?.capacity
    }

    /// Takes in what was known earlier, already decayed (see [`decay`]). More that was measured
    /// meanwhile stays.
    pub fn seed(&mut self, id: u8, capacity: Rate) {
        let meter = self.meters.entry(id).or_default();
        meter.capacity = Some(meter.capacity.unwrap_or_default().map2(capacity, f64::max));
    }

    /// All capacities, by id, for keeping.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<u8, Rate> {
        let known = |(id, meter): (&u8, &Meter)| meter.capacity.map(|c| (*id, c));
        self.meters.iter().filter_map(known).collect()
    }

    /// Forgets an uplink whose id now belongs to another one, or to nobody.
    pub fn forget(&mut self, id: u8) {
        self.meters.remove(&id);
    }
}

/// A rate in bits per second as one writes it in the configuration, such as "94mbit": a whole
/// number of at least two digits (but "8kbit" and "9kbit", the least that the file takes), in
/// the units of `tc`.
#[must_use]
pub fn suggestion(rate: f64) -> String {
    let rate = rate.max(LEAST);
    let units = [(1e9, "gbit"), (1e6, "mbit")];
    let fits = |(size, _): &(f64, &str)| (rate / size).round() >= 10.0;
    let (size, unit) = units.into_iter().find(fits).unwrap_or((1e3, "kbit"));
    format!("{:.0}{unit}", (rate / size).round())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// Down at `bits` per second, up at a tenth, looked at every `step`.
    fn run(rates: &mut Rates, from: Duration, to: Duration, step: Duration, before: u64, bits: u64) -> u64 {
        let mut at = from;
        while at <= to {
            let bytes = before + bits * (at - from).as_millis() as u64 / 8000;
            rates.observe(at, 1, bytes, bytes / 10);
            at += step;
        }
        before + bits * (to - from).as_millis() as u64 / 8000
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b.abs() * 0.02
    }

    #[test]
    fn a_steady_rate_is_told_as_it_is() {
        let mut rates = Rates::default();
        assert_eq!(rates.of(1), None);
        run(&mut rates, Duration::ZERO, 5000 * MS, 100 * MS, 0, 80_000_000);
        let rate = rates.of(1).unwrap();
        assert!(near(rate.down, 80e6) && near(rate.up, 8e6), "{rate:?}");
        assert_eq!(rates.of(2), None);
    }

    #[test]
    fn a_step_is_followed_with_a_time_constant_of_two_seconds_however_often_one_looks() {
        for step in [50, 100, 500, 1000] {
            let mut rates = Rates::default();
            run(&mut rates, Duration::ZERO, 5000 * MS, step * MS, 0, 0);
            run(&mut rates, 5000 * MS, 7000 * MS, step * MS, 0, 100_000_000);
            let rate = rates.of(1).unwrap().down;
            assert!(near(rate, 63.2e6), "{rate} every {step} ms");
        }
    }

    #[test]
    fn capacity_is_the_highest_rate_that_lasted_three_seconds() {
        let mut rates = Rates::default();
        let at = run(&mut rates, Duration::ZERO, 2900 * MS, 100 * MS, 0, 50_000_000);
        assert_eq!(rates.capacity(1), None);
        let at = run(&mut rates, 2900 * MS, 8000 * MS, 100 * MS, at, 50_000_000);
        let at = run(&mut rates, 8000 * MS, 9000 * MS, 100 * MS, at, 200_000_000);
        run(&mut rates, 9000 * MS, 60_000 * MS, 100 * MS, at, 1_000_000);
        // One second at 200 and two at 50.
        let capacity = rates.capacity(1).unwrap();
        assert!(
            near(capacity.down, 100e6) && near(capacity.up, 10e6),
            "{capacity:?}"
        );
    }

    #[test]
    fn capacity_halves_in_seven_days_and_what_was_kept_comes_back() {
        let mut rates = Rates::default();
        rates.seed(1, Rate { down: 90e6, up: 0.0 });
        for hour in 0..=7 * 24 {
            rates.observe(HALF_LIFE / (7 * 24) * hour, 1, 0, 0);
        }
        assert!(near(rates.capacity(1).unwrap().down, 45e6));
        rates.seed(1, Rate { down: 1.0, up: 7e6 });
        let kept = rates.snapshot()[&1];
        assert!(near(kept.down, 45e6) && near(kept.up, 7e6), "{kept:?}");
        rates.forget(1);
        assert_eq!(rates.capacity(1), None);
    }

    #[test]
    fn a_counter_that_jumps_back_starts_over_and_invents_nothing() {
        let mut rates = Rates::default();
        run(
            &mut rates,
            Duration::ZERO,
            5000 * MS,
            100 * MS,
            1 << 40,
            80_000_000,
        );
        rates.observe(5100 * MS, 1, 500, 500);
        assert_eq!(rates.of(1), None);
        run(&mut rates, 5200 * MS, 12_000 * MS, 100 * MS, 500, 8_000_000);
        assert!(near(rates.of(1).unwrap().down, 8e6));
        assert!(near(rates.capacity(1).unwrap().down, 80e6));
    }

    #[test]
    fn suggestions_read_as_the_file_wants_them() {
        let cases = [
            (94.2e6, "94mbit"),
            (9.44e6, "9440kbit"),
            (9.99996e6, "10mbit"),
            (941.4e6, "941mbit"),
            (2.36e9, "2360mbit"),
            (10.2e9, "10gbit"),
            (16_400.0, "16kbit"),
            (8400.0, "8kbit"),
            (0.0, "8kbit"),
            (f64::NAN, "8kbit"),
        ];
        for (rate, text) in cases {
            assert_eq!(suggestion(rate), text, "{rate}");
        }
    }

    proptest! {
        /// Whatever the counters do, rates are finite, never negative, and a capacity is at
        /// most the highest rate between any two looks.
        #[test]
        fn no_rate_comes_from_nowhere(looks in prop::collection::vec((0u64..5000, 0u64..1_000_000_000), 2..60)) {
            let mut rates = Rates::default();
            let (mut now, mut last, mut highest) = (Duration::ZERO, None, 0f64);
            for (pause, bytes) in looks {
                now += pause as u32 * MS;
                rates.observe(now, 1, bytes, 0);
                match last {
                    Some(_) if pause == 0 => continue,
                    Some(before) if bytes >= before => {
                        highest = highest.max((bytes - before) as f64 * 8000.0 / pause as f64);
                    }
                    _ => {}
                }
                last = Some(bytes);
                if let Some(rate) = rates.of(1) {
                    prop_assert!(rate.down.is_finite() && rate.down >= 0.0);
                    prop_assert!(rate.down <= highest * 1.000_001);
                }
                if let Some(capacity) = rates.capacity(1) {
                    prop_assert!(capacity.down >= 0.0 && capacity.down <= highest * 1.000_001);
                }
            }
        }

        /// At most five percent off: two significant digits or better.
        #[test]
        fn suggestions_are_near(rate in 10_000f64..900e9) {
            let text = suggestion(rate);
            let split = text.find(|c: char| !c.is_ascii_digit()).unwrap();
            let size = match &text[split..] { "kbit" => 1e3, "mbit" => 1e6, _ => 1e9 };
            let told = text[..split].parse::<f64>().unwrap() * size;
            prop_assert!((told - rate).abs() <= rate * 0.05, "{text} for {rate}");
        }
    }
}
