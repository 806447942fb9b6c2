//! One statement of a rule.

use serde_json::Value;

use super::expression::{self, SYN_OPTIONS};
use super::{Finding, xt};

/// Verdicts, and what only the first packets of a connection decide.
const FINE: [&str; 10] = [
    "accept",
    "drop",
    "continue",
    "return",
    "jump",
    "goto",
    "reject",
    "notrack",
    "ct count",
    "ct timeout",
];
/// Their addresses and ports may be looked up.
const TRANSLATE: [&str; 5] = ["snat", "dnat", "masquerade", "redirect", "tproxy"];

/// Notes what a statement asks for.
pub(super) fn judge(statement: &Value, findings: &mut Vec<Finding>) {
    let Some((kind, inner)) = statement.as_object().and_then(|o| o.iter().next()) else {
        // Newer statements that nft has no JSON for come as text.
        return findings.push(Finding::unknown(statement.as_str().unwrap_or("?")));
    };
    match kind.as_str() {
        kind if FINE.contains(&kind) => {}
        kind if TRANSLATE.contains(&kind) => {
            let parts = inner.as_object().into_iter().flat_map(|o| o.values());
            parts.for_each(|part| expression::judge(part, findings));
        }
        "match" => ["left", "right"]
            .iter()
            .for_each(|side| expression::judge(&inner[side], findings)),
        "vmap" => ["key", "data"]
            .iter()
            .for_each(|side| expression::judge(&inner[side], findings)),
        "counter" => findings.push(Finding::Counter),
        "mangle" => mangle(inner, findings),
        "reset" if expression::is_option(inner, &SYN_OPTIONS) => {}
        "xt" => findings.extend(xt::judge(inner)),
        kind => findings.push(obstacle(kind, inner)),
    }
}

/// What a rule does that forwarded packets do not meet, and others of it ask for.
pub(super) fn from_elsewhere(statement: &Value) -> Option<Finding> {
    let set = statement.get("set")?["set"].as_str()?;
    Some(Finding::Late(format!(
        "set {} is filled by packets",
        set.trim_start_matches('@')
    )))
}

fn obstacle(kind: &str, inner: &Value) -> Finding {
    let what = match kind {
        "limit" => "a rate limit",
        "quota" => "a quota",
        "queue" => "a queue to a program (queue)",
        "dup" => "copies of packets (dup)",
        "fwd" => "forwarding to another interface (fwd)",
        "log" => "a log",
        "last" => "the time of the last packet (last)",
        "meter" => "a meter",
        "flow" => "a flowtable (flow add)",
        "synproxy" => "a SYN proxy",
        "ct helper" => "a connection tracking helper",
        "ct expectation" => "expected connections (ct expectation)",
        "reset" => "a TCP option taken away (reset)",
        "set" => {
            let name = inner["set"].as_str().unwrap_or("?");
            let name = name.trim_start_matches('@');
            return Finding::Obstacle(format!("packets that fill set {name}"));
        }
        other => return Finding::unknown(other),
    };
    Finding::obstacle(what)
}

/// What is written into packets, or next to them.
fn mangle(inner: &Value, findings: &mut Vec<Finding>) {
    let key = &inner["key"];
    expression::judge(&inner["value"], findings);
    let word = |of: &str, name: &str| key[of][name].as_str().unwrap_or("?").to_owned();
    let (meta, ct) = (word("meta", "key"), word("ct", "key"));
    match (meta.as_str(), ct.as_str()) {
        ("mark", _) | (_, "mark" | "label") => {}
        ("nftrace", _) => findings.push(Finding::obstacle("a trace (meta nftrace)")),
        ("?", "?") if expression::is_option(key, &SYN_OPTIONS) => {}
        ("?", "?") => findings.push(Finding::Obstacle(format!("a change of {}", written(key)))),
        ("?", ct) => findings.push(Finding::Obstacle(format!("`ct {ct} set`"))),
        (meta, _) => findings.push(Finding::Obstacle(format!("`meta {meta} set`"))),
    }
}

/// Where in the packet, for people.
fn written(key: &Value) -> String {
    let word = |of: &str, name: &str| key[of][name].as_str();
    if let (Some(protocol), Some(field)) = (word("payload", "protocol"), word("payload", "field")) {
        return format!("{protocol} {field}");
    }
    match (word("tcp option", "name"), key.get("payload")) {
        (Some(name), _) => format!("TCP option {name}"),
        (None, Some(_)) => "bytes of packets".into(),
        (None, None) => key
            .as_object()
            .and_then(|o| o.keys().next())
            .map_or_else(|| "packets".into(), |kind| format!("{kind} of packets")),
    }
}
