//! Matches and targets of iptables-nft that nft knows by name only.

use serde_json::Value;

use super::Finding;

/// The same for all packets of a flow, about the first ones, or about what does not go fast.
const MATCHES: &[&str] = &[
    "addrtype",
    "ah",
    "cluster",
    "comment",
    "connlabel",
    "connlimit",
    "connmark",
    "conntrack",
    "dccp",
    "devgroup",
    "dscp",
    "dst",
    "esp",
    "eui64",
    "frag",
    "hbh",
    "helper",
    "hl",
    "icmp",
    "icmp6",
    "ipcomp",
    "iprange",
    "ipv6header",
    "l2tp",
    "mac",
    "mark",
    "mh",
    "multiport",
    "osf",
    "owner",
    "physdev",
    "pkttype",
    "policy",
    "realm",
    "rpfilter",
    "rt",
    "sctp",
    "socket",
    "state",
    "tcp",
    "tcpmss",
    "tos",
    "ttl",
    "udp",
    "cgroup",
];
/// TCPMSS writes to packets with SYN; CHECKSUM has a card's work done, which the packet on the wire does not show.
const TARGETS: &[&str] = &[
    "CHECKSUM",
    "CONNMARK",
    "DNAT",
    "MARK",
    "MASQUERADE",
    "NETMAP",
    "NOTRACK",
    "REDIRECT",
    "REJECT",
    "SNAT",
    "TCPMSS",
    "TPROXY",
];

pub(super) fn judge(inner: &Value) -> Option<Finding> {
    let name = inner["name"].as_str().unwrap_or("?");
    let (known, what) = match inner["type"].as_str() {
        Some("match") => (MATCHES, "-m"),
        Some("target") => (TARGETS, "-j"),
        _ => return Some(Finding::unknown(&format!("iptables {name}"))),
    };
    match (what, name) {
        _ if known.contains(&name) => None,
        ("-m", "time") => Some(Finding::Late("a time (-m time)".into())),
        ("-m", "set") => Some(Finding::obstacle("an ipset, whose changes nobody tells (-m set)")),
        ("-j", "CT") => Some(Finding::obstacle("what may be a helper (-j CT)")),
        _ => Some(Finding::Obstacle(format!("`{what} {name}` of iptables"))),
    }
}
