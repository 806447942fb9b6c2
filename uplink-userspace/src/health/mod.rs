//! Health of one path, a family of an uplink, as a value: results in, flips out.
//!
//! ```text
//! unknown --first good round--> up --worse than [health] allows--> degraded --good again--> up
//!    any --fall bad rounds in a row, or an outage--> down --good for long enough--> up, degraded
//! ```
//!
//! A death is obeyed at once. What is voluntary waits: for `rise` good rounds in a row, for
//! `hold_down` without a bad one, and for the damping of flaps.

mod damping;
mod loss;
mod rounds;
mod rtt;

use std::fmt;
use std::time::Duration;

use crate::config;

pub(crate) use damping::Flips;
use rounds::{Jury, Rounds, Said, Taken};
use rtt::Rtt;

/// What is thought of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not judged yet: used as if up.
    Unknown,
    /// Answers.
    Up,
    /// Answers, but worse than it should: used when no better one is there.
    Degraded,
    /// Does not answer.
    Down,
}

/// Why a path carries nothing, known without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Its interface has no carrier, is down, or is gone.
    Carrier,
    /// The host has no address, route or gateway for it.
    Address,
    /// The gateway does not answer ARP or neighbour solicitations.
    Neighbour,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Carrier => "the interface has no carrier",
            Self::Address => "the address or route is gone",
            Self::Neighbour => "the gateway does not answer ARP or neighbour solicitations",
        })
    }
}

/// How to judge a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Bad rounds in a row that take it down.
    pub fall: u32,
    /// Good rounds in a row that bring it back.
    pub rise: u32,
    /// Targets that must answer for a round to be good.
    pub quorum: u32,
    /// Targets in a round, 0 to 16. Without any, only an outage says something.
    pub targets: u32,
    /// What makes it worse, and how soon it is trusted again.
    pub health: config::Health,
}

/// The state of one path. Times are since the daemon's start.
#[derive(Clone, Debug)]
pub struct Health {
    settings: Settings,
    verdict: Verdict,
    outage: Option<Outage>,
    rounds: Rounds,
    /// Lost in a row, by target.
    lost_by: [u32; 16],
    /// Targets that answer nobody; what they say does not count.
    dead: u32,
    window: loss::Window,
    detector: loss::Detector,
    rtt: Option<Rtt>,
    /// Too much loss, too high a round-trip time, too much jitter.
    worse: Worse,
    /// When it was last heard of.
    heard: Option<Duration>,
    /// When any target last answered.
    answered: Option<Duration>,
    /// When the first of the bad rounds in a row was sent.
    silent_since: Option<Duration>,
    /// No round was bad since.
    good_since: Option<Duration>,
    /// It was not worse than it should since.
    fine_since: Option<Duration>,
    flips: Flips,
}

/// So long less than a quorum may answer before that counts: others ask the same targets by then, at the default
/// interval and timeout.
const PARTLY: Duration = Duration::from_secs(3);
/// In what a path is worse than it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Worse {
    loss: bool,
    rtt: bool,
    jitter: bool,
}

impl Worse {
    const fn any(self) -> bool {
        self.loss || self.rtt || self.jitter
    }
}

impl Health {
    /// A path of which nothing is known but, perhaps, what an earlier daemon thought.
    #[must_use]
    pub fn new(settings: Settings, verdict: Verdict) -> Self {
        Self {
            detector: loss::Detector::new(settings.health.loss),
            settings,
            verdict,
            outage: None,
            rounds: Rounds::default(),
            lost_by: [0; 16],
            dead: 0,
            window: loss::Window::default(),
            rtt: None,
            worse: Worse::default(),
            heard: None,
            answered: None,
            silent_since: None,
            good_since: None,
            fine_since: None,
            flips: Flips::default(),
        }
    }

