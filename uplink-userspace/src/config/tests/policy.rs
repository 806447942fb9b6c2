//! Policies, groups, `[dns]` and `[mpath]`.

mod broken;
mod random;

use std::fs;
use std::net::IpAddr;

use super::*;

const UPLINKS: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"
[[uplink]]
name = "isp2"
interface = "eth1"
gateway = "10.0.0.1"
[[uplink]]
name = "isp3"
interface = "eth2"
gateway = "10.0.1.1"
enabled = false
"#;

/// Every key, from line 14 on.
pub(super) const EVERY: &str = r#"[[policy]]
name = "all"
strict = true
sticky = "source"
sticky_time = "10m"
enabled = true
use = ["isp1", { isp2 = 2 }]
match = {}
[[policy]]
name = "some"
[policy.match]
src = ["10.0.0.0/8"]
dst = "2001:db8::/32"
sport = 53
dport = [443, "5060-5090"]
proto = ["tcp", 17]
dscp = "ef"
iif = "eth0"
mac = "02:00:5e:10:00:01"
uid = "1000-1999"
cgroup = "/system.slice"
domain = ["*.example.org"]
[policy.match.not]
src = "10.1.0.0/16"
[policy.when]
days = "mon-fri"
hours = "08:00-18:00"
zone = "Europe/Berlin"
[[policy]]
strict = false
name = "night"
when = [{ hours = "22:00-06:00" }]
[[group]]
name = "fast"
use = ["isp2"]
pick = "lowest-latency"
[[group]]
name = "safe"
[dns]
resolvers = ["auto", "127.0.0.1"]
ttl_min = "30s"
ttl_max = "1h"
[mpath]
interface = "mpath0"
[lan]
interfaces = ["lan0"]
"#;

fn with(text: &str) -> Result<Config, Problems> {
    read(&format!("{UPLINKS}{text}"))
}

/// The only policy, whose name is given.
fn policy(text: &str) -> Policy {
    let config = with(&format!("[[policy]]\nname = \"p\"\n{text}"));
    let mut policies = config.unwrap_or_else(|e| panic!("{text}: {e}")).policies;
    assert_eq!(policies.len(), 1);
    policies.remove(0)
}

fn field<T>(any: impl Into<Vec<T>>, not: impl Into<Vec<T>>) -> Field<T> {
    Field {
        any: Some(any.into()),
        not: not.into(),
    }
}

fn choice(tiers: &[&[(&str, Option<u32>)]], prefer: Prefer) -> Choice {
    let tier = |tier: &&[(&str, Option<u32>)]| tier.iter().map(|(n, w)| ((*n).into(), *w)).collect();
    Choice {
        tiers: tiers.iter().map(tier).collect(),
        prefer,
    }
}

#[test]
fn without_them_there_are_none() {
    let config = read(SMALLEST).unwrap();
    assert!(config.policies.is_empty() && config.mpath.is_none());
    let dns = config.dns;
    let resolvers: Vec<Resolver> = dns.resolvers.iter().map(|at| at.value).collect();
    assert_eq!(resolvers, [Resolver::Auto]);
    assert_eq!(
        (dns.ttl_min, dns.ttl_max),
        (Duration::from_secs(60), Duration::from_secs(86_400))
    );
}

#[test]
fn a_policy_needs_a_name_only() {
    let policy = policy("");
    assert_eq!((&*policy.name.value, policy.line), ("p", 14));
    assert_eq!(policy.matches, Match::default());
    assert_eq!(policy.choice, Choice::default());
    assert!(policy.when.is_empty() && !policy.strict && policy.sticky.is_none());
}

#[test]
fn every_field_can_be_asked_for_and_negated() {
    let policy = policy(
        r#"match = { src = "10.0.0.0/8", dst = ["192.0.2.1", "2001:db8::/32"], sport = 0x10, dport = [443, "5060-5090"],
        proto = ["tcp", 17], dscp = ["ef", 10], iif = ["eth0", "lo"], mac = "02:00:5e:10:00:01", uid = ["root", 7, "1000-1999"],
        cgroup = "/system.slice", domain = ["Google.com.", "*.example.org"],
        not = { src = "10.1.0.0/16", dst = "192.0.2.0/24", sport = 1, dport = "2-3", proto = "ah", dscp = "le", iif = "eth1",
        mac = "02:00:5e:10:00:02", uid = 0, cgroup = ["/a", "/b"] } }"#,
    );
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let expected = Match {
        src: field([net("10.0.0.0/8")], [net("10.1.0.0/16")]),
        dst: field([net("192.0.2.1/32"), net("2001:db8::/32")], [net("192.0.2.0/24")]),
        sport: field([16..=16], [1..=1]),
        dport: field([443..=443, 5060..=5090], [2..=3]),
        proto: field([6, 17], [51]),
        dscp: field([46, 10], [1]),
        iif: field(["eth0".into(), "lo".into()], ["eth1".into()]),
        mac: field([[2, 0, 0x5e, 0x10, 0, 1]], [[2, 0, 0x5e, 0x10, 0, 2]]),
        uid: field([0..=0, 7..=7, 1000..=1999], [0..=0]),
        cgroup: field(["/system.slice".into()], ["/a".into(), "/b".into()]),
        domain: vec![
            Domain {
                name: "google.com".into(),
                below: false,
            },
            Domain {
                name: "example.org".into(),
                below: true,
            },
        ],
    };
    assert_eq!(policy.matches, expected);
}

