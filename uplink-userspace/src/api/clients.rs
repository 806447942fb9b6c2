//! Who is at the control socket, who has to leave when it is full, and how often anybody may ask.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Requests that a user may make at once, and then on average each second.
const BURST: u32 = 64;
const PER_SECOND: u32 = 200;
/// Clients at one time. When there are as many, the one that has been idle for longest leaves.
pub(super) const MAX_CLIENTS: u32 = 64;
/// Clients of a user that take their answer in parts, at one time.
pub(super) const MAX_LISTENERS: usize = 8;

/// One client.
#[derive(Debug)]
struct Client {
    uid: u32,
    /// Since when we wait for it to ask, or to take its answer; `None` while it waits for us.
    idle: Option<Instant>,
    /// Whether its answer comes in parts, maybe for ever.
    listens: bool,
}

/// All clients at one time, by number.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: BTreeMap<u64, Client>,
    last: u64,
    paces: BTreeMap<u32, Pace>,
}

impl Clients {
    pub fn is_full(&self) -> bool {
        self.all.len() >= MAX_CLIENTS as usize
    }

    /// A new client, idle from now on.
    pub fn enter(&mut self, uid: u32, now: Instant) -> u64 {
        self.last += 1;
        let idle = Some(now);
        let client = Client {
            uid,
            idle,
            listens: false,
        };
        self.all.insert(self.last, client);
        self.last
    }

    pub fn leave(&mut self, id: u64) {
        self.all.remove(&id);
    }

    /// We wait for it.
    pub fn idle(&mut self, id: u64, now: Instant) {
        if let Some(client) = self.all.get_mut(&id) {
            client.idle = Some(now);
        }
    }

    /// It waits for us.
    pub fn busy(&mut self, id: u64) {
        if let Some(client) = self.all.get_mut(&id) {
            client.idle = None;
        }
    }

    /// It takes answers in parts from now on, or no longer; whether it may.
    pub fn listen(&mut self, id: u64, listens: bool) -> bool {
        let Some(uid) = self.all.get(&id).map(|client| client.uid) else {
            return false;
        };
        let others = self.all.iter().filter(|(other, _)| **other != id);
        let of_user = others.filter(|(_, c)| c.uid == uid && c.listens).count();
        let may = !listens || of_user < MAX_LISTENERS;
        if let Some(client) = self.all.get_mut(&id) {
            client.listens = listens && may;
        }
        may
    }

    /// Who leaves when there is no room: of the user with the most clients, the one that has been
    /// idle for longest; of another, where none of theirs is.
    pub fn to_leave(&self) -> Option<u64> {
        let of = |uid| self.all.values().filter(|c| c.uid == uid).count();
        let idle = self.all.iter().filter_map(|(id, c)| Some((*id, c.uid, c.idle?)));
        idle.max_by_key(|(id, uid, since)| (of(*uid), std::cmp::Reverse((*since, *id))))
            .map(|(id, ..)| id)
    }

    /// How long a user's next request has to wait.
    pub fn pace(&mut self, uid: u32, now: Instant) -> Duration {
        // Who has not asked for long may ask as somebody new.
        self.paces.retain(|_, pace| pace.free_at > now);
        self.paces.entry(uid).or_insert(Pace { free_at: now }).next(now)
    }
}

/// A bucket of [`BURST`] requests that fills by [`PER_SECOND`].
#[derive(Debug)]
struct Pace {
    /// When all requests so far are paid for.
    free_at: Instant,
}

impl Pace {
    fn next(&mut self, now: Instant) -> Duration {
        let cost = Duration::from_secs(1) / PER_SECOND;
        // Nobody owes more than all places can wait for: those that left before their turn do not count for ever.
        let most = now + cost * (BURST + MAX_CLIENTS);
        self.free_at = (self.free_at.max(now) + cost).min(most);
        self.free_at.duration_since(now).saturating_sub(cost * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_idle_for_longest_leaves() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut clients = Clients::default();
        let (a, b, c) = (
            clients.enter(0, now),
            clients.enter(0, now),
            clients.enter(0, now),
        );
        assert_eq!(clients.to_leave(), Some(a));
        clients.busy(a);
        assert_eq!(clients.to_leave(), Some(b));
        clients.idle(b, later);
        assert_eq!(clients.to_leave(), Some(c));
        [b, c].into_iter().for_each(|id| clients.leave(id));
        assert_eq!((clients.to_leave(), clients.all.len()), (None, 1));
    }

    #[test]
    fn who_has_the_most_clients_makes_room_first() {
        let now = Instant::now();
        let mut clients = Clients::default();
        let root = clients.enter(0, now);
        let greedy = clients.enter(1000, now + Duration::from_secs(1));
        clients.enter(1000, now + Duration::from_secs(2));
        assert_eq!(clients.to_leave(), Some(greedy));
        clients.busy(greedy);
        assert_ne!(clients.to_leave(), Some(root));
    }

    #[test]
    fn a_user_listens_in_few_places() {
        let now = Instant::now();
        let mut clients = Clients::default();
        let greedy: Vec<_> = (0..=MAX_LISTENERS).map(|_| clients.enter(1000, now)).collect();
        let may: Vec<bool> = greedy.iter().map(|id| clients.listen(*id, true)).collect();
        assert_eq!(may.iter().filter(|may| **may).count(), MAX_LISTENERS);
        assert!(!may[MAX_LISTENERS]);
        let root = clients.enter(0, now);
        assert!(clients.listen(root, true));
        clients.leave(greedy[0]);
        assert!(clients.listen(greedy[MAX_LISTENERS], true));
        assert!(clients.listen(greedy[1], false));
        assert!(clients.listen(greedy[1], true), "its own place is free");
    }

    #[test]
    fn a_burst_is_free_and_then_each_waits_its_turn() {
        let now = Instant::now();
        let mut clients = Clients::default();
        let waits: Vec<Duration> = (0..BURST + 3).map(|_| clients.pace(0, now)).collect();
        let cost = Duration::from_millis(5);
        assert_eq!(waits[BURST as usize - 1], Duration::ZERO);
        assert_eq!(waits[BURST as usize..], [cost, cost * 2, cost * 3]);
        let last = (0..10_000).map(|_| clients.pace(0, now)).last();
        assert_eq!(
            last,
            Some(cost * MAX_CLIENTS),
            "a crowd that left is soon forgotten"
        );
        assert_eq!(clients.pace(1000, now), Duration::ZERO);
        assert_eq!(clients.pace(0, now + Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(clients.paces.len(), 1);
    }
}
