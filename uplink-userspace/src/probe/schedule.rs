//! When to probe a path, and when to give a probe up. Pure: the time is an argument.
//!
//! A path is silent from the sending of the first probe behind the last answered one. Two times
//! decide how long silence is borne, after RFC 6298: the retransmission timeout RTO = smoothed
//! RTT + 4 x variation, and the patience = max(1.5 x interval, RTO). A round that nobody answered
//! within RTO begins a burst of quick rounds, so that a path which is given up has had many
//! chances to answer, and one that only lost a packet answers at once.

use std::collections::VecDeque;
use std::time::Duration;

const LEAST_RTO: Duration = Duration::from_millis(50);
const LEAST_PATIENCE: Duration = Duration::from_millis(150);
/// How long somebody else's suspicion lets silence last.
const SUSPICIOUS_PATIENCE: Duration = Duration::from_millis(200);
/// Clock granularity of RFC 6298: variation below it is measurement.
const GRANULARITY: Duration = Duration::from_millis(10);
/// Between rounds of a burst, at least.
const QUICK: Duration = Duration::from_millis(50);
/// A sampling lasts this long after it was last asked for.
const SAMPLE: Duration = Duration::from_secs(1);
/// A reply is taken for one of ours up to this long after its probe.
const LATE: Duration = Duration::from_secs(10);
/// Suspicions are acted on no more often: on a path that lives each costs a probe or two.
const SUSPICION: Duration = Duration::from_millis(250);

/// What the configuration says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub interval: Duration,
    pub timeout: Duration,
    pub fall: u32,
    pub targets: u8,
    /// Whether quick rounds are allowed: not for programs that somebody wrote.
    pub bursts: bool,
}

/// The rounds of one path.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pace: Pace,
    rounds: VecDeque<Round>,
    next_id: u64,
    next_round: Duration,
    next_quick: Duration,
    rtt: Option<Rtt>,
    silence: Option<Duration>,
    suspicion: Option<Duration>,
    suspected: Option<Duration>,
    /// This silence has had its burst.
    given_up: bool,
    sample_until: Duration,
    /// Nothing is given up before.
    not_before: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    id: u64,
    sent: Duration,
    answered: u32,
    lost: u32,
}

/// RFC 6298, section 2.
#[derive(Clone, Copy, Debug)]
struct Rtt {
    smoothed: Duration,
    variation: Duration,
}

impl Rtt {
    fn sample(before: Option<Self>, rtt: Duration) -> Self {
        match before {
            None => Self {
                smoothed: rtt,
                variation: rtt / 2,
            },
            Some(r) => Self {
                smoothed: (r.smoothed * 7 + rtt) / 8,
                variation: (r.variation * 3 + r.smoothed.abs_diff(rtt)) / 4,
            },
        }
    }
}

impl Schedule {
    /// The first round is due at `start`; ids count from behind `first_id`.
    pub(super) fn new(pace: Pace, first_id: u64, start: Duration) -> Self {
        Self {
            pace,
            rounds: VecDeque::new(),
            next_id: first_id,
            next_round: start,
            next_quick: Duration::MAX,
            rtt: None,
            silence: None,
            suspicion: None,
            suspected: None,
            given_up: false,
            sample_until: Duration::ZERO,
            not_before: Duration::ZERO,
        }
    }

    fn all(&self) -> u32 {
        (1u32 << self.pace.targets) - 1
    }

    fn rto(&self) -> Duration {
        let Some(r) = self.rtt else {
            return self.pace.timeout;
        };
        let mut variation = r.variation * 4;
        if self.suspicion.is_some() {
            // The last recovery may have left a few late replies; somebody has seen more than we.
            variation = variation.min(r.smoothed / 2 + LEAST_RTO);
        }
        let rto = r.smoothed + variation.max(GRANULARITY);
        rto.max(LEAST_RTO).min(self.pace.timeout)
    }

    fn patience(&self) -> Duration {
        let usual = (self.pace.interval * 3 / 2).max(self.rto());
        usual.max(LEAST_PATIENCE).min(self.pace.timeout)
    }

    /// The end of what silence is borne, if the path is silent.
    fn limit(&self) -> Option<Duration> {
        let usual = self.silence? + self.patience();
        let suspicious = self.suspicion.map(|since| {
            let patience = SUSPICIOUS_PATIENCE.max(self.rto()).min(self.pace.timeout);
            since + patience
        });
        Some(suspicious.map_or(usual, |s| s.min(usual)))
    }

    fn expiry(&self, round: &Round) -> Duration {
        let last = round.sent + self.pace.timeout;
        let rto = round.sent + self.rto();
        let patient = round.sent + self.patience();
        let due = match self.limit() {
            Some(limit) if self.silence.is_some_and(|s| s <= round.sent) => rto.max(limit),
            _ => rto.max(patient),
        };
        due.min(last).max(self.not_before)
    }

    /// Quick rounds are due: silence has lasted for longer than RTO, or somebody is in doubt.
    fn is_quick(&self, now: Duration) -> bool {
        self.pace.bursts && (now < self.sample_until || (self.burst_at().is_some_and(|at| now >= at)))
    }

    /// When the burst of this silence begins.
    fn burst_at(&self) -> Option<Duration> {
        if self.given_up || !self.pace.bursts {
            return None;
        }
        match self.suspicion {
            Some(since) => Some(since),
            None => self.silence.map(|since| since + self.rto()),
        }
    }

    fn quick(&self) -> Duration {
        QUICK.max(self.pace.interval / 10)
    }

