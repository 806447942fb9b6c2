use std::sync::Arc;

use super::super::questions::{Key, MOST, PATIENCE, Questions};
use super::super::{Question, message};
use super::*;

fn key(id: u16) -> Key {
    Key {
        client: at(CLIENT),
        server: at(SERVER),
        tcp: false,
        question: Question {
            id,
            name: Arc::from("a.org"),
            kind: message::A,
        },
    }
}

#[test]
fn an_answer_counts_once_for_every_question() {
    let mut questions = Questions::default();
    assert!(!questions.answer(&key(1), NOW));
    questions.ask(key(1), NOW);
    questions.ask(key(1), NOW);
    assert_eq!(questions.len(), 1);
    assert!(questions.answer(&key(1), NOW));
    assert!(questions.answer(&key(1), NOW));
    assert!(!questions.answer(&key(1), NOW));
    assert!(questions.is_empty());
}

#[test]
fn an_answer_has_to_fit_in_everything() {
    let mut questions = Questions::default();
    questions.ask(key(1), NOW);
    let mut others = vec![key(1); 6];
    others[0].client = at("192.168.7.3:4000");
    others[1].client = at("192.168.7.2:4001");
    others[2].server = at("192.0.2.54:53");
    others[3].tcp = true;
    others[4].question.name = "b.org".into();
    others[5].question.kind = message::AAAA;
    others.push(key(2));
    for other in others {
        assert!(!questions.answer(&other, NOW), "{other:?}");
    }
    assert!(questions.answer(&key(1), NOW));
}

#[test]
fn questions_are_forgotten_in_time() {
    let mut questions = Questions::default();
    questions.ask(key(1), NOW);
    questions.ask(key(2), NOW);
    let late = NOW + PATIENCE;
    questions.ask(key(1), late);
    let later = late + Duration::from_millis(1);
    assert!(!questions.answer(&key(2), later));
    assert!(questions.answer(&key(1), later));
}

#[test]
fn of_too_many_the_oldest_go_first() {
    let mut questions = Questions::default();
    for id in 0..=MOST.get() as u16 {
        questions.ask(key(id), NOW);
    }
    assert_eq!(questions.len(), MOST.get());
    assert!(!questions.answer(&key(0), NOW));
    assert!(questions.answer(&key(1), NOW));
}
