//! The answer as people read it, to the letter.

use super::fake::{Fake, NOW_S, pin};
use crate::explain::answer::Name;
use crate::explain::{Answer, Question, text};

#[track_caller]
fn expect(answer: &Answer, lines: &[&str]) {
    let found = text(answer, false);
    assert_eq!(found.lines().collect::<Vec<_>>(), lines, "\n{found}");
}

fn voip() -> Question {
    Question {
        src: "10.9.0.2:4000".into(),
        dst: "203.0.113.9:5060".into(),
        proto: Some("udp".into()),
        ..Question::default()
    }
}

#[test]
fn a_flow_of_a_policy() {
    let answer = Fake::new().asks(&voip());
    expect(
        &answer,
        &[
            "udp 10.9.0.2:4000 -> 203.0.113.9:5060, in by lan0",
            "goes by isp2 (picked)",
            "  why       policy voip matches",
            "  policy    voip (uplink.toml:14): dport 5060, proto udp; uses isp2; strict",
            "  pin       none: it would be new",
            &format!(
                "  slot      {} of 1021 of group 0, hash {}",
                answer.slot.unwrap(),
                answer.hash.as_ref().unwrap()
            ),
            "  health    isp2 unknown (not judged yet), loss 0.0 %",
            "  mark      0x2000000",
            "  route     via 10.0.0.1 dev eth0 table 20002",
            "  source    10.0.0.100",
            "  if down   isp1: no change",
            "            isp2: is refused",
        ],
    );
}

#[test]
fn a_flow_that_is_pinned() {
    let mut fake = Fake::new();
    fake.pins
        .insert(voip().flow().unwrap().key().unwrap(), pin(1, 1, NOW_S - 60));
    let found = text(&fake.asks(&voip()), false);
    for line in [
        "goes by isp1 (pinned)",
        "  pin       isp1 by policy voip, for 1m 10s, idle for 1m",
        "  if new    it would go by isp2",
        "  if down   isp1: goes by isp2",
        "            isp2: no change",
    ] {
        assert!(found.lines().any(|l| l == line), "{line}\n{found}");
    }
}

#[test]
fn a_socket_that_may_go_anywhere() {
    let mut answer = Fake::new().ask("-", "203.0.113.9:80");
    answer.if_down.clear();
    expect(
        &answer,
        &[
            "tcp - -> 203.0.113.9:80, in by lo",
            "goes by one of 2 uplinks (host-picked)",
            "  why       no policy matches: balanced over all uplinks; every socket is placed anew",
            "  not       backup (line 24), for uid",
            "            video (line 28), for domain",
            "            2 more policies before it",
            "  one of    isp1, 75.0 % unknown (not judged yet), loss 0.0 %",
            "            isp2, 25.0 % unknown (not judged yet), loss 0.0 %",
            "  note      without --uid, policies that ask for it were taken not to match",
        ],
    );
}

#[test]
fn names_and_where_they_are_from() {
    let name = |name: &str, wanted| Name {
        name: name.into(),
        asked: "www.example.org".into(),
        server: "192.0.2.53".into(),
        heard_s: 12,
        expires_s: 288,
        wanted,
    };
    let mut answer = Fake::new().ask("10.9.0.2", "224.0.0.1");
    answer.names = vec![name("edge.example.net", false), name("www.example.org", true)];
    expect(
        &answer,
        &[
            "icmp 10.9.0.2 -> 224.0.0.1, in by lan0",
            "is left to the kernel (not-routable)",
            "  why       224.0.0.1 is multicast, broadcast, loopback or link-local: no uplink leads there",
            "  name      edge.example.net, asked as www.example.org, heard from 192.0.2.53 12s ago, for another 4m 48s; \
             no policy asks for it",
            "            www.example.org, heard from 192.0.2.53 12s ago, for another 4m 48s",
            "  route     via 192.168.1.1 dev eth0 table 254",
            "  note      give the echo's identifier, as a port, to see the flow's pin and slot",
        ],
    );
}

#[test]
fn ends_of_ipv6_have_brackets_and_a_terminal_colours() {
    let answer = Fake::new().ask("[fd00:9::2]:1", "[2001:db8::1]:443");
    let found = text(&answer, true);
    assert!(
        found.starts_with("tcp [fd00:9::2]:1 -> [2001:db8::1]:443, in by lan0\n\x1b[1mgoes by isp"),
        "{found}"
    );
}
