//! Questions that wait for their answer.

use std::collections::HashSet;
use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use super::Question;
use crate::config::{Dns, Resolver};

/// So many wait at most; of more, those asked longest ago are forgotten.
pub const MOST: NonZeroUsize = NonZeroUsize::new(8_192).unwrap();
/// So long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Whose answers count.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Servers {
    /// Everybody's who was asked.
    pub any: bool,
    /// Theirs.
    pub listed: HashSet<IpAddr>,
}

impl Servers {
    /// As `[dns]` says: "auto" is everybody who is asked.
    #[must_use]
    pub fn new(dns: &Dns) -> Self {
        let mut servers = Self::default();
        for resolver in &dns.resolvers {
            match resolver.value {
                Resolver::Auto => servers.any = true,
                Resolver::At(address) => drop(servers.listed.insert(address)),
            }
        }
        servers
    }

    /// Whether this one's do.
    #[must_use]
    pub fn allow(&self, server: IpAddr) -> bool {
        self.any || self.listed.contains(&server)
    }
}

/// Who asked whom for what.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Who asked.
    pub client: SocketAddr,
    /// Whom.
    pub server: SocketAddr,
    /// By TCP.
    pub tcp: bool,
    /// For what.
    pub question: Question,
}

struct Open {
    asked: Duration,
    /// How often: a client that repeats itself may hear two answers.
    times: u32,
}

/// The questions that wait.
pub struct Questions(LruCache<Key, Open, RandomState>);

impl Default for Questions {
    fn default() -> Self {
        Self(LruCache::with_hasher(MOST, RandomState::new()))
    }
}

impl Questions {
    /// A question was seen. So is one again that crosses this box by two interfaces, and then its answer, too.
    pub fn ask(&mut self, key: Key, now: Duration) {
        self.expire(now);
        let open = self.0.get_or_insert_mut(key, || Open { asked: now, times: 0 });
        open.asked = now;
        open.times = open.times.saturating_add(1);
    }

    /// An answer was seen: whether it answers anything.
    pub fn answer(&mut self, key: &Key, now: Duration) -> bool {
        self.expire(now);
        let Some(open) = self.0.peek_mut(key) else {
            return false;
        };
        open.times -= 1;
        if open.times == 0 {
            self.0.pop(key);
        }
        true
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn expire(&mut self, now: Duration) {
        while self
            .0
            .peek_lru()
            .is_some_and(|(_, open)| now.saturating_sub(open.asked) > PATIENCE)
        {
            self.0.pop_lru();
        }
    }
}
