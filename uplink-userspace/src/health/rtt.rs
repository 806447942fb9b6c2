//! Round-trip time and jitter, smoothed.

use std::time::Duration;

use crate::config::Limits;

/// Smoothed figures, milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    /// RFC 6298: one eighth of each new sample.
    pub smoothed: f64,
    /// RFC 3550, section 6.4.1: one sixteenth of each new difference of neighbouring samples.
    pub jitter: f64,
    last: f64,
}

impl Rtt {
    pub(super) fn sample(before: Option<Self>, rtt: Duration) -> Self {
        let ms = rtt.as_secs_f64() * 1e3;
        match before {
            None => Self {
                smoothed: ms,
                jitter: 0.0,
                last: ms,
            },
            Some(r) => Self {
                smoothed: r.smoothed + (ms - r.smoothed) / 8.0,
                jitter: r.jitter + ((ms - r.last).abs() - r.jitter) / 16.0,
                last: ms,
            },
        }
    }
}

/// A value against its two limits: `true` once it is too high, until it is low enough again.
pub(super) fn exceeds(before: bool, ms: f64, limits: Option<Limits<Duration>>) -> bool {
    let Some(limits) = limits else { return false };
    let limit = if before { limits.better } else { limits.worse };
    let limit = limit.as_secs_f64() * 1e3;
    if before { ms > limit } else { ms >= limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_smoothed() {
        let first = Rtt::sample(None, 10 * MS);
        let second = Rtt::sample(Some(first), 18 * MS);
        assert!((second.smoothed - 11.0).abs() < 1e-6);
        assert!((second.jitter - 0.5).abs() < 1e-6);
    }

    #[test]
    fn between_the_limits_nothing_changes() {
        let limits = Some(Limits {
            worse: 100 * MS,
            better: 80 * MS,
        });
        let is = |before, ms| exceeds(before, ms, limits);
        assert!(is(false, 100.0) && !is(false, 99.0) && is(true, 81.0) && !is(true, 80.0));
        assert!(!exceeds(true, 1e9, None));
    }
}
