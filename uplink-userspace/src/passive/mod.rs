//! What the users' own packets tell about a path: its round-trip time, how many SYNs had to be
//! sent again, and whether it has gone silent while another one answers.
//!
//! The BPF programs count per path ([`record::Passive`]); the daemon looks at the totals some ten
//! times a second. A suspicion condemns nobody. It asks for probes at once, so a false one costs
//! a few packets, and a missing one the time until the regular probes notice.
//!
//! A path is suspected when all of this holds:
//!
//! - Since the last look that saw a sign of life there (an answered SYN, a DNS response, a TCP
//!   timestamp that came back), at least three new flows have waited longer than the path's
//!   patience. Two are enough when one of their SYNs was sent again meanwhile: a retransmission
//!   counts as one more flow, but never more of them than there are waiting flows but one.
//! - So much silence is no habit of the path: with the share of its flows that are answered at
//!   all, it would come about by chance less than once in ten thousand times. Where a scanner
//!   runs, or the programs lose sight of flows, it takes more than three.
//! - Another path of the same family has shown a sign of life since the third of these flows
//!   began.

mod silence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use uplink_common::record;

use crate::engine::Path;
use crate::rates::gain;
use silence::{Silence, Waited};

/// A suspicion is told again after this time while it lasts, and others are still answered.
const AGAIN: Duration = Duration::from_secs(1);
/// What happened between two looks is taken to have happened at their beginning, but no longer
/// ago than this: looks of a daemon that was starved make no flow old.
const LOOK: Duration = Duration::from_millis(100);
/// Time constant of the round-trip time.
const SMOOTHING: Duration = Duration::from_secs(2);
/// A round-trip time is forgotten when it was not measured for so long.
const STALE: Duration = Duration::from_secs(60);
/// Time constant of the retransmission share.
const SHARE: Duration = Duration::from_secs(10);

/// New flows get no answer on this path, though others are answered elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The path.
    pub path: Path,
    /// New flows (TCP connections and DNS queries) of the last ten seconds that have waited for
    /// an answer longer than usual, since anything was last heard; at least 2.
    pub unanswered: u64,
}

/// All paths that are looked at.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    paths: BTreeMap<Path, Watched>,
}

impl Watch {
    /// Takes in the totals of a path at `now` (since the daemon's start). The first look at a
    /// path only remembers them; totals that jump back (maps made anew) start it over.
    pub fn observe(&mut self, now: Duration, path: Path, totals: &record::Passive) {
        let watched = self.paths.get_mut(&path);
        let change = watched.and_then(|w| Some((Change::between(totals, &w.totals)?, w)));
        match change {
            Some((change, watched)) => watched.observe(now, totals, &change),
            None => {
                self.paths.insert(path, Watched::new(now, totals));
            }
        }
    }

    /// The paths that are suspected now, each at most once a second.
    pub fn suspects(&mut self, now: Duration) -> Vec<Suspicion> {
        let alive: Vec<_> = self
            .paths
            .iter()
            .filter_map(|(path, w)| Some((*path, w.alive_at?)))
            .collect();
        let elsewhere = |here: Path, since: Duration| {
            let other = |p: &Path| p.family == here.family && p.uplink != here.uplink;
            alive.iter().any(|(path, at)| other(path) && *at >= since)
        };
        let mut suspects = Vec::new();
        for (&path, watched) in &mut self.paths {
            let waited = watched.silence.waited(now, patience(watched.rtt_ms()));
            let told_at = watched.told_at;
            let due = told_at.is_none_or(|at| now.saturating_sub(at) >= AGAIN);
            let answered = |w: &Waited| elsewhere(path, told_at.map_or(w.since, |at| at.max(w.since)));
            let Some(waited) = waited.filter(|w| due && answered(w)) else {
                continue;
            };
            watched.told_at = Some(now);
            suspects.push(Suspicion {
                path,
                unanswered: waited.flows,
            });
        }
        suspects
    }

    /// Round-trip time of the users' connections in milliseconds, smoothed over about two
    /// seconds. `None` until one was measured, and again a minute after the last one.
    #[must_use]
    pub fn rtt_ms(&self, path: Path) -> Option<f64> {
        self.paths.get(&path)?.rtt_ms()
    }

    /// The part of all SYNs that were sent again, 0 to 1, over about the last ten seconds. `None`
    /// where none was sent.
    #[must_use]
    pub fn retransmission_share(&self, path: Path) -> Option<f64> {
        self.paths.get(&path)?.syns.share()
    }

