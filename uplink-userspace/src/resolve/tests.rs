use super::*;
use std::path::Path;

pub(super) const FILE: &str = r#"
[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"
gateway6 = "fe80::1"

[[uplink]]
name = "isp2"
interface = "eth0"
gateway = "10.0.0.1"
"#;

pub(super) fn host() -> Host {
    let addresses = [
        "192.168.1.100/24",
        "10.0.0.2/16",
        "fe80::2/64",
        "fd00::2/64",
        "2001:db8::2/64",
    ];
    let addresses = addresses.map(|a| a.parse().unwrap()).to_vec();
    let eth0 = Interface {
        index: 7,
        name: "eth0".into(),
        running: true,
        mtu: [1500; 2],
        addresses,
        deprecated: vec![],
    };
    let lan0 = Interface {
        index: 8,
        name: "lan0".into(),
        running: true,
        mtu: [1500; 2],
        addresses: vec!["10.9.0.1/24".parse().unwrap()],
        deprecated: vec![],
    };
    Host {
        interfaces: vec![eth0, lan0],
        foreign_tables: vec![77],
        ..Host::default()
    }
}

pub(super) fn config(text: &str) -> Config {
    config::parse(Path::new("u.toml"), text.into()).unwrap()
}

fn ids(pairs: &[(&str, u8)], config: &Config) -> Vec<u8> {
    let old = pairs.iter().map(|(n, id)| ((*n).to_owned(), *id)).collect();
    resolve(config, &host(), &old)
        .unwrap()
        .uplinks
        .iter()
        .map(|u| u.id)
        .collect()
}

#[test]
fn the_articles_scenario_finds_its_sources() {
    let uplinks = resolve(&config(FILE), &host(), &BTreeMap::new()).unwrap().uplinks;
    let v4 = uplinks[1].v4.unwrap();
    assert_eq!(v4.source.to_string(), "10.0.0.2");
    assert_eq!(v4.prefix.to_string(), "10.0.0.0/16");
    let first = &uplinks[0];
    assert_eq!(
        (first.id, first.ifindex, first.table, first.mark),
        (1, 7, 20_001, 0x100_0000)
    );
    assert_eq!(
        (uplinks[1].id, uplinks[1].table, uplinks[1].mark),
        (2, 20_002, 0x200_0000)
    );
}

#[test]
fn behind_a_link_local_gateway_the_source_is_global() {
    let uplinks = resolve(&config(FILE), &host(), &BTreeMap::new()).unwrap().uplinks;
    let v6 = uplinks[0].leg(Family::V6).unwrap();
    assert_eq!(v6.source.to_string(), "2001:db8::2");
    assert_eq!(v6.prefix.to_string(), "fe80::/64");
    let given = FILE.replace("\"fe80::1\"", "\"fe80::1\"\nsource6 = \"fd00::2\"");
    let uplinks = resolve(&config(&given), &host(), &BTreeMap::new())
        .unwrap()
        .uplinks;
    assert_eq!(uplinks[0].v6.unwrap().source.to_string(), "fd00::2");
}

#[test]
fn ids_stay_with_the_names() {
    let c = config(FILE);
    assert_eq!(ids(&[], &c), [1, 2]);
    assert_eq!(ids(&[("isp2", 1)], &c), [2, 1]);
    assert_eq!(ids(&[("isp1", 5), ("isp2", 3)], &c), [5, 3]);
    assert_eq!(ids(&[("isp1", 0), ("isp2", 65)], &c), [1, 2]);
    assert_eq!(ids(&[("isp1", 4), ("isp2", 4)], &c), [4, 1]);
}

#[test]
fn a_new_uplink_does_not_inherit_a_removed_ones_connections_while_there_is_room() {
    let c = config(FILE);
    assert_eq!(ids(&[("gone", 1), ("isp1", 2)], &c), [2, 3]);
    let narrow = config(&format!("{FILE}[kernel]\nfwmark_mask = \"0x3\""));
    assert_eq!(ids(&[("a", 1), ("b", 2), ("c", 3)], &narrow), [1, 2]);
    assert_eq!(ids(&[("isp2", 9)], &narrow), [1, 2]);
}

#[test]
fn the_lan_is_where_the_uplinks_are_unless_told() {
    assert_eq!(lan_interfaces(&config(FILE)), ["eth0"]);
    let told = format!("{FILE}[lan]\ninterfaces = [\"lan0\", \"eth0\", \"lan0\"]");
    assert_eq!(lan_interfaces(&config(&told)), ["lan0", "eth0"]);
}

#[test]
fn what_the_host_contradicts_is_shown_in_place() {
    #[rustfmt::skip] // One row, one line.
    let rows = [
        ("\"eth0\"", "\"eth9\"", "u.toml:4:13", "interface eth9 does not exist", "eth0, lan0"),
        ("192.168.1.1", "192.168.2.1", "u.toml:5:11", "outside every subnet of eth0", "192.168.1.0/24, 10.0.0.0/16"),
        ("192.168.1.1", "192.168.1.100", "u.toml:5:11", "this host's own address", "ip route"),
        ("192.168.1.1", "10.9.0.1", "u.toml:5:11", "this host's own address", "ip route"),
        ("192.168.1.1", "192.168.1.255", "u.toml:5:11", "cannot be the address of a router", "192.168.1.0/24"),
        ("192.168.1.1\"", "192.168.1.1\"\nsource = \"10.9.0.1\"", "u.toml:6:10", "source 10.9.0.1 is not an address of eth0", "192.168.1.100, 10.0.0.2"),
        ("192.168.1.1\"", "192.168.1.1\"\ntable = 77", "u.toml:6:9", "table 77 of uplink isp1 is in use by somebody else", "ip route"),
        ("\n[[uplink]]", "[lan]\ninterfaces = [\"eth0\", \"lan7\"]\n[[uplink]]", "u.toml:2:23", "interface lan7 does not exist", "lan0"),
        ("\n[[uplink]]", "[probe]\ntargets = [\"1.1.1.1\", \"10.9.0.1\"]\n[[uplink]]", "u.toml:2:23", "target 10.9.0.1 is this host's own address", "on the Internet"),
        ("192.168.1.1\"", "192.168.1.1\"\nprobe = { type = \"tcp\", targets = [\"[fd00::2]:443\"] }", "u.toml:6:36", "target fd00::2 is this host's own address", "on the Internet"),
        ("\n[[uplink]]", "[kernel]\nrule_priority = 77\n[[uplink]]", "u.toml:1:1", "rule_priority, is in use", "another number"),
    ];
    for (from, to, place, message, help) in rows {
        let config = config(&FILE.replacen(from, to, 1));
        let shown = resolve(&config, &host(), &BTreeMap::new())
            .unwrap_err()
            .to_string();
        for part in [place, message, help] {
            assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
        }
    }
}

#[test]
fn without_a_global_address_ipv6_is_refused() {
    let mut host = host();
    host.interfaces[0].addresses.truncate(3);
    let shown = resolve(&config(FILE), &host, &BTreeMap::new())
        .unwrap_err()
        .to_string();
    assert!(shown.contains("no IPv6 address but link-local"), "{shown}");
}

#[test]
fn a_prefix_is_translated_from_inside_to_outside() {
    let text = FILE.replace("\"fe80::1\"", "\"fe80::1\"\nprefix6 = \"2001:db8:1::/56\"");
    let c = config(&format!("{text}[nat]\nprefix6 = \"fd00:10::/56\""));
    let uplinks = resolve(&c, &host(), &BTreeMap::new()).unwrap().uplinks;
    let t = uplinks[0].translation.unwrap();
    let of = |text: &str| text.parse::<IpAddr>().unwrap().into();
    assert_eq!(
        (t.internal, t.external, t.length),
        (of("fd00:10::"), of("2001:db8:1::"), 56)
    );
    assert_eq!(uplinks[1].translation, None);
}

#[test]
fn a_strict_policy_needs_a_mark_of_its_own() {
    let policy = config::Policy {
        name: config::At {
            value: "voip".into(),
            span: 0..4,
        },
        line: 1,
        matches: config::Match::default(),
        when: vec![],
        choice: config::Choice::default(),
        strict: true,
        sticky: None,
    };
    let narrow = |third: &str| {
        let mut c = config(&format!("{FILE}{third}[kernel]\nfwmark_mask = \"0x3\""));
        c.policies.push(policy.clone());
        resolve(&c, &host(), &BTreeMap::new())
    };
    assert!(narrow("").is_ok(), "3 is left");
    let third = "[[uplink]]\nname = \"isp3\"\ninterface = \"eth0\"\ngateway = \"10.0.0.3\"\n";
    let problems = narrow(third).unwrap_err().to_string();
    assert!(
        problems.contains(r#"the strict policy "voip" needs one more mark than the mask 0x3 holds"#),
        "{problems}"
    );
}

/// `isp1` of the file with a source, on the host as `change` makes it.
fn with_source(source: &str, change: impl Fn(&mut Host)) -> Result<Followed, Problems> {
    let line = format!("\"192.168.1.1\"\nsource = \"{source}\"");
    let mut host = host();
    change(&mut host);
    resolve(
        &config(&FILE.replace("\"192.168.1.1\"", &line)),
        &host,
        &BTreeMap::new(),
    )
}

#[test]
fn a_source_that_this_host_lacks_is_waited_for() {
    let waits = |found: &Followed| {
        let reasons: Vec<String> = found.unusable.iter().map(ToString::to_string).collect();
        reasons == ["isp1 (IPv4): eth0 does not have the address 192.168.1.7"]
    };
    // Another address in the gateway's subnet tells the prefix.
    let found = with_source("192.168.1.7", |_| {}).unwrap();
    assert!(waits(&found), "{:?}", found.unusable);
    let leg = found.uplinks[0].v4.unwrap();
    assert_eq!(
        (leg.source.to_string(), leg.prefix.to_string()),
        ("192.168.1.7".into(), "192.168.1.0/24".into())
    );
    assert!(
        !found.is_usable(&found.uplinks[0], Family::V4) && found.is_usable(&found.uplinks[1], Family::V4)
    );
    // A virtual address may be the only one there.
    let alone = |host: &mut Host| {
        host.interfaces[0]
            .addresses
            .retain(|n| n.to_string() != "192.168.1.100/24")
    };
    let found = with_source("192.168.1.7", alone).unwrap();
    assert!(waits(&found), "{:?}", found.unusable);
    assert_eq!(found.uplinks[0].v4.unwrap().prefix.to_string(), "192.168.1.1/32");
}

#[test]
fn a_source_that_came_changes_no_connection() {
    let line = "\"192.168.1.1\"\nsource = \"192.168.1.7\"";
    let config = config(&FILE.replace("\"192.168.1.1\"", line));
    let mut host = host();
    let before = resolve(&config, &host, &BTreeMap::new()).unwrap().uplinks;
    host.interfaces[0]
        .addresses
        .push("192.168.1.7/24".parse().unwrap());
    let now = follow(&config, &host, &before);
    assert_eq!((now.uplinks, now.unusable), (before, vec![]));
}

#[test]
fn no_source_mends_a_gateway_that_cannot_be_one() {
    for gateway in ["192.168.1.100", "192.168.1.255"] {
        let text = FILE.replace(
            "\"192.168.1.1\"",
            &format!("\"{gateway}\"\nsource = \"192.168.1.7\""),
        );
        assert!(
            resolve(&config(&text), &host(), &BTreeMap::new()).is_err(),
            "{gateway}"
        );
    }
}

/// What the host lacks is a mistake, but for who waits, and for what was there before; what it can never have is one.
#[test]
fn what_is_missing_is_waited_for_by_who_may() {
    let lacking = |change: &dyn Fn(&mut Host)| {
        let mut host = host();
        change(&mut host);
        host
    };
    let gone = lacking(&|host| host.interfaces.retain(|i| i.name != "eth0"));
    let moved = lacking(&|host| {
        host.interfaces[0]
            .addresses
            .retain(|net| net.to_string() != "10.0.0.2/16")
    });
    let ours = lacking(&|host| host.interfaces[0].addresses.push("10.0.0.1/16".parse().unwrap()));
    let given = config(FILE);
    let other = config(&FILE.replace("10.0.0.1", "10.0.0.9"));
    for (host, missing, unusable) in [
        (&gone, Missing::Nothing, None),
        (&gone, Missing::Anything, Some(3)),
        (&gone, Missing::Of(&given), Some(3)),
        (&gone, Missing::Of(&other), None),
        (&moved, Missing::Nothing, None),
        (&moved, Missing::Anything, Some(1)),
        (&moved, Missing::Of(&given), Some(1)),
        (&moved, Missing::Of(&other), None),
        (&ours, Missing::Anything, None),
    ] {
        let found = resolve_but(missing, &given, host, &BTreeMap::new());
        let found = found.ok().map(|found| found.unusable.len());
        assert_eq!(found, unusable, "{missing:?}");
    }
    let lan = config(&format!("{FILE}[lan]\ninterfaces = [\"late0\"]"));
    let resolved = |missing| resolve_but(missing, &lan, &host(), &BTreeMap::new()).is_ok();
    assert!(!resolved(Missing::Nothing) && !resolved(Missing::Of(&given)));
    assert!(resolved(Missing::Anything) && resolved(Missing::Of(&lan)));
    let parked = config(&FILE.replace("10.0.0.1\"", "10.0.0.1\"\nenabled = false"));
    assert!(resolve(&parked, &moved, &BTreeMap::new()).is_ok());
}
