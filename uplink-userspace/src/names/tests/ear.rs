use proptest::prelude::*;

use super::super::{Outcome, questions, stream};
use super::*;

const NAME: &str = "www.example.org";
const RECORDS: [(&str, u32, &str); 1] = [(NAME, 300, "203.0.113.7")];

fn ask(ear: &mut Ear, id: u16) {
    assert!(
        ear.hear(&udp(CLIENT, SERVER, &query(id, NAME, TYPE::A)), NOW)
            .is_empty()
    );
}

fn answer(ear: &mut Ear, from: &str, to: &str, id: u16) -> Vec<String> {
    lines(&ear.hear(&udp(from, to, &reply(id, NAME, TYPE::A, &RECORDS)), NOW))
}

#[test]
fn an_answer_to_a_question_is_learned() {
    let mut ear = ear();
    ask(&mut ear, 7);
    assert_eq!(
        answer(&mut ear, SERVER, CLIENT, 7),
        ["203.0.113.7 www.example.org 300"]
    );
    for outcome in [Outcome::Asked, Outcome::Learned] {
        assert_eq!(ear.counts().get(outcome), 1, "{outcome:?}");
    }
    assert_eq!(
        lines(&ear.expire(NOW + Duration::from_secs(300))),
        ["203.0.113.7 gone"]
    );
}

#[test]
fn an_answer_is_heard_at_both_edges_behind_nat_and_without() {
    let mut ear = ear();
    let outside = "198.51.100.2:61000";
    for client in [CLIENT, outside, CLIENT] {
        ear.hear(&udp(client, SERVER, &query(7, NAME, TYPE::A)), NOW);
    }
    for client in [outside, CLIENT, CLIENT] {
        answer(&mut ear, SERVER, client, 7);
    }
    assert_eq!(
        (
            ear.counts().get(Outcome::Learned),
            ear.counts().get(Outcome::Unsolicited)
        ),
        (3, 0)
    );
    answer(&mut ear, SERVER, CLIENT, 7);
    assert_eq!(ear.counts().get(Outcome::Unsolicited), 1);
    assert_eq!(ear.open(), (0, 0));
}

#[test]
fn an_answer_counts_for_no_less_than_it_says() {
    let mut ear = ear();
    let late = NOW + Duration::from_millis(900);
    ear.hear(&udp(CLIENT, SERVER, &query(7, NAME, TYPE::A)), late);
    let reply = reply(7, NAME, TYPE::A, &RECORDS);
    assert_eq!(
        lines(&ear.hear(&udp(SERVER, CLIENT, &reply), late)),
        ["203.0.113.7 www.example.org 301"]
    );
}

#[test]
fn nobody_outside_asks_in_our_name() {
    let mut ear = ear();
    let asked = from_gateway(udp(CLIENT, SERVER, &query(7, NAME, TYPE::A)));
    assert!(ear.hear(&asked, NOW).is_empty());
    let reply = reply(7, NAME, TYPE::A, &RECORDS);
    let answer = from_gateway(udp(SERVER, CLIENT, &reply));
    assert!(ear.hear(&answer, NOW).is_empty());
    for outcome in [Outcome::FromOutside, Outcome::Unsolicited] {
        assert_eq!(ear.counts().get(outcome), 1, "{outcome:?}");
    }
    ask(&mut ear, 7);
    assert_eq!(
        lines(&ear.hear(&answer, NOW)),
        ["203.0.113.7 www.example.org 300"]
    );
}

#[test]
fn forged_answers_teach_nothing() {
    let mut ear = ear();
    ask(&mut ear, 7);
    let other_name = reply(7, "example.org", TYPE::A, &[("example.org", 300, "203.0.113.7")]);
    let other_type = reply(7, NAME, TYPE::AAAA, &[(NAME, 300, "2001:db8::7")]);
    let forged = [
        udp(SERVER, CLIENT, &reply(8, NAME, TYPE::A, &RECORDS)),
        udp("192.0.2.54:53", CLIENT, &reply(7, NAME, TYPE::A, &RECORDS)),
        udp(SERVER, "192.168.7.2:4001", &reply(7, NAME, TYPE::A, &RECORDS)),
        udp(SERVER, CLIENT, &other_name),
        udp(SERVER, CLIENT, &other_type),
        udp(CLIENT, SERVER, &reply(7, NAME, TYPE::A, &RECORDS)),
    ];
    for (i, forged) in forged.iter().enumerate() {
        assert!(ear.hear(forged, NOW).is_empty(), "{i}");
        assert_eq!(ear.counts().get(Outcome::Unsolicited), i as u64 + 1);
    }
    // None of them has taken the true one's place.
    assert_eq!(answer(&mut ear, SERVER, CLIENT, 7).len(), 1);
}

