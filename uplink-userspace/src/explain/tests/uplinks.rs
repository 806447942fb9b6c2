//! What is ours, and by which uplink.

use uplink_common::policy::{GROUP_SLOTS, StickyKey};
use uplink_common::record::NEXT_HOP_V4;
use uplink_common::{Addr, SLOTS, hash, select};

use super::fake::{BANK, Fake, NOW_S, addr, pin};
use crate::explain::answer::{Answer, Candidate, Outcome};
use crate::explain::{Question, Source};
use crate::maps::fast::Learned;

fn question(src: &str, dst: &str, proto: &str) -> Question {
    Question {
        src: src.into(),
        dst: dst.into(),
        proto: Some(proto.into()),
        ..Question::default()
    }
}

fn uplinks(candidates: &[Candidate]) -> Vec<(&str, f64)> {
    candidates.iter().map(|c| (&*c.uplink, c.share)).collect()
}

fn policy(answer: &Answer) -> &str {
    answer.policy.as_ref().map_or("", |p| &p.name)
}

#[test]
fn a_policy_gives_its_own() {
    let fake = Fake::new();
    let answer = fake.asks(&question("10.9.0.2:4000", "203.0.113.9:5061", "udp"));
    assert_eq!((answer.outcome, &*answer.reason), (Outcome::Steered, "picked"));
    assert_eq!(
        (answer.uplink.as_deref(), policy(&answer)),
        (Some("isp2"), "voip")
    );
    assert_eq!(answer.text, "policy voip matches");
    let voip = answer.policy.unwrap();
    let by: Vec<_> = voip
        .by
        .iter()
        .map(|b| format!("{} {}", b.field, b.value))
        .collect();
    assert_eq!(
        (by.join(", "), voip.line, voip.strict),
        ("dport 5061, proto udp".into(), 14, true)
    );
    assert_eq!((voip.uses, voip.sticky), (vec!["isp2".to_owned()], None));
    assert_eq!(answer.mark.as_deref(), Some("0x2000000"));
    let route = answer.route.unwrap();
    assert_eq!(
        (route.gateway.as_deref(), route.table),
        (Some("10.0.0.1"), Some(20002))
    );
    assert_eq!(answer.source.as_deref(), Some("10.0.0.100"));
    assert_eq!(answer.slots.unwrap().size, GROUP_SLOTS);
}

#[test]
fn others_are_balanced_by_their_slot() {
    let fake = Fake::new();
    let question = question("10.9.0.2:4000", "203.0.113.9:80", "tcp");
    let answer = fake.asks(&question);
    let hash = hash::flow(fake.record.seed, &question.flow().unwrap().key().unwrap());
    assert_eq!(answer.text, "no policy matches: balanced over all uplinks");
    assert_eq!(
        (answer.slot, answer.hash),
        (Some(select::slot(hash)), Some(format!("{hash:#018x}")))
    );
    assert_eq!(answer.slots.unwrap().size, SLOTS);
    // Two fields keep it from voip, a user and a name each from the others.
    let missed: Vec<_> = answer
        .missed
        .iter()
        .map(|m| format!("{} {}", m.name, m.by))
        .collect();
    assert_eq!(
        (missed.join(", "), answer.others),
        ("backup uid, video domain".into(), 2)
    );
}

#[test]
fn without_a_port_every_slot_is_as_likely() {
    let fake = Fake::new();
    for (src, reason) in [("10.9.0.2", "picked"), ("-", "host-picked")] {
        let answer = fake.ask(src, "203.0.113.9:80");
        assert_eq!(uplinks(&answer.candidates), [("isp1", 0.75), ("isp2", 0.25)]);
        assert_eq!((answer.uplink, &*answer.reason), (None, reason));
        assert!(answer.slot.is_none() && answer.mark.is_none() && answer.route.is_none());
    }
    let strict = fake.asks(&question("10.9.0.2", "203.0.113.9:5060", "udp"));
    assert_eq!(strict.uplink.as_deref(), Some("isp2"));
}

#[test]
fn a_name_is_known_and_a_source_excluded() {
    let mut fake = Fake::new();
    fake.tables
        .learn(addr("203.0.113.9"), ["www.example.org"], NOW_S + 60)
        .unwrap();
    let answer = fake.ask("10.9.0.2:4000", "203.0.113.9:80");
    assert_eq!(policy(&answer), "video");
    let by: Vec<_> = answer.policy.unwrap().by.into_iter().map(|b| b.field).collect();
    assert_eq!(by, ["src", "domain"]);
    let answer = fake.ask("10.9.0.200:4000", "203.0.113.9:80");
    assert!(answer.missed.iter().any(|m| m.name == "video" && m.by == "src"));
    fake.tables
        .learn(addr("203.0.113.9"), ["www.example.org"], NOW_S)
        .unwrap();
    assert_eq!(policy(&fake.ask("10.9.0.2:4000", "203.0.113.9:80")), "");
}

