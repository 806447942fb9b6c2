//! `[probe]` and `probe = { ... }` of an uplink.

use super::broken::expect;
use super::*;

/// `[probe]` with this in it, below two uplinks with IPv4.
fn common(probe: &str) -> Result<Config, Problems> {
    read(&format!("{SMALLEST}[probe]\n{probe}"))
}

/// The probe of the second uplink, which says this, below a `[probe]` that says that.
fn own(common: &str, own: &str) -> Probe {
    let text = format!("{SMALLEST}probe = {{ {own} }}\n[probe]\n{common}");
    read(&text).unwrap_or_else(|e| panic!("{e}")).uplinks[1]
        .probe
        .clone()
}

fn targets(probe: &Probe) -> Vec<String> {
    probe.targets.iter().map(ToString::to_string).collect()
}

/// A probe of every type; line 4 is the first uplink's.
pub(super) const EVERY: &str = r#"[[uplink]]
name = "a"
interface = "eth0"
probe = { type = "tcp", targets = ["192.0.2.1", "192.0.2.1:22", "[2001:db8::1]:53"], quorum = 2 }
gateway = "192.168.1.1"
[[uplink]]
name = "b"
interface = "eth1"
probe = { type = "dns", name = "example.org", targets = ["192.0.2.1", "[2001:db8::1]:5353"] }
gateway = "192.168.1.1"
[[uplink]]
name = "c"
interface = "eth2"
probe = { type = "http", host = "example.org", path = "/up?x=1", status = [204, "300-399"] }
gateway = "192.168.1.1"
[[uplink]]
name = "d"
interface = "eth3"
probe = { type = "https", host = "example.org", ca = "/etc/ca.pem", targets = ["192.0.2.1"] }
gateway = "192.168.1.1"
[[uplink]]
name = "e"
interface = "eth4"
probe = { type = "exec", command = ["/bin/check", "-q"], interval = "10s", fall = 2 }
gateway = "192.168.1.1"
"#;

#[test]
fn every_type_can_be_written_out() {
    let config = read(EVERY).unwrap();
    let probes: Vec<&Probe> = config.uplinks.iter().map(|u| &u.probe).collect();
    assert_eq!((&probes[0].kind, probes[0].quorum), (&Kind::Tcp, 2));
    assert_eq!(
        targets(probes[0]),
        ["192.0.2.1:443", "192.0.2.1:22", "[2001:db8::1]:53"]
    );
    let name = "example.org".to_owned();
    assert_eq!(probes[1].kind, Kind::Dns { name: name.clone() });
    assert_eq!(targets(probes[1]), ["192.0.2.1:53", "[2001:db8::1]:5353"]);
    let http = Http {
        tls: false,
        host: Some(name),
        path: "/up?x=1".into(),
        status: vec![204..=204, 300..=399],
        ca: None,
    };
    assert_eq!(probes[2].kind, Kind::Http(http.clone()));
    assert_eq!(targets(probes[2])[..2], ["1.1.1.1:80", "9.9.9.9:80"]);
    let https = Http {
        tls: true,
        path: "/".into(),
        status: vec![200..=399],
        ca: Some("/etc/ca.pem".into()),
        ..http
    };
    assert_eq!(probes[3].kind, Kind::Http(https));
    assert_eq!(targets(probes[3]), ["192.0.2.1:443"]);
    let command = vec!["/bin/check".to_owned(), "-q".into()];
    assert_eq!(probes[4].kind, Kind::Exec { command });
    assert_eq!(targets(probes[4]), ["0.0.0.0", "::"]);
    assert_eq!((probes[4].interval, probes[4].fall), (Duration::from_secs(10), 2));
    assert_eq!(config.probe.kind, Kind::Icmp);
}

