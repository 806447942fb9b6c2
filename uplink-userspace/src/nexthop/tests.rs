use serde_json::json;

use super::*;
use crate::config;

fn config(more: &str) -> Config {
    let text = format!("[[uplink]]\nname = \"a\"\ninterface = \"eth0\"\ngateway = \"10.0.0.1\"\n{more}");
    config::parse("uplink.toml".as_ref(), text).expect("a configuration")
}

fn found(obstacles: &[Obstacle]) -> Found {
    Found {
        obstacles: Ok(obstacles.to_vec()),
        forwards: [true; 2],
    }
}

fn obstacle(sees: [bool; 2]) -> Obstacle {
    Obstacle {
        what: "chain forward of table ip fw".into(),
        sees,
    }
}

const OFF: &str = "[nat]\nmode = \"off\"\n";

#[test]
fn known_flows_pass_only_where_nothing_is_passed_by() {
    let auto = config(OFF);
    assert_eq!(decide(&auto, &found(&[])), [true; 2]);
    assert_eq!(decide(&auto, &found(&[obstacle([true, false])])), [false, true]);
    assert_eq!(decide(&auto, &found(&[obstacle([true; 2])])), [false; 2]);
    let unsure = Found {
        obstacles: Err("nft not found".into()),
        forwards: [true; 2],
    };
    assert_eq!(decide(&auto, &unsure), [false; 2]);
    let half = Found {
        forwards: [true, false],
        ..found(&[])
    };
    assert_eq!(decide(&auto, &half), [true, false]);
    for (what, more) in [
        ("NAT", String::new()),
        ("mark mode", format!("{OFF}[kernel]\nmode = \"mark\"\n")),
    ] {
        assert_eq!(decide(&config(&more), &found(&[])), [false; 2], "{what}");
    }
}

#[test]
fn who_wants_the_firewall_passed_by_is_obeyed_and_warned() {
    let explicit = config(&format!("{OFF}[kernel]\nmode = \"nexthop\"\n"));
    let wall = found(&[obstacle([true, false])]);
    assert_eq!(decide(&explicit, &wall), [true; 2]);
    let warning = warning(&explicit, &wall).expect("a warning");
    assert_eq!(warning.code, PASSED_BY);
    assert!(
        warning.text.contains("chain forward of table ip fw"),
        "{}",
        warning.text
    );
    assert_eq!(super::warning(&explicit, &found(&[])), None);
    assert_eq!(super::warning(&config(OFF), &wall), None);
    assert_eq!(
        why_not(&config(OFF), &wall).as_deref(),
        Some("chain forward of table ip fw")
    );
    assert_eq!(why_not(&explicit, &wall), None);
}

#[test]
fn foreign_chains_count_where_forwarded_packets_go() {
    let chain = |family: &str, table: &str, hook: Option<&str>| {
        let mut chain = json!({"family": family, "table": table, "name": "c", "handle": 1});
        if let Some(hook) = hook {
            chain["hook"] = hook.into();
        }
        json!({ "chain": chain })
    };
    let listing = |chains: &[Value]| {
        let all = [&[json!({"metainfo": {}})], chains].concat();
        json!({ "nftables": all })
    };
    let sees = |one: Value| chains(&listing(&[one])).unwrap().first().map(|o| o.sees);
    for (one, expected) in [
        (chain("ip", "fw", Some("forward")), Some([true, false])),
        (chain("ip6", "fw", Some("postrouting")), Some([false, true])),
        (chain("inet", "fw", Some("prerouting")), Some([true; 2])),
        (chain("netdev", "fw", Some("ingress")), Some([true; 2])),
        (chain("inet", "fw", Some("input")), None),
        (chain("netdev", "fw", Some("egress")), None),
        (chain("inet", "fw", None), None),
        (chain("bridge", "fw", Some("forward")), None),
        (chain("inet", "uplink", Some("forward")), None),
        (chain("ip", "uplink", Some("forward")), Some([true, false])),
    ] {
        assert_eq!(sees(one.clone()), expected, "{one}");
    }
    assert!(chains(&json!({})).is_err());
    assert_eq!(chains(&listing(&[])).unwrap(), []);
}

#[test]
fn old_tables_count_for_their_family() {
    let found = legacy(Family::V6, "filter\nmangle\n");
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].what, "table filter of ip6tables-legacy");
    assert_eq!(found[0].sees, [false, true]);
    assert!(legacy(Family::V4, "\n").is_empty());
}
