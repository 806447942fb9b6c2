//! Name servers on the loopback interface, good and bad.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::config::Kind;
use crate::probe::kinds::tests::{LONG, SHORT, asked, target, way};
use crate::probe::kinds::{Prepared, ask};

/// One answer to a query.
type Answer = fn(Vec<u8>) -> Vec<u8>;

fn response(mut query: Vec<u8>, code: u8) -> Vec<u8> {
    query[2] |= RESPONSE;
    query[3] = code;
    query
}

fn right(query: Vec<u8>) -> Vec<u8> {
    response(query, NO_ERROR)
}

/// Names have no case (RFC 4343).
fn shouted(query: Vec<u8>) -> Vec<u8> {
    let mut answer = right(query);
    answer[HEADER..].make_ascii_uppercase();
    answer
}

fn other_id(query: Vec<u8>) -> Vec<u8> {
    let mut answer = right(query);
    answer[0] ^= 1;
    answer
}

fn other_question(query: Vec<u8>) -> Vec<u8> {
    let mut answer = right(query);
    answer[HEADER + 1] = b'f';
    answer
}

/// The verdict on a server that gives these answers to one query, and what was refused.
async fn against(answers: &'static [Answer], timeout: Duration) -> (Reply, BTreeMap<&'static str, u64>) {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = target(server.local_addr().unwrap());
    let serve = async {
        let mut buffer = [0; LONGEST];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        for answer in answers {
            server
                .send_to(&answer(buffer[..length].to_vec()), from)
                .await
                .unwrap();
        }
    };
    let kind = Kind::Dns {
        name: "example.com".into(),
    };
    let query = Prepared::new(&kind).unwrap();
    asked(&query, target, timeout, serve).await
}

#[tokio::test]
async fn no_error_and_no_such_name_are_answers() {
    let none = BTreeMap::new();
    assert_eq!(against(&[right], LONG).await, (Reply::Answered, none.clone()));
    assert_eq!(
        against(&[|q| response(q, NAME_ERROR)], LONG).await,
        (Reply::Answered, none.clone())
    );
    assert_eq!(against(&[shouted], LONG).await, (Reply::Answered, none));
}

#[tokio::test]
async fn failure_and_refusal_are_lost_at_once() {
    for answer in [|q| response(q, SERVER_FAILURE), |q| response(q, REFUSED)] as [Answer; 2] {
        let answers: &'static [Answer] = Box::leak(Box::new([answer]));
        let began = Instant::now();
        assert_eq!(against(answers, LONG).await, (Reply::Lost, BTreeMap::new()));
        assert!(began.elapsed() < LONG);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_counted_and_the_answer_after_it_counts() {
    let bad: &'static [Answer] = &[
        other_id,
        other_question,
        |q| q,
        |_| b"HTTP".to_vec(),
        |_| Vec::new(),
        |q| right(q)[..HEADER + 3].to_vec(),
        |q| response(q, 4),
        right,
    ];
    let (reply, refused) = against(bad, LONG).await;
    assert_eq!(reply, Reply::Answered);
    let counts = [
        ("dns-code", 1),
        ("dns-garbage", 3),
        ("dns-id", 1),
        ("dns-question", 2),
    ];
    assert_eq!(refused, BTreeMap::from(counts));
}

#[tokio::test]
async fn no_answer_but_others_is_lost_at_the_timeout() {
    let began = Instant::now();
    assert_eq!(
        against(&[other_id], SHORT).await,
        (Reply::Lost, BTreeMap::from([("dns-id", 1)]))
    );
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_closed_port_is_lost_at_once() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = target(server.local_addr().unwrap());
    drop(server);
    let query = Prepared::Dns(Query::new(".").unwrap());
    let began = Instant::now();
    assert_eq!(
        ask(&query, &way(), target, LONG, &Refused::default()).await,
        Reply::Lost
    );
    assert!(began.elapsed() < LONG);
}

#[test]
fn queries_are_those_of_rfc_1035() {
    let root = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    assert_eq!(Query::new(".").unwrap().0, root);
    let com = Query::new("Com.").unwrap();
    assert_eq!(com.0[HEADER..], *b"\x03Com\0\0\x02\0\x01");
    assert_eq!(com.0, Query::new("Com").unwrap().0);
    assert_eq!(com.with_id([7, 9])[..3], [7, 9, 1]);
}

#[test]
fn names_that_are_none_are_refused_by_name() {
    for name in ["a..b", &"x".repeat(64), &"abc.".repeat(70)] {
        let failure = Query::new(name).expect_err(name).to_string();
        assert!(failure.contains(name), "{failure}");
    }
}
