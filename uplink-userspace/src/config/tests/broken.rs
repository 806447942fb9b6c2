//! One mistake per row.

use super::{TRANSLATED, WHOLE, read};

/// Text to replace in [`WHOLE`], its replacement, and the place and text of the complaint.
#[rustfmt::skip] // One row, one line.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("name = \"isp1\"", "", "1:1", "`name` is missing in [[uplink]]"),
    ("\"isp1\"", "\"\"", "2:8", "name \"\" is empty"),
    ("\"isp1\"", "\"isp1isp1isp1isp1\"", "2:8", "has 16 bytes"),
    ("\"isp1\"", "\"isp 1\"", "2:8", "contains ' '"),
    ("\"isp1\"", "\"isp/1\"", "2:8", "contains '/'"),
    ("\"isp1\"", "\"isp\\u202e\"", "2:8", "contains '\\u{202e}'"),
    ("\"isp1\"", "1", "2:8", "name cannot be of type integer"),
    ("\"eth0\"\n", "\"eth0:1\"\n", "3:13", "contains ':'"),
    ("interface =", "interfaec =", "3:1", "did you mean \"interface\"?"),
    ("192.168.1.1\"", "192.168.1.256\"", "4:11", "is not an IP address"),
    ("192.168.1.1\"", "fd00::1\"", "4:11", "IPv6 address: use gateway6"),
    ("192.168.1.1\"", "224.0.0.1\"", "4:11", "not the address of a host"),
    ("192.168.1.1\"", "127.0.0.1\"", "4:11", "not the address of a host"),
    ("192.168.1.1\"", "atuo\"", "4:11", "an IPv4 address such as \"192.168.1.1\", or \"auto\""),
    ("192.168.1.100", "192.168.1.1", "5:10", "source 192.168.1.1 is the gateway itself"),
    ("gateway = \"192.168.1.1\"", "", "5:10", "source without gateway"),
    ("fd00:1::1", "10.0.0.1", "6:12", "IPv4 address: use gateway"),
    ("fd00:1::2", "fe80::2", "7:11", "is link-local"),
    ("fd00:1::2", "fd00:1::1", "7:11", "source6 fd00:1::1 is the gateway itself"),
    ("weight = 3", "weight = 0", "8:10", "weight 0 is out of range"),
    ("weight = 3", "weight = 1001", "8:10", "an integer from 1 to 1000"),
    ("weight = 3", "weight = -1", "8:10", "weight -1 is out of range"),
    ("weight = 3", "weight = 0.5", "8:10", "weight cannot be of type float"),
    ("weight = 3", "weigth = 3", "8:1", "unknown key \"weigth\" in [[uplink]]"),
    ("tier = 2", "tier = 256", "9:8", "tier 256 is out of range"),
    ("mtu = 1492", "mtu = 1279", "10:7", "1280, which IPv6 needs"),
    ("table = 777", "table = 254", "11:9", "table 254 of uplink isp1 is the kernel's own"),
    ("table = 777", "table = 1000", "11:9", "number of rule_priority"),
    ("table = 777", "table = 0", "11:9", "table 0 is out of range"),
    ("table = 777", "table = 4294967296", "11:9", "1 to 4294967295"),
    ("\"eth1\"", "1", "13:23", "interfaces cannot be of type integer"),
    ("[\"eth0\", \"eth1\"]", "\"eth0\"", "13:14", "a list of names"),
    ("enabled = false", "enabled = \"no\"", "15:11", "true or false"),
    ("\"/system.slice\"", "\"system.slice\"", "16:10", "does not start with \"/\""),
    ("\"/system.slice\"", "\"/a/../../b\"", "16:10", "contains \"..\""),
    ("\"/system.slice\"", "\"\"", "16:10", "a path below the cgroup v2 mount"),
    ("\"/system.slice\"", "\"/a\\u0000\"", "16:10", "contains '\\0'"),
    ("\"/system.slice\"", "7", "16:10", "cgroup cannot be of type integer"),
    ("cgroup =", "cgruop =", "16:1", "did you mean \"cgroup\"?"),
    ("mode = \"off\"", "mode = \"masquerde\"", "18:8", "did you mean \"masquerade\"?"),
    ("[nat]\nmode = \"off\"", "nat = 3", "17:1", "unknown key \"nat\" in [local]"),
    ("\"reset\"", "\"rest\"", "19:15", "did you mean \"reset\"? allowed: \"reroute\", \"reset\""),
    ("\"drain\"", "\"move\"", "20:15", "allowed: \"pin\", \"drain\", \"reset\""),
    ("\"1m\"", "\"999ms\"", "21:14", "1s to 24h"),
    ("\"1m\"", "\"25h\"", "21:14", "drain_time \"25h\" is out of range"),
    ("\"1m\"", "60", "21:14", "drain_time cannot be of type integer"),
    ("drain_time", "draintime", "21:1", "did you mean \"drain_time\"?"),
    ("drain_time = \"1m\"", "prefix6 = \"fd00:10::/64\"", "21:11", "mode = \"off\" leaves them"),
    ("mtu = 1492", "prefix6 = \"2001:db8::/64\"", "10:11", "prefix6 without [nat] prefix6"),
    ("type = \"icmp\"", "type = \"imcp\"", "23:8", "did you mean \"icmp\"?"),
    ("[\"8.8.8.8\"]", "[]", "24:11", "targets is empty"),
    ("[\"8.8.8.8\"]", "[\"8.8.8\"]", "24:12", "is not an IP address"),
    ("[\"8.8.8.8\"]", "[\"8.8.8.8\", \"8.8.8.8\"]", "24:23", "listed twice"),
    ("interval = \"1s\"", "interval = \"1 parsec\"", "25:12", "is not a time span"),
    ("interval = \"1s\"", "interval = \"49ms\"", "25:12", "50ms to 1h"),
    ("interval = \"1s\"", "interval = 500", "25:12", "such as \"500ms\""),
    ("timeout = \"2s\"", "timeout = \"61s\"", "26:11", "10ms to 1min"),
    ("fall = 2", "fall = 101", "27:8", "fall 101 is out of range"),
    ("rise = 4", "rise = 0", "28:8", "rise 0 is out of range"),
    ("by = \"weight\"", "by = \"latenzy\"", "30:6", "did you mean \"latency\"?"),
    ("\"0xff00\"", "\"0x5000\"", "32:15", "is not one run of set bits"),
    ("\"0xff00\"", "\"ff00\"", "32:15", "is not a hexadecimal number"),
    ("\"0xff00\"", "0x5000", "32:15", "0x5000 has a hole"),
    ("rule_priority = 1000", "rule_priority = 32510", "33:17", "1 to 32509"),
    ("protocol = 200", "protocol = 4", "34:12", "protocol 4 is out of range"),
    ("protocol = 200", "protocol = 186", "34:12", "belongs to a routing daemon"),
    ("attach = \"clsact\"", "attach = \"xpd\"", "35:10", "attach \"xpd\" is not known"),
    ("attach = \"clsact\"", "mode = \"redirect\"", "35:8", "\"auto\", \"mark\", \"nexthop\""),
    ("attach = \"clsact\"", "mode = \"next-hop\"", "35:8", "did you mean \"nexthop\"?"),
    ("flows = 4096", "flows = 1023", "36:9", "flows 1023 is out of range"),
    ("stale_after = \"1m\"", "stale_after = \"4s\"", "37:15", "\"never\", or 5s to 24h"),
    ("stale_after = \"1m\"", "stale_after = \"25h\"", "37:15", "is out of range"),
    ("stale_after = \"1m\"", "stale_after = \"nevr\"", "37:15", "is not a time span"),
    ("stale_after = \"1m\"", "seed = \"short\"", "37:8", "8 to 128 characters"),
    ("stale_after = \"1m\"", "stale_after = 60", "37:15", "stale_after cannot be of type integer"),
    ("[kernel]", "[kernle]", "31:2", "did you mean [kernel]?"),
    ("[kernel]", "[metrics]\nlisten = \"127.0.0.1\"\n[kernel]", "32:10", "is not an address with a port"),
    ("[kernel]", "[metrics]\nlisten = \"127.0.0.1:0\"\n[kernel]", "32:10", "has port 0"),
    ("[kernel]", "[metrics]\n[kernel]", "31:1", "[metrics] without `listen`"),
    ("[kernel]", "[hooks]\non_change = \"hook\"\n[kernel]", "32:13", "is not an absolute path"),
    ("[kernel]", "[hooks]\n[kernel]", "31:1", "[hooks] without `on_change`"),
    ("[kernel]", "[hooks]\non_change = \"/x\"\ntimeout = \"6min\"\n[kernel]", "33:11", "100ms to 5min"),
    ("[[uplink]]", "[uplink]", "1:1", "uplink cannot be of type table"),
    ("tier = 2", "weight = 2", "9:1", "duplicate key"),
    ("tier = 2", "tier = ", "9:8", "tier has no value"),
    ("tier = 2", "tier = \"2", "9:8", "\"2 has no closing quote"),
];