#[test]
fn only_port_53_is_asked() {
    let mut ear = ear();
    ear.hear(&udp(SERVER, CLIENT, &query(7, NAME, TYPE::A)), NOW);
    assert!(answer(&mut ear, CLIENT, SERVER, 7).is_empty());
    assert_eq!((ear.counts().get(Outcome::Unsolicited), ear.open()), (2, (0, 0)));
}

#[test]
fn late_answers_teach_nothing() {
    let mut ear = ear();
    ask(&mut ear, 7);
    let late = NOW + questions::PATIENCE + Duration::from_secs(1);
    let reply = udp(SERVER, CLIENT, &reply(7, NAME, TYPE::A, &RECORDS));
    assert!(ear.hear(&reply, late).is_empty());
}

#[test]
fn only_listed_servers_count() {
    let mut settings = settings();
    settings.servers.any = false;
    settings.servers.listed.insert(ip("192.0.2.54"));
    let mut ear = Ear::new(settings);
    ask(&mut ear, 7);
    assert!(answer(&mut ear, SERVER, CLIENT, 7).is_empty());
    assert_eq!(ear.counts().get(Outcome::OtherServer), 2);
    let listed = "192.0.2.54:53";
    ear.hear(&udp(CLIENT, listed, &query(7, NAME, TYPE::A)), NOW);
    assert_eq!(answer(&mut ear, listed, CLIENT, 7).len(), 1);
    // From one port 53 to another it is the server that has to be listed.
    let (odd, other) = ("192.0.2.54:53", "192.0.2.55:53");
    ear.hear(&udp(odd, other, &query(7, NAME, TYPE::A)), NOW);
    assert!(answer(&mut ear, other, odd, 7).is_empty());
    assert_eq!(ear.counts().get(Outcome::OtherServer), 4);
}

#[test]
fn a_truncated_answer_is_learned_by_tcp() {
    let mut ear = ear();
    ask(&mut ear, 7);
    let mut truncated = reply(7, NAME, TYPE::A, &RECORDS);
    truncated[2] |= 0x02;
    assert!(ear.hear(&udp(SERVER, CLIENT, &truncated), NOW).is_empty());
    assert_eq!(ear.counts().get(Outcome::Truncated), 1);

    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    let question = framed(query(9, NAME, TYPE::A));
    ear.hear(&tcp(CLIENT, SERVER, 99, "S", b""), NOW);
    ear.hear(&tcp(SERVER, CLIENT, 499, "S", b""), NOW);
    ear.hear(&tcp(CLIENT, SERVER, 100, "", &question), NOW);
    let reply = framed(reply(9, NAME, TYPE::A, &RECORDS));
    let (first, second) = reply.split_at(10);
    assert!(ear.hear(&tcp(SERVER, CLIENT, 500, "", first), NOW).is_empty());
    assert_eq!(ear.hear(&tcp(SERVER, CLIENT, 510, "F", second), NOW).len(), 1);
    assert_eq!(ear.open(), (0, 1));
}

#[test]
fn a_question_by_udp_is_not_answered_by_tcp() {
    let mut ear = ear();
    ask(&mut ear, 7);
    let message = reply(7, NAME, TYPE::A, &RECORDS);
    let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    ear.hear(&tcp(SERVER, CLIENT, 499, "S", b""), NOW);
    assert!(ear.hear(&tcp(SERVER, CLIENT, 500, "", &framed), NOW).is_empty());
    assert_eq!(ear.counts().get(Outcome::Unsolicited), 1);
}

