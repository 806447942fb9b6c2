use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::*;
use crate::api;
use crate::status::Uplink;

const PLAIN: Theme = Theme {
    colour: false,
    unicode: false,
};
const FULL: Theme = Theme {
    colour: true,
    unicode: true,
};

pub(super) fn uplink(name: &str) -> Uplink {
    serde_json::from_value(described(name, "up", 0)).expect("an uplink")
}

/// An uplink at time `s`.
fn described(name: &str, state: &str, s: i64) -> Value {
    json!({
        "name": name, "interface": "eth0", "gateway": "192.168.1.1", "source": "192.168.1.100",
        "gateway6": "fd00:1::1", "source6": "fd00:1::100", "state": state,
        "reason": "", "tier": 1, "weight": 3, "share": 0.75,
        "rtt_ms": 12.1 + (s % 7) as f64, "jitter_ms": 0.4, "loss": 0.0, "passive_rtt_ms": 14.0,
        "flows": 1042, "active_flows": 97, "rx_bytes": 5_000_000_000_u64, "tx_bytes": 70_000_000_u64,
        "rx_bps": 94_200_000 - s * 1_000_000, "tx_bps": 3_100_000 + s * 100_000,
        "mark": "0x1000000", "table": 20001,
    })
}

/// A status at time `s`.
fn status(s: i64) -> Value {
    let mut isp2 = described("isp2", "down", s);
    isp2["reason"] = "no answer from 1.1.1.1 and 9.9.9.9 for 1.5 s".into();
    (isp2["share"], isp2["loss"], isp2["tier"]) = (0.0.into(), 1.0.into(), 2.into());
    let mut lte = described("lte", "draining", s);
    lte["reason"] = "drained by hand, 12 flows left, 3 of them used within the last minute".into();
    (lte["share"], lte["quota"]) = (0.25.into(), "12.1 of 20.0 GB until 2026-12-01".into());
    lte["measured"] = json!({ "down": "94mbit", "up": "11mbit" });
    json!({
        "version": 1, "config": "/etc/uplink/uplink.toml", "since": "2026-11-23T10:00:00Z",
        "attach": "tcx", "uplinks": [described("isp1", "up", s), isp2, lte], "policies": [],
        "packets": {}, "warnings": [{
            "code": "send-redirects", "text": "eth0 sends ICMP redirects, which lead clients past this router",
            "remedy": "set net.ipv4.conf.eth0.send_redirects = 0" }],
    })
}

fn at(s: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + s).expect("a time")
}

fn empty() -> Model {
    let second = Interval::new(std::time::Duration::from_secs(1)).expect("an interval");
    Model::new(second, TimeZone::UTC)
}

/// Everything there is to see.
fn model() -> Model {
    let mut model = empty();
    (0..30).for_each(|s| model.status(Ok(status(s)), at(s)));
    model.events(happened()).expect("events");
    model.flows(flows()).expect("flows");
    model
}

fn happened() -> Value {
    let event = |seq: u64, kind: &str, text: &str| json!({ "seq": seq, "time": format!("2026-11-23T10:00:{:02}.000Z", seq * 3), "kind": kind, "text": text });
    let mut down = event(
        2,
        "state",
        "isp2 is down: no answer from 1.1.1.1 and 9.9.9.9 for 1.5 s",
    );
    (down["uplink"], down["old"], down["new"]) = ("isp2".into(), "up".into(), "down".into());
    json!({ "events": [
        event(1, "start", "ready"), down,
        event(3, "failover", "12 flows of isp2 start anew elsewhere"),
        event(4, "order", "lte takes no new flows; those it has finish there"),
    ]})
}

fn flows() -> Value {
    let flow = |n: u32| {
        json!({
        "src": format!("192.168.0.{}", 9 - n % 8 / 3), "dst": "203.0.113.7", "sport": 40_000 + n, "dport": 443,
        "proto": "tcp", "uplink": if n.is_multiple_of(3) { "isp1" } else { "lte" }, "age_s": 5, "idle_s": 1 })
    };
    json!({ "flows": (0..40).map(flow).collect::<Vec<_>>(), "total": 52_311 })
}

fn many() -> Model {
    let mut all = status(0);
    let states = ["up", "up", "degraded", "up", "down", "disabled", "unknown", "up"];
    let one = |n: usize| {
        let mut u = described(&format!("provider-{n:02}"), states[n % 8], n as i64);
        u["share"] = (1.0 / 64.0).into();
        u
    };
    all["uplinks"] = (0..64).map(one).collect();
    let mut model = empty();
    model.status(Ok(all), at(0));
    model
}