#[test]
fn an_uplink_changes_what_it_says_and_keeps_the_rest() {
    let base = "targets = [\"192.0.2.1\"]\ninterval = \"1s\"\nfall = 7\nrise = 8\ntimeout = \"2s\"";
    let probe = own(base, "fall = 2");
    assert_eq!((probe.fall, probe.rise), (2, 8));
    assert_eq!(
        (probe.interval, probe.timeout),
        (Duration::from_secs(1), Duration::from_secs(2))
    );
    assert_eq!(
        (targets(&probe), &probe.kind),
        (vec!["192.0.2.1".into()], &Kind::Icmp)
    );
    // The same type named again changes nothing.
    let base = "type = \"dns\"\nname = \"example.org\"\ntargets = [\"192.0.2.1:99\"]";
    let probe = own(base, "type = \"dns\"");
    let name = "example.org".into();
    assert_eq!(
        (targets(&probe), probe.kind),
        (vec!["192.0.2.1:99".into()], Kind::Dns { name })
    );
    // And one uplink's probe is nobody else's.
    let config = read(&format!("{SMALLEST}probe = {{ fall = 9 }}")).unwrap();
    assert_eq!([config.uplinks[0].probe.fall, config.probe.fall], [3, 3]);
}

#[test]
fn another_type_starts_from_its_own_defaults() {
    let base = "type = \"https\"\nhost = \"h\"\npath = \"/x\"\nca = \"/ca\"\nstatus = [201]\n\
                targets = [\"192.0.2.1:8443\", \"192.0.2.1\", \"192.0.2.9\"]";
    let probe = own(base, "type = \"http\"");
    let http = Http {
        tls: false,
        host: None,
        path: "/".into(),
        status: vec![200..=399],
        ca: None,
    };
    assert_eq!(probe.kind, Kind::Http(http));
    // Ports belong to the type, and two targets that differ in them alone are one.
    assert_eq!(targets(&probe), ["192.0.2.1:80", "192.0.2.9:80"]);
    assert_eq!(targets(&own(base, "type = \"icmp\"")), ["192.0.2.1", "192.0.2.9"]);
    let program = "type = \"exec\", command = [\"/bin/true\"]";
    assert_eq!(targets(&own(base, program)), ["0.0.0.0", "::"]);
    let program = "type = \"exec\"\ncommand = [\"/bin/true\"]\ntargets = [\"192.0.2.1\"]";
    assert_eq!(targets(&own(program, "type = \"dns\""))[0], "1.1.1.1:53");
    assert_eq!(targets(&own(program, "fall = 1")), ["192.0.2.1"]);
}

#[test]
fn targets_remember_where_they_stand() {
    let text =
        format!("{SMALLEST}probe = {{ targets = [\"192.0.2.7\"] }}\n[probe]\ntargets = [\"192.0.2.1\"]");
    let config = read(&text).unwrap();
    let shown = |u: usize| &text[config.uplinks[u].target_spans[0].clone()];
    assert_eq!([shown(0), shown(1)], ["\"192.0.2.1\"", "\"192.0.2.7\""]);
    let defaults = read(SMALLEST).unwrap();
    assert_eq!(defaults.uplinks[0].target_spans, vec![0..0; 4]);
}

#[test]
fn a_quorum_is_within_what_a_family_can_reach() {
    let list = "targets = [\"192.0.2.1\", \"2001:db8::1\", \"2001:db8::2\"]";
    // IPv4 has one target and needs it; IPv6 can reach two.
    assert_eq!(common(&format!("{list}\nquorum = 2")).unwrap().probe.quorum, 2);
    assert!(common(&format!("{list}\nquorum = 3")).is_err());
    // Another uplink's own targets do not count.
    let own = format!("{SMALLEST}probe = {{ {list}, quorum = 2 }}\n[probe]\ntargets = [\"192.0.2.1\"]");
    assert_eq!(read(&own).unwrap().uplinks[0].probe.quorum, 1);
}

