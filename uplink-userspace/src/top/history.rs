//! What an uplink was like lately, and how that is drawn in one line of text.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::status::{State, Uplink};

/// Samples that are kept of each uplink: two minutes at one a second, and no sparkline is longer.
const KEPT: usize = 120;

/// An uplink at one time. What is not known draws a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Bits per second towards us.
    pub down_bps: Option<f64>,
    /// Bits per second from us.
    pub up_bps: Option<f64>,
}

/// The newest samples of an uplink, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    last: Option<Counted>,
}

/// The byte counters and when they were read.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Timestamp,
    rx: u64,
    tx: u64,
}

impl History {
    /// Takes in what was said of the uplink at that time.
    pub fn add(&mut self, u: &Uplink, at: Timestamp) {
        let now = Counted {
            at,
            rx: u.rx_bytes,
            tx: u.tx_bytes,
        };
        let since = |of: fn(&Counted) -> u64| self.last.and_then(|before| bps(before, now, of));
        let sample = Sample {
            rtt_ms: u.rtt_ms.filter(|_| u.state != State::Down),
            down_bps: said(u.rx_bps).or_else(|| since(|c| c.rx)),
            up_bps: said(u.tx_bps).or_else(|| since(|c| c.tx)),
        };
        self.last = Some(now);
        self.push(sample);
    }

    /// Nobody answered.
    pub fn add_gap(&mut self) {
        self.last = None;
        self.push(Sample::default());
    }

    /// The newest sample.
    #[must_use]
    pub fn newest(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// One value of each sample, oldest first.
    pub fn of(&self, value: fn(&Sample) -> Option<f64>) -> Vec<Option<f64>> {
        self.samples.iter().map(value).collect()
    }

    fn push(&mut self, sample: Sample) {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

/// A rate that the daemon has measured; an older one says nothing.
fn said(bps: u64) -> Option<f64> {
    (bps > 0).then_some(bps as f64)
}

/// The rate between two readings. A counter that began anew tells nothing.
fn bps(before: Counted, now: Counted, of: fn(&Counted) -> u64) -> Option<f64> {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let bytes = of(&now).checked_sub(of(&before))?;
    (seconds > 0.0).then(|| bytes as f64 * 8.0 / seconds)
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// The newest `width` values as a line, from zero to the highest of them; gaps are blank. Shorter
/// histories stand at the right.
#[must_use]
pub fn spark(values: &[Option<f64>], width: usize, unicode: bool) -> String {
    let levels = if unicode { BLOCKS } else { ASCII };
    let shown = &values[values.len().saturating_sub(width)..];
    let top = shown.iter().flatten().copied().fold(0.0, f64::max);
    let level = |v: f64| match top > 0.0 {
        true => ((v / top * 7.0).round() as usize).min(7),
        false => 0,
    };
    let line = shown.iter().map(|v| v.map_or(' ', |v| levels[level(v)]));
    " ".repeat(width - shown.len()) + &line.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_goes_from_zero_to_the_highest() {
        let values = [Some(0.0), None, Some(5.0), Some(10.0)];
        assert_eq!(spark(&values, 6, true), "  ▁ ▅█");
        assert_eq!(spark(&values, 3, false), " =#");
        assert_eq!(spark(&values, 0, true), "");
        assert_eq!(spark(&[Some(0.0); 2], 2, true), "▁▁");
    }

    #[test]
    fn rates_come_from_counters_where_nobody_says_them() {
        let at = |s| Timestamp::from_second(s).expect("a time");
        let mut u = super::super::tests::uplink("isp1");
        let mut history = History::default();
        let down = |h: &History| h.newest().down_bps;
        (u.rx_bps, u.rx_bytes) = (0, 1000);
        history.add(&u, at(10));
        assert_eq!(down(&history), None);
        u.rx_bytes = 3000;
        history.add(&u, at(12));
        assert_eq!(down(&history), Some(8000.0));
        u.rx_bytes = 5;
        history.add(&u, at(13));
        assert_eq!(down(&history), None, "began anew");
        u.rx_bps = 77;
        history.add(&u, at(13));
        assert_eq!(down(&history), Some(77.0));
        (0..500).for_each(|_| history.add_gap());
        assert_eq!((history.samples.len(), down(&history)), (KEPT, None));
    }
}
