use serde_json::json;

use super::*;
use crate::foreign::tests::{host as a_host, rule};
use crate::plan::tests::{kernel as a_kernel, uplinks};

/// A router on which nothing is wrong.
fn healthy() -> Facts {
    Facts {
        release: "6.12.0-amd64".into(),
        capabilities: u64::MAX,
        bpffs: ("/sys/fs/bpf/uplink".into(), true),
        missing: Vec::new(),
        ruleset: Ok(json!({"nftables": [{"table": {"family": "inet", "name": "uplink"}}]})),
        links: Ok(json!([{"ifname": "eth0"}])),
        neighbours: Ok(json!([])),
        conntrack: Some((899, 1000)),
        networkd: None,
        group: true,
    }
}

fn all(change: impl Fn(&mut Facts)) -> Vec<(String, Severity)> {
    let mut facts = healthy();
    change(&mut facts);
    let mut found = host(&facts);
    found.extend(configured(&facts, &a_kernel(), &a_host(&[]), &uplinks()));
    found.into_iter().map(|f| (f.code, f.severity)).collect()
}

type Case = (&'static str, Severity, fn(&mut Facts));

const CASES: &[Case] = &[
    ("kernel-old", Blocks, |f| f.release = "6.0.19".into()),
    ("capability-missing", Blocks, |f| f.capabilities = !(1 << 39)),
    ("bpffs-missing", Blocks, |f| f.bpffs.1 = false),
    ("program-missing", Blocks, |f| f.missing = vec!["nft"]),
    ("conntrack-full", Warns, |f| f.conntrack = Some((900, 1000))),
    ("group-missing", Warns, |f| f.group = false),
    ("unseen", Fine, |f| f.ruleset = Err("nft: not permitted".into())),
    ("networkd", Warns, |f| {
        f.networkd = Some("#ManageForeignRoutes=no\n".into())
    }),
    ("networkd", Warns, |f| {
        f.networkd = Some("ManageForeignRoutes=no\nManageForeignRoutingPolicyRules=yes\n".into());
    }),
    ("flowtable", Warns, |f| {
        f.ruleset = Ok(json!({"nftables": [{"flowtable": {"family": "inet", "table": "fw", "name": "ft"}}]}));
    }),
    ("xdp", Warns, |f| {
        f.links =
            Ok(json!([{"ifname": uplinks()[0].interface, "xdp": {"mode": 2}}, {"ifname": "x", "xdp": {}}]));
    }),
    ("gateway-silent", Warns, |f| {
        let [one, ..] = uplinks();
        let gateway = one.v4.expect("a leg").gateway.to_string();
        f.neighbours = Ok(json!([{"dst": gateway, "dev": one.interface}, {"dst": gateway, "dev": "x"}]));
    }),
];

#[test]
fn nothing_is_found_on_a_healthy_router() {
    assert_eq!(all(|_| ()), []);
    assert_eq!(
        all(|f| f.networkd = Some("ManageForeignRoutes=no\n ManageForeignRoutingPolicyRules = No\n".into())),
        []
    );
    assert_eq!(all(|f| f.release = "6.1".into()), []);
}

#[test]
fn each_condition_is_found_alone() {
    for (code, severity, change) in CASES {
        assert_eq!(all(change), [((*code).to_owned(), *severity)], "{code}");
    }
}

#[test]
fn each_missing_capability_is_named() {
    let mut facts = healthy();
    facts.capabilities = 1 << 12;
    let found = host(&facts);
    assert!(
        found[0].text.contains("CAP_NET_RAW CAP_PERFMON CAP_BPF"),
        "{found:?}"
    );
    assert!(!found[0].text.contains("CAP_NET_ADMIN"), "{found:?}");
}

#[test]
fn rules_and_tables_of_others_in_our_place_are_told() {
    let kernel = a_kernel();
    let codes = |priority, table| {
        let mut host = a_host(&[]);
        host.rules = vec![rule(priority, 100)];
        host.foreign_tables = vec![table];
        let found = configured(&healthy(), &kernel, &host, &uplinks());
        found.into_iter().map(|f| f.code).collect::<Vec<_>>()
    };
    let first = kernel.rule_priority;
    assert_eq!(codes(first - 1, 100), [""; 0]);
    assert_eq!(codes(first, 100), ["rule-in-block"]);
    assert_eq!(codes(first + BLOCK - 1, 100), ["rule-in-block"]);
    assert_eq!(codes(first + BLOCK, 100), [""; 0]);
    assert_eq!(codes(1, uplinks()[0].table), ["table-in-use"]);
}
