//! Flows in the words of a person.

use crate::explain::{Question, Source};

fn question(src: &str, dst: &str, proto: &str) -> Question {
    Question {
        src: src.into(),
        dst: dst.into(),
        proto: (!proto.is_empty()).then(|| proto.into()),
        ..Question::default()
    }
}

#[test]
fn ends_and_protocols() {
    for (src, dst, proto, read) in [
        (
            "10.9.0.2:5",
            "192.0.2.1:443",
            "",
            "10.9.0.2 Some(5) 192.0.2.1 Some(443) 6",
        ),
        (
            "10.9.0.2",
            "192.0.2.1:443",
            "",
            "10.9.0.2 None 192.0.2.1 Some(443) 6",
        ),
        ("10.9.0.2", "192.0.2.1", "", "10.9.0.2 None 192.0.2.1 None 1"),
        (
            "10.9.0.2:7",
            "192.0.2.1",
            "icmp",
            "10.9.0.2 Some(7) 192.0.2.1 Some(7) 1",
        ),
        (
            "fd00::2",
            "2001:db8::1",
            "icmp",
            "fd00::2 None 2001:db8::1 None 58",
        ),
        (
            "[fd00::2]:1",
            "[2001:db8::1]:53",
            "udp",
            "fd00::2 Some(1) 2001:db8::1 Some(53) 17",
        ),
        (
            "[fd00::2]",
            "2001:db8::1",
            "tcp",
            "fd00::2 None 2001:db8::1 None 6",
        ),
        (
            "::ffff:10.9.0.2",
            "192.0.2.1",
            "47",
            "10.9.0.2 Some(0) 192.0.2.1 Some(0) 47",
        ),
        ("-", "192.0.2.1:443", "", "- None 192.0.2.1 Some(443) 6"),
    ] {
        let flow = question(src, dst, proto).flow().unwrap();
        let from = match flow.src {
            Source::Socket => "-".into(),
            Source::Address(ip) => ip.to_string(),
        };
        let found = format!(
            "{from} {:?} {} {:?} {}",
            flow.sport, flow.dst, flow.dport, flow.proto
        );
        assert_eq!(found, read, "{src} {dst} {proto}");
    }
}

#[test]
fn nonsense_is_told_with_a_remedy() {
    let such = "give an address or ADDRESS:PORT, such as 192.0.2.1:443 or [2001:db8::1]:443";
    for (src, dst, proto, error) in [
        (
            "x",
            "192.0.2.1",
            "",
            format!("SRC \"x\": {such}, or - for a socket of this host"),
        ),
        ("10.9.0.2", "-", "", format!("DST \"-\": {such}")),
        (
            "10.9.0.2",
            "192.0.2.1:65536",
            "",
            format!("DST \"192.0.2.1:65536\": {such}"),
        ),
        (
            "",
            "192.0.2.1",
            "",
            format!("SRC \"\": {such}, or - for a socket of this host"),
        ),
        (
            "10.9.0.2",
            "2001:db8::1",
            "",
            "10.9.0.2 and 2001:db8::1 are of different families: give two IPv4 or two IPv6 addresses".into(),
        ),
        (
            "10.9.0.2",
            "192.0.2.1",
            "tpc",
            "\"tpc\" is no protocol: give tcp, udp, icmp, sctp, another name, or a number up to 255".into(),
        ),
    ] {
        assert_eq!(question(src, dst, proto).flow().unwrap_err(), error);
    }
}

#[test]
fn what_does_not_fit_together_is_told() {
    let forwarded = || question("10.9.0.2", "192.0.2.1:443", "");
    let socket = || question("-", "192.0.2.1:443", "");
    let told = |q: Question| q.flow().unwrap_err();
    let uid = Some(34);
    assert_eq!(
        told(Question { uid, ..forwarded() }),
        "--uid: a forwarded flow has none: leave it out, or give \"-\" as SRC"
    );
    let dscp = Some(46);
    assert_eq!(
        told(Question { dscp, ..socket() }),
        "--dscp: a socket of this host has none: leave it out, or give an address as SRC"
    );
    let dscp = Some(64);
    assert_eq!(
        told(Question { dscp, ..forwarded() }),
        "64 is no code point: give a number from 0 to 63"
    );
    for mac in [
        "02:00:5e:10:00",
        "02:00:5e:10:00:01:02",
        "02:00:5e:10:00:0g",
        "+2:0:0:0:0:0",
        "",
    ] {
        let mac = Some(mac.to_owned());
        assert!(told(Question { mac, ..forwarded() }).ends_with("give one such as 02:00:5e:10:00:01"));
    }
    let mac = Some("2:0:5E:10:0:1".to_owned());
    let flow = Question { mac, ..forwarded() }.flow().unwrap();
    assert_eq!(flow.mac, Some([2, 0, 0x5e, 0x10, 0, 1]));
}
