//! DNS over TCP: what is said in one direction of a connection, put together to messages.
//!
//! Only what arrives in order is followed. That is nearly all of it, and a client that is not understood here
//! loses nothing but its preference.

use std::hash::RandomState;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use super::Outcome;
use super::message::LONGEST;
use super::packet::TcpSegment;

/// So many directions are followed at most; of more, those that have been silent for longest are given up.
pub const MOST: NonZeroUsize = NonZeroUsize::new(2_048).unwrap();
/// A connection that is silent for longer is given up.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// In front of each message.
const LENGTH: usize = 2;

/// One direction.
pub type Way = (SocketAddr, SocketAddr);

/// What is known of a direction.
struct Stream {
    /// The number of the first byte.
    first: u32,
    /// The number of the next.
    next: u32,
    /// What is not a whole message yet: less than the longest, and a segment.
    buffer: Vec<u8>,
    /// So much is left of a message that is too long to be looked at.
    skip: usize,
    heard: Duration,
}

/// All connections.
pub struct Streams(LruCache<Way, Stream, RandomState>);

impl Default for Streams {
    fn default() -> Self {
        Self(LruCache::with_hasher(MOST, RandomState::new()))
    }
}

impl Streams {
    /// A segment: the messages that it completes, or why there are none. A message that is too long is an error
    /// in its place, and those behind it are understood again.
    pub fn hear(
        &mut self,
        way: Way,
        segment: TcpSegment,
        payload: &[u8],
        now: Duration,
    ) -> Vec<Result<Vec<u8>, Outcome>> {
        self.expire(now);
        if segment.rst {
            self.0.pop(&way);
            return vec![Err(Outcome::Partial)];
        }
        if segment.syn {
            self.begin(way, segment.seq.wrapping_add(1), now);
        }
        let messages = self.follow(way, segment, payload, now);
        if segment.fin {
            self.0.pop(&way);
        }
        match messages {
            Ok(messages) if messages.is_empty() => vec![Err(Outcome::Partial)],
            Ok(messages) => messages,
            Err(why) => {
                self.0.pop(&way);
                vec![Err(why)]
            }
        }
    }

    /// How many directions are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A SYN that is seen again, at another interface or since it was repeated, begins nothing.
    fn begin(&mut self, way: Way, first: u32, now: Duration) {
        if self.0.peek(&way).is_some_and(|s| s.first == first) {
            return;
        }
        let stream = Stream {
            first,
            next: first,
            buffer: Vec::new(),
            skip: 0,
            heard: now,
        };
        self.0.put(way, stream);
    }

    fn follow(
        &mut self,
        way: Way,
        segment: TcpSegment,
        payload: &[u8],
        now: Duration,
    ) -> Result<Vec<Result<Vec<u8>, Outcome>>, Outcome> {
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        let stream = self.0.get_mut(&way).ok_or(Outcome::Gap)?;
        stream.heard = now;
        let seq = segment.seq.wrapping_add(segment.syn.into());
        stream.take(seq, payload)?;
        Ok(stream.messages())
    }

    fn expire(&mut self, now: Duration) {
        while self
            .0
            .peek_lru()
            .is_some_and(|(_, stream)| now.saturating_sub(stream.heard) > PATIENCE)
        {
            self.0.pop_lru();
        }
    }
}

impl Stream {
    /// What is new of a segment; the rest was heard before.
    fn take(&mut self, seq: u32, payload: &[u8]) -> Result<(), Outcome> {
        let behind = self.next.wrapping_sub(seq);
        if behind > i32::MAX as u32 {
            return Err(Outcome::Gap);
        }
        let fresh = payload.get(behind as usize..).unwrap_or_default();
        self.next = self.next.wrapping_add(fresh.len() as u32);
        let (skipped, fresh) = fresh.split_at(self.skip.min(fresh.len()));
        self.skip -= skipped.len();
        self.buffer.extend_from_slice(fresh);
        Ok(())
    }

    /// The whole messages that are there, which are taken out.
    fn messages(&mut self) -> Vec<Result<Vec<u8>, Outcome>> {
        let mut messages = Vec::new();
        let mut used = 0;
        while let Some((length, rest)) = self
            .buffer
            .get(used..)
            .and_then(<[u8]>::split_first_chunk::<LENGTH>)
        {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > LONGEST {
                messages.push(Err(Outcome::Oversized));
                self.skip = length.saturating_sub(rest.len());
                used += LENGTH + length.min(rest.len());
                continue;
            }
            let Some(message) = rest.get(..length) else { break };
            messages.push(Ok(message.to_vec()));
            used += LENGTH + length;
        }
        self.buffer.drain(..used);
        messages
    }
}
