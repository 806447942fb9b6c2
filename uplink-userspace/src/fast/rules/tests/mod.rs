//! The JSON is what nft 1.0.6 printed of rules that a kernel had, but for `queue` and `flow add`, which are by
//! libnftables-json(5) and which nft reads so.

use serde_json::json;

use super::*;

/// Rules, and their expressions.
const STATEMENTS: &str = include_str!("statements.tsv");
const IPTABLES: &str = include_str!("iptables.json");
const SETS: &str = include_str!("sets.json");

fn chain(name: &str, base: Option<(&str, &str)>) -> Value {
    let mut chain = json!({"family": "ip", "table": "t", "name": name});
    if let Some((kind, hook)) = base {
        chain["type"] = kind.into();
        chain["hook"] = hook.into();
    }
    json!({ "chain": chain })
}

/// The expressions of a rule that was captured.
fn captured(rule: &str) -> Value {
    let mut lines = STATEMENTS.lines().filter_map(|line| line.split_once('\t'));
    let (_, expr) = lines.find(|(text, _)| *text == rule).expect(rule);
    serde_json::from_str(expr).unwrap()
}

fn rule(chain: &str, text: &str) -> Value {
    json!({"rule": {"family": "ip", "table": "t", "chain": chain, "expr": captured(text)}})
}

fn judged(objects: &[Value]) -> Judged {
    judge(&json!({ "nftables": objects })).unwrap()
}

fn whats(judged: &Judged) -> Vec<&str> {
    judged.obstacles.iter().map(|o| o.what.as_str()).collect()
}

const FORWARD: Option<(&str, &str)> = Some(("filter", "forward"));
const LIMIT: &str = "limit rate 10/second accept";