/// As [`BROKEN`], in [`TRANSLATED`].
#[rustfmt::skip] // One row, one line.
const BROKEN_PREFIXES: &[(&str, &str, &str, &str)] = &[
    ("2001:db8:1::/64", "2001:db8:1::/48", "5:11", "is not as long as [nat] prefix6 fd00:10::/64"),
    ("2001:db8:1::/64", "2001:db8:1::1/64", "5:11", "has host bits set: 2001:db8:1::/64 has none"),
    ("2001:db8:1::/64", "2001:db8:1::/65", "5:11", "has 65 bits"),
    ("2001:db8:1::/64", "::/0", "5:11", "has 0 bits"),
    ("2001:db8:1::/64", "2001:db8:1::", "5:11", "is not an IPv6 prefix"),
    ("2001:db8:1::/64", "10.0.0.0/8", "5:11", "is not an IPv6 prefix"),
    ("2001:db8:1::/64", "fe80::/64", "5:11", "is not a prefix of hosts"),
    ("2001:db8:1::/64", "ff00::/64", "5:11", "is not a prefix of hosts"),
    ("2001:db8:1::/64", "fd00:10::/64", "5:11", "is [nat] prefix6 itself"),
    ("2001:db8:2::/64", "2001:db8:1::/64", "11:11", "isp1 and isp2 have the same prefix6"),
    ("gateway6 = \"fd00:1::1\"", "gateway = \"10.0.0.1\"", "5:11", "prefix6 without gateway6"),
    ("[nat]\nprefix6 = \"fd00:10::/64\"", "", "5:11", "prefix6 without [nat] prefix6"),
    ("fd00:10::/64", "fd00:10::1/64", "14:11", "has host bits set"),
    ("fd00:10::/64", "fd00:10::/96", "14:11", "has 96 bits"),
    ("[nat]", "[nat]\nmode = \"off\"", "15:11", "remove one of the two"),
];

