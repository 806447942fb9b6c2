//! What the keys of the configuration say.

use super::{Key, Table};

const fn key(name: &'static str, default: &'static str, says: &'static str) -> Key {
    Key { name, default, says }
}

/// Every table, in the order in which people meet them.
pub const TABLES: &[Table] = &[
    UPLINK, LAN, LOCAL, NAT, PROBE, HEALTH, BALANCE, POLICY, MATCH, GROUP, DNS, MPATH, METRICS, HOOKS, KERNEL,
];

const UPLINK: Table = Table {
    title: "[[uplink]]",
    about: "One for each provider.",
    keys: &[
        key("name", "", "1 to 15 bytes, unique"),
        key("interface", "", "where it is reached"),
        key("gateway", "", "the provider's IPv4 router; `\"auto\"`: the next hop of the interface's default route in `main`, see below. One of `gateway` and `gateway6` is needed"),
        key("gateway6", "none", "the same for IPv6"),
        key("source", "found", "our IPv4 address towards it"),
        key("source6", "found", "our IPv6 address towards it"),
        key("weight", "1", "1 to 1000"),
        key("tier", "1", "0 to 255; a higher one serves when every lower one is down"),
        key("mtu", "none", "of its routes"),
        key("table", "20000 + position", "of its routes"),
        key("prefix6", "none", "what `[nat] prefix6` becomes here, of the same length (RFC 6296)"),
        key("enabled", "true", "`false` keeps it in the file and out of everything"),
        key("down", "none", "what it can carry towards you, `\"8kbit\"` to `\"1tbit\"`"),
        key("up", "none", "the same from you"),
        key("probe", "[probe]", "`{ ... }` with keys of `[probe]`: what it says instead"),
        key("quota", "none", "`{ bytes = \"200GB\", per = \"month\", starts = 15, then = \"last-resort\" }`: what it may carry, both directions together"),
    ],
    more: "In a quota, `bytes` takes `kB`, `MB`, `GB`, `TB` (decimal) or `KiB`, `MiB`, `GiB`, `TiB` (binary); `per` is `\"day\"`, `\"week\"` or
`\"month\"` (the default), which begins on the day `starts`, 1 to 28; `then` is `\"last-resort\"` (the default: it serves when no
other one answers) or `\"disable\"`.

`gateway = \"auto\"` follows what DHCP, router advertisements, PPP or you put into `main`: the default route of the lowest metric on
that interface, its gateway (on a point-to-point link without one, the other end) and, unless `source` is given, the source that
it prefers. What is not there yet, even the interface, is waited for and told in `status`; when it goes away, the uplink
keeps what it had until it comes back. One uplink for each interface and family can follow.",
};

const LAN: Table = Table {
    title: "[lan]",
    about: "Where client traffic enters.",
    keys: &[key(
        "interfaces",
        "the uplinks' interfaces",
        "names of interfaces, such as `[\"lan0\"]`",
    )],
    more: "",
};

const LOCAL: Table = Table {
    title: "[local]",
    about: "This host's own connections.",
    keys: &[
        key("enabled", "true", "whether they are steered"),
        key(
            "cgroup",
            "\"/\"",
            "those of processes in this cgroup v2 and below it",
        ),
    ],
    more: "",
};

const NAT: Table = Table {
    title: "[nat]",
    about: "What becomes of addresses, and of flows whose uplink changes.",
    keys: &[
        key(
            "mode",
            "\"masquerade\"",
            "`\"off\"` where the gateways route your prefixes back",
        ),
        key(
            "on_failover",
            "\"reroute\"",
            "connections of a dead uplink start anew elsewhere; `\"reset\"`: TCP ends get a RST as well",
        ),
        key(
            "on_failback",
            "\"pin\"",
            "when a better tier comes back, flows finish where they are; `\"drain\"`: for `drain_time`, then they are moved; `\"reset\"`: moved at once",
        ),
        key("drain_time", "\"5m\"", "1s to 24h"),
        key(
            "prefix6",
            "none",
            "the IPv6 prefix inside; an uplink's own `prefix6`, of the same length up to 64, is what it becomes there",
        ),
    ],
    more: "",
};

