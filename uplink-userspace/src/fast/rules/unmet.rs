//! Matches that no packet of a fast flow meets, so that it never comes to what stands behind them.

use serde_json::Value;

use super::words;

/// States of a connection that had no answer, or of none.
const STATES: [&str; 2] = ["new", "invalid"];
/// Packets with one of these take the kernel's way.
const FLAGS: [&str; 3] = ["syn", "fin", "rst"];
/// Neither TCP nor UDP. To look at a field of theirs is to ask for the protocol.
const OTHERS: [&str; 9] = [
    "icmp", "icmpv6", "igmp", "ah", "esp", "comp", "sctp", "dccp", "arp",
];
const FAST: [&str; 4] = ["tcp", "udp", "6", "17"];

/// Whether a statement is such a match.
pub(super) fn by(statement: &Value) -> bool {
    let Some(found) = statement.get("match") else {
        return false;
    };
    let (left, right) = (&found["left"], &found["right"]);
    let payload = left["payload"]["protocol"].as_str();
    if payload.is_some_and(|p| OTHERS.contains(&p)) {
        return true;
    }
    match found["op"].as_str() {
        _ if is_flags(left) => flags(&found["op"], right),
        Some("==" | "in") => alternatives(right).is_some_and(|all| all.iter().all(|v| is_value(left, v))),
        Some("!=") if is_protocol(left) => {
            let all = alternatives(right).unwrap_or_default();
            let has = |name: &str| all.iter().any(|v| v.as_str() == Some(name));
            has("tcp") && has("udp")
        }
        _ => false,
    }
}

/// Whether no packet of a fast flow has this value there.
pub(super) fn is_value(left: &Value, value: &Value) -> bool {
    let word = match value {
        Value::String(word) if !word.starts_with('@') => word.clone(),
        Value::Number(number) => number.to_string(),
        _ => return false,
    };
    match left["ct"]["key"].as_str() {
        Some("state") => STATES.contains(&word.as_str()),
        _ => is_protocol(left) && !FAST.contains(&word.as_str()),
    }
}

/// Where the protocol above IP is told.
fn is_protocol(left: &Value) -> bool {
    let payload = &left["payload"];
    left["meta"]["key"] == "l4proto"
        || payload["protocol"] == "ip" && payload["field"] == "protocol"
        || payload["protocol"] == "ip6" && payload["field"] == "nexthdr"
}

/// The values of which one has to be there.
fn alternatives(right: &Value) -> Option<Vec<&Value>> {
    match right {
        Value::Array(all) => Some(all.iter().collect()),
        Value::Object(_) => Some(right["set"].as_array()?.iter().collect()),
        one => Some(vec![one]),
    }
}

/// The flags of TCP, all or some of them.
fn is_flags(left: &Value) -> bool {
    let left = match &left["&"] {
        Value::Array(parts) => parts.first().unwrap_or(&Value::Null),
        _ => left,
    };
    left["payload"]["protocol"] == "tcp" && left["payload"]["field"] == "flags"
}

fn flags(op: &Value, right: &Value) -> bool {
    let is_slow = |f: &&str| FLAGS.contains(f);
    let set = |value: &Value| flag_words(value).iter().any(is_slow);
    match (op.as_str(), right["set"].as_array()) {
        // One of them is enough.
        (Some("in"), None) => !words(right).is_empty() && words(right).iter().all(is_slow),
        (Some("=="), None) => set(right),
        (Some("=="), Some(all)) => all.iter().all(set),
        _ => false,
    }
}

/// Flags together: a list, or joined by "|".
fn flag_words(value: &Value) -> Vec<&str> {
    words(value.get("|").unwrap_or(value))
}