fn press(model: &mut Model, keys: &str) -> Option<Action> {
    let code = |c: char| match c {
        '\n' => KeyCode::Enter,
        '\t' => KeyCode::Tab,
        '\u{1b}' => KeyCode::Esc,
        '\u{8}' => KeyCode::Backspace,
        c => KeyCode::Char(c),
    };
    let mut action = None;
    for c in keys.chars() {
        action = model.key(KeyEvent::new(code(c), KeyModifiers::NONE));
    }
    action
}

fn drawn(model: &Model, theme: Theme, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| draw(model, theme, at(35), frame))
        .expect("a picture");
    terminal
}

/// The picture, without blanks at the ends of lines.
fn picture(model: &Model, theme: Theme, width: u16, height: u16) -> String {
    let terminal = drawn(model, theme, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height)
        .map(|y| line(y).trim_end().to_owned() + "\n")
        .collect()
}

#[test]
fn pictures_of_all_sizes() {
    let model = model();
    insta::assert_snapshot!("80x24", picture(&model, FULL, 80, 24));
    insta::assert_snapshot!("120x40", picture(&model, FULL, 120, 40));
    insta::assert_snapshot!("40x10", picture(&model, FULL, 40, 10));
    insta::assert_snapshot!("10x3", picture(&model, FULL, 10, 3));
    insta::assert_snapshot!("plain", picture(&model, PLAIN, 80, 24));
}

#[test]
fn pictures_of_what_happens() {
    let mut gone = model();
    gone.status(Err("/run/uplink/uplink.sock does not exist".into()), at(31));
    insta::assert_snapshot!("daemon_gone", picture(&gone, PLAIN, 80, 24));
    let mut never = empty();
    never.status(
        Err("/run/uplink/uplink.sock does not exist: the daemon is not running".into()),
        at(0),
    );
    insta::assert_snapshot!("never_a_daemon", picture(&never, PLAIN, 80, 8));
    let mut many = many();
    press(&mut many, "sjjjjjjjjjjjjjjjjjjjjjjjjjj");
    insta::assert_snapshot!("64_uplinks", picture(&many, PLAIN, 80, 24));
}

#[test]
fn pictures_of_keys() {
    let mut model = model();
    press(&mut model, "/dRain");
    insta::assert_snapshot!("filter_is_typed", picture(&model, PLAIN, 80, 24));
    press(&mut model, "\nd");
    insta::assert_snapshot!("confirm_drain", picture(&model, PLAIN, 80, 24));
    press(&mut model, "n?");
    insta::assert_snapshot!("help", picture(&model, PLAIN, 80, 24));
}

#[test]
fn nothing_is_coloured_without_colour() {
    let model = model();
    let coloured = |theme: Theme| {
        let terminal = drawn(&model, theme, 120, 40);
        let cells = terminal.backend().buffer().content().iter();
        cells
            .filter(|c| (c.fg, c.bg) != (Color::Reset, Color::Reset))
            .count()
    };
    assert_eq!(coloured(PLAIN), 0);
    assert!(coloured(FULL) > 100);
    let ascii = picture(&model, PLAIN, 200, 60);
    assert!(ascii.is_ascii(), "{ascii}");
}

#[test]
fn a_drain_is_asked_for_and_enable_is_not() {
    let mut model = model();
    assert_eq!(press(&mut model, "jd"), None);
    assert_eq!(press(&mut model, "n"), None);
    assert!(picture(&model, PLAIN, 80, 24).contains("isp2 is not drained"));
    let drain = |name: &str| {
        Some(Action::Order {
            method: api::DRAIN,
            name: name.into(),
        })
    };
    assert_eq!(press(&mut model, "dy"), drain("isp2"));
    assert_eq!(press(&mut model, "y"), None, "one y, one order");
    let enable = Action::Order {
        method: api::ENABLE,
        name: "lte".into(),
    };
    assert_eq!(press(&mut model, "je"), Some(enable));
    assert_eq!(press(&mut model, "kkk/isp2\n"), None);
    assert_eq!(
        press(&mut model, "dy"),
        drain("isp2"),
        "what is not shown is not drained"
    );
    press(&mut model, "/\u{8}x\n");
    assert_eq!(press(&mut model, "dy"), None);
    assert!(picture(&model, PLAIN, 80, 24).contains("no uplink matches"));
}

#[test]
fn an_uplink_that_goes_while_it_is_asked_for_is_not_drained() {
    let mut model = model();
    press(&mut model, "d");
    let mut without = status(31);
    without["uplinks"].as_array_mut().expect("uplinks").remove(0);
    model.status(Ok(without), at(31));
    assert_eq!(press(&mut model, "y"), None);
}

#[test]
fn refusals_are_shown_in_full_until_a_key_comes() {
    let mut model = model();
    let refusal = "isp1 is the last uplink that answers: ".repeat(5) + "END\u{1b}[2J";
    model.tell(Err(&refusal));
    model.status(Ok(status(31)), at(31));
    for (width, height) in [(80, 24), (40, 10)] {
        let shown = picture(&model, PLAIN, width, height);
        assert!(
            shown.contains("! isp1 is the last") && shown.contains("END[2J"),
            "{shown}"
        );
    }
    press(&mut model, "j");
    assert!(!picture(&model, PLAIN, 80, 24).contains("last uplink"));
}

