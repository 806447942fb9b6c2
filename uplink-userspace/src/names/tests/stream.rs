use super::super::Outcome;
use super::super::packet::TcpSegment;
use super::super::stream::{MOST, PATIENCE, Streams};
use super::*;

const FIRST: u32 = u32::MAX - 3;

fn segment(seq: u32, flags: &str) -> TcpSegment {
    TcpSegment {
        seq,
        syn: flags.contains('S'),
        fin: flags.contains('F'),
        rst: flags.contains('R'),
    }
}

fn framed(messages: &[&[u8]]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat())
        .collect()
}

/// One connection, whose SYN was seen.
struct Wire(Streams);

impl Wire {
    fn new() -> Self {
        let mut wire = Self(Streams::default());
        wire.say(FIRST.wrapping_sub(1), "S", b"");
        wire
    }

    /// What is understood, in words.
    fn say(&mut self, seq: u32, flags: &str, payload: &[u8]) -> Vec<String> {
        let heard = self
            .0
            .hear((at(SERVER), at(CLIENT)), segment(seq, flags), payload, NOW);
        heard
            .into_iter()
            .map(|m| m.map_or_else(|why| why.name().into(), |m| String::from_utf8(m).unwrap()))
            .collect()
    }
}

#[test]
fn messages_are_put_together_however_they_are_cut() {
    let bytes = framed(&[b"one", b"two", b""]);
    for size in 1..=bytes.len() {
        let mut wire = Wire::new();
        let mut heard = Vec::new();
        for (i, piece) in bytes.chunks(size).enumerate() {
            heard.extend(wire.say(FIRST.wrapping_add((i * size) as u32), "", piece));
        }
        heard.retain(|m| m != "partial");
        assert_eq!(heard, ["one", "two", ""], "{size}");
    }
}

#[test]
fn what_was_heard_before_is_passed_over() {
    let bytes = framed(&[b"one", b"two"]);
    let mut wire = Wire::new();
    assert_eq!(wire.say(FIRST, "", &bytes[..6]), ["one"]);
    assert_eq!(wire.say(FIRST, "", &bytes[..6]), ["partial"]);
    // The SYN, too, once more.
    assert_eq!(wire.say(FIRST.wrapping_sub(1), "S", b""), ["partial"]);
    assert_eq!(wire.say(FIRST.wrapping_add(2), "", &bytes[2..]), ["two"]);
}

#[test]
fn data_may_come_with_the_syn_and_the_fin() {
    let mut wire = Wire(Streams::default());
    let bytes = framed(&[b"one", b"two"]);
    assert_eq!(wire.say(9, "S", &bytes[..5]), ["one"]);
    assert_eq!(wire.say(15, "F", &bytes[5..]), ["two"]);
    assert!(wire.0.is_empty());
}

#[test]
fn a_gap_ends_a_connection() {
    let mut wire = Wire::new();
    assert_eq!(wire.say(FIRST.wrapping_add(1), "", b"x"), ["gap"]);
    assert_eq!(wire.say(FIRST, "", &framed(&[b"one"])), ["gap"]);
    assert_eq!(wire.say(FIRST.wrapping_sub(1), "S", b""), ["partial"]);
    assert_eq!(wire.say(FIRST, "", &framed(&[b"one"])), ["one"]);
    // However much is missing.
    assert_eq!(wire.say(FIRST.wrapping_add(1_400), "", b"x"), ["gap"]);
    wire.say(FIRST.wrapping_sub(1), "S", b"");
    wire.say(0, "R", b"");
    assert!(wire.0.is_empty());
}

#[test]
fn a_message_that_is_too_long_is_passed_over() {
    let bytes = framed(&[&[b'x'; 60_000], b"one"]);
    let mut wire = Wire::new();
    let mut heard = Vec::new();
    for (i, piece) in bytes.chunks(1_400).enumerate() {
        heard.extend(wire.say(FIRST.wrapping_add(i as u32 * 1_400), "", piece));
    }
    heard.retain(|m| m != "partial");
    assert_eq!(heard, ["oversized", "one"]);
    let mut wire = Wire::new();
    assert_eq!(wire.say(FIRST, "", &bytes), ["oversized", "one"]);
}

#[test]
fn connections_have_a_limit_and_an_end() {
    let mut streams = Streams::default();
    let way = |n: u32| {
        (
            at(SERVER),
            SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 4000),
        )
    };
    for n in 0..=MOST.get() as u32 {
        streams.hear(way(n), segment(0, "S"), b"", NOW);
    }
    assert_eq!(streams.len(), MOST.get());
    let one = framed(&[b"one"]);
    assert_eq!(
        streams.hear(way(0), segment(1, ""), &one, NOW),
        [Err(Outcome::Gap)]
    );
    let late = NOW + PATIENCE;
    assert_eq!(
        streams.hear(way(1), segment(1, ""), &one, late),
        [Ok(b"one".to_vec())]
    );
    streams.hear(way(0), segment(0, ""), b"", late + Duration::from_secs(1));
    assert_eq!(streams.len(), 1);
}