#[test]
fn a_strict_policy_refuses_and_others_fall_back() {
    let mut fake = Fake::new();
    fake.down(2);
    let answer = fake.asks(&question("10.9.0.2:4000", "203.0.113.9:5060", "udp"));
    assert_eq!((answer.outcome, &*answer.reason), (Outcome::Refused, "refused"));
    assert_eq!(
        (answer.mark.as_deref(), answer.uplink),
        (Some("0x7f000000"), None)
    );
    let socket = question("-", "203.0.113.9:5060", "udp");
    assert_eq!(fake.asks(&socket).reason, "host-refused");
    let answer = fake.asks(&Question {
        uid: Some(34),
        ..question("-", "203.0.113.9:22", "tcp")
    });
    assert_eq!(
        (answer.uplink.as_deref(), policy(&answer)),
        (Some("isp1"), "backup")
    );
    assert_eq!(
        answer.text,
        "policy backup matches, but none of its uplinks lives: balanced over all"
    );
}

#[test]
fn a_pin_holds_until_its_uplink_dies() {
    let mut fake = Fake::new();
    let question = question("10.9.0.2:4000", "203.0.113.9:5060", "udp");
    let key = question.flow().unwrap().key().unwrap();
    fake.pins.insert(key, pin(1, 1, NOW_S - 5));
    let answer = fake.asks(&question);
    assert_eq!(
        (&*answer.reason, answer.uplink.as_deref()),
        ("pinned", Some("isp1"))
    );
    assert_eq!(answer.text, "it is pinned to isp1, which policy voip gave it");
    assert_eq!(uplinks(&answer.anew), [("isp2", 1.0)]);
    let held = answer.pin.unwrap();
    assert_eq!((held.age_s, held.idle_s, held.valid), (15, 5, true));
    // A valid pin asks no route, and no daemon.
    fake.unmarked = super::fake::by("10.8.0.1", 9, 1);
    (fake.record.stale_after_s, fake.record.heartbeat_s) = (30, NOW_S - 31);
    assert_eq!(fake.asks(&question).reason, "pinned");
    let mut fake = Fake::new();
    fake.pins.insert(key, pin(1, 0, NOW_S));
    fake.down(1);
    let answer = fake.asks(&question);
    assert_eq!(
        (&*answer.reason, answer.uplink.as_deref()),
        ("repicked", Some("isp2"))
    );
    assert!(!answer.pin.unwrap().valid);
}

#[test]
fn a_client_keeps_its_uplink() {
    let mut fake = Fake::new();
    let question = question("10.9.0.2", "203.0.113.70:443", "tcp");
    let by_hash = fake.asks(&question);
    assert_eq!(policy(&by_hash), "bank");
    // The client alone decides, whatever the port.
    let usual = by_hash.uplink.unwrap();
    assert_eq!(by_hash.slots.unwrap().size, GROUP_SLOTS);
    let (other, id) = if usual == "isp1" { ("isp2", 2) } else { ("isp1", 1) };
    let key = StickyKey {
        src: addr("10.9.0.2"),
        dst: Addr::default(),
        policy: BANK,
        family: 0,
    };
    fake.kept.insert(key, pin(id, 2, NOW_S - 3_600));
    let answer = fake.asks(&question);
    assert_eq!(answer.uplink.as_deref(), Some(other));
    assert_eq!(
        answer.text,
        "policy bank matches, and its client keeps the uplink it has"
    );
    assert!(answer.kept.unwrap().valid && answer.slot.is_none());
    fake.kept.insert(key, pin(id, 2, NOW_S - 3_601));
    let answer = fake.asks(&question);
    assert_eq!((answer.uplink, answer.kept.unwrap().valid), (Some(usual), false));
}

#[test]
fn edited_weights_decide_at_once() {
    let mut fake = Fake::new();
    fake.records[1].weight = 0;
    let answer = fake.ask("10.9.0.2:4000", "203.0.113.9:80");
    assert_eq!(
        (&*answer.reason, answer.uplink.as_deref()),
        ("picked-by-weight", Some("isp2"))
    );
    assert!(answer.slot.is_none() && answer.hash.is_some());
    fake.records[1].weight = 1;
    let answer = fake.ask("10.9.0.2", "203.0.113.9:80");
    assert_eq!(uplinks(&answer.candidates), [("isp1", 0.5), ("isp2", 0.5)]);
}

