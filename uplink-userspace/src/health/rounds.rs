//! Rounds of probes: each asks all targets of a path at once and is good, bad, or not yet known.

use std::collections::VecDeque;

/// Rounds that may still get results: those of the longest timeout at the quickest pace.
const KEEP: usize = 2048;

/// The latest rounds of a path, and how they ended in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    recent: VecDeque<Round>,
    /// The newest good round.
    newest_good: Option<u64>,
    lost: u32,
    good: u32,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    id: u64,
    answered: u32,
    lost: u32,
    outcome: Outcome,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Good,
    Bad,
}

/// What one target said in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answered,
    Lost,
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing: it was known, or is too old.
    Not,
    /// It was the first word about that probe.
    New,
    /// The probe had been given up before.
    Late,
}

/// Whose word counts: the targets by bit, and how many of them must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jury {
    pub targets: u32,
    pub quorum: u32,
}

impl Jury {
    fn judge(self, round: &Round) -> Outcome {
        let needed = self.quorum.min(self.targets.count_ones()).max(1);
        let possible = self.targets & !round.lost;
        if (round.answered & self.targets).count_ones() >= needed {
            Outcome::Good
        } else if possible.count_ones() < needed {
            Outcome::Bad
        } else {
            Outcome::Open
        }
    }
}

impl Rounds {
    /// Bad rounds in a row, the newest good one ends the row.
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// Good rounds in a row.
    pub(super) fn good(&self) -> u32 {
        self.good
    }

    /// Whether a round is known to be good.
    pub(super) fn is_good(&self, id: u64) -> bool {
        let at = self.recent.binary_search_by_key(&id, |r| r.id);
        at.is_ok_and(|at| self.recent.get(at).is_some_and(|r| r.outcome == Outcome::Good))
    }

    /// Other targets count from now on: what was said so far is judged anew.
    pub(super) fn judge_anew(&mut self, jury: Jury) {
        for round in &mut self.recent {
            round.outcome = jury.judge(round);
        }
        let good = |r: &&Round| r.outcome == Outcome::Good;
        self.newest_good = self.recent.iter().rev().find(good).map(|r| r.id);
        self.lost = self.bad_since_good();
        let finished = self.recent.iter().rev().filter(|r| r.outcome != Outcome::Open);
        self.good = finished.take_while(good).count() as u32;
    }

    /// Takes a result: a probe is answered or lost once, and a reply that comes late makes its
    /// round good after all.
    pub(super) fn take(&mut self, id: u64, target: u8, said: Said, jury: Jury) -> Taken {
        let bit = 1u32 << (target & 31);
        let Some(at) = self.position(id) else {
            return Taken::Not;
        };
        let round = &mut self.recent[at];
        let taken = match said {
            Said::Answered if round.answered & bit != 0 => return Taken::Not,
            Said::Answered if round.lost & bit != 0 => Taken::Late,
            Said::Lost if (round.answered | round.lost) & bit != 0 => return Taken::Not,
            _ => Taken::New,
        };
        match said {
            Said::Answered => (round.answered, round.lost) = (round.answered | bit, round.lost & !bit),
            Said::Lost => round.lost |= bit,
        }
        let (before, now) = (round.outcome, jury.judge(round));
        if before != now && before != Outcome::Good {
            round.outcome = now;
            self.count(id, now);
        }
        taken
    }

    /// The place of a round, made where it is new; `None` where it is too old.
    fn position(&mut self, id: u64) -> Option<usize> {
        match self.recent.binary_search_by_key(&id, |r| r.id) {
            Ok(at) => Some(at),
            Err(0) if self.recent.len() == KEEP => None,
            Err(at) => {
                let round = Round {
                    id,
                    answered: 0,
                    lost: 0,
                    outcome: Outcome::Open,
                };
                self.recent.insert(at, round);
                if self.recent.len() > KEEP {
                    self.recent.pop_front();
                    return Some(at - 1);
                }
                Some(at)
            }
        }
    }

