use std::sync::Arc;

use super::super::kept::Row;
use super::super::learned::{MOST, MOST_OTHERS, MOST_UNWANTED, MOST_WANTED};
use super::super::message::Address;
use super::super::{Answer, Counts, Entry, Learned, Outcome, Question};
use super::*;

struct Bench {
    learned: Learned,
    counts: Counts,
}

fn wanted(name: &str) -> bool {
    name.starts_with("want")
}

impl Bench {
    fn new() -> Self {
        Self {
            learned: Learned::new(60..=3_600, HashSet::from([ip("192.0.2.99")])),
            counts: Counts::default(),
        }
    }

    /// Names are separated by commas, the first is what was asked for; `now_s` counts from `NOW`.
    fn learn(&mut self, address: IpAddr, names: &str, ttl_s: u32, now_s: u64) -> Vec<String> {
        let names: Vec<Arc<str>> = names.split(',').map(Arc::from).collect();
        let answer = Answer {
            question: Question {
                id: 1,
                name: Arc::clone(&names[0]),
                kind: 1,
            },
            rcode: 0,
            addresses: vec![Address {
                address,
                ttl_s,
                names,
            }],
        };
        let now_s = NOW.as_secs() + now_s;
        let changes = self
            .learned
            .learn(&answer, ip("192.0.2.53"), now_s, wanted, &mut self.counts);
        lines(&changes)
    }

    fn expire(&mut self, now_s: u64) -> Vec<String> {
        lines(&self.learned.expire(NOW.as_secs() + now_s))
    }
}

fn nth(n: usize) -> IpAddr {
    std::net::Ipv4Addr::from(0x1000_0000 + n as u32).into()
}

#[test]
fn every_name_has_its_own_time() {
    let mut b = Bench::new();
    let a = ip("192.0.2.1");
    assert_eq!(b.learn(a, "want1,cdn", 100, 0), ["192.0.2.1 cdn,want1 100"]);
    assert_eq!(b.learn(a, "want2", 500, 10), ["192.0.2.1 cdn,want1,want2 510"]);
    assert!(b.expire(99).is_empty());
    assert_eq!(b.expire(100), ["192.0.2.1 want2 510"]);
    assert_eq!(b.expire(510), ["192.0.2.1 gone"]);
    assert!(b.learned.is_empty() && b.expire(9_999).is_empty());
}

#[test]
fn ttls_have_a_floor_and_a_cap_and_are_never_cut_short() {
    let mut b = Bench::new();
    assert_eq!(b.learn(nth(1), "want", 0, 0), ["16.0.0.1 want 60"]);
    assert_eq!(b.learn(nth(2), "want", u32::MAX, 0), ["16.0.0.2 want 3600"]);
    assert!(b.learn(nth(2), "want", 60, 5).is_empty());
    assert!(b.learn(nth(1), "want", 0, 0).is_empty());
    assert_eq!(b.learn(nth(1), "want", 0, 1), ["16.0.0.1 want 61"]);
    assert_eq!(b.expire(60), [""; 0]);
    assert_eq!(b.expire(61), ["16.0.0.1 gone"]);
}

#[test]
fn it_is_known_where_a_name_comes_from() {
    let mut b = Bench::new();
    b.learn(nth(1), "question,want", 100, 0);
    let entry = b.learned.lookup(nth(1)).unwrap();
    let (name, known) = entry.names().nth(1).unwrap();
    assert_eq!(
        (&**name, &*known.question, known.server),
        ("want", "question", ip("192.0.2.53"))
    );
    assert_eq!(
        (known.heard_s, known.expires_s, known.wanted),
        (1_000, 1_100, true)
    );
    assert!(entry.is_wanted());
    assert_eq!(b.counts.get(Outcome::Learned), 1);
}

#[test]
fn some_addresses_are_never_learned() {
    let mut b = Bench::new();
    let private = [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.1.1",
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:192.0.2.1",
    ];
    for address in private {
        assert!(b.learn(ip(address), "want", 100, 0).is_empty(), "{address}");
    }
    assert_eq!(b.counts.get(Outcome::Private), private.len() as u64);
    assert!(b.learn(ip("192.0.2.99"), "want", 100, 0).is_empty());
    assert_eq!(b.counts.get(Outcome::Excluded), 1);
    assert!(b.learned.is_empty());
}

#[test]
fn what_is_excluded_later_is_forgotten() {
    let mut b = Bench::new();
    b.learn(nth(1), "want", 100, 0);
    let changes = b.learned.exclude(HashSet::from([nth(1), nth(2)]));
    assert_eq!(lines(&changes), ["16.0.0.1 gone"]);
    assert!(b.learn(nth(2), "want", 100, 0).is_empty());
    assert!(b.expire(9_999).is_empty());
}