/// Every rule as the only one of a chain of hook `forward`.
#[test]
fn every_kind_of_statement_is_judged() {
    let mut text = String::new();
    for (name, _) in STATEMENTS.lines().filter_map(|line| line.split_once('\t')) {
        let found = judged(&[chain("c", FORWARD), rule("c", name)]);
        let said: Vec<&str> = whats(&found)
            .into_iter()
            .chain(found.warnings.iter().map(String::as_str))
            .collect();
        let said = said.join("; ").replace(" in chain c of table ip t", "");
        text.push_str(&format!(
            "{name:<60} {}\n",
            if said.is_empty() { "-" } else { &said }
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn iptables_is_judged_by_the_names_of_its_parts() {
    let listing: Value = serde_json::from_str(IPTABLES).unwrap();
    let found = judge(&listing).unwrap();
    let text = whats(&found)
        .into_iter()
        .chain(found.warnings.iter().map(String::as_str));
    insta::assert_snapshot!(text.collect::<Vec<_>>().join("\n"));
    assert!(found.obstacles.iter().all(|o| o.sees == [true, false]));
}

#[test]
fn named_objects_and_sets_are_judged() {
    let listing: Value = serde_json::from_str(SETS).unwrap();
    let found = judge(&listing).unwrap();
    let place = "of table inet t";
    let expected = [
        "a rate limit in set ls",
        "a rate limit in chain c",
        "a SYN proxy in chain c",
        "a quota in chain c",
    ];
    assert_eq!(whats(&found), expected.map(|e| format!("{e} {place}")));
    // In two sets, the named one, and in a chain that only a named verdict map may lead to.
    let counters = "counters of table inet t (4) miss the packets of fast flows";
    assert_eq!(found.warnings[0], counters);
    assert!(
        found.warnings[1].starts_with("elements with a timeout in set cs"),
        "{found:?}"
    );
}

#[test]
fn only_chains_that_forwarded_packets_come_to_count() {
    let limit = "a rate limit in chain c of table ip t";
    for (kind, hook, expected) in [
        ("filter", "forward", vec![limit]),
        ("filter", "ingress", vec![limit]),
        ("filter", "prerouting", vec![limit]),
        ("filter", "postrouting", vec![limit]),
        ("filter", "egress", vec![limit]),
        ("filter", "input", vec![]),
        ("route", "output", vec![]),
        ("nat", "postrouting", vec![]),
        ("nat", "prerouting", vec![]),
    ] {
        let found = judged(&[chain("c", Some((kind, hook))), rule("c", LIMIT)]);
        assert_eq!(whats(&found), expected, "{kind} {hook}");
    }
    assert_eq!(whats(&judged(&[chain("c", None), rule("c", LIMIT)])), [""; 0]);
}

#[test]
fn jumps_gotos_and_verdict_maps_are_followed() {
    let found = |way: &str| {
        let objects = [
            chain("c", FORWARD),
            chain("other", None),
            rule("c", way),
            rule("other", LIMIT),
        ];
        judged(&objects).obstacles.len()
    };
    assert_eq!(found("jump other"), 1);
    assert_eq!(found("goto other"), 1);
    assert_eq!(
        found("ip saddr vmap { 10.0.0.1 : jump other, 10.0.0.2 : drop }"),
        1
    );
    assert_eq!(found("ip saddr vmap @m1"), 1, "it may lead there");
    assert_eq!(found("accept"), 0);
    assert_eq!(
        found("ct state vmap { established : accept, new : jump other }"),
        0,
        "new connections are not fast"
    );
}

#[test]
fn a_jump_that_only_slow_packets_take_is_not_followed_and_circles_end() {
    let mut slow = rule("c", "ct state new limit rate 10/second accept");
    slow["rule"]["expr"][1] = json!({"jump": {"target": "other"}});
    let objects = [
        chain("c", FORWARD),
        chain("other", None),
        slow,
        rule("other", LIMIT),
    ];
    assert_eq!(judged(&objects).obstacles, []);
    let circle = [
        chain("c", FORWARD),
        chain("other", None),
        rule("c", "jump other"),
        rule("other", "jump other"),
    ];
    assert_eq!(judged(&circle), Judged::default());
}

#[test]
fn ours_and_bridges_are_left_out_and_families_told_apart() {
    let of = |family: &str, table: &str| {
        let mut objects = [chain("c", FORWARD), rule("c", LIMIT)];
        objects[0]["chain"]["family"] = family.into();
        objects[0]["chain"]["table"] = table.into();
        objects[1]["rule"]["family"] = family.into();
        objects[1]["rule"]["table"] = table.into();
        judged(&objects).obstacles.first().map(|o| o.sees)
    };
    assert_eq!(of("inet", "uplink"), None);
    assert_eq!(of("ip", "uplink"), Some([true, false]));
    assert_eq!(of("ip6", "fw"), Some([false, true]));
    assert_eq!(of("netdev", "fw"), Some([true; 2]));
    assert_eq!(of("bridge", "fw"), None);
    assert_eq!(of("arp", "fw"), None);
}

#[test]
fn helpers_flowtables_and_timeouts_are_objects() {
    let helper = json!({"ct helper": {"family": "ip", "name": "h1", "table": "t", "handle": 4, "type": "ftp",
        "protocol": "tcp", "l3proto": "ip"}});
    let table = json!({"flowtable": {"family": "ip", "name": "f", "table": "t", "handle": 2, "hook": "ingress",
        "prio": 0, "dev": "lo"}});
    let timeout = json!({"ct timeout": {"family": "ip", "name": "t2", "table": "t", "handle": 6, "protocol": "udp",
        "l3proto": "ip", "policy": {"unreplied": 100, "replied": 7}}});
    let found = judged(&[helper, table, timeout]);
    let expected = [
        "connection tracking helper h1 (ftp) of table ip t",
        "flowtable f of table ip t",
    ];
    assert_eq!(whats(&found), expected);
    assert_eq!(found.timeouts_s, [100, 7]);
}

#[test]
fn a_set_that_packets_for_this_host_fill_is_noticed_late() {
    let fills = rule("in", "add @s1 { ip saddr }");
    let found = judged(&[chain("in", Some(("filter", "input"))), fills]);
    assert_eq!(found.obstacles, []);
    assert!(
        found.warnings[0].starts_with("set s1 is filled by packets in chain in"),
        "{found:?}"
    );
}

#[test]
fn what_is_no_listing_or_not_known_is_not_fine() {
    assert!(judge(&json!({})).is_err());
    assert!(judge(&json!({"nftables": {}})).is_err());
    let mut odd = rule("c", LIMIT);
    for expr in [
        json!(["last"]),
        json!([{"bogus": 1}]),
        json!([{}]),
        json!([7]),
        json!([{"match": {"left": {"x": 1}}}]),
    ] {
        odd["rule"]["expr"] = expr.clone();
        let found = judged(&[chain("c", FORWARD), odd.clone()]);
        assert_eq!(found.obstacles.len(), 1, "{expr}");
        assert!(found.obstacles[0].what.contains("cannot be judged"), "{found:?}");
    }
}
