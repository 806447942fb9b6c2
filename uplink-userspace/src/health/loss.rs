//! Loss: a figure for people, and a test that tells a brown-out from bad luck.
//!
//! The test is Page's cumulative sum (E. S. Page, "Continuous inspection schemes", Biometrika 41,
//! 1954) of log-likelihood ratios: every probe adds ln(p1/p0) where it is lost and
//! ln((1-p1)/(1-p0)) where not, p0 being the loss that is still good and p1 the one that is not;
//! the sum never falls below zero and raises the alarm at [`ALARM`]. Losses come in bursts, so
//! that those of a half second add [`SLICE_CAP`] at most: what counts is for how many half
//! seconds loss outweighs luck, not how deep one of them was. With the default limits the sum
//! turns at a loss of about 9 %.

use std::time::Duration;

use crate::config::Limits;

/// Length of the figure for people, in probes.
const WINDOW: u32 = 100;
const SLICE: Duration = Duration::from_millis(500);
const SLICE_CAP: f64 = 1.5;
/// Ten bad half seconds more than good ones.
const ALARM: f64 = 15.0;
/// The evidence that is enough to believe in a recovery: about 14 s without loss at two targets
/// twice a second.
const ALL_CLEAR: f64 = 6.0;
/// From here on more probes are worth their while.
const DOUBT: f64 = 0.5;
/// What a second target must have seen of a loss before it is the uplink's.
const AGREEMENT: f64 = 2.0;
/// Targets of a path at most, as the configuration allows.
const TARGETS: usize = 16;

/// The last probes of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    bits: u128,
    seen: u32,
}

impl Window {
    pub(super) fn record(&mut self, lost: bool) {
        self.bits = (self.bits << 1) | u128::from(lost);
        self.seen = self.seen.saturating_add(1);
    }

    /// A reply came late: the last loss was none.
    pub(super) fn unlose(&mut self) {
        self.bits &= self.bits.wrapping_sub(1);
    }

    /// How many probes the figure is over.
    pub(super) fn probes(&self) -> u32 {
        self.seen.min(WINDOW)
    }

    /// Lost among the last hundred, 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        match self.probes() {
            0 => 0.0,
            n => f64::from((self.bits & ((1 << n) - 1)).count_ones()) / f64::from(n),
        }
    }
}

/// The test.
#[derive(Clone, Debug)]
pub(super) struct Detector {
    lost: f64,
    kept: f64,
    slice: u128,
    of_slice: f64,
    worse: f64,
    better: f64,
    by_target: [f64; TARGETS],
}

impl Detector {
    pub(super) fn new(limits: Limits<f64>) -> Self {
        let tiny = 1e-4;
        let p0 = limits.better.clamp(tiny, 1.0 - 2.0 * tiny);
        let p1 = limits.worse.clamp(p0 + tiny, 1.0 - tiny);
        Self {
            lost: (p1 / p0).ln(),
            kept: ((1.0 - p1) / (1.0 - p0)).ln(),
            slice: 0,
            of_slice: 0.0,
            worse: 0.0,
            better: 0.0,
            by_target: [0.0; TARGETS],
        }
    }

    /// A result at `now`.
    pub(super) fn record(&mut self, now: Duration, target: u8, lost: bool) {
        self.close(now);
        let evidence = if lost { self.lost } else { self.kept };
        self.of_slice += evidence;
        let own = &mut self.by_target[usize::from(target) % TARGETS];
        *own = (*own + evidence).max(0.0);
    }

    /// A reply came late: a loss was none.
    pub(super) fn unlose(&mut self, target: u8) {
        let mistake = self.lost - self.kept;
        self.of_slice -= mistake;
        let own = &mut self.by_target[usize::from(target) % TARGETS];
        *own = (*own - mistake).max(0.0);
    }

    fn close(&mut self, now: Duration) {
        let slice = now.as_nanos() / SLICE.as_nanos();
        if slice == self.slice {
            return;
        }
        self.slice = slice;
        let evidence = std::mem::take(&mut self.of_slice);
        self.worse = (self.worse + evidence.min(SLICE_CAP)).max(0.0);
        self.better = (self.better + (-evidence).min(SLICE_CAP)).clamp(0.0, ALL_CLEAR);
    }

    /// There is more loss than is good, and several of `targets` see it, where there are several:
    /// one that answers only some of the time, or limits how often, tells of itself.
    pub(super) fn is_worse(&self, targets: u32) -> bool {
        let sees = |target: &usize| targets & (1 << target) != 0 && self.by_target[*target] >= AGREEMENT;
        let needed = targets.count_ones().min(2) as usize;
        self.worse >= ALARM && (needed < 2 || (0..TARGETS).filter(sees).count() >= needed)
    }

    /// Loss has been good for long enough.
    pub(super) fn is_better(&self) -> bool {
        self.better >= ALL_CLEAR
    }

    /// More probes would tell sooner.
    pub(super) fn doubts(&self) -> bool {
        (self.worse + self.of_slice).max(self.worse) >= DOUBT && self.worse < 2.0 * ALARM
    }

    /// Nothing is held against the path any more.
    pub(super) fn absolve(&mut self) {
        (self.worse, self.better, self.of_slice) = (0.0, 0.0, 0.0);
        self.by_target = [0.0; TARGETS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits<f64> = Limits {
        worse: 0.15,
        better: 0.05,
    };

    /// Feeds two targets four times a half second; `lost(n)` tells which probes are lost.
    fn after(halves: u32, lost: impl Fn(u32, u8) -> bool) -> Detector {
        let mut d = Detector::new(LIMITS);
        for n in 0..4 * halves {
            let now = SLICE * (n / 4);
            for target in 0..2 {
                d.record(now, target, lost(n, target));
            }
        }
        d.close(SLICE * halves);
        d
    }

    #[test]
    fn steady_loss_is_found_and_its_end_too() {
        let mut d = after(24, |n, target| (n + u32::from(target)) % 4 == 0);
        assert!(d.is_worse(3) && !d.is_better());
        for n in 24..60 {
            (0..8).for_each(|_| d.record(SLICE * n, 0, false));
        }
        assert!(d.is_better());
    }

    #[test]
    fn a_deep_short_burst_is_no_brown_out() {
        let d = after(40, |n, _| (40..56).contains(&n));
        assert!(!d.is_worse(3));
    }

    #[test]
    fn a_single_target_that_drops_tells_of_itself() {
        let d = after(200, |n, target| target == 0 && n % 2 == 0);
        assert!(d.worse >= ALARM && !d.is_worse(3));
        assert!(d.is_worse(1), "where it is the only one it must be believed");
    }

    #[test]
    fn the_first_loss_raises_doubt_and_nothing_more() {
        let mut d = Detector::new(LIMITS);
        assert!(!d.doubts());
        d.record(SLICE, 0, true);
        assert!(d.doubts() && !d.is_worse(1));
        d.absolve();
        assert!(!d.doubts());
    }

    #[test]
    fn what_comes_late_is_taken_back() {
        let mut w = Window::default();
        for lost in [true, false, true, false] {
            w.record(lost);
        }
        assert!((w.loss() - 0.5).abs() < 1e-9);
        w.unlose();
        w.unlose();
        assert!(w.loss() < 1e-9);
        w.unlose();
        assert!(w.loss() < 1e-9);
        let mut d = Detector::new(LIMITS);
        for _ in 0..30 {
            d.record(SLICE, 0, true);
            d.unlose(0);
        }
        assert!(!d.doubts());
    }
}