#[test]
fn addresses_have_a_limit_and_those_nobody_wants_make_room() {
    let mut b = Bench::new();
    for n in 0..MOST_OTHERS {
        b.learn(nth(n), "other", 100, 0);
    }
    assert_eq!(
        b.learn(nth(MOST_OTHERS), "other", 100, 0),
        ["16.0.0.0 gone", "16.0.32.0 other 100"]
    );
    for n in MOST_OTHERS + 1..=MOST {
        b.learn(nth(n), "want", 100, 0);
    }
    assert_eq!(b.learned.len(), MOST);
    assert_eq!(b.learn(nth(MOST + 1), "want", 100, 0).len(), 2);
    for n in MOST + 2..=MOST + MOST_OTHERS {
        b.learn(nth(n), "want", 100, 0);
    }
    assert_eq!(b.counts.get(Outcome::TooMany), 0);
    let full = nth(MOST + MOST_OTHERS + 1);
    assert!(b.learn(full, "want", 100, 0).is_empty() && b.learn(full, "other", 100, 0).is_empty());
    assert_eq!((b.counts.get(Outcome::TooMany), b.learned.len()), (2, MOST));
    assert!(b.learned.iter().all(|(_, entry)| entry.is_wanted()));
    // Whoever is known already is still heard.
    assert_eq!(b.learn(nth(MOST), "want", 100, 1).len(), 1);
}

#[test]
fn an_address_that_becomes_wanted_makes_no_room_any_more() {
    let mut b = Bench::new();
    b.learn(nth(0), "other", 100, 0);
    b.learn(nth(0), "want", 200, 0);
    for n in 1..=MOST_OTHERS + 1 {
        b.learn(nth(n), "other", 100, 0);
    }
    assert!(b.learned.lookup(nth(0)).is_some());
    assert!(b.learned.lookup(nth(1)).is_none());
    // Once its wanted name is forgotten it does again.
    b.learn(nth(0), "other", 900, 0);
    b.expire(200);
    assert!(b.learned.lookup(nth(0)).is_some_and(|entry| !entry.is_wanted()));
    for n in 1..=MOST_OTHERS {
        b.learn(nth(n), "other", 900, 200);
    }
    assert!(b.learned.lookup(nth(0)).is_none());
}

#[test]
fn names_of_an_address_have_limits_that_do_not_touch_each_other() {
    let mut b = Bench::new();
    for n in 0..MOST_UNWANTED + 3 {
        b.learn(nth(1), &format!("other{n}"), 100, 0);
    }
    assert_eq!(b.counts.get(Outcome::TooMany), 0);
    for n in 0..MOST_WANTED {
        b.learn(nth(1), &format!("want{n}"), 100, 0);
    }
    assert_eq!(b.counts.get(Outcome::Learned), MOST_WANTED as u64);
    b.learn(nth(1), "want-more", 100, 0);
    assert_eq!(b.counts.get(Outcome::TooMany), 1);
    let entry = b.learned.lookup(nth(1)).unwrap();
    assert_eq!(entry.names().count(), MOST_WANTED + MOST_UNWANTED);
}

#[test]
fn other_policies_want_other_names() {
    let mut b = Bench::new();
    b.learn(nth(1), "other", 100, 0);
    b.learn(nth(2), "want", 100, 0);
    assert!(b.learned.sort(|name| name == "other").is_empty());
    assert!(b.learned.lookup(nth(1)).unwrap().is_wanted());
    assert!(!b.learned.lookup(nth(2)).unwrap().is_wanted());
    // Names that nobody wants any more give way like all such.
    for n in 3..=MOST + 1 {
        b.learn(nth(n), "want", 100, 0);
    }
    b.learned.sort(|_| false);
    assert_eq!(b.learned.len(), MOST_OTHERS);
    assert_eq!(b.expire(100).len(), MOST_OTHERS);
}

#[test]
fn the_next_daemon_goes_on_with_what_was_learned() {
    let mut b = Bench::new();
    b.learn(ip("192.0.2.1"), "want.org,cdn.net", 100, 0);
    b.learn(ip("192.0.2.2"), "other.org", 100, 5);
    let rows = Row::all(&b.learned);
    let text = serde_json::to_string(&rows).unwrap();
    let read: Vec<Row> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, rows);
    let restore = |now_s: u64, excluded: &str| {
        let mut learned = Learned::new(60..=3_600, HashSet::from([ip(excluded)]));
        learned.restore(read.clone(), NOW.as_secs() + now_s, wanted);
        learned
    };
    let learned = restore(99, "192.0.2.99");
    for address in [ip("192.0.2.1"), ip("192.0.2.2")] {
        assert_eq!(
            learned.lookup(address).map(Entry::is_wanted),
            Some(address == ip("192.0.2.1"))
        );
        let known = |learned: &Learned| {
            learned
                .lookup(address)
                .map(|e| e.names().map(|n| n.1.clone()).collect::<Vec<_>>())
        };
        assert_eq!(known(&learned), known(&b.learned));
    }
    assert_eq!(
        restore(102, "192.0.2.99").len(),
        1,
        "the time of the first is over"
    );
    assert_eq!(restore(99, "192.0.2.1").len(), 1, "the first is this host's now");
    let mut learned = learned;
    assert_eq!(learned.expire(NOW.as_secs() + 200).len(), 2);
    assert!(learned.is_empty());
}
