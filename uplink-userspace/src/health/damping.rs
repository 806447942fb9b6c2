//! How often an uplink may change its mind.

use std::collections::VecDeque;
use std::time::Duration;

/// Flips are counted over this time.
const MINUTE: Duration = Duration::from_secs(60);

/// The flips of the last minute. A death is always obeyed; what is voluntary, a recovery or a
/// degradation, waits until it makes no more than the allowed number within a minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flips(VecDeque<Duration>);

impl Flips {
    pub(crate) fn note(&mut self, now: Duration) {
        self.0.push_back(now);
        self.forget(now);
    }

    /// Whether one more is within `most` a minute.
    pub(crate) fn allow(&mut self, now: Duration, most: u32) -> bool {
        self.forget(now);
        self.0.len() < most as usize
    }

    fn forget(&mut self, now: Duration) {
        while self
            .0
            .front()
            .is_some_and(|then| now.saturating_sub(*then) >= MINUTE)
        {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_a_minute() {
        let s = Duration::from_secs;
        let mut flips = Flips::default();
        flips.note(s(0));
        assert!(flips.allow(s(5), 2));
        flips.note(s(5));
        assert!(!flips.allow(s(59), 2) && flips.allow(s(60), 2));
    }
}