#[test]
fn names_and_lists_have_limits() {
    let many = |n: u32| {
        (1..=n)
            .map(|i| format!("\"192.0.2.{i}\""))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(
        common(&format!("targets = [{}]", many(16)))
            .unwrap()
            .probe
            .targets
            .len(),
        16
    );
    let shown = common(&format!("targets = [{}]", many(17)))
        .unwrap_err()
        .to_string();
    assert!(
        shown.contains("more than 16 targets") && shown.contains("11:"),
        "{shown}"
    );
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    assert!(common(&format!("type = \"dns\"\nname = \"{long}\"")).is_ok());
    let shown = common(&format!("type = \"dns\"\nname = \"{long}d\""))
        .unwrap_err()
        .to_string();
    assert!(shown.contains("has 254 bytes, more than 253"), "{shown}");
}

/// Text to replace in [`EVERY`], its replacement, and the place and text of the complaint.
#[rustfmt::skip] // One row, one line.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("type = \"tcp\"", "type = \"tcpp\"", "4:18", "did you mean \"tcp\"?"),
    ("type = \"tcp\"", "type = 6", "4:18", "type cannot be of type integer"),
    ("type = \"tcp\"", "type = \"icmp\"", "4:50", "has a port, and type = \"icmp\" knows none"),
    ("{ type = \"tcp\"", "{ typo = \"tcp\"", "4:11", "unknown key \"typo\" in probe of an [[uplink]]"),
    ("quorum = 2", "quorum = 3", "4:95", "quorum 3 is more than any family has targets (2)"),
    ("quorum = 2", "quorum = 0", "4:95", "quorum 0 is out of range"),
    ("quorum = 2", "quorum = 17", "4:95", "an integer from 1 to 16"),
    ("quorum = 2", "name = \"x\"", "4:86", "`name` does not belong to type = \"tcp\""),
    ("quorum = 2", "ca = \"/x\"", "4:86", "it is for type = \"https\""),
    ("quorum = 2", "status = [200]", "4:86", "it is for type = \"http\" or \"https\""),
    ("192.0.2.1:22", "192.0.2.1:0", "4:49", "has port 0"),
    ("192.0.2.1:22", "192.0.2.1:443", "4:49", "listed twice"),
    ("192.0.2.1:22", "192.0.2.1:66000", "4:49", "is not an IP address"),
    ("192.0.2.1:22", "127.0.0.1:22", "4:49", "not the address of a host"),
    ("192.0.2.1:22", "example.org:22", "4:49", "is a host name, which would have to be resolved by the very uplink"),
    ("192.0.2.1:22", "https://example.org", "4:49", "is not an IP address"),
    ("[2001:db8::1]:53", "[fe80::1%2]:53", "4:65", "names an interface"),
    ("[2001:db8::1]:53", "[::1]:53", "4:65", "not the address of a host"),
    ("[2001:db8::1]:53", "2001:db8::1:g", "4:65", "such as [\"9.9.9.9\", \"[2620:fe::9]:853\"]"),
    ("{ type = \"tcp\", targets = [\"192.0.2.1\", \"192.0.2.1:22\", \"[2001:db8::1]:53\"], quorum = 2 }", "\"tcp\"", "4:9", "a table in braces, such as probe = { type = \"tcp\" }"),
    ("[\"192.0.2.1\", \"192.0.2.1:22\", \"[2001:db8::1]:53\"], quorum = 2", "[\"2001:db8::1\"]", "4:35", "no target has the address family of uplink a"),
    ("\"example.org\"", "\"a..b\"", "9:32", "name \"a..b\" has an empty label"),
    ("\"example.org\"", "\"bücher.example\"", "9:32", "write it in its xn-- form"),
    ("name = \"example.org\"", "command = [\"/x\"]", "9:25", "`command` does not belong to type = \"dns\""),
    ("name = \"example.org\"", "path = \"/x\"", "9:25", "`path` does not belong to type = \"dns\""),
    ("host = \"example.org\"", "host = \"example.org:80\"", "14:33", "contains ':'"),
    ("host = \"example.org\"", "host = \".\"", "14:33", "names no host"),
    ("host = \"example.org\"", "name = \"example.org\"", "14:26", "`name` does not belong to type = \"http\""),
    ("host = \"example.org\"", "ca = \"/x\"", "14:26", "`ca` does not belong to type = \"http\""),
    ("\"/up?x=1\"", "\"up\"", "14:55", "does not start with \"/\""),
    ("\"/up?x=1\"", "\"/a b\"", "14:55", "contains ' '"),
    ("\"/up?x=1\"", "\"/a\\r\\nb\"", "14:55", "contains '\\r'"),
    ("\"/up?x=1\"", "\"/a#b\"", "14:55", "contains '#'"),
    ("\"/up?x=1\"", "\"/é\"", "14:55", "write other characters as %XX"),
    ("\"/up?x=1\"", "\"/<\"", "14:55", "cannot be requested"),
    ("[204, \"300-399\"]", "[]", "14:75", "status is empty"),
    ("[204, \"300-399\"]", "204", "14:75", "a list of statuses"),
    ("[204, ", "[20, ", "14:76", "is not a status"),
    ("[204, ", "[600, ", "14:76", "is out of range"),
    ("[204, ", "[2.0, ", "14:76", "status cannot be of type float"),
    ("\"300-399\"", "\"399-300\"", "14:81", "is out of range"),
    ("\"300-399\"", "\"3xx\"", "14:81", "is not a status"),
    ("\"/etc/ca.pem\"", "\"ca.pem\"", "19:54", "is not an absolute path"),
    ("[\"192.0.2.1\"] }", "[\"www.example.org\"] }", "19:80", "the name into `host`"),
    ("[\"/bin/check\", \"-q\"]", "[\"check\", \"-q\"]", "24:37", "the command \"check\" is not an absolute path"),
    ("[\"/bin/check\", \"-q\"]", "[]", "24:36", "command is empty"),
    ("[\"/bin/check\", \"-q\"]", "\"/bin/check -q\"", "24:36", "a list of an absolute path and arguments"),
    ("[\"/bin/check\", \"-q\"]", "[\"/bin/check\", \"\\u0000\"]", "24:51", "contains '\\0'"),
    ("command = [\"/bin/check\", \"-q\"]", "rise = 1", "24:9", "type = \"exec\" without `command`"),
    ("interval = \"10s\"", "quorum = 2", "24:67", "more than any family has targets (1)"),
    ("interval = \"10s\"", "targets = [\"192.0.2.1:1\"]", "24:69", "has a port, and type = \"exec\" knows none"),
];

