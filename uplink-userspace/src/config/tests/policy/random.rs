//! Whatever a policy says, it is understood or complained about.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::with;

/// Values as people get them wrong.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (0..70_000_i64).prop_map(|n| n.to_string()),
        prop::sample::select(vec!["true", "1.5", "1979-05-27", "inf", "0xff", "0b1", "-0"])
            .prop_map(str::to_owned),
        "[a-z0-9.:/*-]{0,20}".prop_map(|s| format!("{s:?}")),
        "\\PC{0,10}".prop_map(|s| toml::Value::String(s).to_string()),
        prop::sample::select(vec![
            "10.0.0.0/8",
            "::/0",
            "1-2",
            "2-1",
            "tcp",
            "af11",
            "eth0",
            "root",
            "/a/../b",
            "*.org",
            "isp1",
            "lowest-loss",
            "mon-fri",
            "22:00-06:00",
            "24:00-24:00",
            "UTC",
            "source",
            "1h",
        ])
        .prop_map(|s| format!("{s:?}")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let keys = prop::sample::select(KEYS.to_vec());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            prop::collection::btree_map(keys, inner, 0..4).prop_map(|table| table_of(&table)),
        ]
    })
}

const KEYS: [&str; 24] = [
    "src", "dst", "src_file", "dst_file", "sport", "dport", "proto", "dscp", "iif", "mac", "uid", "cgroup",
    "domain", "not", "days", "hours", "zone", "isp1", "isp2", "isp3", "match", "use", "when", "sticky",
];

fn table_of(table: &BTreeMap<&str, String>) -> String {
    let pairs: Vec<String> = table.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

proptest! {
    #[test]
    fn no_table_makes_it_panic(
        fields in prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), any_value(), 0..6),
        not in prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), any_value(), 0..4),
        rest in prop::collection::btree_map(
            prop::sample::select(vec!["use", "when", "sticky", "sticky_time", "strict", "enabled", "pick"]),
            any_value(), 0..4,
        ),
    ) {
        let mut fields = fields;
        fields.insert("not", table_of(&not));
        let rest: Vec<String> = rest.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        let rest = rest.concat();
        let text = format!(
            "[[policy]]\nname = \"p\"\nmatch = {}\n{rest}[[group]]\nname = \"g\"\n{rest}\n[dns]\n{rest}[mpath]\n{rest}",
            table_of(&fields)
        );
        if let Err(problems) = with(&text) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}