#[test]
fn every_mistake_is_shown_where_it_is() {
    expect(WHOLE, BROKEN);
    expect(TRANSLATED, BROKEN_PREFIXES);
}

#[test]
fn a_refused_prefix_is_not_a_missing_one() {
    let text = TRANSLATED.replace("fd00:10::/64", "fd00:10::/96");
    assert_eq!(read(&text).unwrap_err().list.len(), 1);
}

#[test]
fn a_prefix_inside_that_nobody_translates_is_refused() {
    let text = format!("{}[nat]\nprefix6 = \"fd00:10::/64\"", super::SMALLEST);
    let shown = read(&text).unwrap_err().to_string();
    assert!(shown.contains("u.toml:11:11\n"), "{shown}");
    assert!(shown.contains("no uplink has a prefix6"), "{shown}");
}

pub(super) fn expect(whole: &str, rows: &[(&str, &str, &str, &str)]) {
    let mut missed = Vec::new();
    for (from, to, place, fragment) in rows {
        assert!(whole.contains(from), "{from:?} is not in the file");
        let text = whole.replacen(from, to, 1);
        let problems = read(&text).expect_err(to).to_string();
        let place = format!("u.toml:{place}\n");
        let mut blocks = problems.split("\n\n");
        if !blocks.any(|b| b.contains(&place) && b.contains(fragment)) {
            missed.push(format!("{to:?}: no {fragment:?} at {place:?} in:\n{problems}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

/// What is missing under its right name is there under the wrong one: that is one mistake.
#[test]
fn a_mistyped_key_is_not_a_missing_one() {
    for (from, to) in [("interface =", "interfaec ="), ("gateway =", "gatway =")] {
        let text = super::SMALLEST.replacen(from, to, 1);
        let problems = read(&text).expect_err(to);
        assert_eq!(problems.list.len(), 1, "{problems}");
    }
    let text = super::SMALLEST.replacen("interface =", "qqqq =", 1);
    let shown = read(&text).expect_err("two").to_string();
    assert!(
        shown.contains("unknown key \"qqqq\"") && shown.contains("`interface` is missing"),
        "{shown}"
    );
}
