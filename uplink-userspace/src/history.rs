//! The last hour of every uplink, for graphs: a point every ten seconds, computed from counters,
//! so that nothing between two looks is missed.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

/// Between two points.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Points that are kept: an hour.
pub const POINTS: usize = 360;

/// What an uplink's counters say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Name.
    pub name: String,
    /// Part of new flows now, 0 to 1.
    pub share: f64,
    /// Bytes towards us, since the maps were made.
    pub rx_bytes: u64,
    /// Bytes from us.
    pub tx_bytes: u64,
    /// Probes whose end is known.
    pub sent: u64,
    /// Of those the lost ones.
    pub lost: u64,
    /// Answers.
    pub answered: u64,
    /// Sum of their round-trip times, microseconds.
    pub rtt_us: u64,
}

/// What an uplink was like over one interval. Small: there are 360 for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    rtt_ms: Option<f32>,
    loss: Option<f32>,
    share: f32,
    rx_bps: Option<f32>,
    tx_bps: Option<f32>,
}

#[derive(Clone, Debug)]
struct Series {
    last: Totals,
    points: VecDeque<Option<Point>>,
}

/// The last hour.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Unix times of the points, seconds.
    times: VecDeque<u64>,
    series: Vec<Series>,
    /// When the last look was, on the daemon's clock.
    looked: Option<Duration>,
}

impl History {
    /// Whether it is time for the next point.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.looked
            .is_none_or(|then| now.saturating_sub(then) >= INTERVAL)
    }

    /// Takes the next point. `now` is on the daemon's clock, `time_s` the Unix time. An uplink that
    /// is not there any more is forgotten, which bounds all of it.
    pub fn observe(&mut self, now: Duration, time_s: u64, uplinks: Vec<Totals>) {
        let before = self.looked.replace(now);
        let elapsed = before.map(|then| now.saturating_sub(then));
        let mut old = std::mem::take(&mut self.series);
        for totals in uplinks {
            let known = old.iter().position(|s| s.last.name == totals.name);
            let known = known.map(|at| old.swap_remove(at));
            let series = match known {
                Some(series) => series.next(totals, elapsed.unwrap_or_default()),
                None => Series::new(totals, self.times.len()),
            };
            self.series.push(series);
        }
        if self.times.len() == POINTS {
            self.times.pop_front();
            for series in &mut self.series {
                series.points.pop_front();
            }
        }
        self.times.push_back(time_s);
    }

    /// For `history.json`.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            version: 1,
            interval_s: INTERVAL.as_secs(),
            times: self.times.iter().copied().collect(),
            uplinks: self.series.iter().map(Series::view).collect(),
        }
    }
}

impl Series {
    /// A new uplink has no past: its first look only says where to count from.
    fn new(totals: Totals, past: usize) -> Self {
        let point = Point {
            share: totals.share as f32,
            ..Point::default()
        };
        let mut points: VecDeque<_> = std::iter::repeat_n(None, past).collect();
        points.push_back(Some(point));
        Self { last: totals, points }
    }

    fn next(mut self, totals: Totals, elapsed: Duration) -> Self {
        let was = self.points.back().copied().flatten().unwrap_or_default();
        self.points
            .push_back(Some(between(&self.last, &totals, elapsed, was)));
        self.last = totals;
        self
    }

    fn view(&self) -> UplinkView {
        let all = |of: fn(&Point) -> Option<f32>, digits: i32| {
            let scale = 10_f64.powi(digits);
            let rounded = |v: f32| (f64::from(v) * scale).round() / scale;
            let one = |p: &Option<Point>| p.as_ref().and_then(of).map(rounded);
            self.points.iter().map(one).collect()
        };
        UplinkView {
            name: self.last.name.clone(),
            rtt_ms: all(|p| p.rtt_ms, 2),
            loss: all(|p| p.loss, 4),
            share: all(|p| Some(p.share), 4),
            rx_bps: all(|p| p.rx_bps, 0),
            tx_bps: all(|p| p.tx_bps, 0),
        }
    }
}

/// Between two looks. Where no probe came to its end meanwhile, an interval that is longer than
/// ours, what was known goes on; where all were lost there is no round-trip time.
fn between(a: &Totals, b: &Totals, elapsed: Duration, was: Point) -> Point {
    let grown = |a: u64, b: u64| b.checked_sub(a);
    let seconds = elapsed.as_secs_f64();
    let bps = |a, b| grown(a, b).map(|bytes| (bytes as f64 * 8.0 / seconds.max(1e-3)) as f32);
    let ratio = |part: u64, all: u64, scale: f64| (part as f64 / scale / all as f64) as f32;
    let (rtt_ms, loss) = match (grown(a.sent, b.sent), grown(a.answered, b.answered)) {
        (Some(0), Some(0)) => (was.rtt_ms, was.loss),
        (Some(sent), Some(answered)) => {
            let rtt = grown(a.rtt_us, b.rtt_us).filter(|_| answered > 0);
            let lost = grown(a.lost, b.lost).filter(|_| sent > 0);
            (
                rtt.map(|us| ratio(us, answered, 1e3)),
                lost.map(|n| ratio(n, sent, 1.0).min(1.0)),
            )
        }
        _ => (None, None),
    };
    Point {
        rtt_ms,
        loss,
        share: b.share as f32,
        rx_bps: bps(a.rx_bytes, b.rx_bytes),
        tx_bps: bps(a.tx_bytes, b.tx_bytes),
    }
}

/// `history.json`. Every list of an uplink is as long as `times`; `null` is what is not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// Of this form.
    pub version: u32,
    /// Between two points, seconds.
    pub interval_s: u64,
    /// Unix times, seconds, oldest first.
    pub times: Vec<u64>,
    /// In the order of the file.
    pub uplinks: Vec<UplinkView>,
}

/// One uplink's last hour.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UplinkView {
    /// Name.
    pub name: String,
    /// Mean round-trip time of the probes, milliseconds.
    pub rtt_ms: Vec<Option<f64>>,
    /// Lost probes, 0 to 1.
    pub loss: Vec<Option<f64>>,
    /// Part of new flows, 0 to 1.
    pub share: Vec<Option<f64>>,
    /// Bits per second towards us.
    pub rx_bps: Vec<Option<f64>>,
    /// Bits per second from us.
    pub tx_bps: Vec<Option<f64>>,
}

#[cfg(test)]
mod tests;