#[test]
fn an_alias_that_a_policy_wants_is_enough() {
    let mut ear = ear();
    ear.hear(&udp(CLIENT, SERVER, &query(7, "shop.net", TYPE::A)), NOW);
    let records = [
        ("shop.net", 300, "cdn.example.org"),
        ("cdn.example.org", 90, "203.0.113.7"),
    ];
    let changes = ear.hear(
        &udp(SERVER, CLIENT, &reply(7, "shop.net", TYPE::A, &records)),
        NOW,
    );
    assert_eq!(lines(&changes), ["203.0.113.7 cdn.example.org,shop.net 90"]);
    assert_eq!(ear.counts().get(Outcome::Learned), 1);
}

#[test]
fn other_settings_count_at_once() {
    let mut ear = ear();
    ask(&mut ear, 7);
    answer(&mut ear, SERVER, CLIENT, 7);
    let mut other = settings();
    other.wanted = Wanted::default();
    assert!(ear.follow(other.clone()).is_empty());
    assert!(!ear.learned().lookup(ip("203.0.113.7")).unwrap().is_wanted());
    other.excluded.insert(ip("203.0.113.7"));
    assert_eq!(lines(&ear.follow(other)), ["203.0.113.7 gone"]);
}

#[test]
fn garbage_does_not_grow_anything() {
    let mut ear = ear();
    let garbage = |n: u32| {
        let client = format!(
            "10.{}.{}.{}:{}",
            n >> 16 & 0xff,
            n >> 8 & 0xff,
            n & 0xff,
            1 + n % 60_000
        );
        let question = query(n as u16, &format!("n{n}.example.org"), TYPE::A);
        match n % 4 {
            0 => tcp(&client, SERVER, n, "S", &question),
            1 => udp(SERVER, &client, &question),
            2 => udp(&client, SERVER, &n.to_be_bytes().repeat(n as usize % 200)),
            _ => udp(&client, SERVER, &question),
        }
    };
    for n in 0..100_000 {
        assert!(ear.hear(&garbage(n), NOW).is_empty());
    }
    assert_eq!(ear.open(), (questions::MOST.get(), stream::MOST.get()));
    assert!(ear.learned().is_empty());
}

proptest! {
    /// Whatever is heard from servers: without a question nothing is learned.
    #[test]
    fn nothing_is_learned_without_its_question(
        replies in prop::collection::vec((0u16..4, 0u8..3, 0u8..3, any::<bool>()), 1..40),
        asked in prop::collection::hash_set((0u16..4, 0u8..3), 0..6),
    ) {
        let mut ear = ear();
        let name = |n: u8| format!("n{n}.example.org");
        for (id, n) in &asked {
            ear.hear(&udp(CLIENT, SERVER, &query(*id, &name(*n), TYPE::A)), NOW);
        }
        let mut open = asked;
        for (id, n, target, other) in replies {
            let (name, target) = (name(n), name(target));
            let records = if name == target {
                vec![(&*name, 300, "203.0.113.7")]
            } else {
                vec![(&*name, 300, &*target), (&*target, 300, "203.0.113.7")]
            };
            let from = if other { "192.0.2.54:53" } else { SERVER };
            let reply = udp(from, CLIENT, &reply(id, &name, TYPE::A, &records));
            let before = ear.counts().get(Outcome::Learned);
            ear.hear(&reply, NOW);
            let learned = ear.counts().get(Outcome::Learned) > before;
            prop_assert_eq!(learned, !other && open.remove(&(id, n)));
        }
    }

    /// Neither from any bytes at all.
    #[test]
    fn bytes_alone_teach_nothing(bytes in prop::collection::vec(any::<u8>(), 0..600), to_client: bool) {
        let mut ear = ear();
        prop_assert!(ear.hear(&bytes, NOW).is_empty());
        prop_assert!(ear.hear(&capture(&bytes), NOW).is_empty());
        let (from, to) = if to_client { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
        prop_assert!(ear.hear(&udp(from, to, &bytes), NOW).is_empty());
        prop_assert!(ear.learned().is_empty());
    }
}
