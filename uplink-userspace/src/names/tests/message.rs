use super::super::message::{Answer, Head, LONGEST, answer, head};
use super::super::{Outcome, message};
use super::*;

fn read(message: &[u8]) -> Result<Answer, Outcome> {
    answer(message, head(message)?)
}

/// Addresses as lines: address, TTL, names.
fn found(message: &[u8]) -> Vec<String> {
    let answer = read(message).unwrap();
    answer
        .addresses
        .iter()
        .map(|a| format!("{} {} {}", a.address, a.ttl_s, a.names.join(",")))
        .collect()
}

#[test]
fn a_question_is_read() {
    let head = head(&query(7, "WWW.Example.ORG.", TYPE::AAAA)).unwrap();
    let Head {
        question, is_answer, ..
    } = head;
    assert_eq!(
        (question.id, &*question.name, question.kind),
        (7, "www.example.org", message::AAAA)
    );
    assert!(!is_answer);
}

#[test]
fn addresses_of_the_type_that_was_asked_for_are_read() {
    let records = [
        ("a.org", 300, "192.0.2.1"),
        ("A.ORG", 30, "192.0.2.2"),
        ("a.org", 20, "2001:db8::1"),
        ("b.org", 20, "192.0.2.3"),
    ];
    let v4 = ["192.0.2.1 300 a.org", "192.0.2.2 30 a.org"];
    assert_eq!(found(&reply(1, "a.org", TYPE::A, &records)), v4);
    assert_eq!(
        found(&reply(1, "a.org", TYPE::AAAA, &records)),
        ["2001:db8::1 20 a.org"]
    );
    assert!(found(&reply(1, "a.org", TYPE::TXT, &records)).is_empty());
}

#[test]
fn aliases_are_followed_in_any_order_and_the_least_ttl_counts() {
    let mut records = vec![
        ("a.org", 300, "b.net"),
        ("b.net", 20, "c.net"),
        ("c.net", 100, "192.0.2.1"),
        ("d.net", 100, "192.0.2.2"),
        ("x.org", 100, "a.org"),
    ];
    let expected = ["192.0.2.1 20 a.org,b.net,c.net"];
    assert_eq!(found(&reply(1, "a.org", TYPE::A, &records)), expected);
    records.reverse();
    assert_eq!(found(&reply(1, "a.org", TYPE::A, &records)), expected);
}

#[test]
fn names_behind_an_address_are_none_of_its_names() {
    let records = [
        ("a.org", 300, "b.net"),
        ("b.net", 20, "192.0.2.1"),
        ("b.net", 10, "c.net"),
        ("c.net", 100, "192.0.2.2"),
    ];
    let expected = ["192.0.2.1 20 a.org,b.net", "192.0.2.2 10 a.org,b.net,c.net"];
    assert_eq!(found(&reply(1, "a.org", TYPE::A, &records)), expected);
}

#[test]
fn circles_and_endless_aliases_teach_nothing() {
    let circle = [
        ("a.org", 9, "b.org"),
        ("b.org", 9, "a.org"),
        ("b.org", 9, "192.0.2.1"),
    ];
    assert_eq!(read(&reply(1, "a.org", TYPE::A, &circle)), Err(Outcome::Looping));
    let itself = [("a.org", 9, "a.org"), ("a.org", 9, "192.0.2.1")];
    assert_eq!(read(&reply(1, "a.org", TYPE::A, &itself)), Err(Outcome::Looping));

    let names: Vec<String> = (0..20).map(|n| format!("n{n}.org")).collect();
    for (links, good) in [(16, true), (17, false)] {
        let mut records: Vec<_> = names
            .iter()
            .zip(&names[1..])
            .take(links)
            .map(|(a, b)| (&**a, 9, &**b))
            .collect();
        records.push((&names[links], 9, "192.0.2.1"));
        let answer = read(&reply(1, "n0.org", TYPE::A, &records));
        assert_eq!(
            answer.as_ref().map_or(0, |a| a.addresses.len()) == 1,
            good,
            "{links}: {answer:?}"
        );
    }
}

