mod broken;
mod documented;
mod health;
mod mistakes;
mod policy;
mod probe;

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
cgroup = "/system.slice"
[nat]
mode = "off"
on_failover = "reset"
on_failback = "drain"
drain_time = "1m"
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
stale_after = "1m"
"#;

/// With prefix translation, which goes with NAT only.
const TRANSLATED: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway6 = "fd00:1::1"
prefix6 = "2001:db8:1::/64"

[[uplink]]
name = "isp2"
interface = "eth1"
gateway6 = "fd00:2::1"
prefix6 = "2001:db8:2::/64"

[nat]
prefix6 = "fd00:10::/64"
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
    let nat = &config.nat;
    assert_eq!(
        (nat.mode, nat.on_failover, nat.on_failback),
        (NatMode::Masquerade, OnFailover::Reroute, OnFailback::Pin)
    );
    assert_eq!((nat.drain_time, &nat.prefix6), (Duration::from_secs(300), &None));
    let local = &config.local;
    assert_eq!((local.enabled, &*local.cgroup.value), (true, "/"));
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
    assert_eq!((kernel.stale_after, kernel.mode), (None, Mode::Auto));
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
    let (local, nat) = (&config.local, &config.nat);
    assert_eq!((local.enabled, &*local.cgroup.value), (false, "/system.slice"));
    assert_eq!((config.lan.len(), nat.mode), (2, NatMode::Off));
    assert_eq!(
        (nat.on_failover, nat.on_failback, nat.drain_time),
        (OnFailover::Reset, OnFailback::Drain, Duration::from_secs(60))
    );
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
    assert_eq!(kernel.stale_after, Some(Duration::from_secs(60)));
}

#[test]
fn prefixes_are_paired() {
    let config = read(TRANSLATED).unwrap();
    let pairs: Vec<String> = config
        .uplinks
        .iter()
        .filter_map(|u| u.prefix6.as_ref())
        .map(|p| format!("{} {}", p.internal, p.external.value))
        .collect();
    assert_eq!(
        pairs,
        ["fd00:10::/64 2001:db8:1::/64", "fd00:10::/64 2001:db8:2::/64"]
    );
    let one = TRANSLATED.replacen("prefix6 = \"2001:db8:2::/64\"\n", "", 1);
    assert!(read(&one).unwrap().uplinks[1].prefix6.is_none());
}

#[test]
fn never_stale_can_be_written_out() {
    let text = format!("{SMALLEST}[kernel]\nstale_after = \"never\"");
    assert_eq!(read(&text).unwrap().kernel.stale_after, None);
}

#[test]
fn a_mask_may_be_an_integer() {
    let text = format!("{SMALLEST}[kernel]\nfwmark_mask = 0xff_0000");
    assert_eq!(read(&text).unwrap().kernel.fwmark_mask.bits(), 0x00ff_0000);
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

const PACKAGED: &str = include_str!("../../../packaging/uplink.toml");

/// The packaged file with its examples taken in: those behind "#", and with `rare` also those behind
/// "##". Prose has a blank behind its "#".
fn packaged(rare: bool) -> String {
    let marks: &[&str] = if rare { &["##", "#"] } else { &["#"] };
    let line = |line: &str| {
        let example = marks.iter().find_map(|mark| line.strip_prefix(mark));
        match example {
            Some(example) if !example.starts_with(' ') => format!("{example}\n"),
            _ => format!("{line}\n"),
        }
    };
    PACKAGED.lines().map(line).collect()
}

#[test]
fn the_packaged_file_is_valid_once_its_examples_are_taken_in() {
    let config = read(&packaged(false)).unwrap_or_else(|e| panic!("{e}"));
    let plain = read(SMALLEST).unwrap();
    assert_eq!((config.probe, config.health), (plain.probe, plain.health));
    assert_eq!((config.nat, config.balance), (plain.nat, plain.balance));
    assert_eq!(
        (config.dns.ttl_min, config.dns.ttl_max),
        (plain.dns.ttl_min, plain.dns.ttl_max)
    );
    assert!(config.mpath.is_some() && config.policies.len() == 3);
    assert!(crate::policy::lint::lint(&config.policies).is_empty());
    let rare = read(&packaged(true)).unwrap_or_else(|e| panic!("{e}"));
    // A seed has no default to show.
    let kernel = Kernel {
        seed: rare.kernel.seed,
        ..plain.kernel
    };
    assert_eq!((rare.uplinks.len(), rare.kernel), (3, kernel));
}

/// Every key that the reader allows is in the packaged file.
#[test]
fn the_packaged_file_shows_every_key() {
    let text = packaged(true);
    let tables = [
        "[[uplink]]",
        "[lan]",
        "[local]",
        "[nat]",
        "[probe]",
        "[health]",
        "[balance]",
        "[[group]]",
    ];
    let more = [
        "[[policy]]",
        "[dns]",
        "[mpath]",
        "[metrics]",
        "[hooks]",
        "[kernel]",
    ];
    for table in tables.into_iter().chain(more) {
        assert!(text.contains(&format!("{table}\n")), "no {table}");
        let problems = read(&format!("{table}\nzzzzzz = 1\n")).unwrap_err();
        let help = problems.list.iter().find_map(|p| p.help.split_once("allowed: "));
        let (_, keys) = help.unwrap_or_else(|| panic!("{table} names no keys: {problems}"));
        for key in keys.split(", ") {
            let shown = [format!("{key} = "), format!("{key}\n")];
            assert!(shown.iter().any(|s| text.contains(s)), "{table}: no {key}");
        }
    }
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
error: unknown key \"gatway\" in [[uplink]]
 --> u.toml:4:1
  |
4 | gatway = \"192.168.1.1\"
  | ^^^^^^
  |
  = help: did you mean \"gateway\"? allowed: name, interface, gateway, source, gateway6, source6, weight, \
tier, mtu, prefix6, table, enabled, probe, down, up, quota";
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
        assert!(shown.matches("error: ").count() >= problems.list.len(), "{shown}");
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
            1..9,
        )
    ) {
        let mut text: Vec<char> = [WHOLE, probe::EVERY, health::EVERY, policy::EVERY].concat().chars().collect();
        for (at, cut, insert) in edits {
            let from = at.index(text.len() + 1);
            let to = (from + cut).min(text.len());
            text.splice(from..to, insert.chars());
        }
        survives(&text.into_iter().collect::<String>());
    }
}

#[test]
fn next_hop_mode_goes_without_nat_only() {
    let nexthop = "[kernel]\nmode = \"nexthop\"\n";
    let config = read(&format!("{SMALLEST}{nexthop}[nat]\nmode = \"off\"\n")).unwrap();
    assert_eq!(config.kernel.mode, Mode::NextHop);
    let text = format!("{SMALLEST}{nexthop}");
    let line = 1 + text.find("mode").map_or(0, |at| text[..at].matches('\n').count());
    let shown = read(&text).unwrap_err().to_string();
    assert!(shown.contains(&format!(":{line}:8")), "{shown}");
    assert!(
        shown.contains("past the kernel's NAT") && shown.contains("[nat] mode = \"off\""),
        "{shown}"
    );
}
