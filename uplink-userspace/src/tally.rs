//! Counts of what happens, since the start: probes by path, and events by kind. Counters for
//! monitoring, which go on over a reload; nothing is decided by them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uplink_common::Family;

use crate::engine::Event;
use crate::events::{Kind, News};

/// Lost probes of a path whose late answer is still recognised.
const LATE_MOST: usize = 1024;

/// Upper bounds of the buckets of round-trip times: half a millisecond, doubled 13 times to 4.096 s.
pub const BOUNDS: usize = 14;

/// The upper bound of bucket `i`, in microseconds; the one behind the last has none.
#[must_use]
pub const fn bound_us(i: usize) -> u64 {
    500 << i
}

/// What became of the probes of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Answered, in time or late.
    pub answered: u64,
    /// Not answered in time.
    pub lost: u64,
    /// Of the lost ones those whose answer came in the end.
    pub late: u64,
    /// Sum of the round-trip times of all answers, microseconds.
    pub rtt_us: u64,
    /// Answers by round-trip time; [`bound_us`] has the bounds.
    pub buckets: [u64; BOUNDS + 1],
    /// Lost ones by round and target.
    missing: BTreeSet<(u64, u8)>,
}

impl Probes {
    /// All whose end is known: each counts once.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.answered - self.late + self.lost
    }

    fn answer(&mut self, round: u64, target: u8, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BOUNDS).find(|i| us <= bound_us(*i)).unwrap_or(BOUNDS);
        self.buckets[bucket] += 1;
        self.rtt_us = self.rtt_us.saturating_add(us);
        self.answered += 1;
        self.late += u64::from(self.missing.remove(&(round, target)));
    }

    fn lose(&mut self, round: u64, target: u8) {
        self.lost += 1;
        self.missing.insert((round, target));
        if self.missing.len() > LATE_MOST {
            self.missing.pop_first();
        }
    }
}

/// The counts, by the uplinks' names: ids may be given to others.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    probes: BTreeMap<String, [Probes; 2]>,
    news: BTreeMap<(String, Kind), u64>,
}

impl Tally {
    /// Counts what became of a probe of this uplink; other events are none of ours.
    pub fn observe(&mut self, uplink: &str, event: &Event) {
        match *event {
            Event::Answered {
                path,
                target,
                round,
                rtt,
            } => self.of(uplink, path.family).answer(round, target, rtt),
            Event::Lost {
                path, target, round, ..
            } => self.of(uplink, path.family).lose(round, target),
            _ => {}
        }
    }

    fn of(&mut self, uplink: &str, family: Family) -> &mut Probes {
        &mut self.probes.entry(uplink.into()).or_default()[family as usize]
    }

    /// Counts what people are told about uplinks.
    pub fn tell(&mut self, news: &News) {
        if let Some(uplink) = &news.uplink {
            *self.news.entry((uplink.clone(), news.kind)).or_default() += 1;
        }
    }

    /// What became of the probes of a path.
    #[must_use]
    pub fn probes(&self, uplink: &str, family: Family) -> Probes {
        let both = self.probes.get(uplink);
        both.map(|both| both[family as usize].clone()).unwrap_or_default()
    }

    /// Events of a kind about an uplink.
    #[must_use]
    pub fn about(&self, uplink: &str, kind: Kind) -> u64 {
        self.news.get(&(uplink.into(), kind)).copied().unwrap_or_default()
    }

    /// Forgets other uplinks than these.
    pub fn keep<'a>(&mut self, uplinks: impl IntoIterator<Item = &'a str>) {
        let known: BTreeSet<&str> = uplinks.into_iter().collect();
        self.probes.retain(|name, _| known.contains(&**name));
        self.news.retain(|(name, _), _| known.contains(&**name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Path;

    const PATH: Path = Path {
        uplink: 1,
        family: Family::V4,
    };

    fn answered(round: u64, rtt: Duration) -> Event {
        Event::Answered {
            path: PATH,
            target: 0,
            round,
            rtt,
        }
    }

    fn lost(round: u64) -> Event {
        Event::Lost {
            path: PATH,
            target: 0,
            round,
            waited: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_late_answer_makes_no_second_probe() {
        let mut tally = Tally::default();
        for event in [
            answered(1, Duration::from_micros(500)),
            lost(2),
            lost(3),
            answered(2, Duration::from_secs(9)),
        ] {
            tally.observe("isp1", &event);
        }
        let probes = tally.probes("isp1", Family::V4);
        assert_eq!(
            (probes.sent(), probes.answered, probes.lost, probes.late),
            (3, 2, 2, 1)
        );
        assert_eq!((probes.buckets[0], probes.buckets[BOUNDS]), (1, 1));
        assert_eq!(probes.rtt_us, 9_000_500);
        assert_eq!(tally.probes("isp1", Family::V6), Probes::default());
    }

    #[test]
    fn what_is_kept_of_losses_is_bounded() {
        let mut tally = Tally::default();
        for round in 0..3 * LATE_MOST as u64 {
            tally.observe("isp1", &lost(round));
        }
        let probes = tally.probes("isp1", Family::V4);
        assert_eq!(
            (probes.missing.len(), probes.lost),
            (LATE_MOST, 3 * LATE_MOST as u64)
        );
    }

    #[test]
    fn events_are_counted_by_kind_and_uplink() {
        let mut tally = Tally::default();
        tally.tell(&News::of(Kind::Failover, "").about("isp1"));
        tally.tell(&News::of(Kind::Failover, "").about("isp2"));
        tally.observe("isp2", &lost(1));
        tally.keep(["isp1"]);
        assert_eq!(tally.about("isp1", Kind::Failover), 1);
        assert_eq!(
            tally.about("isp2", Kind::Failover),
            0,
            "isp2 is not configured any more"
        );
        assert_eq!(tally.probes("isp2", Family::V4).lost, 0);
    }
}