#[test]
fn uplinks_are_ordered_or_weighted() {
    for (text, expected) in [
        ("\"isp1\"", choice(&[&[("isp1", None)]], Prefer::Balance)),
        ("\"lowest-latency\"", choice(&[], Prefer::LowestLatency)),
        ("\"lowest-loss\"", choice(&[], Prefer::LowestLoss)),
        (
            "[\"isp2\", \"isp1\", \"isp3\"]",
            choice(
                &[&[("isp2", None)], &[("isp1", None)], &[("isp3", None)]],
                Prefer::Balance,
            ),
        ),
        (
            "{ isp2 = 3, isp1 = 1 }",
            choice(&[&[("isp1", Some(1)), ("isp2", Some(3))]], Prefer::Balance),
        ),
        (
            "[{ isp2 = 1000, isp1 = 1 }, \"isp3\"]",
            choice(
                &[&[("isp1", Some(1)), ("isp2", Some(1000))], &[("isp3", None)]],
                Prefer::Balance,
            ),
        ),
        (
            "\"fast\"",
            choice(&[&[("isp1", None)], &[("isp2", None)]], Prefer::LowestLatency),
        ),
        ("\"safe\"", choice(&[], Prefer::LowestLoss)),
        ("\"all\"", Choice::default()),
    ] {
        let groups = "[[group]]\nname = \"fast\"\nuse = [\"isp1\", \"isp2\"]\npick = \"lowest-latency\"\n\
                      [[group]]\nname = \"safe\"\nuse = \"lowest-loss\"\n\
                      [[group]]\nname = \"all\"\npick = \"balance\"\n";
        assert_eq!(
            policy(&format!("use = {text}\n{groups}")).choice,
            expected,
            "{text}"
        );
    }
}

#[test]
fn equal_choices_are_one_group() {
    let config = with(
        "[[policy]]\nname = \"a\"\nuse = { isp1 = 1, isp2 = 2 }\n\
         [[policy]]\nname = \"b\"\nuse = \"isp1\"\n\
         [[policy]]\nname = \"c\"\nuse = { isp2 = 2, isp1 = 1 }\n",
    );
    let policies = config.unwrap().policies;
    assert_eq!(groups(&policies).len(), 2);
    let lines: Vec<u32> = policies.iter().map(|p| p.line).collect();
    assert_eq!(lines, [14, 17, 20]);
}

#[test]
fn clients_may_keep_their_uplink() {
    let hour = Duration::from_secs(3600);
    let sticky = |destination, time| Some(Sticky { destination, time });
    assert_eq!(policy("sticky = \"source\"").sticky, sticky(false, hour));
    let text = "sticky = \"source-destination\"\nsticky_time = \"1s\"\nstrict = true";
    let policy = policy(text);
    assert_eq!(policy.sticky, sticky(true, Duration::from_secs(1)));
    assert!(policy.strict);
}

#[test]
fn schedules_have_days_hours_and_zones() {
    let one = policy("when = { days = \"sat-mon\", hours = \"22:00-06:00\", zone = \"Europe/Berlin\" }").when;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].days, [true, false, false, false, false, true, true]);
    assert_eq!(one[0].hours, (1320, 360));
    assert_eq!(one[0].zone.iana_name(), Some("Europe/Berlin"));
    let two = policy("when = [{ days = [\"mon\", \"wed-thu\"] }, { zone = \"UTC\" }]").when;
    assert_eq!(two[0].days, [true, false, true, true, false, false, false]);
    assert_eq!((two[0].hours, two[1].days), ((0, 1440), [true; 7]));
}

#[test]
fn a_disabled_policy_is_left_out_and_still_has_to_be_right() {
    let text = "[[policy]]\nname = \"a\"\nenabled = false\n[[policy]]\nname = \"b\"\nenabled = true\n";
    let policies = with(text).unwrap().policies;
    assert_eq!(policies.len(), 1);
    assert_eq!(policies[0].name.value, "b");
    let text = "[[policy]]\nname = \"a\"\nenabled = false\nuse = \"isp9\"\n";
    assert!(with(text).is_err());
}

#[test]
fn resolvers_and_the_aggregate_interface_can_be_named() {
    let text = "[dns]\nresolvers = [\"auto\", \"127.0.0.53\", \"2001:db8::1\"]\nttl_min = \"1s\"\nttl_max = \"7d\"\n\
                [mpath]\ninterface = \"mpath0\"\n";
    let config = with(text).unwrap();
    let resolvers: Vec<Resolver> = config.dns.resolvers.iter().map(|at| at.value).collect();
    let at = |text: &str| Resolver::At(text.parse::<IpAddr>().unwrap());
    assert_eq!(resolvers, [Resolver::Auto, at("127.0.0.53"), at("2001:db8::1")]);
    assert_eq!(
        (config.dns.ttl_min, config.dns.ttl_max),
        (Duration::from_secs(1), Duration::from_secs(604_800))
    );
    assert_eq!(config.mpath.unwrap().interface.value, "mpath0");
}

