//! What is not ours says why.

use super::fake::{Fake, NOW_S, addr, by, pin};
use crate::explain::Question;
use crate::explain::answer::Outcome;
use crate::explain::world::{Routed, Way};

const DST: &str = "203.0.113.9:443";

#[track_caller]
fn expect(fake: &Fake, src: &str, dst: &str, reason: &str, text: &str) {
    let answer = fake.ask(src, dst);
    assert_eq!(
        (answer.outcome, &*answer.reason),
        (Outcome::LeftAlone, reason),
        "{}",
        answer.text
    );
    assert_eq!(answer.text, text);
    assert!(answer.candidates.is_empty() && answer.if_down.is_empty() && answer.mark.is_none());
    assert!(answer.route.is_some());
}

#[test]
fn addresses_tell() {
    let fake = Fake::new();
    let link = "is multicast, broadcast, loopback or link-local: no uplink leads there";
    for dst in ["224.0.0.251", "169.254.3.4", "127.0.0.1"] {
        expect(&fake, "10.9.0.2", dst, "not-routable", &format!("{dst} {link}"));
    }
    expect(
        &fake,
        "fd00:9::2",
        "fe80::1",
        "not-routable",
        &format!("fe80::1 {link}"),
    );
    expect(
        &fake,
        "169.254.0.2",
        DST,
        "bad-source",
        "the source 169.254.0.2 is no address of one host beyond its link",
    );
    expect(
        &fake,
        "10.9.0.2",
        "10.9.0.1",
        "local",
        "10.9.0.1 is an address of this host",
    );
    expect(
        &fake,
        "-",
        "192.168.1.100:22",
        "local",
        "192.168.1.100 is an address of this host",
    );
    expect(
        &fake,
        "10.0.0.100",
        DST,
        "host-own",
        "10.0.0.100 is an address of this host: a socket that chose it is left alone",
    );
}

#[test]
fn routes_tell() {
    let mut fake = Fake::new();
    fake.unmarked = by("10.8.0.1", 9, 51820);
    let vpn = "the kernel's own route, via 10.8.0.1 dev eth7, is not an uplink's";
    expect(&fake, "10.9.0.2:1", DST, "not-default", vpn);
    assert_eq!(fake.ask("10.9.0.2", DST).route.unwrap().table, Some(51820));
    fake.unmarked = Routed::By(Way {
        gateway: None,
        ifindex: 4,
        interface: "wg0".into(),
        table: 254,
        source: None,
    });
    let connected = "the kernel's own route leads out by wg0 without a gateway: a connected network or a VPN";
    expect(&fake, "10.9.0.2:1", DST, "not-default", connected);
    fake.unmarked = Routed::Local;
    expect(
        &fake,
        "10.9.0.2:1",
        DST,
        "local",
        "the kernel takes it for this host itself",
    );
    fake.unmarked = Routed::Nowhere("No route to host".into());
    let nowhere = "the kernel knows no way to it: No route to host";
    expect(&fake, "10.9.0.2:1", DST, "no-route", nowhere);
}

#[test]
fn where_it_comes_in_tells() {
    let mut fake = Fake::new();
    fake.scene.iif = ("eth0".into(), 2);
    let text = "what comes in at eth0 is not steered: clients enter at lan0";
    expect(&fake, "10.9.0.2", DST, "not-lan", text);
}

#[test]
fn a_silent_daemon_tells() {
    let mut fake = Fake::new();
    (fake.record.stale_after_s, fake.record.heartbeat_s) = (30, NOW_S - 31);
    let text = "the daemon has been silent for 31 s, longer than stale_after (30 s): new flows take the kernel's routes";
    expect(&fake, "10.9.0.2:1", DST, "stale", text);
    expect(&fake, "-", DST, "stale", text);
    fake.record.heartbeat_s += 1;
    assert_eq!(fake.ask("10.9.0.2:1", DST).outcome, Outcome::Steered);
}

#[test]
fn a_flow_that_the_kernel_has_is_asked_again() {
    let mut fake = Fake::new();
    let question = Question {
        src: "10.9.0.2:1".into(),
        dst: DST.into(),
        ..Question::default()
    };
    let key = question.flow().unwrap().key().unwrap();
    let mut young = pin(0, 0, NOW_S);
    young.created_s = NOW_S - 1;
    fake.pins.insert(key, young);
    let text = "it was left to the kernel a moment ago, and is asked again within a second";
    expect(&fake, "10.9.0.2:1", DST, "kernel-pinned", text);
    let pin = fake.asks(&question).pin.unwrap();
    assert_eq!((pin.uplink, pin.valid, pin.age_s), (None, true, 1));
    young.created_s -= 1;
    fake.pins.insert(key, young);
    let answer = fake.asks(&question);
    assert_eq!(
        (answer.outcome, answer.pin.unwrap().valid),
        (Outcome::Steered, false)
    );
}

#[test]
fn sockets_of_this_host() {
    let mut fake = Fake::new();
    let question = Question {
        src: "-".into(),
        dst: DST.into(),
        proto: Some("icmp".into()),
        ..Question::default()
    };
    assert_eq!(fake.asks(&question).reason, "host-protocol");
    fake.bypass.insert(addr("203.0.113.9"));
    let text = "a route or rule that is not an uplink's may claim 203.0.113.9, so sockets are left alone";
    expect(&fake, "-", DST, "host-bypass", text);
    fake.scene.local = false;
    let text = "this host's own sockets are not steered: [local] enabled is false";
    expect(&fake, "-", DST, "host-off", text);
}
