//! One path's prober: carries out its schedule.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::schedule::Schedule;
use super::{Wishes, dice};
use crate::engine::{Event, Path};

/// A timer that rings later than this tells of a starved process.
const LATENESS: Duration = Duration::from_millis(20);

/// Sends probes and hears what becomes of them.
pub(super) trait Asker {
    /// Asks all targets. What cannot be sent is lost at its time: "no route" is an answer about
    /// the uplink, too.
    fn ask(&mut self, round: u64);

    /// Waits for news.
    async fn hear(&mut self) -> Word;

    /// News that is there already; the process may have been kept from reading it.
    fn heard(&mut self) -> Option<Word>;

    /// Nothing older will be asked for any more.
    fn forget(&mut self, before: u64);
}

/// News of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub round: u64,
    pub target: u8,
    pub said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was answered.
    Answered,
    /// The network or the target says that it will not be.
    Refused,
    /// It was not made.
    Skipped,
}

/// Rounds that a late reply may belong to.
const REMEMBERED: u64 = 512;

pub(super) struct Prober {
    pub path: Path,
    pub schedule: Schedule,
    pub wishes: Rc<Wishes>,
    pub events: mpsc::Sender<Event>,
}

impl Prober {
    pub(super) async fn run(mut self, mut asker: impl Asker) {
        let begun = Instant::now();
        let wishes = Rc::clone(&self.wishes);
        loop {
            let due = begun + self.schedule.next(begun.elapsed());
            let mut news = Vec::new();
            tokio::select! {
                word = asker.hear() => news.extend(self.take(begun.elapsed(), word)),
                () = wishes.bell.notified() => self.wish(begun.elapsed()),
                () = tokio::time::sleep_until(due.into()) => {
                    let now = begun.elapsed();
                    let late = Instant::now().saturating_duration_since(due);
                    while let Some(word) = asker.heard() {
                        news.extend(self.take(now, word));
                    }
                    if late > LATENESS {
                        self.schedule.forgive(now, late);
                    }
                    news.extend(self.give_up(now));
                }
            }
            self.ask(begun.elapsed(), &mut asker);
            for event in news {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    fn ask(&mut self, now: Duration, asker: &mut impl Asker) {
        if let Some(round) = self.schedule.due(now, dice) {
            asker.ask(round);
            asker.forget(round.saturating_sub(REMEMBERED));
        }
    }

    fn wish(&mut self, now: Duration) {
        if self.wishes.suspect.take() {
            self.schedule.suspect(now);
        }
        if self.wishes.sample.take() {
            self.schedule.sample(now);
        }
    }

    fn take(&mut self, now: Duration, word: Word) -> Option<Event> {
        let Word { round, target, said } = word;
        let path = self.path;
        match said {
            Said::Answered => {
                let rtt = self.schedule.answered(now, round, target)?;
                Some(Event::Answered {
                    path,
                    target,
                    round,
                    rtt,
                })
            }
            Said::Refused => {
                let waited = self.schedule.refused(now, round, target)?;
                Some(Event::Lost {
                    path,
                    target,
                    round,
                    waited,
                })
            }
            Said::Skipped => {
                self.schedule.skip(round, target);
                None
            }
        }
    }

    fn give_up(&mut self, now: Duration) -> Vec<Event> {
        let path = self.path;
        let lost = self.schedule.expired(now).into_iter();
        let lost = lost.map(|(round, target, waited)| Event::Lost {
            path,
            target,
            round,
            waited,
        });
        lost.collect()
    }
}