#[test]
fn prefixes_may_stand_in_files_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("a"),
        "10.0.0.0/8 # ours\r\n\r\n; v6\n2001:db8::/32\n",
    )
    .unwrap();
    fs::write(directory.path().join("b"), "192.0.2.1\n").unwrap();
    let absolute = directory.path().join("b");
    let text = format!(
        "{UPLINKS}[[policy]]\nname = \"p\"\nmatch = {{ src_file = \"a\", dst = \"8.8.8.8\", dst_file = [\"a\", {absolute:?}], \
         not = {{ dst_file = \"b\" }} }}\n"
    );
    let config = parse(&directory.path().join("u.toml"), text).unwrap();
    let shown = |list: &[ipnet::IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let matches = &config.policies[0].matches;
    let (src, dst) = (
        matches.src.any.as_ref().unwrap(),
        matches.dst.any.as_ref().unwrap(),
    );
    assert_eq!(shown(src), ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(
        shown(dst),
        ["8.8.8.8/32", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
    );
    assert_eq!(shown(&matches.dst.not), ["192.0.2.1/32"]);
}

#[test]
fn garbage_in_a_file_is_told_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("list"),
        "10.0.0.0/8\ngarbage here\n10.0.0.1/8\n",
    )
    .unwrap();
    let path = directory.path().join("u.toml");
    let text = "[[policy]]\nname = \"p\"\nmatch = { dst_file = [\"list\", \"gone\"] }\n";
    let shown = parse(&path, format!("{UPLINKS}{text}")).unwrap_err().to_string();
    let list = directory.path().join("list").display().to_string();
    for fragment in [
        &*format!("{list}:2: \"garbage here\" is neither an address nor a prefix"),
        &*format!("{list}:3: \"10.0.0.1/8\" has host bits set: 10.0.0.0/8 has none"),
        "u.toml:16:23\n",
        "u.toml:16:31\n",
        "gone: No such file",
    ] {
        assert!(shown.contains(fragment), "no {fragment:?} in:\n{shown}");
    }
}

#[test]
fn there_is_room_for_so_many_prefixes() {
    let directory = tempfile::tempdir().unwrap();
    let prefixes = |n: u32| -> String {
        (0..n)
            .map(|i| format!("10.{}.{}.{}\n", i >> 16, i >> 8 & 255, i & 255))
            .collect()
    };
    fs::write(directory.path().join("half"), prefixes(65_536)).unwrap();
    let path = directory.path().join("u.toml");
    let of = |keys: &str| {
        let text = format!("{UPLINKS}[[policy]]\nname = \"p\"\nmatch = {{ {keys} }}\n");
        parse(&path, text)
    };
    assert!(of("src_file = \"half\", dst_file = \"half\"").is_ok());
    let problems = of("src_file = \"half\", dst_file = [\"half\", \"half\"], not = { src = \"10.0.0.1\" }");
    let problems = problems.unwrap_err();
    let [problem] = &*problems.list else {
        panic!("{problems}")
    };
    assert_eq!(
        problem.message,
        "dst_file brings more than 131072 prefixes to all policies together"
    );
}

#[test]
fn there_is_room_for_so_many_policies_and_choices() {
    let many = |n: u32, rest: &dyn Fn(u32) -> String| {
        let one = |i: u32| format!("[[policy]]\nname = \"p{i}\"\n{}\n", rest(i));
        with(&(0..n).map(one).collect::<String>())
    };
    let messages = |read: Result<Config, Problems>| -> Vec<String> {
        let list = read.err().map(|e| e.list).unwrap_or_default();
        list.into_iter().map(|p| p.message).collect()
    };
    assert_eq!(many(1024, &|_| String::new()).unwrap().policies.len(), 1024);
    assert_eq!(
        messages(many(1025, &|_| String::new())),
        ["more than 1024 policies"]
    );
    let weighted = |i: u32| format!("use = {{ isp1 = {} }}", 1 + i % 257);
    assert!(many(256, &weighted).is_ok());
    assert_eq!(
        messages(many(300, &weighted)),
        ["more than 256 different choices of uplinks"]
    );
}

#[test]
fn a_refused_uplink_is_not_an_unknown_one() {
    let text = format!("{UPLINKS}[[policy]]\nname = \"p\"\nuse = \"isp1\"\n").replace("192.168.1.1", "x");
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.list.len(), 1, "{problems}");
}

#[test]
fn a_refused_group_is_not_an_unknown_one() {
    let problems =
        with("[[group]]\nname = \"g\"\nuse = []\n[[policy]]\nname = \"p\"\nuse = \"g\"\n").unwrap_err();
    assert_eq!(problems.list.len(), 1, "{problems}");
}