    /// The next time that something has to be done, seen from `now`; may be past.
    pub(super) fn next(&self, now: Duration) -> Duration {
        let expiry = self.unresolved().map(|r| self.expiry(r)).min();
        let burst = self
            .burst_at()
            .map(|at| at.max(self.next_quick.min(self.next_round)));
        let samples = self.pace.bursts && now < self.sample_until;
        let sampling = samples.then_some(self.next_quick);
        let all = [Some(self.next_round), expiry, burst, sampling];
        all.into_iter().flatten().min().unwrap_or(self.next_round)
    }

    fn unresolved(&self) -> impl Iterator<Item = &Round> {
        let all = self.all();
        self.rounds.iter().filter(move |r| r.answered | r.lost != all)
    }

    /// The id of a round to be sent now, if one is due. `dice` is 0 to 1: rounds keep apart from
    /// those of others by chance.
    pub(super) fn due(&mut self, now: Duration, dice: impl FnOnce() -> f64) -> Option<u64> {
        let quick = self.is_quick(now) && now >= self.next_quick;
        if now < self.next_round && !quick {
            return None;
        }
        if now >= self.next_round {
            let gap = self.pace.interval.mul_f64(0.9 + 0.2 * dice().clamp(0.0, 1.0));
            self.next_round = (self.next_round + gap).max(now + gap / 2);
        }
        self.next_quick = now + self.quick();
        // A quick round stands for a usual one that is near.
        self.next_round = self.next_round.max(now + self.quick() / 2);
        self.silence.get_or_insert(now);
        self.next_id += 1;
        self.rounds.push_back(Round {
            id: self.next_id,
            sent: now,
            answered: 0,
            lost: 0,
        });
        while self
            .rounds
            .front()
            .is_some_and(|r| now > r.sent + LATE.max(self.pace.timeout))
        {
            self.rounds.pop_front();
        }
        Some(self.next_id)
    }

    /// A reply to a probe of ours. Returns its round-trip time, unless it came before.
    pub(super) fn answered(&mut self, now: Duration, id: u64, target: u8) -> Option<Duration> {
        let bit = 1 << target;
        let round = self.rounds.iter_mut().find(|r| r.id == id)?;
        if round.answered & bit != 0 {
            return None;
        }
        (round.answered, round.lost) = (round.answered | bit, round.lost & !bit);
        let sent = round.sent;
        let rtt = now.saturating_sub(sent);
        self.rtt = Some(Rtt::sample(self.rtt, rtt));
        if self.silence.is_some_and(|since| sent >= since) {
            self.given_up = false;
            // What was sent before somebody became suspicious does not answer him.
            self.suspicion = self.suspicion.filter(|since| sent < *since);
            self.silence = self.rounds.iter().map(|r| r.sent).find(|s| *s > sent);
        }
        Some(rtt)
    }

    /// The network says that a probe cannot arrive. Returns, where that is news, how long ago it was
    /// sent.
    pub(super) fn refused(&mut self, now: Duration, id: u64, target: u8) -> Option<Duration> {
        let (bit, all) = (1 << target, self.all());
        let round = self.rounds.iter_mut().find(|r| r.id == id)?;
        let news = (round.answered | round.lost) & bit == 0;
        round.lost |= bit;
        let waited = now.saturating_sub(round.sent);
        if round.lost == all && self.silence.is_some() {
            self.suspicion.get_or_insert(now);
        }
        news.then_some(waited)
    }

    /// Neither answered nor lost: the probe was never made.
    pub(super) fn skip(&mut self, id: u64, target: u8) {
        if let Some(round) = self.rounds.iter_mut().find(|r| r.id == id) {
            round.lost |= 1 << target;
        }
    }

    /// The probes that are given up now: round, target, and how long ago they were sent.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<(u64, u8, Duration)> {
        let all = self.all();
        let mut expired = Vec::new();
        for at in 0..self.rounds.len() {
            let round = self.rounds[at];
            let missing = all & !(round.answered | round.lost);
            if missing == 0 || now < self.expiry(&round) {
                continue;
            }
            let targets = (0..self.pace.targets).filter(|t| missing & (1 << t) != 0);
            expired.extend(targets.map(|t| (round.id, t, now.saturating_sub(round.sent))));
            self.rounds[at].lost |= missing;
        }
        if self.limit().is_some_and(|limit| now >= limit) && self.lost_in_silence() >= self.pace.fall {
            self.given_up = true;
            self.suspicion = None;
        }
        expired
    }

    fn lost_in_silence(&self) -> u32 {
        let since = self.silence.unwrap_or(Duration::MAX);
        let lost = |r: &&Round| r.sent >= since && r.lost == self.all();
        self.rounds.iter().filter(lost).count() as u32
    }

    /// Somebody has reason to believe that the path is dead.
    pub(super) fn suspect(&mut self, now: Duration) {
        let lately = self.suspected.is_some_and(|then| now < then + SUSPICION);
        if lately || self.given_up || !self.pace.bursts {
            return;
        }
        self.suspected = Some(now);
        self.suspicion = Some(now);
        self.next_quick = now;
    }

    /// Somebody wants to know more about the path's loss.
    pub(super) fn sample(&mut self, now: Duration) {
        if now >= self.sample_until {
            self.next_quick = self.next_quick.min(now + self.quick());
        }
        self.sample_until = now + SAMPLE;
    }

    /// This process was late itself, and so may be what it has read.
    pub(super) fn forgive(&mut self, now: Duration, lateness: Duration) {
        let most = self.pace.timeout.max(SUSPICIOUS_PATIENCE);
        self.not_before = now + lateness.min(most);
    }
}

#[cfg(test)]
mod tests;
