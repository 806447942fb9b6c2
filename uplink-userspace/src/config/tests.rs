use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SMALLEST: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"

[[uplink]]
name = "isp2"
interface = "eth0"
gateway = "10.0.0.1"
"#;

const WHOLE: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"
source = "192.168.1.100"
gateway6 = "fd00:1::1"
source6 = "fd00:1::2"
weight = 3
tier = 2
mtu = 1492
table = 777
[lan]
interfaces = ["eth0", "eth1"]
[local]
enabled = false
[nat]
mode = "off"
[probe]
type = "icmp"
targets = ["8.8.8.8"]
interval = "1s"
timeout = "2s"
fall = 2
rise = 4
[balance]
by = "weight"
[kernel]
fwmark_mask = "0xff00"
rule_priority = 1000
protocol = 200
attach = "clsact"
flows = 4096
"#;

fn read(text: &str) -> Result<Config, Problems> {
    parse(Path::new("u.toml"), text.into())
}

#[test]
fn the_smallest_file_gets_every_default() {
    let config = read(SMALLEST).unwrap();
    let isp2 = &config.uplinks[1];
    assert_eq!(
        (isp2.weight, isp2.tier, isp2.mtu, isp2.table.value),
        (1, 1, None, 20_002)
    );
    assert_eq!(&SMALLEST[isp2.name.span.clone()], "\"isp2\"");
    assert!(isp2.v6.is_none() && config.lan.is_empty());
    assert_eq!(config.nat, NatMode::Masquerade);
    let targets: Vec<String> = config.probe.targets.iter().map(ToString::to_string).collect();
    assert_eq!(
        targets,
        ["1.1.1.1", "9.9.9.9", "2606:4700:4700::1111", "2620:fe::9"]
    );
    let (interval, timeout) = (config.probe.interval, config.probe.timeout);
    assert_eq!(
        (interval, timeout),
        (Duration::from_millis(500), Duration::from_secs(1))
    );
    assert_eq!((config.probe.fall, config.probe.rise), (3, 5));
    let kernel = config.kernel;
    assert_eq!(
        (kernel.fwmark_mask.bits(), kernel.rule_priority),
        (0x7f00_0000, 20_000)
    );
    assert_eq!(
        (kernel.protocol, kernel.flows, kernel.attach),
        (117, 262_144, Attach::Auto)
    );
}

#[test]
fn everything_can_be_written_out() {
    let config = read(WHOLE).unwrap();
    let uplink = &config.uplinks[0];
    assert_eq!(
        (uplink.weight, uplink.tier, uplink.mtu, uplink.table.value),
        (3, 2, Some(1492), 777)
    );
    let v6 = uplink.v6.as_ref().unwrap();
    assert_eq!(v6.source.as_ref().unwrap().value.to_string(), "fd00:1::2");
    assert_eq!((config.lan.len(), config.nat), (2, NatMode::Off));
    assert_eq!(config.probe.interval, Duration::from_secs(1));
    assert_eq!(
        (config.probe.targets.len(), config.probe.fall, config.probe.rise),
        (1, 2, 4)
    );
    let kernel = config.kernel;
    assert_eq!((kernel.fwmark_mask.bits(), kernel.rule_priority), (0xff00, 1000));
    assert_eq!(
        (kernel.protocol, kernel.flows, kernel.attach),
        (200, 4096, Attach::Clsact)
    );
}

#[test]
fn a_mask_may_be_an_integer() {
    let text = format!("{SMALLEST}[kernel]\nfwmark_mask = 0xff_0000");
    assert_eq!(read(&text).unwrap().kernel.fwmark_mask.bits(), 0x00ff_0000);
}

