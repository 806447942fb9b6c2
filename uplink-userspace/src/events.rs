//! What happened, for people and programs: the newest are kept, and followers hear of each.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::status::State;

/// Events that are kept: a bad night of a flapping line.
const KEPT: usize = 1000;
/// Events that may wait for a slow follower before it misses some.
const WAITING: usize = 256;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 since the daemon's start.
    pub seq: u64,
    /// When, RFC 3339 with milliseconds.
    pub time: String,
    /// What kind it is of.
    pub kind: Kind,
    /// Whom it concerns, if it is one uplink.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uplink: Option<String>,
    /// Its state before, where that changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old: Option<State>,
    /// Its state now, where that changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new: Option<State>,
    /// For people.
    pub text: String,
}

/// Kinds of events. Names stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The daemon is ready.
    Start,
    /// The daemon stops, or leaves the kernel to steer.
    Stop,
    /// An uplink's state changed.
    State,
    /// The flows of a dead path start anew elsewhere.
    Failover,
    /// Somebody ordered it: `drain`, `enable`.
    Order,
    /// The configuration was read again, or refused.
    Reload,
    /// What others changed was put right.
    Repair,
    /// A standing warning began.
    Warning,
    /// A standing warning ended.
    Resolved,
    /// A hook failed or took too long.
    Hook,
}

/// What an event says beside its number and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What kind it is of.
    pub kind: Kind,
    /// Whom it concerns, if it is one uplink.
    pub uplink: Option<String>,
    /// Its state before and now, where that changed.
    pub states: Option<(State, State)>,
    /// For people.
    pub text: String,
}

impl News {
    /// News that concern no uplink in particular.
    #[must_use]
    pub fn of(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            uplink: None,
            states: None,
            text: text.into(),
        }
    }

    /// The same about an uplink.
    #[must_use]
    pub fn about(self, uplink: &str) -> Self {
        Self {
            uplink: Some(uplink.into()),
            ..self
        }
    }
}

/// The newest events, and who follows them.
#[derive(Debug)]
pub struct Journal {
    kept: VecDeque<Event>,
    last: u64,
    followers: broadcast::Sender<Event>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            last: 0,
            followers: broadcast::Sender::new(WAITING),
        }
    }
}

impl Journal {
    /// Takes in what happened at `time`, and returns how it is told.
    pub fn tell(&mut self, time: SystemTime, news: News) -> Event {
        self.last += 1;
        let event = Event {
            seq: self.last,
            time: humantime::format_rfc3339_millis(time).to_string(),
            kind: news.kind,
            uplink: news.uplink,
            old: news.states.map(|s| s.0),
            new: news.states.map(|s| s.1),
            text: news.text,
        };
        // Nobody may follow.
        let _ = self.followers.send(event.clone());
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        event
    }

    /// Those that are kept and came after number `seq`, oldest first.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Event> {
        self.kept.iter().filter(move |e| e.seq > seq)
    }

    /// Every event from now on. A follower that is slower than the events misses the oldest, and
    /// is told how many.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(n: u64) -> Journal {
        let mut journal = Journal::default();
        for i in 1..=n {
            journal.tell(SystemTime::UNIX_EPOCH, News::of(Kind::Repair, i.to_string()));
        }
        journal
    }

    #[test]
    fn the_newest_are_kept_and_numbered() {
        let journal = told(KEPT as u64 + 5);
        let all: Vec<u64> = journal.after(0).map(|e| e.seq).collect();
        assert_eq!((all.len(), all[0]), (KEPT, 6));
        assert_eq!(journal.after(KEPT as u64 + 4).count(), 1);
        assert_eq!(journal.after(u64::MAX).count(), 0);
    }

    #[test]
    fn a_slow_follower_misses_the_oldest() {
        let mut journal = told(3);
        let mut follower = journal.follow();
        for _ in 0..=WAITING {
            journal.tell(SystemTime::UNIX_EPOCH, News::of(Kind::Repair, ""));
        }
        let missed = follower.try_recv();
        assert!(
            matches!(missed, Err(broadcast::error::TryRecvError::Lagged(1))),
            "{missed:?}"
        );
        assert_eq!(follower.try_recv().map(|e| e.seq), Ok(5));
    }

    #[test]
    fn the_json_form_is_a_contract() {
        let mut journal = Journal::default();
        let news = News {
            states: Some((State::Up, State::Down)),
            ..News::of(Kind::State, "isp1 is down").about("isp1")
        };
        journal.tell(SystemTime::UNIX_EPOCH, news);
        let line = serde_json::to_string(journal.after(0).next().expect("one")).expect("JSON");
        assert_eq!(
            line,
            "{\"seq\":1,\"time\":\"1970-01-01T00:00:00.000Z\",\"kind\":\"state\",\"uplink\":\"isp1\",\
             \"old\":\"up\",\"new\":\"down\",\"text\":\"isp1 is down\"}"
        );
    }
}