const PROBE: Table = Table {
    title: "[probe]",
    about: "How uplinks are asked whether they work, for every uplink that does not say otherwise.",
    keys: &[
        key("type", "\"icmp\"", "`\"icmp\"` echo, `\"tcp\"` connection, `\"dns\"` query, `\"http\"` or `\"https\"` GET, `\"exec\"`: a program whose exit status 0 is an answer"),
        key("targets", "`1.1.1.1`, `9.9.9.9`, `2606:4700:4700::1111`, `2620:fe::9`", "1 to 16 addresses, no names; for `tcp`, `dns`, `http` and `https` with a port if it is not 443, 53, 80, 443: `\"1.2.3.4:8080\"`, `\"[2001:db8::1]:53\"`. For `exec` none"),
        key("quorum", "1", "targets of a family that must answer, 1 to 16; all of them where there are fewer"),
        key("interval", "\"500ms\"", "50ms to 1h"),
        key("timeout", "\"1s\"", "10ms to 1min"),
        key("fall", "3", "rounds in a row that take an uplink out, 1 to 100"),
        key("rise", "5", "rounds in a row that take it back, 1 to 100"),
        key("name", "\".\"", "`dns` only: the name that is asked for"),
        key("host", "the address", "`http` and `https` only: the Host field, and the name in the certificate"),
        key("path", "\"/\"", "`http` and `https` only"),
        key("status", "[\"200-399\"]", "`http` and `https` only: statuses that count, such as `[200, \"300-399\"]`"),
        key("ca", "the web's", "`https` only: a PEM file with the authorities to trust instead"),
        key("command", "none", "`exec` only: `[\"/absolute/path\", \"argument\"]`"),
    ],
    more: "An uplink's own `probe` starts from `[probe]`. With another `type` the ports and the keys of one type only start from their defaults.
`status` warns of probes that cannot see beyond the provider's router.",
};

const HEALTH: Table = Table {
    title: "[health]",
    about: "What makes an uplink degraded, and when it is good again.",
    keys: &[
        key("loss", "\"15%\"", "lost probes"),
        key(
            "loss_recovery",
            "\"5%\"",
            "for a `loss` of 5 % or less, recovery is a third of it",
        ),
        key("rtt", "none", "smoothed round-trip time, 1ms to 1min"),
        key("rtt_recovery", "80 % of `rtt`", "1ms to 1min"),
        key("jitter", "none", "smoothed jitter, 1ms to 1min"),
        key("jitter_recovery", "80 % of `jitter`", "1ms to 1min"),
        key(
            "hold_down",
            "\"3s\"",
            "how long it must have been good without a break, 0s to 1h",
        ),
        key(
            "slow_start",
            "\"5s\"",
            "the time in which a recovered uplink's weight grows, 0s to 1h",
        ),
        key(
            "switches_per_minute",
            "2",
            "an uplink's flips within a minute that are not its death, 2 to 60: a recovery that would make more waits",
        ),
    ],
    more: "",
};

const BALANCE: Table = Table {
    title: "[balance]",
    about: "What the shares of new flows follow. [balancing.md](balancing.md) says how health, shares, spillover and quotas work.",
    keys: &[
        key(
            "by",
            "\"weight\"",
            "`\"latency\"`, `\"loss\"`, `\"bandwidth\"` (needs `down` and `up` of every uplink) or `\"quality\"`, the three together",
        ),
        key(
            "spillover",
            "none",
            "such as `\"80%\"`: the first uplink takes all new flows until it carries that much of its capacity, and passes on what is too much to the next; with `by = \"weight\"` only, needs every `down` and `up`",
        ),
    ],
    more: "",
};

const POLICY: Table = Table {
    title: "[[policy]]",
    about: "Who goes where. The first that matches decides; what none matches is balanced over all uplinks. [policies.md](policies.md) says what policies, names and `explain` do.",
    keys: &[
        key("name", "", "1 to 31 bytes, unique"),
        key("match", "everything", "which flows, see below"),
        key("use", "all uplinks", "by which: `\"isp1\"`, or a `[[group]]`; `[\"isp1\", \"isp2\"]`: isp1, and isp2 when it is down; `{ isp1 = 3, isp2 = 1 }`: both, by weights from 1 to 1000; `[{ isp1 = 3, isp2 = 1 }, \"isp3\"]`: isp3 when both are down; `\"lowest-latency\"`, `\"lowest-loss\"`: the best of all"),
        key("strict", "false", "while none of them lives, refuse (unreachable) rather than use another"),
        key("sticky", "none", "`\"source\"`: a client keeps its uplink; `\"source-destination\"`: towards each destination"),
        key("sticky_time", "\"1h\"", "for how long after its last new flow, 1s to 24h"),
        key("when", "always", "`{ days = \"mon-fri\", hours = \"08:00-18:00\", zone = \"Europe/Berlin\" }`, or a list of such; each key can be left out"),
        key("enabled", "true", "`false` leaves it out"),
    ],
    more: "`days` may pass Sunday (`\"fri-mon\"`), `hours` midnight (`\"22:00-06:00\"`, which belongs to the day on which it begins). Without `zone` the
host's own counts. When clocks change, what the clock on the wall shows is what counts. `uplink check` warns of policies that can never
match, since an earlier one takes all of it, and of those that overlap in part and choose differently. There may be 1024 policies
and 256 different choices of uplinks.",
};

