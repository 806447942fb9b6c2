//! What an edit says, in the words of the file. Comments, order of keys and places are no part of it.

use toml::{Table, Value};

use super::compare::{Named, named};
use super::report::Line;

/// Tables of the file that `check --plan` shows by what they make of the kernel.
const SHOWN_ELSEWHERE: [&str; 3] = ["lan", "policy", "group"];

/// Keys of an uplink whose effect is shown as rules, routes and records.
const SEEN_IN_THE_KERNEL: [&str; 7] = [
    "gateway", "gateway6", "source", "source6", "weight", "mtu", "table",
];

/// Policies and groups with all that the file says of them.
#[must_use]
pub fn policies(text: &str) -> Vec<Named> {
    let whole = read(text);
    let groups = entries(&whole, "group").map(|(name, table)| (format!("group {name}"), inline(&table)));
    let policies = entries(&whole, "policy").map(|(name, table)| (name, inline(&table)));
    groups.chain(policies).collect()
}

/// The settings that the daemon alone keeps: what differs, key by key.
#[must_use]
pub fn settings(old: &str, new: &str) -> Vec<Line> {
    let [old, new] = [old, new].map(|text| flat(&read(text)));
    let differs = |one: &[Named], other: &[Named]| {
        let differs = one.iter().filter(|entry| !other.contains(entry));
        differs.cloned().collect::<Vec<_>>()
    };
    named(&differs(&new, &old), &differs(&old, &new))
}

/// Both texts have been read as configurations before.
fn read(text: &str) -> Table {
    text.parse().unwrap_or_default()
}

fn entries<'t>(whole: &'t Table, key: &str) -> impl Iterator<Item = (String, Table)> + use<'t> {
    let list = whole.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|entry| {
        let mut table = entry.as_table()?.clone();
        let name = table.remove("name")?.as_str()?.to_owned();
        Some((name, table))
    })
}

fn inline(table: &Table) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key} = {value}");
    table.iter().map(pair).collect::<Vec<_>>().join(", ")
}

fn flat(whole: &Table) -> Vec<Named> {
    let mut found = Vec::new();
    for (name, table) in entries(whole, "uplink") {
        let keys = table
            .iter()
            .filter(|(key, _)| !SEEN_IN_THE_KERNEL.contains(&key.as_str()));
        found.extend(keys.map(|(key, value)| (format!("uplink {name} {key}"), value.to_string())));
    }
    let tables = whole
        .iter()
        .filter(|(name, _)| !SHOWN_ELSEWHERE.contains(&name.as_str()));
    for (name, table) in tables.filter_map(|(name, value)| Some((name, value.as_table()?))) {
        let keys = table.iter();
        found.extend(keys.map(|(key, value)| (format!("[{name}] {key}"), value.to_string())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::report::{Report, Section};

    const OLD: &str = r#"
        [[uplink]]
        name = "isp1"
        weight = 3
        tier = 1
        [probe]
        interval = "1s" # slow
        fall = 2
        [[group]]
        name = "cheap"
        use = ["isp1"]
        [[policy]]
        name = "voip"
        match = { proto = "udp", dport = 5060 }
        use = ["isp1"]
    "#;

    #[test]
    fn only_what_the_daemon_alone_keeps_is_told_and_only_where_it_differs() {
        assert!(settings(OLD, OLD).is_empty());
        assert!(settings(OLD, &OLD.replace("# slow", "# quick")).is_empty());
        let new = OLD
            .replace("weight = 3", "weight = 5")
            .replace("tier = 1", "tier = 2")
            .replace("fall = 2", "rise = 9")
            .replace("\"1s\"", "\"2s\"");
        let lines = settings(OLD, &new);
        let section = Section {
            title: "settings".into(),
            note: None,
            lines,
        };
        let report = Report {
            sections: vec![section],
            ..Report::default()
        };
        insta::assert_snapshot!(report.text(false), @r#"
        # settings
        ~ uplink isp1 tier: 1 -> 2
        ~ [probe] interval: "1s" -> "2s"
        + [probe] rise: 9
        - [probe] fall: 2
        1 to add, 2 to change, 1 to remove; nothing was changed
        "#);
    }

    #[test]
    fn policies_have_all_that_the_file_says_of_them() {
        let found = policies(OLD);
        assert_eq!(found[0], ("group cheap".into(), "use = [\"isp1\"]".into()));
        assert_eq!(found[1].0, "voip");
        assert!(found[1].1.contains("proto = \"udp\""), "{found:?}");
    }
}
