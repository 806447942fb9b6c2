//! A value that a rule looks at: the same for all packets of a flow that go fast, or not.

use serde_json::Value;

use super::Finding;

/// They stand in packets with SYN only (RFC 9293, RFC 7323, RFC 2018).
pub(super) const SYN_OPTIONS: [&str; 3] = ["maxseg", "window", "sack-perm"];
/// Made of others.
const CONTAINERS: [&str; 10] = [
    "set", "range", "prefix", "concat", "|", "&", "^", "<<", ">>", "addr",
];
/// The same for all packets of a flow, or about what does not go fast.
const FINE: [&str; 17] = [
    "rt",
    "fib",
    "socket",
    "osf",
    "ipsec",
    "exthdr",
    "ip option",
    "symhash",
    "sctp chunk",
    "dccp option",
    "accept",
    "drop",
    "continue",
    "return",
    "jump",
    "goto",
    "len",
];
const META: [&str; 28] = [
    "protocol",
    "nfproto",
    "l4proto",
    "mark",
    "priority",
    "iif",
    "oif",
    "iifname",
    "oifname",
    "iiftype",
    "oiftype",
    "iifgroup",
    "oifgroup",
    "iifkind",
    "oifkind",
    "sdif",
    "sdifname",
    "ibrname",
    "obrname",
    "ibrpvid",
    "ibrvproto",
    "skuid",
    "skgid",
    "cgroup",
    "rtclassid",
    "pkttype",
    "ipsec",
    "nftrace",
];
const CT: [&str; 15] = [
    "state",
    "direction",
    "status",
    "mark",
    "label",
    "helper",
    "l3proto",
    "protocol",
    "saddr",
    "daddr",
    "ip saddr",
    "ip daddr",
    "ip6 saddr",
    "ip6 daddr",
    "proto-src",
];
const CT_MORE: [&str; 3] = ["proto-dst", "zone", "id"];
const ETHER: &[&str] = &["saddr", "daddr", "type"];
const VLAN: &[&str] = &["id", "cfi", "dei", "pcp", "type"];
const IP: &[&str] = &[
    "version",
    "hdrlength",
    "dscp",
    "frag-off",
    "ttl",
    "protocol",
    "saddr",
    "daddr",
];
const IP6: &[&str] = &[
    "version",
    "dscp",
    "flowlabel",
    "nexthdr",
    "hoplimit",
    "saddr",
    "daddr",
];
const TCP: &[&str] = &["sport", "dport", "flags"];
const PORTS: &[&str] = &["sport", "dport"];

/// Notes what a value asks for.
pub(super) fn judge(value: &Value, findings: &mut Vec<Finding>) {
    match value {
        Value::Array(all) => all.iter().for_each(|part| judge(part, findings)),
        Value::Object(parts) => {
            let each = parts.iter();
            each.for_each(|(kind, inner)| part(kind, inner, findings));
        }
        _ => {}
    }
}

/// Whether it is one of these TCP options.
pub(super) fn is_option(value: &Value, names: &[&str]) -> bool {
    let name = value["tcp option"]["name"].as_str();
    name.is_some_and(|name| names.contains(&name))
}

fn part(kind: &str, inner: &Value, findings: &mut Vec<Finding>) {
    let key = inner["key"].as_str().unwrap_or("?");
    match kind {
        kind if CONTAINERS.contains(&kind) => judge(inner, findings),
        kind if FINE.contains(&kind) => {}
        "map" => ["key", "data"]
            .iter()
            .for_each(|side| judge(&inner[side], findings)),
        "jhash" => judge(&inner["expr"], findings),
        "elem" => judge(&inner["val"], findings),
        "payload" => findings.extend(payload(inner)),
        "meta" if META.contains(&key) => {}
        "meta" => findings.push(meta(key)),
        "ct" if CT.contains(&key) || CT_MORE.contains(&key) => {}
        "ct" => findings.push(ct(key)),
        "tcp option" => findings.extend(option(inner)),
        "numgen" => findings.push(Finding::obstacle("a number dealt to every packet (numgen)")),
        other => findings.push(Finding::unknown(other)),
    }
}

fn meta(key: &str) -> Finding {
    match key {
        "time" | "day" | "hour" => Finding::Late(format!("a time (meta {key})")),
        "length" => Finding::obstacle("the length of packets (meta length)"),
        "random" => Finding::obstacle("a number dealt to every packet (meta random)"),
        "cpu" => Finding::obstacle("the processor (meta cpu)"),
        other => Finding::unknown(&format!("meta {other}")),
    }
}

fn ct(key: &str) -> Finding {
    match key {
        "bytes" | "packets" | "avgpkt" => Finding::Obstacle(format!("a connection's count (ct {key})")),
        "expiration" => Finding::obstacle("a connection's age (ct expiration)"),
        other => Finding::unknown(&format!("ct {other}")),
    }
}

fn payload(inner: &Value) -> Option<Finding> {
    let (Some(protocol), Some(field)) = (inner["protocol"].as_str(), inner["field"].as_str()) else {
        return Some(Finding::obstacle("bytes of packets"));
    };
    let known = match protocol {
        "ether" => ETHER,
        "vlan" => VLAN,
        "ip" => IP,
        "ip6" => IP6,
        "tcp" => TCP,
        "udp" | "th" => PORTS,
        // Nothing of these goes fast.
        "icmp" | "icmpv6" | "igmp" | "arp" | "ah" | "esp" | "comp" | "sctp" | "dccp" => return None,
        other => return Some(Finding::unknown(other)),
    };
    let differs = || Finding::Obstacle(format!("what differs by packet ({protocol} {field})"));
    (!known.contains(&field)).then(differs)
}

fn option(inner: &Value) -> Option<Finding> {
    let name = inner["name"].as_str().unwrap_or("?");
    let differs = || Finding::Obstacle(format!("TCP option {name}"));
    (!SYN_OPTIONS.contains(&name)).then(differs)
}
