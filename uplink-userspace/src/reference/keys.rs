//! What the keys of the configuration say.

use super::Kind::{
    Address, Boolean, Choice, Integer, Mask, Numbers, Percentage, Prefix, Rate, String, Strings,
    Table as Braces, Tables, Time, Values,
};
use super::{Key, Kind, Table};

const fn key(name: &'static str, kind: Kind, default: &'static str, says: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        says,
    }
}

/// Every table, in the order in which people meet them.
pub const TABLES: &[Table] = &[
    UPLINK, LAN, LOCAL, NAT, PROBE, HEALTH, BALANCE, POLICY, MATCH, GROUP, DNS, MPATH, METRICS, HOOKS, KERNEL,
];

const UPLINK: Table = Table {
    title: "[[uplink]]",
    about: "One for each provider.",
    keys: &[
        key("name", String, "", "1 to 15 bytes, unique: letters, digits and punctuation but `/`, `\\` and `\"`"),
        key("interface", String, "", "where it is reached"),
        key("gateway", Address, "", "the provider's IPv4 router; `\"auto\"`: the next hop of the interface's default route in `main`, see below. One of `gateway` and `gateway6` is needed"),
        key("gateway6", Address, "none", "the same for IPv6"),
        key("source", Address, "found", "our IPv4 address towards it"),
        key("source6", Address, "found", "our IPv6 address towards it"),
        key("weight", Integer, "1", "1 to 1000"),
        key("tier", Integer, "1", "0 to 255; a higher one serves when every lower one is down"),
        key("mtu", Integer, "none", "of its routes, 576 to 65535; from 1280 with `gateway6`"),
        key("table", Integer, "20000 + position", "of its routes, 1 to 4294967295 but 253, 254, 255 and `rule_priority`"),
        key("prefix6", Prefix, "none", "what `[nat] prefix6` becomes here, of the same length (RFC 6296)"),
        key("enabled", Boolean, "true", "`false` keeps it in the file and out of everything"),
        key("down", Rate, "none", "what it can carry towards you, `\"8kbit\"` to `\"1tbit\"`"),
        key("up", Rate, "none", "the same from you, `\"8kbit\"` to `\"1tbit\"`"),
        key("probe", Braces, "[probe]", "`{ ... }` with keys of `[probe]`: what it says instead"),
        key("quota", Braces, "none", "`{ bytes = \"200GB\", per = \"month\", starts = 15, then = \"last-resort\" }`: what it may carry, both directions together"),
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
        Strings,
        "the uplinks' interfaces",
        "names of interfaces, such as `[\"lan0\"]`",
    )],
    more: "",
};