    /// How it is judged.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is thought of it now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why it carries nothing, where that is known.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage
    }

    /// Whether the last finished round was bad, or there is an outage.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.rounds.lost() > 0 || self.outage.is_some()
    }

    /// When an answer last came that made a round good, or came in a good one. Less than a quorum's answer is no
    /// sign that the targets of those who are silent live.
    #[must_use]
    pub fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// When the first of the probes was sent that nobody has answered since, by rounds; nothing
    /// where the last round was good.
    #[must_use]
    pub fn silent_since(&self) -> Option<Duration> {
        self.silent_since
    }

    /// Whether more probes than usual would tell something sooner.
    #[must_use]
    pub fn doubts(&self) -> bool {
        self.verdict == Verdict::Up && self.detector.doubts()
    }

    /// Smoothed round-trip time in milliseconds.
    #[must_use]
    pub fn rtt_ms(&self) -> Option<f64> {
        self.rtt.map(|r| r.smoothed)
    }

    /// Smoothed difference of neighbouring samples in milliseconds.
    #[must_use]
    pub fn jitter_ms(&self) -> Option<f64> {
        self.rtt.map(|r| r.jitter)
    }

    /// Lost among the last hundred probes, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.window.loss()
    }

    /// Over how many probes [`Self::loss`] is, a hundred at most.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.window.probes()
    }

    /// Probes that a target has lost in a row.
    #[must_use]
    pub fn lost_by(&self, target: u8) -> u32 {
        self.lost_by[usize::from(target) % 16]
    }

    /// Why it is not up, for people; empty where it is, or where nothing is known.
    #[must_use]
    pub fn reason(&self) -> String {
        match (self.verdict, self.outage) {
            (_, Some(outage)) => outage.to_string(),
            (Verdict::Down, None) if self.rounds.good() > 0 => {
                "answers again, not for long enough yet".into()
            }
            (Verdict::Down, None) => "no probe target answers".into(),
            (Verdict::Degraded, None) => self.complaint(),
            (Verdict::Unknown | Verdict::Up, None) => String::new(),
        }
    }

    fn complaint(&self) -> String {
        let mut parts = Vec::new();
        if self.worse.loss {
            parts.push(format!("{:.0} % of the probes are lost", self.loss() * 100.0));
        }
        if let Some(rtt) = self.rtt.filter(|_| self.worse.rtt) {
            parts.push(format!("the round-trip time is {:.1} ms", rtt.smoothed));
        }
        if let Some(rtt) = self.rtt.filter(|_| self.worse.jitter) {
            parts.push(format!("the jitter is {:.1} ms", rtt.jitter));
        }
        match parts.is_empty() {
            true => "good again, not for long enough yet".into(),
            false => parts.join(", "),
        }
    }

    /// Whose word does not count, by bit; where that is everybody's, everybody's does.
    pub fn set_dead(&mut self, targets: u32) {
        if targets == self.dead {
            return;
        }
        self.dead = targets;
        self.rounds.judge_anew(self.jury());
        if self.rounds.lost() == 0 {
            self.silent_since = None;
        }
    }

    fn jury(&self) -> Jury {
        let all = (1u32 << self.settings.targets) - 1;
        let living = all & !self.dead;
        Jury {
            targets: if living == 0 { all } else { living },
            quorum: self.settings.quorum,
        }
    }

    /// A probe was answered, maybe late. Returns the new verdict if it flipped.
    pub fn answer(&mut self, now: Duration, target: u8, round: u64, rtt: Duration) -> Option<Verdict> {
        let taken = self.rounds.take(round, target, Said::Answered, self.jury());
        if taken == Taken::Not {
            return None;
        }
        self.lost_by[usize::from(target) % 16] = 0;
        self.rtt = Some(Rtt::sample(self.rtt, rtt));
        if taken == Taken::Late {
            self.window.unlose();
            self.detector.unlose(target);
        } else {
            self.window.record(false);
            self.detector.record(now, target, false);
        }
        self.answered = Some(now);
        if self.rounds.is_good(round) {
            self.heard = Some(now);
        }
        if self.rounds.lost() == 0 {
            self.silent_since = None;
        }
        if self.rounds.lost() == 0 && self.outage.is_none() {
            self.good_since.get_or_insert(now);
        }
        self.measure(now);
        self.judge(now)
    }

    /// A probe was lost. Returns the new verdict if it flipped.
    /// `sent` tells when it had been sent.
    pub fn lose(&mut self, now: Duration, target: u8, round: u64, sent: Duration) -> Option<Verdict> {
        let jury = self.jury();
        if self.rounds.take(round, target, Said::Lost, jury) == Taken::Not {
            return None;
        }
        let own = &mut self.lost_by[usize::from(target) % 16];
        *own = own.saturating_add(1);
        if jury.targets & (1 << (target & 31)) != 0 {
            self.window.record(true);
            self.detector.record(now, target, true);
        }
        if self.rounds.lost() > 0 {
            self.good_since = None;
            self.silent_since = Some(self.silent_since.map_or(sent, |since| since.min(sent)));
        }
        self.measure(now);
        self.judge(now)
    }

    /// An outage begins, is another one, or ends. Returns the new verdict if it flipped.
    pub fn set_outage(&mut self, now: Duration, outage: Option<Outage>) -> Option<Verdict> {
        self.outage = outage;
        if outage.is_some() {
            self.good_since = None;
        }
        self.judge(now)
    }

    fn measure(&mut self, now: Duration) {
        let limits = &self.settings.health;
        let targets = self.jury().targets;
        self.worse.loss = match self.worse.loss {
            false => self.detector.is_worse(targets),
            true => !self.detector.is_better(),
        };
        if let Some(rtt) = self.rtt {
            self.worse.rtt = rtt::exceeds(self.worse.rtt, rtt.smoothed, limits.rtt);
            self.worse.jitter = rtt::exceeds(self.worse.jitter, rtt.jitter, limits.jitter);
        }
        match self.worse.any() {
            true => self.fine_since = None,
            false => drop(self.fine_since.get_or_insert(now)),
        }
    }

    /// Time alone may end a wait. Returns the new verdict if it flipped.
    pub fn judge(&mut self, now: Duration) -> Option<Verdict> {
        if self.settings.targets == 0 && self.outage.is_none() {
            self.good_since.get_or_insert(now);
        }
        let to = self.next(now).filter(|to| *to != self.verdict)?;
        if self.verdict != Verdict::Unknown {
            self.flips.note(now);
        }
        if to == Verdict::Up {
            // What it was lost for is over; what it is worse in shows anew.
            self.detector.absolve();
            self.worse.loss = false;
        }
        self.verdict = to;
        Some(to)
    }

    /// Less than a quorum answers: it may be the targets, and whoever else asks them finds that out in the meantime.
    fn is_spared(&self, now: Duration) -> bool {
        let jury = self.jury();
        if jury.quorum.min(jury.targets.count_ones()) < 2 {
            return false;
        }
        let since = self.silent_since.unwrap_or(now);
        let partly = self.answered.is_some_and(|answered| answered > since);
        partly && now.saturating_sub(since) < PARTLY
    }

    /// What to think of it now.
    fn next(&mut self, now: Duration) -> Option<Verdict> {
        if self.outage.is_some() || (self.rounds.lost() >= self.settings.fall && !self.is_spared(now)) {
            return Some(Verdict::Down);
        }
        let most = self.settings.health.switches_per_minute;
        let may_flip = self.flips.allow(now, most);
        let worse = Worse {
            loss: self.worse.loss && self.verdict != Verdict::Down,
            ..self.worse
        };
        match self.verdict {
            Verdict::Unknown => (self.rounds.good() > 0).then_some(Verdict::Up),
            Verdict::Down if !may_flip || !self.has_recovered(now) => None,
            Verdict::Down if worse.any() => Some(Verdict::Degraded),
            Verdict::Down => Some(Verdict::Up),
            Verdict::Up => (worse.any() && may_flip).then_some(Verdict::Degraded),
            Verdict::Degraded => (self.has_been_fine(now) && may_flip).then_some(Verdict::Up),
        }
    }

    fn has_recovered(&self, now: Duration) -> bool {
        let answers = self.settings.targets == 0 || self.rounds.good() >= self.settings.rise;
        answers && self.has_been_good(now)
    }

    fn has_been_good(&self, now: Duration) -> bool {
        self.holds(now, self.good_since)
    }

    fn has_been_fine(&self, now: Duration) -> bool {
        self.holds(now, self.fine_since)
    }

    fn holds(&self, now: Duration, since: Option<Duration>) -> bool {
        let hold_down = self.settings.health.hold_down;
        since.is_some_and(|since| now.saturating_sub(since) >= hold_down)
    }
}

#[cfg(test)]
mod tests;