#[test]
fn the_choice_stays_with_its_uplink_when_the_order_changes() {
    let mut model = model();
    press(&mut model, "jj");
    for _ in 0..11 {
        press(&mut model, "sr");
        let rows = model.rows();
        assert_eq!(rows[model.chosen(&rows)].name, "lte");
    }
    press(&mut model, "ss");
    let names: Vec<&str> = model.rows().iter().map(|u| &*u.name).collect();
    assert_eq!(names, ["isp1", "lte", "isp2"], "by state, reversed");
}

#[test]
fn events_are_kept_once_and_readers_keep_their_place() {
    let mut model = model();
    model.events(happened()).expect("events");
    assert_eq!((model.events.len(), model.last_event()), (4, 4));
    press(&mut model, "\t\t\tk");
    let before = picture(&model, PLAIN, 80, 24);
    assert!(before.contains("Events: 4, 1 newer below"), "{before}");
    let later = json!({ "events": [{ "seq": 1, "time": "2026-11-23T11:00:00.000Z", "kind": "start",
                                    "text": "again" }] });
    model.events(later).expect("events");
    let after = picture(&model, PLAIN, 80, 24);
    assert!(
        after.contains("2 newer below") && !after.contains("again"),
        "{after}"
    );
    press(&mut model, "G");
    assert!(picture(&model, PLAIN, 80, 24).contains("11:00:00 again"));
    assert_eq!(model.last_event(), 1, "of the daemon that runs now");
}

#[test]
fn what_the_daemon_says_cannot_steer_the_terminal() {
    let mut evil = status(0);
    evil["uplinks"][0]["name"] = "a\u{1b}[31mb\r\n".into();
    evil["warnings"][0]["text"] = "x\u{9b}2Jy\u{202e}".into();
    let mut model = empty();
    model.status(Ok(evil), at(0));
    let terminal = drawn(&model, FULL, 100, 30);
    let cells = terminal.backend().buffer().content().iter();
    let text: String = cells.map(|c| c.symbol()).collect();
    assert!(text.contains("a[31mb") && text.contains("x2Jy"), "{text}");
    assert!(!text.chars().any(char::is_control));
}

#[test]
fn answers_that_are_none_are_told() {
    let mut model = model();
    model.status(Ok(json!({ "version": 9 })), at(31));
    assert!(model.is_waiting());
    assert!(model.events(json!({ "events": 7 })).is_err());
    assert!(model.flows(json!([])).is_err());
    model.status(Ok(status(32)), at(32));
    assert!(!model.is_waiting());
}

#[test]
fn the_interval_goes_in_steps_within_its_limits() {
    let mut model = empty();
    let ms = |model: &Model| model.interval().get().as_millis();
    assert_eq!(press(&mut model, "+"), Some(Action::Interval));
    assert_eq!(ms(&model), 2000);
    press(&mut model, "-----------");
    assert_eq!(ms(&model), 200);
    press(&mut model, "++++++++++++");
    assert_eq!(ms(&model), 60_000);
    assert!(Interval::new(std::time::Duration::ZERO).is_err());
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        6 => prop::sample::select("qdeysrn/?hp +-jkgG".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char),
        1 => any::<char>().prop_map(KeyCode::Char),
        2 => prop::sample::select(vec![
            KeyCode::Tab, KeyCode::BackTab, KeyCode::Enter, KeyCode::Esc, KeyCode::Backspace,
            KeyCode::Up, KeyCode::Down, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Home, KeyCode::End,
        ]),
    ];
    code.prop_map(|code| KeyEvent::new(code, KeyModifiers::NONE))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_keys_and_no_size_break_it(
        keys in prop::collection::vec(any_key(), 0..40),
        sizes in prop::collection::vec((1_u16..=300, 1_u16..=100), 1..4),
        which in 0..4,
        refused in any::<Option<String>>(),
    ) {
        let mut model = match which {
            0 => empty(),
            1 => many(),
            _ => model(),
        };
        if let Some(text) = &refused {
            model.tell(Err(text));
        }
        for (n, key) in keys.into_iter().enumerate() {
            model.key(key);
            if which == 3 && n % 9 == 8 {
                model.status(Err("gone".into()), at(40));
            }
            let (width, height) = sizes[n % sizes.len()];
            drawn(&model, if n.is_multiple_of(2) { FULL } else { PLAIN }, width, height);
        }
        sizes.iter().for_each(|(width, height)| drop(drawn(&model, FULL, *width, *height)));
    }
}
