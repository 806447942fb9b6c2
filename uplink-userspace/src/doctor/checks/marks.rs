//! Marks that others set: in our bits, or over them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Facts, Finding, finding, objects};
use crate::doctor::Severity::Warns;

/// After these the mark is not asked for any more.
const LATE: [&str; 2] = ["input", "postrouting"];

/// What a rule makes of a mark: `mark & kept | set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effect {
    kept: u32,
    set: u32,
}

/// What is wrong with an effect.
#[derive(Clone, Copy)]
enum Harm {
    Sets,
    Clears,
}

pub(super) fn all(facts: &Facts, ours: u32) -> Vec<Finding> {
    let nft = nftables(facts, ours);
    let iptables = iptables(facts, ours);
    nft.into_iter().chain(iptables).collect()
}

impl Effect {
    const fn harm(self, ours: u32) -> Option<Harm> {
        match (self.set & ours != 0, !self.kept & ours != 0) {
            (true, _) => Some(Harm::Sets),
            (false, true) => Some(Harm::Clears),
            (false, false) => None,
        }
    }

    const fn masked(self, mask: u32) -> Self {
        let (kept, set) = (self.kept & mask, self.set & mask);
        Self { kept, set }
    }

    const fn with(self, bits: u32) -> Self {
        let (kept, set) = (self.kept & !bits, self.set | bits);
        Self { kept, set }
    }
}

fn told(harm: Harm, what: &str, ours: u32, see: &str) -> Finding {
    let remedy = |how: &str| format!("{how}; see `{see}`");
    match harm {
        Harm::Sets => finding(
            "mark-set",
            Warns,
            format!("{what} sets bits of the mark that are ours ({ours:#x})"),
            remedy("have it set other bits, or change [kernel] fwmark_mask"),
        ),
        Harm::Clears => finding(
            "mark-overwritten",
            Warns,
            format!(
                "{what} overwrites our bits of the mark ({ours:#x}): what it matches goes by the main table, and by no policy"
            ),
            remedy(&format!(
                "have it keep our bits, as in `meta mark set meta mark and {ours:#x} or VALUE` or `--set-xmark VALUE/{:#x}`",
                !ours
            )),
        ),
    }
}