const LOCAL: Table = Table {
    title: "[local]",
    about: "This host's own connections.",
    keys: &[
        key("enabled", Boolean, "true", "whether they are steered"),
        key(
            "cgroup",
            String,
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
            String,
            "\"masquerade\"",
            "`\"off\"` where the gateways route your prefixes back",
        ),
        key(
            "on_failover",
            String,
            "\"reroute\"",
            "connections of a dead uplink start anew elsewhere; `\"reset\"`: TCP ends get a RST as well",
        ),
        key(
            "on_failback",
            String,
            "\"pin\"",
            "when a better tier comes back, flows finish where they are; `\"drain\"`: for `drain_time`, then they are moved; `\"reset\"`: moved at once",
        ),
        key(
            "drain_time",
            Time,
            "\"5m\"",
            "how long flows may finish before they are moved, 1s to 24h",
        ),
        key(
            "prefix6",
            Prefix,
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
        key("type", String, "\"icmp\"", "`\"icmp\"` echo, `\"tcp\"` connection, `\"dns\"` query, `\"http\"` or `\"https\"` GET, `\"exec\"`: a program whose exit status 0 is an answer"),
        key("targets", Strings, "`1.1.1.1`, `9.9.9.9`, `2606:4700:4700::1111`, `2620:fe::9`", "1 to 16 addresses, no names; for `tcp`, `dns`, `http` and `https` with a port if it is not 443, 53, 80, 443: `\"1.2.3.4:8080\"`, `\"[2001:db8::1]:53\"`. For `exec` none"),
        key("quorum", Integer, "1", "targets of a family that must answer, 1 to 16; all of them where there are fewer"),
        key("interval", Time, "\"500ms\"", "50ms to 1h"),
        key("timeout", Time, "\"1s\"", "10ms to 1min"),
        key("fall", Integer, "3", "rounds in a row that take an uplink out, 1 to 100"),
        key("rise", Integer, "5", "rounds in a row that take it back, 1 to 100"),
        key("name", String, "\".\"", "`dns` only: the name that is asked for"),
        key("host", String, "the address", "`http` and `https` only: the Host field, and the name in the certificate"),
        key("path", String, "\"/\"", "`http` and `https` only"),
        key("status", Numbers, "[\"200-399\"]", "`http` and `https` only: statuses that count, such as `[200, \"300-399\"]`"),
        key("ca", String, "the web's", "`https` only: a PEM file with the authorities to trust instead"),
        key("command", Strings, "none", "`exec` only: `[\"/absolute/path\", \"argument\"]`. Its environment has `UPLINK_NAME`, `UPLINK_INTERFACE`, `UPLINK_GATEWAY`, `UPLINK_SOURCE`, `UPLINK_MARK`, `UPLINK_TABLE` and `UPLINK_FAMILY` (4 or 6)"),
    ],
    more: "An uplink's own `probe` starts from `[probe]`. With another `type` the ports and the keys of one type only start from their defaults.
`status` warns of probes that cannot see beyond the provider's router.",
};

const HEALTH: Table = Table {
    title: "[health]",
    about: "What makes an uplink degraded, and when it is good again.",
    keys: &[
        key(
            "loss",
            Percentage,
            "\"15%\"",
            "lost probes, `\"0.1%\"` to `\"100%\"`",
        ),
        key(
            "loss_recovery",
            Percentage,
            "\"5%\"",
            "below `loss`; for a `loss` of 5 % or less, the default is a third of it",
        ),
        key("rtt", Time, "none", "smoothed round-trip time, 1ms to 1min"),
        key("rtt_recovery", Time, "80 % of `rtt`", "below `rtt`, 1ms to 1min"),
        key("jitter", Time, "none", "smoothed jitter, 1ms to 1min"),
        key(
            "jitter_recovery",
            Time,
            "80 % of `jitter`",
            "below `jitter`, 1ms to 1min",
        ),
        key(
            "hold_down",
            Time,
            "\"3s\"",
            "how long it must have been good without a break, 0s to 1h",
        ),
        key(
            "slow_start",
            Time,
            "\"5s\"",
            "the time in which a recovered uplink's weight grows, 0s to 1h",
        ),
        key(
            "switches_per_minute",
            Integer,
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
            String,
            "\"weight\"",
            "`\"latency\"`, `\"loss\"`, `\"bandwidth\"` (needs `down` and `up` of every uplink) or `\"quality\"`, the three together",
        ),
        key(
            "spillover",
            Percentage,
            "none",
            "`\"1%\"` to `\"100%\"`: the first uplink takes all new flows until it carries that much of its capacity, and passes on what is too much to the next; with `by = \"weight\"` only, needs every `down` and `up`",
        ),
    ],
    more: "",
};

const POLICY: Table = Table {
    title: "[[policy]]",
    about: "Who goes where. The first that matches decides; what none matches is balanced over all uplinks. [policies.md](policies.md) says what policies, names and `explain` do.",
    keys: &[
        key("name", String, "", "1 to 31 bytes, unique"),
        key("match", Braces, "everything", "which flows, see below"),
        key("use", Choice, "all uplinks", "by which: `\"isp1\"`, or a `[[group]]`; `[\"isp1\", \"isp2\"]`: isp1, and isp2 when it is down; `{ isp1 = 3, isp2 = 1 }`: both, by weights from 1 to 1000; `[{ isp1 = 3, isp2 = 1 }, \"isp3\"]`: isp3 when both are down; `\"lowest-latency\"`, `\"lowest-loss\"`: the best of all"),
        key("strict", Boolean, "false", "while none of them lives, refuse (unreachable) rather than use another"),
        key("sticky", String, "none", "`\"source\"`: a client keeps its uplink; `\"source-destination\"`: towards each destination"),
        key("sticky_time", Time, "\"1h\"", "for how long after its last new flow, 1s to 24h"),
        key("when", Tables, "always", "`{ days = \"mon-fri\", hours = \"08:00-18:00\", zone = \"Europe/Berlin\" }`, or a list of such; each key can be left out"),
        key("enabled", Boolean, "true", "`false` leaves it out"),
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
        key("src", Values, "any", "addresses or prefixes, v4 and v6"),
        key("dst", Values, "any", "the same of the destination"),
        key(
            "src_file",
            Values,
            "none",
            "files with one of these in each line, `#` and `;` begin comments; relative to the configuration; 131072 prefixes in all policies together",
        ),
        key("dst_file", Values, "none", "the same of the destination"),
        key(
            "sport",
            Values,
            "any",
            "`443`, `\"5060-5090\"`, or a service of `/etc/services`; flows without ports satisfy none",
        ),
        key("dport", Values, "any", "the same of the destination"),
        key(
            "proto",
            Values,
            "any",
            "`\"tcp\"`, `\"udp\"`, `\"icmp\"`, `\"icmpv6\"`, `\"sctp\"`, `\"udplite\"`, `\"gre\"`, `\"esp\"`, `\"ah\"`, or a number",
        ),
        key(
            "dscp",
            Values,
            "any",
            "0 to 63, or `\"ef\"`, `\"va\"`, `\"le\"`, `\"be\"`, `\"cs0\"` to `\"cs7\"`, `\"af11\"` to `\"af43\"`",
        ),
        key(
            "iif",
            Values,
            "any",
            "interfaces where packets come in; `\"lo\"` is this host itself",
        ),
        key("mac", Values, "any", "who sent the frame"),
        key(
            "uid",
            Values,
            "any",
            "of this host's own sockets: `1000`, `\"1000-1999\"`, a user's name",
        ),
        key(
            "cgroup",
            Values,
            "any",
            "of this host's own sockets: a path below the cgroup v2 mount, with all below it",
        ),
        key(
            "domain",
            Values,
            "any",
            "names that the destination was looked up by: `\"google.com\"`, or `\"*.google.com\"` for that and all below it",
        ),
        key(
            "not",
            Braces,
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
        key("name", String, "", "1 to 15 bytes, no uplink's"),
        key("use", Choice, "all uplinks", "as in a policy, without groups"),
        key(
            "pick",
            String,
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
            Values,
            "[\"auto\"]",
            "whose answers count: `\"auto\"`, those of `/etc/resolv.conf` and whomever clients ask; or addresses",
        ),
        key(
            "ttl_min",
            Time,
            "\"60s\"",
            "an answer counts for at least so long, 1s to 7d",
        ),
        key("ttl_max", Time, "\"1d\"", "and for at most so long, 1s to 7d"),
    ],
    more: "",
};

const MPATH: Table = Table {
    title: "[mpath]",
    about: "An interface that stands for all uplinks.",
    keys: &[key(
        "interface",
        String,
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
        String,
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
            String,
            "",
            "the absolute path of a program that runs at each change of an uplink's state; it and its directories belong to root, and nobody else may write them",
        ),
        key(
            "timeout",
            Time,
            "\"10s\"",
            "how long it may take before it is killed, 100ms to 5min",
        ),
    ],
    more: "Its environment has `UPLINK_NAME`, `UPLINK_STATE`, `UPLINK_OLD_STATE`, `UPLINK_REASON`, `UPLINK_INTERFACE`, `UPLINK_GATEWAY`,\n\
           `UPLINK_SHARE` (0 to 1), `UPLINK_TIME` (RFC 3339) and `UPLINK_SEQ` (the number of the event in `uplink events`).",
};

const KERNEL: Table = Table {
    title: "[kernel]",
    about: "Numbers that must not collide with others on this host. A change needs a restart, which keeps live flows.",
    keys: &[
        key(
            "fwmark_mask",
            Mask,
            "\"0x7f000000\"",
            "our bits of the mark, one run of them; other bits are never touched",
        ),
        key(
            "rule_priority",
            Integer,
            "20000",
            "the first of a block of 256, 1 to 32509",
        ),
        key(
            "protocol",
            Integer,
            "117",
            "tags our routes and rules; only these are ever deleted; 5 to 255 without 186 to 192, which routing daemons use",
        ),
        key(
            "attach",
            String,
            "\"auto\"",
            "`\"tcx\"` (Linux 6.6 and later) or `\"clsact\"`; `\"xdp\"` has known flows take the fast path at the wire, past the kernel, as it was seen to treat them, and warns where that cannot be; `\"auto\"` has it where the drivers can (Linux 6.3 and later tell), `mode` is `\"auto\"` and nothing would miss packets",
        ),
        key(
            "mode",
            String,
            "\"auto\"",
            "`\"nexthop\"` sends the packets of known flows to the gateway at once, past the kernel's forwarding with its firewall and NAT; `\"mark\"` never does; `\"auto\"` does where nothing of the kernel's is needed",
        ),
        key(
            "flows",
            Integer,
            "262144",
            "entries of the flow table, 1024 to 4194304",
        ),
        key(
            "stale_after",
            Time,
            "\"never\"",
            "5s to 24h: new flows are left to the kernel's routes when the daemon has been gone for so long",
        ),
        key(
            "seed",
            String,
            "at random",
            "8 to 128 characters, kept secret: routers with the same one, the same uplinks and weights choose alike",
        ),
    ],
    more: "",
};