#[test]
fn sockets_have_a_mark_of_their_own_unless_strict() {
    let fake = Fake::new();
    let backup = fake.asks(&Question {
        uid: Some(34),
        ..question("-", "203.0.113.9:22", "tcp")
    });
    assert_eq!(
        (backup.uplink.as_deref(), backup.mark.as_deref()),
        (Some("isp2"), Some("0x7d000000"))
    );
    let voip = fake.asks(&question("-", "203.0.113.9:5060", "udp"));
    assert_eq!(voip.mark.as_deref(), Some("0x2000000"));
    assert_eq!(voip.flow.src, "-");
    assert_eq!(
        question("-", "203.0.113.9:22", "tcp").flow().unwrap().src,
        Source::Socket
    );
}

#[test]
fn what_is_not_known_is_noted() {
    let fake = Fake::new();
    let notes = |src: &str, dst: &str| fake.ask(src, dst).notes.join("; ");
    assert_eq!(notes("10.9.0.2:4000", "203.0.113.9:80"), "");
    assert_eq!(
        notes("-", "203.0.113.9:80"),
        "without --uid, policies that ask for it were taken not to match"
    );
    assert_eq!(
        notes("10.9.0.2", "203.0.113.9:80"),
        "give both ports to see the flow's pin and slot"
    );
    assert_eq!(
        notes("10.9.0.2", "203.0.113.9"),
        "give the echo's identifier, as a port, to see the flow's pin and slot"
    );
}

#[test]
fn maps_of_another_version_are_refused() {
    let mut fake = Fake::new();
    fake.record.abi += 1;
    let flow = question("10.9.0.2", "203.0.113.9", "tcp").flow().unwrap();
    let error = crate::explain::explain(&flow, &fake.scene, &fake, None)
        .unwrap_err()
        .to_string();
    let other = format!("the maps are of version {}", fake.record.abi);
    assert!(error.contains(&other), "{error}");
}

#[test]
fn a_known_flow_of_next_hop_mode_goes_past_the_kernel() {
    let mut fake = Fake::new();
    let question = question("10.9.0.2:1", "203.0.113.9:443", "tcp");
    let key = question.flow().unwrap().key().unwrap();
    let mut seen = pin(1, 0, NOW_S);
    seen.seen = 1;
    fake.pins.insert(key, seen);
    fake.record.heartbeat_s = NOW_S;
    assert_eq!(fake.asks(&question).reason, "pinned");
    fake.record.flags |= NEXT_HOP_V4;
    let answer = fake.asks(&question);
    assert_eq!(
        (&*answer.reason, answer.uplink.as_deref()),
        ("forwarded", Some("isp1"))
    );
    assert!(
        answer.notes.iter().any(|n| n.starts_with("next-hop mode")),
        "{:?}",
        answer.notes
    );
    fake.record.heartbeat_s = NOW_S - 4;
    assert_eq!(
        fake.asks(&question).reason,
        "pinned",
        "nobody would notice a firewall"
    );
    fake.record.heartbeat_s = NOW_S;
    seen.seen = 0;
    fake.pins.insert(key, seen);
    assert_eq!(fake.asks(&question).reason, "pinned", "not seen yet");
}

#[test]
fn a_flow_on_the_fast_path_says_so_or_why_not() {
    let mut fake = Fake::new();
    let question = question("10.9.0.2:1", "203.0.113.9:443", "tcp");
    let key = question.flow().unwrap().key().unwrap();
    fake.pins.insert(key, pin(1, 0, NOW_S));
    fake.record.heartbeat_s = NOW_S;
    let learned = Learned {
        answered: true,
        open: true,
        seen_s: 2,
        trust_s: 3,
        longest: 1500,
    };
    let mut asked = |path: Learned| {
        fake.path = Some(path);
        let answer = fake.asks(&question);
        let note = answer.notes.iter().find(|n| n.starts_with("fast path: "));
        (answer.reason, note.cloned().unwrap_or_default())
    };
    let (reason, note) = asked(learned);
    assert_eq!(reason, "fast");
    assert!(
        note.contains("2 s ago; the kernel sees one every 3 s, and what is longer than 1500 bytes"),
        "{note}"
    );
    for (path, why) in [
        (
            Learned {
                answered: false,
                ..learned
            },
            "no answer was seen yet",
        ),
        (
            Learned {
                open: false,
                ..learned
            },
            "its next hop was lost or forgotten",
        ),
        (
            Learned { seen_s: 3, ..learned },
            "the kernel saw it 3 s ago, and has to every 3 s",
        ),
    ] {
        let note = format!("fast path: the next packet is the kernel's, as {why}");
        assert_eq!(asked(path), ("pinned".to_owned(), note));
    }
    fake.path = Some(learned);
    fake.record.heartbeat_s = NOW_S - 4;
    let answer = fake.asks(&question);
    assert_eq!(
        (&*answer.reason, answer.notes.len()),
        ("pinned", 0),
        "nobody would notice a change"
    );
}
