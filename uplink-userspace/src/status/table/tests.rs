use insta::assert_snapshot;

use super::*;
use crate::status::{Measured, Names, Repair, Warning};

fn look(width: Option<u16>) -> Look {
    Look {
        width,
        colour: false,
        zone: TimeZone::UTC,
    }
}

fn uplink(name: &str) -> Uplink {
    Uplink {
        name: name.into(),
        interface: "eth0".into(),
        gateway: "192.168.1.1".into(),
        source: "192.168.1.100".into(),
        gateway6: None,
        source6: None,
        state: State::Up,
        reason: String::new(),
        since: Some("2026-11-23T10:00:04Z".into()),
        tier: 1,
        weight: 1,
        share: 0.5,
        rtt_ms: Some(12.08),
        jitter_ms: Some(0.4),
        loss: 0.0,
        passive_rtt_ms: None,
        flows: 1042,
        active_flows: 7,
        rx_bytes: 8 << 30,
        tx_bytes: 300 << 20,
        rx_bps: 94_100_000,
        tx_bps: 1_200_000,
        measured: None,
        quota: None,
        mark: "0x1000000".into(),
        table: 20001,
    }
}

fn status(uplinks: Vec<Uplink>) -> Status {
    Status {
        version: super::super::VERSION,
        config: "/etc/uplink/uplink.toml".into(),
        since: "2026-11-23T10:00:00Z".into(),
        attach: "tcx".into(),
        mode: "mark".into(),
        uplinks,
        policies: Vec::new(),
        names: None,
        packets: Default::default(),
        refused: Default::default(),
        repairs: Default::default(),
        warnings: Vec::new(),
    }
}

fn healthy() -> Status {
    let one = Uplink {
        share: 0.75,
        ..uplink("isp1")
    };
    let two = Uplink {
        share: 0.25,
        rtt_ms: Some(8.5),
        rx_bps: 640,
        tx_bps: 0,
        flows: 31,
        since: Some("2026-11-24T07:30:00Z".into()),
        ..uplink("isp2")
    };
    status(vec![one, two])
}

fn one_down() -> Status {
    let mut status = healthy();
    let isp1 = &mut status.uplinks[0];
    (isp1.state, isp1.share, isp1.loss) = (State::Down, 0.0, 1.0);
    isp1.reason = "no answer from 1.1.1.1 and 9.9.9.9".into();
    isp1.rtt_ms = None;
    status.uplinks[1].share = 1.0;
    status
}

fn degraded() -> Status {
    let mut status = healthy();
    let isp2 = &mut status.uplinks[1];
    (isp2.state, isp2.loss) = (State::Degraded, 0.17);
    isp2.reason = "IPv4: 17 % of the probes are lost, the limit is 15 %".into();
    isp2.measured = Some(Measured {
        down: "94mbit".into(),
        up: "11mbit".into(),
    });
    status.names = Some(Names {
        addresses: 23,
        known_share: Some(0.81),
        packets: Default::default(),
        left_out: 0,
    });
    status.policies = vec![Policy {
        name: "voip".into(),
        line: 12,
        uses: vec!["isp1".into(), "isp2".into()],
        strict: true,
        active: false,
        packets: 120_000,
        flows: 12,
    }];
    let repair = Repair {
        count: 2,
        last: "2026-11-24T08:00:00Z".into(),
        text: "the rule for isp1 was gone".into(),
    };
    status.repairs.insert("rule".into(), repair);
    status.warnings.push(Warning {
        code: "dead-target".into(),
        text: "the probe target 9.9.9.9 answers through no uplink, so it is left out".into(),
        remedy: "replace it in `targets`; others still judge the uplinks".into(),
    });
    status
}

#[test]
fn all_is_well() {
    assert_snapshot!(render(&healthy(), &look(Some(80))));
}

#[test]
fn one_is_down() {
    assert_snapshot!(render(&one_down(), &look(Some(80))));
}

#[test]
fn one_is_drained() {
    let mut status = healthy();
    let isp1 = &mut status.uplinks[0];
    (isp1.state, isp1.share) = (State::Draining, 0.0);
    isp1.reason =
        "drained by hand, 1042 flows left, 7 of them used within the last minute; IPv6: no answer".into();
    assert_snapshot!(render(&status, &look(Some(80))));
}

#[test]
fn one_is_degraded_and_others_have_something_to_say() {
    assert_snapshot!(render(&degraded(), &look(Some(80))));
}

#[test]
fn narrow() {
    assert_snapshot!(render(&degraded(), &look(Some(60))));
}

#[test]
fn wide() {
    assert_snapshot!(render(&degraded(), &look(Some(120))));
}

#[test]
fn long_names() {
    let mut status = status(vec![uplink("fifteen-letters"), uplink("another-of-them")]);
    status.uplinks[1].state = State::Disabled;
    status.uplinks[1].reason = "enabled = false".into();
    assert_snapshot!(render(&status, &look(Some(80))));
}

#[test]
fn of_sixty_four_the_first_line_names_a_few() {
    let mut uplinks: Vec<Uplink> = (1..=64).map(|n| uplink(&format!("isp{n}"))).collect();
    for u in &mut uplinks[10..16] {
        u.state = State::Down;
    }
    let text = render(&status(uplinks), &look(Some(80)));
    assert_eq!(text.lines().filter(|l| l.starts_with("isp")).count(), 64);
    let head: Vec<&str> = text.lines().take(5).collect();
    assert_snapshot!(head.join("\n"));
}

#[test]
fn ordinary_tables_fit() {
    for n in 2..=8 {
        let uplinks: Vec<Uplink> = (1..=n).map(|n| uplink(&format!("isp{n}"))).collect();
        for width in [60, 80, 120] {
            let text = render(&status(uplinks.clone()), &look(Some(width)));
            let longest = text.lines().map(|l| l.chars().count()).max();
            assert!(longest <= Some(usize::from(width)), "{width}:\n{text}");
        }
    }
}

#[test]
fn without_a_terminal_lines_are_whole() {
    let text = render(&degraded(), &look(None));
    assert!(
        text.contains(
            "warning  [dead-target] the probe target 9.9.9.9 answers through no uplink, so it is left out\n"
        ),
        "{text}"
    );
    assert!(text.contains("192.168.1.1 dev eth0"), "{text}");
}

#[test]
fn only_colours_are_added() {
    let plain = render(&degraded(), &look(Some(80)));
    let coloured = render(
        &degraded(),
        &Look {
            colour: true,
            ..look(Some(80))
        },
    );
    assert!(!plain.contains('\u{1b}') && coloured.contains("\u{1b}["));
    let mut bare = String::new();
    let mut parts = coloured.split("\u{1b}[");
    bare += parts.next().unwrap();
    parts.for_each(|part| bare += part.split_once('m').unwrap().1);
    let trimmed = |text: &str| text.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(&bare), trimmed(&plain));
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    let mut status = one_down();
    status.uplinks[0].reason = "\u{1b}]0;owned\u{7}".into();
    assert!(render(&status, &look(Some(80))).contains("?]0;owned?"));
}