#[test]
fn every_mistake_is_shown_where_it_is() {
    expect(EVERY, BROKEN);
}

/// What is inherited is complained about where it stops to fit, and once.
#[test]
fn what_does_not_fit_is_shown_where_it_was_changed() {
    let with = |own: &str, common: &str| {
        let text = format!("{SMALLEST}probe = {{ {own} }}\n[probe]\n{common}");
        read(&text).unwrap_err()
    };
    let problems = with("targets = [\"192.0.2.1\"]", "quorum = 2");
    let shown = problems.to_string();
    assert!(shown.contains("10:21\n") && problems.list.len() == 1, "{shown}");
    let problems = with("fall = 1", "quorum = 5");
    let shown = problems.to_string();
    assert!(shown.contains("12:10\n"), "{shown}");
    // Without their ports the two are one: neither the quorum nor the list stands here.
    let two = "type = \"tcp\"\ntargets = [\"192.0.2.1:1\", \"192.0.2.1:2\"]\nquorum = 2";
    let shown = with("type = \"icmp\"", two).to_string();
    assert!(shown.contains("10:9\n") && shown.contains("quorum 2"), "{shown}");
    // A type that nobody knows says nothing about the keys beside it.
    let problems = with("type = \"dsn\", name = \"x\", targets = [\"192.0.2.1:53\"]", "");
    assert_eq!(problems.list.len(), 1, "{problems}");
}