    /// A path was found dead, or came back: the silence until now is explained.
    pub fn excuse(&mut self, path: Path) {
        if let Some(watched) = self.paths.get_mut(&path) {
            watched.silence.excuse();
        }
    }

    /// Forgets a path that is gone, or whose counters are somebody else's from now on.
    pub fn forget(&mut self, path: Path) {
        self.paths.remove(&path);
    }
}

/// How long a new flow may wait before it counts as unanswered: twice the round-trip time and
/// 100 ms for the server, 200 ms to 1 s; 1 s where the round-trip time is not known.
fn patience(rtt_ms: Option<f64>) -> Duration {
    let ms = rtt_ms.map_or(1000.0, |rtt| (2.0 * rtt + 100.0).clamp(200.0, 1000.0));
    Duration::from_secs_f64(ms / 1000.0)
}

/// What was counted between two looks.
struct Change {
    opened: u64,
    queries: u64,
    retransmitted: u64,
    answers: u64,
    rtt_us: u64,
    rtts: u64,
}

impl Change {
    /// `None` where a counter jumped back.
    fn between(now: &record::Passive, then: &record::Passive) -> Option<Self> {
        let answered = now.answered.checked_sub(then.answered)?;
        let responses = now.responses.checked_sub(then.responses)?;
        Some(Self {
            opened: now.opened.checked_sub(then.opened)?,
            queries: now.queries.checked_sub(then.queries)?,
            retransmitted: now.retransmitted.checked_sub(then.retransmitted)?,
            answers: answered.saturating_add(responses),
            rtt_us: now.rtt_us.checked_sub(then.rtt_us)?,
            rtts: now.rtts.checked_sub(then.rtts)?,
        })
    }
}

/// What is known of one path.
#[derive(Clone, Debug)]
struct Watched {
    looked_at: Duration,
    totals: record::Passive,
    silence: Silence,
    /// The beginning of the look that saw the last sign of life.
    alive_at: Option<Duration>,
    rtt: Option<Rtt>,
    syns: Syns,
    told_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Rtt {
    ms: f64,
    at: Duration,
}

impl Watched {
    fn new(now: Duration, totals: &record::Passive) -> Self {
        Self {
            looked_at: now,
            totals: *totals,
            silence: Silence::default(),
            alive_at: None,
            rtt: None,
            syns: Syns::default(),
            told_at: None,
        }
    }

    fn rtt_ms(&self) -> Option<f64> {
        self.rtt.map(|r| r.ms)
    }

    fn observe(&mut self, now: Duration, totals: &record::Passive, change: &Change) {
        let elapsed = now.saturating_sub(self.looked_at);
        let began = self.looked_at.max(now.saturating_sub(LOOK));
        self.looked_at = now;
        self.totals = *totals;
        self.syns.count(elapsed, change.opened, change.retransmitted);
        self.measure(now, change);
        self.silence
            .opened(began, change.opened.saturating_add(change.queries));
        self.silence.retransmitted(now, change.retransmitted);
        if change.answers > 0 || change.rtts > 0 {
            self.alive_at = Some(began);
            self.silence.broken(change.answers);
        }
    }

    fn measure(&mut self, now: Duration, change: &Change) {
        if change.rtts > 0 {
            let mean = change.rtt_us as f64 / change.rtts as f64 / 1000.0;
            let ms = self.rtt.map_or(mean, |r| {
                r.ms + gain(now.saturating_sub(r.at), SMOOTHING) * (mean - r.ms)
            });
            self.rtt = Some(Rtt { ms, at: now });
        }
        self.rtt = self.rtt.filter(|r| now.saturating_sub(r.at) < STALE);
    }
}

/// SYNs of the last seconds; each counts less the older it is.
#[derive(Clone, Copy, Debug, Default)]
struct Syns {
    first: f64,
    again: f64,
}

impl Syns {
    fn count(&mut self, elapsed: Duration, first: u64, again: u64) {
        let kept = 1.0 - gain(elapsed, SHARE);
        self.first = self.first * kept + first as f64;
        self.again = self.again * kept + again as f64;
    }

    fn share(&self) -> Option<f64> {
        // What is left of a single SYN after twice the time constant.
        const NONE: f64 = 0.135;
        let all = self.first + self.again;
        (all >= NONE).then(|| self.again / all)
    }
}