fn nftables(facts: &Facts, ours: u32) -> Vec<Finding> {
    let late: BTreeSet<[&str; 3]> = objects(facts, "chain")
        .filter(|c| c["hook"].as_str().is_some_and(|h| LATE.contains(&h)))
        .map(|c| ["family", "table", "name"].map(|k| c[k].as_str().unwrap_or_default()))
        .collect();
    let mut found = Vec::new();
    for rule in objects(facts, "rule") {
        let chain = ["family", "table", "chain"].map(|k| rule[k].as_str().unwrap_or_default());
        let statements = rule["expr"].as_array().into_iter().flatten();
        let effects = statements.filter_map(|s| mangled(s.get("mangle")?));
        for harm in effects.filter_map(|e| e.harm(ours)) {
            if late.contains(&chain) {
                continue;
            }
            let place = chain.join(" ");
            let what = format!("a rule in the nftables chain {place}");
            let one = told(harm, &what, ours, &format!("nft -a list chain {place}"));
            // One is enough for a chain.
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

/// What `meta mark set` or `ct mark set` does, where that can be told.
fn mangled(mangle: &Value) -> Option<Effect> {
    let key = &mangle["key"];
    let is_mark = key["meta"]["key"] == "mark" || key["ct"]["key"] == "mark";
    is_mark.then(|| effect(&mangle["value"], key)).flatten()
}

/// `key` is what is set: it may be a part of its own new value.
fn effect(value: &Value, key: &Value) -> Option<Effect> {
    let number = |v: &Value| u32::try_from(v.as_u64()?).ok();
    if let Some(set) = number(value) {
        return Some(Effect { kept: 0, set });
    }
    if value == key {
        let (kept, set) = (u32::MAX, 0);
        return Some(Effect { kept, set });
    }
    let (operator, sides) = value.as_object()?.iter().next()?;
    let [left, right] = sides.as_array()?.as_slice() else {
        return None;
    };
    let (inner, bits) = (effect(left, key)?, number(right)?);
    match operator.as_str() {
        "&" => Some(inner.masked(bits)),
        "|" | "^" => Some(inner.with(bits)),
        _ => None,
    }
}

/// Of all tables; `MARK` and `CONNMARK` are what sets marks.
fn iptables(facts: &Facts, ours: u32) -> Vec<Finding> {
    let mut found = Vec::new();
    for (program, line) in &facts.iptables {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(harm) = jump(&words).and_then(|e| e.harm(ours)) else {
            continue;
        };
        if matches!(words.get(1), Some(&"INPUT" | &"POSTROUTING")) {
            continue;
        }
        let one = told(
            harm,
            &format!("the {program} rule `{line}`"),
            ours,
            &format!("{program}-save"),
        );
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// What `-j MARK --set-xmark VALUE/MASK` does, and its relatives that `iptables-save` prints.
fn jump(words: &[&str]) -> Option<Effect> {
    let after = |option: &str| {
        let at = words.iter().position(|w| *w == option)?;
        words.get(at + 1).copied()
    };
    if !matches!(after("-j")?, "MARK" | "CONNMARK") {
        return None;
    }
    if words.contains(&"--restore-mark") {
        // A new connection has none.
        let mask = after("--nfmask").and_then(number).unwrap_or(u32::MAX);
        return Some(Effect { kept: !mask, set: 0 });
    }
    let (value, mask) = after("--set-xmark")?.split_once('/')?;
    let (value, mask) = (number(value)?, number(mask)?);
    Some(Effect {
        kept: !mask,
        set: value,
    })
}

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OURS: u32 = 0x7f00_0000;

    #[test]
    fn what_nft_makes_of_a_mark_is_told() {
        let mark = json!({"meta": {"key": "mark"}});
        let cases = [
            (json!(1), Some((0, 1))),
            (json!({"|": [mark, 0x100_0000]}), Some((!0x100_0000, 0x100_0000))),
            (
                json!({"|": [{"&": [mark, 0xff00_ffff_u32]}, 0x4_0000]}),
                Some((0xff00_ffff, 0x4_0000)),
            ),
            (json!({"^": [mark, 3]}), Some((!3, 3))),
            (json!({"ct": {"key": "mark"}}), None),
            (json!({"&": [{"ct": {"key": "mark"}}, 255]}), None),
            (json!({"map": {"key": {"payload": {}}, "data": {}}}), None),
        ];
        for (value, wanted) in cases {
            let found = mangled(&json!({"key": mark, "value": value})).map(|e| (e.kept, e.set));
            assert_eq!(found, wanted, "{value}");
        }
        assert_eq!(
            mangled(&json!({"key": {"meta": {"key": "priority"}}, "value": 1})),
            None
        );
    }

    #[test]
    fn what_iptables_makes_of_a_mark_is_told() {
        let harm = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            jump(&words)
                .and_then(|e| e.harm(OURS))
                .map(|h| matches!(h, Harm::Sets))
        };
        let cases = [
            ("-j MARK --set-xmark 0x1/0xffffffff", Some(false)),
            ("-p tcp -j MARK --set-xmark 0x1000000/0x1000000", Some(true)),
            ("-j MARK --set-xmark 0x3/0x3", None),
            ("-j MARK --set-xmark 0x0/0xfffffffc", Some(false)),
            ("-j CONNMARK --set-xmark 0x3/0xffffffff", Some(false)),
            (
                "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
                Some(false),
            ),
            ("-j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00", None),
            (
                "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
                None,
            ),
            ("-m mark --mark 0x1000000/0x1000000 -j DROP", None),
            ("-j MARK --set-xmark", None),
            ("-j", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(harm(&format!("-A PREROUTING {line}")), wanted, "{line}");
        }
    }
}
