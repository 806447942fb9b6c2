//! New flows of one path that nobody has answered, and how unusual that is there.

use std::collections::VecDeque;
use std::time::Duration;

/// Fewer unanswered flows mean nothing.
const SEVERAL: u64 = 3;
/// A flow that waits longer than this is no sign of the path's health any more: an idle path
/// would gather dead hosts.
const WINDOW: Duration = Duration::from_secs(10);
/// A SYN is sent again after about a second (RFC 6298, section 2.1).
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(900);
/// How many flows the usual share of answers looks back on.
const MEMORY: f64 = 100.0;
/// What the usual share starts with, all answered.
const PRIOR: f64 = 10.0;
/// Silence that comes about by chance with more than this probability is no news.
const CHANCE: f64 = 1e-4;

/// Flows that began in one look.
#[derive(Clone, Copy, Debug)]
struct Batch {
    began: Duration,
    flows: u64,
}

/// The silence since the last sign of life.
///
/// A retransmitted SYN of one of the waiting flows is another packet of that path without an
/// answer, so it adds to the evidence: but only once such a flow can be a second old (an
/// earlier one belongs to a flow that stayed alone unanswered while others were answered), and
/// never more of them than there are waiting flows but one. A single flow to a dead host
/// retransmits for ever without being several.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    /// Oldest first.
    waiting: VecDeque<Batch>,
    retransmitted: u64,
    /// Flows that the last sign of life gave up on, and the answers that it brought.
    unjudged: (u64, u64),
    /// Flows that are not waited for any more, the older the less.
    concluded: f64,
    /// Of those, the ones that were answered.
    answered: f64,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            retransmitted: 0,
            unjudged: (0, 0),
            concluded: PRIOR,
            answered: PRIOR,
        }
    }
}

/// Flows that have waited too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    /// How many.
    pub(super) flows: u64,
    /// When the third of them began, or the second where they are only two.
    pub(super) since: Duration,
}

impl Silence {
    /// Flows began.
    pub(super) fn opened(&mut self, began: Duration, flows: u64) {
        if flows > 0 {
            self.waiting.push_back(Batch { began, flows });
        }
    }

    /// SYNs were sent again.
    pub(super) fn retransmitted(&mut self, now: Duration, syns: u64) {
        let oldest = self.waiting.front().map(|b| now.saturating_sub(b.began));
        if oldest.is_some_and(|age| age >= FIRST_RETRANSMISSION) {
            self.retransmitted = self.retransmitted.saturating_add(syns);
        }
    }

    /// A sign of life, with so many answers. All waiting flows are given up on, those of the same
    /// look, too: which of them began after the last answer cannot be known. What they say about
    /// the usual share is judged at the next sign of life: if this was the last one, it is not
    /// the path's habit that left them without an answer.
    pub(super) fn broken(&mut self, answers: u64) {
        let flows = self.waiting.drain(..).map(|b| b.flows).sum();
        let (earlier, answered) = std::mem::replace(&mut self.unjudged, (flows, answers));
        self.conclude(earlier, answered);
        self.retransmitted = 0;
    }

    /// The path was dead: that its flows got no answer is no habit of it.
    pub(super) fn excuse(&mut self) {
        self.waiting.clear();
        self.retransmitted = 0;
        self.unjudged = (0, 0);
    }

    fn conclude(&mut self, flows: u64, answered: u64) {
        let kept = (-(flows as f64) / MEMORY).exp();
        self.concluded = self.concluded * kept + flows as f64;
        self.answered = self.answered * kept + answered as f64;
    }

    /// The flows that have waited longer than `patience`, if they are worth a suspicion.
    pub(super) fn waited(&mut self, now: Duration, patience: Duration) -> Option<Waited> {
        self.expire(now);
        let late = |b: &Batch| now.saturating_sub(b.began) >= patience;
        let late = self.waiting.range(..self.waiting.partition_point(late));
        let flows = late.clone().map(|b| b.flows).sum::<u64>();
        let evidence = flows + self.retransmitted.min(flows.saturating_sub(1));
        if evidence < SEVERAL || self.chance(evidence) > CHANCE {
            return None;
        }
        let mut older = 0;
        let third = late.into_iter().find(|b| {
            older += b.flows;
            older >= SEVERAL.min(flows)
        });
        third.map(|b| Waited {
            flows,
            since: b.began,
        })
    }

    /// The probability that so many flows in a row get no answer on a path that is as it was.
    fn chance(&self, flows: u64) -> f64 {
        let answered = (self.answered / self.concluded).min(1.0);
        (1.0 - answered).powf(flows as f64)
    }

    fn expire(&mut self, now: Duration) {
        let old = |b: &Batch| now.saturating_sub(b.began) > WINDOW;
        while let Some(batch) = self.waiting.front().copied().filter(old) {
            self.waiting.pop_front();
            self.conclude(batch.flows, 0);
        }
        if self.waiting.is_empty() {
            self.retransmitted = 0;
        }
    }
}