/// Text to replace in [`WHOLE`], its replacement, and the place and text of the complaint.
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
    ("interface =", "interfaec =", "1:1", "`interface` is missing"),
    ("192.168.1.1\"", "192.168.1.256\"", "4:11", "is not an IP address"),
    ("192.168.1.1\"", "fd00::1\"", "4:11", "IPv6 address: use gateway6"),
    (
        "192.168.1.1\"",
        "224.0.0.1\"",
        "4:11",
        "not the address of a host",
    ),
    (
        "192.168.1.1\"",
        "127.0.0.1\"",
        "4:11",
        "not the address of a host",
    ),
    (
        "192.168.1.1\"",
        "auto\"",
        "4:11",
        "gateway = \"auto\" is not supported by this version yet",
    ),
    (
        "192.168.1.100",
        "192.168.1.1",
        "5:10",
        "source 192.168.1.1 is the gateway itself",
    ),
    ("gateway = \"192.168.1.1\"", "", "5:10", "source without gateway"),
    ("fd00:1::1", "10.0.0.1", "6:12", "IPv4 address: use gateway"),
    ("fd00:1::2", "fe80::2", "7:11", "is link-local"),
    (
        "fd00:1::2",
        "fd00:1::1",
        "7:11",
        "source6 fd00:1::1 is the gateway itself",
    ),
    ("weight = 3", "weight = 0", "8:10", "weight 0 is out of range"),
    ("weight = 3", "weight = 1001", "8:10", "an integer from 1 to 1000"),
    ("weight = 3", "weight = -1", "8:10", "weight -1 is out of range"),
    (
        "weight = 3",
        "weight = 0.5",
        "8:10",
        "weight cannot be of type float",
    ),
    (
        "weight = 3",
        "weigth = 3",
        "8:1",
        "unknown key \"weigth\" in [[uplink]]",
    ),
    ("tier = 2", "tier = 256", "9:8", "tier 256 is out of range"),
    ("mtu = 1492", "mtu = 1279", "10:7", "1280, which IPv6 needs"),
    (
        "table = 777",
        "table = 254",
        "11:9",
        "table 254 of uplink isp1 is the kernel's own",
    ),
    ("table = 777", "table = 1000", "11:9", "number of rule_priority"),
    ("table = 777", "table = 0", "11:9", "table 0 is out of range"),
    ("table = 777", "table = 4294967296", "11:9", "1 to 4294967295"),
    (
        "table = 777",
        "down = \"500mbit\"",
        "11:8",
        "`down` of an uplink is not supported by this version yet",
    ),
    ("\"eth1\"", "1", "13:23", "interfaces cannot be of type integer"),
    ("[\"eth0\", \"eth1\"]", "\"eth0\"", "13:14", "a list of names"),
    (
        "enabled = false",
        "enabled = true",
        "14:1",
        "[local] is not supported",
    ),
    ("enabled = false", "enabled = \"no\"", "15:11", "true or false"),
    (
        "enabled = false",
        "cgroup = \"/\"",
        "15:10",
        "cgroup is not supported",
    ),
    (
        "mode = \"off\"",
        "mode = \"masquerde\"",
        "17:8",
        "did you mean \"masquerade\"?",
    ),
    (
        "[nat]\nmode = \"off\"",
        "nat = 3",
        "16:7",
        "unknown key \"nat\" in [local]",
    ),
    (
        "type = \"icmp\"",
        "type = \"http\"",
        "19:8",
        "type = \"http\" is not supported",
    ),
    (
        "type = \"icmp\"",
        "type = \"imcp\"",
        "19:8",
        "did you mean \"icmp\"?",
    ),
    ("[\"8.8.8.8\"]", "[]", "20:11", "targets is empty"),
    (
        "[\"8.8.8.8\"]",
        "[\"dns.google\"]",
        "20:12",
        "is not an IP address",
    ),
    (
        "[\"8.8.8.8\"]",
        "[\"8.8.8.8\", \"8.8.8.8\"]",
        "20:23",
        "listed twice",
    ),
    (
        "interval = \"1s\"",
        "interval = \"1 parsec\"",
        "21:12",
        "is not a time span",
    ),
    ("interval = \"1s\"", "interval = \"49ms\"", "21:12", "50ms to 1h"),
    (
        "interval = \"1s\"",
        "interval = 500",
        "21:12",
        "such as \"500ms\"",
    ),
    ("timeout = \"2s\"", "timeout = \"61s\"", "22:11", "10ms to 1min"),
    ("fall = 2", "fall = 101", "23:8", "fall 101 is out of range"),
    ("rise = 4", "rise = 0", "24:8", "rise 0 is out of range"),
    (
        "by = \"weight\"",
        "by = \"latency\"",
        "26:6",
        "by = \"latency\" is not supported",
    ),
    ("\"0xff00\"", "\"0x5000\"", "28:15", "is not one run of set bits"),
    ("\"0xff00\"", "\"ff00\"", "28:15", "is not a hexadecimal number"),
    ("\"0xff00\"", "0x5000", "28:15", "0x5000 has a hole"),
    (
        "rule_priority = 1000",
        "rule_priority = 32510",
        "29:17",
        "1 to 32509",
    ),
    (
        "protocol = 200",
        "protocol = 4",
        "30:12",
        "protocol 4 is out of range",
    ),
    (
        "protocol = 200",
        "protocol = 186",
        "30:12",
        "belongs to a routing daemon",
    ),
    (
        "attach = \"clsact\"",
        "attach = \"xdp\"",
        "31:10",
        "attach = \"xdp\" is not supported",
    ),
    (
        "flows = 4096",
        "flows = 1023",
        "32:9",
        "flows 1023 is out of range",
    ),
    ("[kernel]", "[kernle]", "27:2", "did you mean \"kernel\"?"),
    ("[kernel]", "[metrics]", "27:1", "[metrics] is not supported"),
    ("[kernel]", "[[policy]]", "27:1", "[[policy]] is not supported"),
    ("[kernel]", "[hooks]", "27:1", "[hooks] is not supported"),
    ("[kernel]", "[dns]", "27:1", "[dns] is not supported"),
    ("[[uplink]]", "[uplink]", "1:1", "uplink cannot be of type table"),
    ("tier = 2", "weight = 2", "9:1", "duplicate key"),
    ("tier = 2", "tier = ", "9:8", "u.toml"),
    ("tier = 2", "tier = \"2", "9:8", "u.toml"),
];

