//! The health of one address family of one uplink: probe rounds in, flips out.
//!
//! A round sends one probe to every target. It is answered by the first answer and lost when
//! every target's probe is lost, so a dead target condemns nobody while another one answers.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many results the loss figure looks back on.
const LOSS_WINDOW: u32 = 100;

/// What is thought of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not judged yet: used as if up.
    Unknown,
    /// Answers.
    Up,
    /// Does not answer.
    Down,
}

/// Thresholds, in rounds.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Lost in a row to go down.
    pub fall: u32,
    /// Answered in a row to come up again.
    pub rise: u32,
}

/// The state of one uplink and family.
#[derive(Clone, Debug)]
pub struct Health {
    thresholds: Thresholds,
    targets: usize,
    verdict: Verdict,
    answered: u32,
    lost: u32,
    open: BTreeMap<u64, usize>,
    window: u128,
    seen: u32,
    rtt: Option<Rtt>,
}

/// Smoothed round-trip time.
#[derive(Clone, Copy, Debug)]
struct Rtt {
    smoothed_ms: f64,
    last_ms: f64,
    jitter_ms: f64,
}

impl Health {
    /// `targets` is the number of probes in a round. A state found in the maps may say that the
    /// uplink was down when an earlier daemon ended.
    #[must_use]
    pub fn new(thresholds: Thresholds, targets: usize, verdict: Verdict) -> Self {
        let (answered, lost, open, window, seen, rtt) = (0, 0, BTreeMap::new(), 0, 0, None);
        Self {
            thresholds,
            targets,
            verdict,
            answered,
            lost,
            open,
            window,
            seen,
            rtt,
        }
    }

    /// What is thought of it now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the last finished round was lost.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.lost > 0
    }

    /// Smoothed round-trip time in milliseconds (RFC 6298: one eighth of each new sample).
    #[must_use]
    pub fn rtt_ms(&self) -> Option<f64> {
        self.rtt.map(|r| r.smoothed_ms)
    }

    /// Smoothed difference of neighbouring samples in milliseconds (RFC 3550, section 6.4.1).
    #[must_use]
    pub fn jitter_ms(&self) -> Option<f64> {
        self.rtt.map(|r| r.jitter_ms)
    }

    /// Lost among the last hundred probes, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        match self.seen.min(LOSS_WINDOW) {
            0 => 0.0,
            n => f64::from((self.window & mask(n)).count_ones()) / f64::from(n),
        }
    }

    /// A probe of `round` was answered. Returns the new verdict if it flipped.
    pub fn answer(&mut self, round: u64, rtt: Duration) -> Option<Verdict> {
        self.record(false);
        self.sample(rtt.as_secs_f64() * 1e3);
        if self.open.insert(round, usize::MAX) == Some(usize::MAX) {
            return None;
        }
        self.forget(round);
        self.lost = 0;
        self.answered = self.answered.saturating_add(1);
        let rise = if self.verdict == Verdict::Unknown {
            1
        } else {
            self.thresholds.rise
        };
        self.flip(self.answered >= rise, Verdict::Up)
    }

    /// A probe of `round` was lost. Returns the new verdict if it flipped.
    pub fn loss_of(&mut self, round: u64) -> Option<Verdict> {
        self.record(true);
        let lost = self.open.entry(round).or_insert(0);
        if *lost == usize::MAX {
            return None;
        }
        *lost += 1;
        if *lost < self.targets {
            return None;
        }
        self.forget(round);
        self.answered = 0;
        self.lost = self.lost.saturating_add(1);
        self.flip(self.lost >= self.thresholds.fall, Verdict::Down)
    }

    fn flip(&mut self, reached: bool, to: Verdict) -> Option<Verdict> {
        if !reached || self.verdict == to {
            return None;
        }
        self.verdict = to;
        Some(to)
    }

    /// Rounds long past get no more results.
    fn forget(&mut self, round: u64) {
        const KEEP: u64 = 1024;
        self.open = self.open.split_off(&round.saturating_sub(KEEP));
    }

    fn record(&mut self, lost: bool) {
        self.window = (self.window << 1) | u128::from(lost);
        self.seen = self.seen.saturating_add(1);
    }

    fn sample(&mut self, ms: f64) {
        self.rtt = Some(match self.rtt {
            None => Rtt {
                smoothed_ms: ms,
                last_ms: ms,
                jitter_ms: 0.0,
            },
            Some(r) => Rtt {
                smoothed_ms: r.smoothed_ms + (ms - r.smoothed_ms) / 8.0,
                jitter_ms: r.jitter_ms + ((ms - r.last_ms).abs() - r.jitter_ms) / 16.0,
                last_ms: ms,
            },
        });
    }
}

const fn mask(bits: u32) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn health(targets: usize) -> Health {
        Health::new(Thresholds { fall: 3, rise: 5 }, targets, Verdict::Unknown)
    }

    #[test]
    fn the_first_answer_makes_it_up_and_three_lost_rounds_down() {
        let mut h = health(1);
        assert_eq!(h.answer(1, MS), Some(Verdict::Up));
        assert_eq!((h.loss_of(2), h.loss_of(3)), (None, None));
        assert_eq!(h.loss_of(4), Some(Verdict::Down));
        assert_eq!(h.loss_of(5), None);
    }

    #[test]
    fn five_answers_in_a_row_bring_it_back() {
        let mut h = health(1);
        for round in 1..=3 {
            h.loss_of(round);
        }
        for round in 4..=7 {
            assert_eq!(h.answer(round, MS), None);
        }
        assert_eq!(h.loss_of(8), None);
        for round in 9..=12 {
            assert_eq!(h.answer(round, MS), None);
        }
        assert_eq!(h.answer(13, MS), Some(Verdict::Up));
    }

    #[test]
    fn one_dead_target_of_two_condemns_nobody() {
        let mut h = health(2);
        for round in 1..=50 {
            h.loss_of(round);
            h.answer(round, MS);
        }
        for round in 51..=60 {
            h.answer(round, MS);
            h.loss_of(round);
        }
        assert_eq!(h.verdict(), Verdict::Up);
        assert!((h.loss() - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_round_is_lost_only_when_all_its_probes_are() {
        let mut h = health(2);
        for round in 1..=2 {
            h.loss_of(round);
            h.loss_of(round);
        }
        assert_eq!(h.loss_of(3), None);
        assert_eq!(h.loss_of(3), Some(Verdict::Down));
    }

    #[test]
    fn the_round_trip_time_is_smoothed() {
        let mut h = health(1);
        h.answer(1, 10 * MS);
        h.answer(2, 18 * MS);
        assert!((h.rtt_ms().unwrap() - 11.0).abs() < 1e-6);
        assert!((h.jitter_ms().unwrap() - 0.5).abs() < 1e-6);
    }
}