const MATCH: Table = Table {
    title: "match = { ... }",
    about: "A flow has to satisfy every key, by one of its values; each takes one or a list.",
    keys: &[
        key("src", "any", "addresses or prefixes, v4 and v6"),
        key("dst", "any", "the same of the destination"),
        key(
            "src_file",
            "none",
            "files with one of these in each line, `#` and `;` begin comments; relative to the configuration; 131072 prefixes in all policies together",
        ),
        key("dst_file", "none", "the same of the destination"),
        key(
            "sport",
            "any",
            "`443`, `\"5060-5090\"`, or a service of `/etc/services`; flows without ports satisfy none",
        ),
        key("dport", "any", "the same of the destination"),
        key(
            "proto",
            "any",
            "`\"tcp\"`, `\"udp\"`, `\"icmp\"`, `\"icmpv6\"`, `\"sctp\"`, `\"udplite\"`, `\"gre\"`, `\"esp\"`, `\"ah\"`, or a number",
        ),
        key(
            "dscp",
            "any",
            "0 to 63, or `\"ef\"`, `\"va\"`, `\"le\"`, `\"be\"`, `\"cs0\"` to `\"cs7\"`, `\"af11\"` to `\"af43\"`",
        ),
        key(
            "iif",
            "any",
            "interfaces where packets come in; `\"lo\"` is this host itself",
        ),
        key("mac", "any", "who sent the frame"),
        key(
            "uid",
            "any",
            "of this host's own sockets: `1000`, `\"1000-1999\"`, a user's name",
        ),
        key(
            "cgroup",
            "any",
            "of this host's own sockets: a path below the cgroup v2 mount, with all below it",
        ),
        key(
            "domain",
            "any",
            "names that the destination was looked up by: `\"google.com\"`, or `\"*.google.com\"` for that and all below it",
        ),
        key(
            "not",
            "none",
            "`{ ... }` with the same keys but `domain`: what must not be so, each key by itself",
        ),
    ],
    more: "",
};

const GROUP: Table = Table {
    title: "[[group]]",
    about: "A choice with a name.",
    keys: &[
        key("name", "", "1 to 15 bytes, no uplink's"),
        key("use", "all uplinks", "as in a policy, without groups"),
        key(
            "pick",
            "\"balance\"",
            "whom of the best tier that lives: all by weight, or `\"lowest-latency\"`, `\"lowest-loss\"`",
        ),
    ],
    more: "",
};

const DNS: Table = Table {
    title: "[dns]",
    about: "Where names in policies come from.",
    keys: &[
        key(
            "resolvers",
            "[\"auto\"]",
            "whose answers count: `\"auto\"`, those of `/etc/resolv.conf` and whomever clients ask; or addresses",
        ),
        key(
            "ttl_min",
            "\"60s\"",
            "an answer counts for at least so long, 1s to 7d",
        ),
        key("ttl_max", "\"1d\"", "and for at most so long, 1s to 7d"),
    ],
    more: "",
};

const MPATH: Table = Table {
    title: "[mpath]",
    about: "An interface that stands for all uplinks.",
    keys: &[key(
        "interface",
        "",
        "its name, such as `\"mpath0\"`; there must be none of that name yet",
    )],
    more: "",
};

const METRICS: Table = Table {
    title: "[metrics]",
    about: "Metrics for Prometheus, health and a status page, over HTTP. Off without this table.",
    keys: &[key(
        "listen",
        "",
        "an address with a port, such as `\"127.0.0.1:9477\"` or `\"[::1]:9477\"`",
    )],
    more: "",
};

const HOOKS: Table = Table {
    title: "[hooks]",
    about: "A program that hears of changes.",
    keys: &[
        key(
            "on_change",
            "",
            "the absolute path of a program that runs at each change of an uplink's state; it and its directories belong to root, and nobody else may write them",
        ),
        key(
            "timeout",
            "\"10s\"",
            "how long it may take before it is killed, 100ms to 5min",
        ),
    ],
    more: "",
};

const KERNEL: Table = Table {
    title: "[kernel]",
    about: "Numbers that must not collide with others on this host. A change needs a restart, which keeps live flows.",
    keys: &[
        key(
            "fwmark_mask",
            "\"0x7f000000\"",
            "our bits of the mark, one run of them; other bits are never touched",
        ),
        key("rule_priority", "20000", "the first of a block of 256"),
        key(
            "protocol",
            "117",
            "tags our routes and rules; only these are ever deleted",
        ),
        key(
            "attach",
            "\"auto\"",
            "`\"tcx\"` (Linux 6.6 and later) or `\"clsact\"`",
        ),
        key("flows", "262144", "entries of the flow table, 1024 to 4194304"),
        key(
            "stale_after",
            "\"never\"",
            "5s to 24h: new flows are left to the kernel's routes when the daemon has been gone for so long",
        ),
        key(
            "seed",
            "at random",
            "8 to 128 characters, kept secret: routers with the same one, the same uplinks and weights choose alike",
        ),
    ],
    more: "",
};