#[test]
fn every_mistake_is_shown_where_it_is() {
    for (from, to, place, fragment) in BROKEN {
        assert!(WHOLE.contains(from), "{from:?} is not in the file");
        let text = WHOLE.replacen(from, to, 1);
        let problems = read(&text).expect_err(to).to_string();
        let mut blocks = problems.split("\n\n");
        let place = format!("u.toml:{place}\n");
        let found = blocks.any(|b| b.contains(&place) && b.contains(fragment));
        assert!(found, "{to:?}: no {fragment:?} at {place:?} in:\n{problems}");
    }
}

/// Whole files, for what takes two uplinks or none.
#[test]
fn uplinks_are_held_against_each_other() {
    let rows = [
        (String::new(), "1:1", "there is no [[uplink]]"),
        ("uplink = []".into(), "1:1", "there is no [[uplink]]"),
        (SMALLEST.replace("isp2", "isp1"), "7:8", "the name isp1 is taken"),
        (
            SMALLEST.replace("10.0.0.1", "192.168.1.1"),
            "9:11",
            "isp1 and isp2 have the same gateway",
        ),
        (
            SMALLEST.replace("gateway = \"10.0.0.1\"", "table = 20001"),
            "6:1",
            "has no gateway",
        ),
        (
            format!("{SMALLEST}table = 20001"),
            "10:9",
            "isp1 and isp2 share table 20001",
        ),
        (
            format!("{SMALLEST}[kernel]\nrule_priority = 20002"),
            "7:8",
            "number of rule_priority",
        ),
        (
            format!("{SMALLEST}[kernel]\nfwmark_mask = \"0x1\""),
            "11:15",
            "room for 1 of 2 uplinks",
        ),
        (
            format!("{SMALLEST}[probe]\ntargets = [\"2620:fe::9\"]"),
            "11:11",
            "address family of uplink isp1",
        ),
        (many(65), "257:1", "more than 64 uplinks"),
    ];
    for (text, place, fragment) in rows {
        let problems = read(&text).expect_err(fragment).to_string();
        let place = format!("u.toml:{place}\n");
        assert!(problems.contains(&place), "no {place:?} in:\n{problems}");
        assert!(problems.contains(fragment), "no {fragment:?} in:\n{problems}");
    }
    assert_eq!(read(&many(64)).unwrap().uplinks.len(), 64);
}

