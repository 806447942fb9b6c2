use super::*;
use crate::foreign::tests::{host, rule};
use crate::plan::tests::{kernel, uplinks};

const FILE: &str = "[[uplink]]\nname = \"a\"\ninterface = \"eth0\"\ngateway = \"10.0.1.1\"\n";

fn config(text: &str) -> Config {
    crate::config::parse(std::path::Path::new("u.toml"), text.into()).unwrap()
}

fn asked(name: &str) -> Config {
    config(&format!("{FILE}[mpath]\ninterface = \"{name}\"\n"))
}

fn marks(family: Family, priority: u32) -> Rule {
    Rule {
        family,
        priority,
        selector: Selector::Mark { value: 1, mask: 1 },
        action: Action::Table(20001),
        suppress_prefixlength: None,
        suppress_ifgroup: None,
    }
}

fn shown(host: &Host, others: &[Rule]) -> Vec<String> {
    let rules = rules("mpath0", others, host, &kernel());
    rules.iter().map(ToString::to_string).collect()
}

#[test]
fn the_inner_ends_name_fits_and_is_another() {
    assert_eq!(inner("mpath0"), "mpath0-in");
    assert_eq!(inner("abcdefghijklmno"), "abcdefghijkl-in");
    // Twelve bytes would end within a letter.
    assert_eq!(inner("abcdefghijkäx"), "abcdefghijk-in");
}

#[test]
fn what_comes_out_never_leaves_our_rules() {
    let host = host(&[]);
    let others = [marks(Family::V4, 20002), marks(Family::V4, 20001)];
    assert_eq!(
        shown(&host, &others),
        [
            "ip rule add priority 19998 iif mpath0-in lookup 254 suppress_prefixlength 0 suppress_ifgroup 20000",
            "ip rule add priority 19999 iif mpath0-in goto 20001",
            "ip rule add priority 20254 iif mpath0-in lookup 20000",
            "ip rule add priority 20255 iif mpath0-in unreachable",
        ]
    );
    let both = [marks(Family::V4, 20001), marks(Family::V6, 20001)];
    assert_eq!(shown(&host, &both).len(), 8);
}

#[test]
fn our_rules_stay_in_front_of_those_that_lead_back() {
    let first = |rules: &[ForeignRule]| {
        let mut host = host(&[]);
        host.rules = rules.to_vec();
        rules_of(&host)
    };
    let from = |priority| ForeignRule {
        from: Some("10.9.0.0/24".parse().unwrap()),
        ..rule(priority, 100)
    };
    let iif = |name: &str, inverted| ForeignRule {
        iif: Some(name.into()),
        inverted,
        ..rule(500, 100)
    };
    assert_eq!(first(&[from(19997)]), 19995);
    assert_eq!(first(&[from(5270), from(19997)]), 5268);
    assert_eq!(first(&[from(30000)]), 19998);
    assert_eq!(first(&[iif("docker0", false)]), 19998);
    assert_eq!(first(&[iif("docker0", true)]), 498);
    assert_eq!(first(&[iif("mpath0-in", false)]), 498);
    // Nothing comes before the first; the circle is cut elsewhere.
    assert_eq!(first(&[from(1), from(2)]), 19998);
    assert_eq!(first(&[from(3)]), 1);
}

fn rules_of(host: &Host) -> u32 {
    let found = rules("mpath0", &[marks(Family::V4, 20001)], host, &kernel());
    found.iter().map(|r| r.priority).min().unwrap()
}

#[test]
fn the_largest_uplink_decides_about_the_mtu() {
    let [a, mut b] = uplinks();
    (b.mtu, b.ifindex) = (Some(1400), 9);
    let own = |ifindex: u32| (ifindex != 9).then_some(1492);
    assert_eq!(largest_mtu(&[a.clone(), b.clone()], own), 1492);
    assert_eq!(largest_mtu(std::slice::from_ref(&b), own), 1400);
    (b.mtu, b.ifindex) = (Some(9000), 9);
    assert_eq!(largest_mtu(&[a, b], own), 9000);
    assert_eq!(largest_mtu(&[], own), 1500);
}

fn complaints(config: &Config, host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    problems(config, host, &mut found);
    found.into_iter().map(|p| p.message).collect()
}

fn with_interface(name: &str, ours: bool) -> Host {
    let mut host = host(&[]);
    let index = 77;
    let new = crate::host::Interface {
        index,
        name: name.into(),
        running: true,
        mtu: [1500; 2],
        addresses: Vec::new(),
        deprecated: Vec::new(),
    };
    host.interfaces.push(new);
    host.aggregates.extend(ours.then_some(index));
    host
}

#[test]
fn somebody_elses_interface_of_that_name_is_refused() {
    for name in ["mpath0", "mpath0-in"] {
        let expected = [format!("interface {name} exists and is not uplink's")];
        assert_eq!(
            complaints(&asked("mpath0"), &with_interface(name, false)),
            expected
        );
        assert!(complaints(&asked("mpath0"), &with_interface(name, true)).is_empty());
    }
    assert!(complaints(&config(FILE), &with_interface("mpath0", false)).is_empty());
}

#[test]
fn a_name_that_means_something_else_is_refused() {
    let file = FILE.replace("eth0", "mpath0-in") + "[mpath]\ninterface = \"mpath0\"\n";
    let found = complaints(&config(&file), &Host::default());
    assert_eq!(
        found,
        ["mpath0-in is named as an interface of an uplink or of [lan], too"]
    );
    let own = complaints(&asked("abcdefghijkl-in"), &Host::default());
    assert_eq!(own, ["abcdefghijkl-in is what its own inner end would be called"]);
}

#[test]
fn a_rule_by_where_packets_come_in_is_warned_of_if_it_leads_into_it() {
    let mut host = host(&[]);
    host.entering.insert((Family::V4, 100));
    let by = |iif: Option<&str>, table| ForeignRule {
        iif: iif.map(str::to_owned),
        ..rule(500, table)
    };
    host.rules = vec![by(None, 100), by(Some("lo"), 100), by(Some("docker0"), 101)];
    assert_eq!(warnings(&host), []);
    host.rules.push(by(Some("docker0"), 100));
    let found = warnings(&host);
    assert_eq!(found.len(), 1);
    assert!(found[0].text.contains("iif docker0"), "{found:?}");
}
