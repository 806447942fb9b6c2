//! Captures in, changes out.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::kept::Row;
use super::message::{self, Head, Told};
use super::packet::{self, Heard, PORT};
use super::questions::{Key, Questions};
use super::stream::Streams;
use super::{Change, Counts, Learned, Outcome, Servers, Wanted};

/// What an [`Ear`] goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Whose answers count.
    pub servers: Servers,
    /// For how many seconds they count, at least and at most.
    pub ttl_s: RangeInclusive<u64>,
    /// Never learned: addresses of this host, of gateways, and probes' targets.
    pub excluded: HashSet<IpAddr>,
    /// The names in policies.
    pub wanted: Wanted,
}

/// Hears the DNS packets that cross this box.
pub struct Ear {
    servers: Servers,
    wanted: Wanted,
    streams: Streams,
    questions: Questions,
    learned: Learned,
    counts: Counts,
}

impl Ear {
    /// One that has heard nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            servers: settings.servers,
            wanted: settings.wanted,
            streams: Streams::default(),
            questions: Questions::default(),
            learned: Learned::new(settings.ttl_s, settings.excluded),
            counts: Counts::default(),
        }
    }

    /// Goes by other settings from now on. What was learned stays, where it may; all of it may belong to other
    /// policies than before.
    pub fn follow(&mut self, settings: Settings) -> Vec<Change> {
        self.servers = settings.servers;
        self.learned.limit(settings.ttl_s);
        self.wanted = settings.wanted;
        let mut changes = self.learned.exclude(settings.excluded);
        changes.extend(self.learned.sort(|name| self.wanted.contains(name)));
        changes
    }

    /// A capture: a [`uplink_common::policy::Capture`] and the packet. `now` is the time since boot.
    pub fn hear(&mut self, capture: &[u8], now: Duration) -> Vec<Change> {
        let heard = match packet::read(capture) {
            Ok(heard) if self.is_welcome(&heard) => heard,
            Ok(_) => return self.refuse(Outcome::OtherServer),
            Err(why) => return self.refuse(why),
        };
        let Some(segment) = heard.tcp else {
            return self.hear_message(&heard, heard.payload, now);
        };
        let way = (heard.source, heard.destination);
        let messages = self.streams.hear(way, segment, heard.payload, now);
        let mut changes = Vec::new();
        for message in messages {
            changes.extend(match message {
                Ok(message) => self.hear_message(&heard, &message, now),
                Err(why) => self.refuse(why),
            });
        }
        changes
    }

    /// An answer to a question of our own, which whoever asked has judged.
    pub fn tell(&mut self, told: &Told, now: Duration) -> Vec<Change> {
        let wanted = |name: &str| self.wanted.contains(name);
        // Up to the next whole second: an answer counts for at least as long as was promised.
        let now_s = now.as_secs() + u64::from(now.subsec_nanos() > 0);
        self.learned
            .learn(&told.answer, told.server, now_s, wanted, &mut self.counts)
    }

    /// What an earlier daemon had learned.
    pub fn restore(&mut self, rows: Vec<Row>, now: Duration) -> Vec<Change> {
        let wanted = |name: &str| self.wanted.contains(name);
        self.learned.restore(rows, now.as_secs(), wanted)
    }

    /// Forgets what is too old; once a second will do.
    pub fn expire(&mut self, now: Duration) -> Vec<Change> {
        self.learned.expire(now.as_secs())
    }

    /// What was learned.
    #[must_use]
    pub const fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What became of everything that was heard.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many questions wait for their answer, and how many directions of TCP connections are followed.
    #[must_use]
    pub fn open(&self) -> (usize, usize) {
        (self.questions.len(), self.streams.len())
    }

    fn refuse(&mut self, why: Outcome) -> Vec<Change> {
        self.counts.add(why);
        Vec::new()
    }

    /// Looked at before anything is read: whoever is not asked here costs nothing.
    fn is_welcome(&self, heard: &Heard<'_>) -> bool {
        [heard.source, heard.destination]
            .iter()
            .any(|end| end.port() == PORT && self.servers.allow(end.ip()))
    }

    fn hear_message(&mut self, heard: &Heard<'_>, message: &[u8], now: Duration) -> Vec<Change> {
        match self.judge(heard, message, now) {
            Ok(changes) => changes,
            Err(why) => self.refuse(why),
        }
    }

    fn judge(&mut self, heard: &Heard<'_>, message: &[u8], now: Duration) -> Result<Vec<Change>, Outcome> {
        let head = message::head(message)?;
        let key = self.key(heard, &head)?;
        if !head.is_answer {
            // Else somebody out there could ask, and answer himself, in the name of others.
            if heard.outside {
                return Err(Outcome::FromOutside);
            }
            self.questions.ask(key, now);
            return Err(Outcome::Asked);
        }
        if !self.questions.answer(&key, now) {
            return Err(Outcome::Unsolicited);
        }
        let answer = message::answer(message, head)?;
        let server = key.server.ip();
        Ok(self.tell(&Told { answer, server }, now))
    }

    fn key(&self, heard: &Heard<'_>, head: &Head) -> Result<Key, Outcome> {
        let (client, server) = ends(heard, head.is_answer);
        if server.port() != PORT {
            return Err(Outcome::Unsolicited);
        }
        if !self.servers.allow(server.ip()) {
            return Err(Outcome::OtherServer);
        }
        Ok(Key {
            client,
            server,
            tcp: heard.tcp.is_some(),
            question: head.question.clone(),
        })
    }
}

const fn ends(heard: &Heard<'_>, is_answer: bool) -> (SocketAddr, SocketAddr) {
    if is_answer {
        (heard.destination, heard.source)
    } else {
        (heard.source, heard.destination)
    }
}