fn many(count: u32) -> String {
    let one = |i| format!("[[uplink]]\nname = \"u{i}\"\ninterface = \"e{i}\"\ngateway = \"10.0.0.1\"\n");
    (1..=count).map(one).collect()
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let text = WHOLE
        .replace("weight = 3", "weigth = 3")
        .replace("flows = 4096", "flows = 1");
    let problems = read(&text.replace("fall = 2", "fall = 0")).unwrap_err();
    let messages: Vec<&str> = problems.list.iter().map(|p| &*p.message).collect();
    let expected = [
        "unknown key \"weigth\" in [[uplink]]",
        "fall 0 is out of range",
        "flows 1 is out of range",
    ];
    assert_eq!(messages, expected);
    assert!(problems.coloured().contains('\x1b') && !problems.to_string().contains('\x1b'));
}

#[test]
fn a_complaint_reads_like_this() {
    let shown = read(&SMALLEST.replacen("gateway", "gatway", 1))
        .unwrap_err()
        .to_string();
    let expected = "\
error: the uplink has no gateway
 --> u.toml:1:1
  |
1 | [[uplink]]
  | ^^^^^^^^^^
  |
  = help: add gateway, gateway6 or both: the ISP router's address

error: unknown key \"gatway\" in [[uplink]]
 --> u.toml:4:1
  |
4 | gatway = \"192.168.1.1\"
  | ^^^^^^
  |
  = help: did you mean \"gateway\"? allowed: name, interface, gateway, source, gateway6, source6, weight, \
tier, mtu, table";
    assert_eq!(shown, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let dir = tempfile::tempdir().unwrap();
    let missing = load(&dir.path().join("none.toml")).unwrap_err().to_string();
    assert!(
        missing.starts_with("error: cannot read ") && missing.contains("none.toml: No such file"),
        "{missing}"
    );
    let is_directory = load(dir.path()).unwrap_err().to_string();
    assert!(is_directory.contains("cannot read"), "{is_directory}");
    let endless = load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(endless.contains("larger than 1 MiB"), "{endless}");
    let latin1 = dir.path().join("latin1.toml");
    std::fs::write(&latin1, b"\n# caf\xe9\n").unwrap();
    let latin1 = load(&latin1).unwrap_err().to_string();
    assert!(
        latin1.contains("latin1.toml:2:6\n") && latin1.contains("not UTF-8"),
        "{latin1}"
    );
}

#[test]
fn carriage_returns_and_a_byte_order_mark_do_no_harm() {
    assert!(read(&SMALLEST.replace('\n', "\r\n")).is_ok());
    assert!(read(&format!("\u{feff}{SMALLEST}")).is_ok());
    let broken = SMALLEST.replacen("gateway", "gatway", 1).replace('\n', "\r\n");
    assert!(read(&broken).unwrap_err().to_string().contains("u.toml:4:1\n"));
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let text = format!("a = {}{}", open.repeat(100_000), close.repeat(100_000));
        assert!(!read(&text).unwrap_err().to_string().is_empty());
    }
    assert!(read(&format!("{}a = 1", "a.".repeat(100_000))).is_err());
    assert!(read(&format!("[{}a]", "a.".repeat(100_000))).is_err());
}

/// Whatever the file holds, it is understood or complained about.
fn survives(text: &str) {
    if let Err(problems) = read(text) {
        assert!(!problems.list.is_empty());
        let shown = problems.to_string();
        assert_eq!(
            shown.matches("error: ").count() >= problems.list.len(),
            true,
            "{shown}"
        );
        assert!(shown.contains("u.toml:"), "{shown}");
        let _ = problems.coloured();
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let _ = load(file.path()).map_err(|p| p.to_string());
    }

    #[test]
    fn mutated_files_never_panic(
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0..12_usize, "(\\PC|[\\n\\r\\t\"\\[\\]={}.#0-9a-z]){0,6}"),
            1..6,
        )
    ) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, cut, insert) in edits {
            let from = at.index(text.len() + 1);
            let to = (from + cut).min(text.len());
            text.splice(from..to, insert.chars());
        }
        survives(&text.into_iter().collect::<String>());
    }
}