#[test]
fn ttls_beyond_the_limit_are_none() {
    for (ttl, read) in [
        (0, 0),
        (0x7fff_ffff, 0x7fff_ffff),
        (0x8000_0000, 0),
        (u32::MAX, 0),
    ] {
        let line = format!("192.0.2.1 {read} a.org");
        assert_eq!(
            found(&reply(1, "a.org", TYPE::A, &[("a.org", ttl, "192.0.2.1")])),
            [line]
        );
    }
}

#[test]
fn what_the_client_will_ask_again_by_tcp_teaches_nothing() {
    let mut message = reply(1, "a.org", TYPE::A, &[("a.org", 9, "192.0.2.1")]);
    message[2] |= 0x02;
    assert_eq!(read(&message), Err(Outcome::Truncated));
}

#[test]
fn errors_have_no_addresses() {
    for code in [2, 3, 5] {
        let mut message = reply(1, "a.org", TYPE::A, &[("a.org", 9, "192.0.2.1")]);
        message[3] = message[3] & 0xf0 | code;
        let answer = read(&message).unwrap();
        assert_eq!((answer.rcode, answer.addresses.len()), (code, 0));
    }
}

#[test]
fn only_the_answer_section_counts() {
    let mut packet = Packet::new_reply(1);
    packet.questions.push(question("a.org", TYPE::A));
    packet.name_servers.push(record(("a.org", 9, "192.0.2.1")));
    packet.additional_records.push(record(("a.org", 9, "192.0.2.2")));
    assert!(found(&packet.build_bytes_vec().unwrap()).is_empty());
}

#[test]
fn edns_and_signatures_are_passed_over() {
    for name in [
        "message-edns",
        "message-rrsig",
        "message-nsec",
        "message-unknown-type",
        "message-opt-in-answers",
    ] {
        let message = fuzz::seed(name);
        assert!(!found(&message[1..]).is_empty(), "{name}");
    }
    let dname = fuzz::seed("message-dname");
    assert_eq!(
        found(&dname[1..]),
        ["203.0.113.7 0 www.example.org,www.example.net"]
    );
}

#[test]
fn strange_labels_are_not_taken_for_other_names() {
    let dotted = fuzz::seed("message-dotted-label");
    assert_eq!(found(&dotted[1..]), [r"203.0.113.7 300 example\046org"]);
    let strange = fuzz::seed("message-nul-label");
    assert_eq!(found(&strange[1..]), [r"203.0.113.7 300 a\000b\092.org"]);
}

#[test]
fn other_classes_and_kinds_of_messages_teach_nothing() {
    for name in [
        "mdns",
        "chaos",
        "no-question",
        "two-questions",
        "opcode",
        "unknown-class",
        "header-only",
    ] {
        let message = fuzz::seed(&format!("message-{name}"));
        assert_eq!(read(&message[1..]), Err(Outcome::Malformed), "{name}");
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let mut message = reply(1, "a.org", TYPE::A, &[("a.org", 9, "192.0.2.1")]);
    message.resize(LONGEST, 0);
    assert!(read(&message).is_ok());
    message.push(0);
    assert_eq!(read(&message), Err(Outcome::Oversized));
}

#[test]
fn broken_messages_are_refused() {
    for name in [
        "pointer-loop",
        "pointer-pair",
        "pointer-forward",
        "label-40",
        "label-80",
        "label-long",
        "rdlength-short",
        "rdlength-long",
        "counts",
        "count-answers",
    ] {
        let message = fuzz::seed(&format!("message-{name}"));
        assert_eq!(read(&message[1..]), Err(Outcome::Malformed), "{name}");
    }
    let whole = reply(
        1,
        "a.org",
        TYPE::A,
        &[("a.org", 9, "b.org"), ("b.org", 9, "192.0.2.1")],
    );
    assert!(read(&whole).is_ok());
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Err(Outcome::Malformed), "{length}");
    }
}
