//! What is said of an uplink's end comes true.

use proptest::prelude::*;

use super::fake::{Fake, NOW_S, pin};
use crate::explain::Question;
use crate::explain::answer::{Answer, IfDown, Outcome};

fn asked(src: String, dst: String, proto: &str, uid: Option<u32>) -> Question {
    Question {
        src,
        dst,
        proto: Some(proto.to_owned()),
        uid,
        ..Question::default()
    }
}

fn questions() -> impl Strategy<Value = Question> {
    let ports = prop_oneof![Just(443_u16), Just(5060), any::<u16>().prop_map(|p| p | 1)];
    let ends = (
        2_u8..250,
        1_u16..,
        any::<u8>(),
        ports,
        any::<bool>(),
        any::<bool>(),
    );
    ends.prop_map(|(client, sport, server, dport, udp, socket)| {
        let proto = if udp { "udp" } else { "tcp" };
        match (socket, server % 2) {
            (true, _) => asked("-".into(), format!("203.0.113.{server}:{dport}"), proto, Some(34)),
            (_, 0) => asked(
                format!("10.9.0.{client}:{sport}"),
                format!("203.0.113.{server}:{dport}"),
                proto,
                None,
            ),
            _ => asked(
                format!("[fd00:9::{client:x}]:{sport}"),
                format!("[2001:db8::{server:x}]:{dport}"),
                proto,
                None,
            ),
        }
    })
}

fn said<'a>(answer: &'a Answer, uplink: &str) -> &'a IfDown {
    answer.if_down.iter().find(|d| d.uplink == uplink).unwrap()
}

#[track_caller]
fn expect_true(said: &IfDown, then: &Answer) {
    assert_eq!(said.outcome, then.outcome, "{said:?}");
    let shares = |of: Vec<(&str, f64)>| -> Vec<String> {
        of.iter()
            .map(|(name, share)| format!("{name} {share:.2}"))
            .collect()
    };
    let before = shares(said.candidates.iter().map(|c| (&*c.uplink, c.share)).collect());
    let after = shares(then.candidates.iter().map(|c| (&*c.uplink, c.share)).collect());
    assert_eq!(before, after, "{said:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn of_new_flows_and_pinned_ones(question in questions(), down in 1_u8..=2, pinned in 0_u8..=2) {
        let mut fake = Fake::new();
        if let Some(key) = question.flow().unwrap().key()
            && pinned != 0
        {
            fake.pins.insert(key, pin(pinned, 0, NOW_S));
        }
        let before = fake.asks(&question);
        fake.down(down);
        let after = fake.asks(&question);
        expect_true(said(&before, &format!("isp{down}")), &after);
    }
}

#[test]
fn in_words() {
    let mut fake = Fake::new();
    let words = |fake: &Fake, q: &Question| -> Vec<String> {
        let all = fake.asks(q).if_down;
        all.iter()
            .map(|d| format!("{} {} {}", d.uplink, d.changes, d.text))
            .collect()
    };
    let voip = asked("10.9.0.2:4000".into(), "203.0.113.9:5060".into(), "udp", None);
    assert_eq!(
        words(&fake, &voip),
        ["isp1 false no change", "isp2 true is refused"]
    );
    let web = asked("10.9.0.2".into(), "203.0.113.9:80".into(), "tcp", None);
    assert_eq!(
        words(&fake, &web),
        ["isp1 true goes by isp2", "isp2 true goes by isp1"]
    );
    fake.down(2);
    assert_eq!(
        words(&fake, &web),
        [
            "isp1 false stays all the same, since nobody else answers",
            "isp2 false is down already"
        ]
    );
    assert_eq!(fake.asks(&web).if_down[0].outcome, Outcome::Steered);
}