    fn count(&mut self, id: u64, outcome: Outcome) {
        let newest = self.newest_good;
        match outcome {
            Outcome::Open => {}
            Outcome::Good => {
                self.newest_good = newest.max(Some(id));
                self.good = self.good.saturating_add(1);
                self.lost = self.bad_since_good();
                if self.lost > 0 {
                    self.good = 0;
                }
            }
            // A round that is older than a good one says nothing about now.
            Outcome::Bad if newest.is_some_and(|n| id < n) => {}
            Outcome::Bad => {
                self.lost = self.lost.saturating_add(1);
                self.good = 0;
            }
        }
    }

    fn bad_since_good(&self) -> u32 {
        let newer = self.recent.iter().rev();
        let newer = newer.take_while(|r| Some(r.id) > self.newest_good);
        newer.filter(|r| r.outcome == Outcome::Bad).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Jury = Jury {
        targets: 1,
        quorum: 1,
    };
    const TWO: Jury = Jury {
        targets: 3,
        quorum: 1,
    };

    fn state(r: &Rounds) -> (u32, u32) {
        (r.good(), r.lost())
    }

    #[test]
    fn rows_are_counted_and_ended() {
        let mut r = Rounds::default();
        for id in 1..=3 {
            r.take(id, 0, Said::Answered, ONE);
        }
        assert_eq!(state(&r), (3, 0));
        r.take(4, 0, Said::Lost, ONE);
        r.take(5, 0, Said::Lost, ONE);
        assert_eq!(state(&r), (0, 2));
        r.take(6, 0, Said::Answered, ONE);
        assert_eq!(state(&r), (1, 0));
    }

    #[test]
    fn a_round_is_bad_only_when_the_quorum_cannot_be_reached() {
        let mut r = Rounds::default();
        r.take(1, 0, Said::Lost, TWO);
        assert_eq!(state(&r), (0, 0));
        r.take(1, 1, Said::Lost, TWO);
        assert_eq!(state(&r), (0, 1));
        let both = Jury { quorum: 2, ..TWO };
        r.take(2, 1, Said::Answered, both);
        assert_eq!(state(&r), (0, 1));
        r.take(2, 0, Said::Lost, both);
        assert_eq!(state(&r), (0, 2));
    }

    #[test]
    fn a_quorum_of_more_than_there_are_means_all() {
        let mut r = Rounds::default();
        r.take(1, 0, Said::Answered, Jury { quorum: 5, ..ONE });
        assert_eq!(state(&r), (1, 0));
    }

    #[test]
    fn a_late_reply_takes_the_loss_back() {
        let mut r = Rounds::default();
        r.take(1, 0, Said::Lost, ONE);
        r.take(2, 0, Said::Lost, ONE);
        assert_eq!(r.take(1, 0, Said::Answered, ONE), Taken::Late);
        assert_eq!(r.lost(), 1, "the round after it is still lost");
        assert_eq!(r.take(2, 0, Said::Answered, ONE), Taken::Late);
        assert_eq!(state(&r), (1, 0));
    }

    #[test]
    fn nothing_counts_twice() {
        let mut r = Rounds::default();
        let mut take = |id, said| r.take(id, 0, said, ONE);
        assert_eq!(take(1, Said::Answered), Taken::New);
        assert_eq!(
            (take(1, Said::Answered), take(1, Said::Lost)),
            (Taken::Not, Taken::Not)
        );
        assert_eq!(
            (take(2, Said::Lost), take(2, Said::Lost)),
            (Taken::New, Taken::Not)
        );
        assert_eq!(state(&r), (0, 1));
    }

    #[test]
    fn an_old_loss_behind_a_newer_answer_says_nothing() {
        let mut r = Rounds::default();
        r.take(7, 0, Said::Answered, ONE);
        r.take(6, 0, Said::Lost, ONE);
        assert_eq!(state(&r), (1, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut r = Rounds::default();
        for id in 0..10_000 {
            r.take(id, 0, Said::Answered, ONE);
        }
        assert_eq!(r.recent.len(), KEEP);
        assert_eq!(r.take(3, 0, Said::Lost, ONE), Taken::Not, "too old to matter");
    }
}
