//! What a new configuration changes, in the words of the file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{At, Config, Gateway, Policy, Probe, Uplink};

/// The section of which there are several.
const POLICY: &str = "policy";

/// The difference between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Names of new uplinks.
    pub added: Vec<String>,
    /// Names of uplinks that are gone.
    pub removed: Vec<String>,
    /// Keys with another value, by the uplink's name.
    pub changed: BTreeMap<String, Vec<String>>,
    /// Other tables of the file with another value in them, such as `probe`.
    pub sections: Vec<String>,
}

impl Changes {
    /// What leads from one configuration to the other.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changed = BTreeMap::new();
        for uplink in &old.uplinks {
            let Some(now) = find(new, uplink) else { continue };
            let mut keys = keys(uplink, now);
            if own_probe(old, uplink) != own_probe(new, now) {
                keys.push("probe".into());
            }
            if !keys.is_empty() {
                changed.insert(uplink.name.value.clone(), keys);
            }
        }
        Self {
            added: missing(new, old),
            removed: missing(old, new),
            changed,
            sections: sections(old, new),
        }
    }
}

fn find<'c>(config: &'c Config, uplink: &Uplink) -> Option<&'c Uplink> {
    config.uplinks.iter().find(|u| u.name.value == uplink.name.value)
}

/// What an uplink's probe differs in from `[probe]`, if in anything: what it inherits changes there.
fn own_probe<'c>(config: &Config, uplink: &'c Uplink) -> Option<&'c Probe> {
    Some(&uplink.probe).filter(|probe| **probe != config.probe)
}

/// Names in `here` that `there` lacks.
fn missing(here: &Config, there: &Config) -> Vec<String> {
    let missing = here.uplinks.iter().filter(|u| find(there, u).is_none());
    missing.map(|u| u.name.value.clone()).collect()
}

/// Places in the file are no difference, so values are compared one by one.
fn keys(a: &Uplink, b: &Uplink) -> Vec<String> {
    let hop = |g: &Option<Gateway>| g.as_ref().map(|g| g.address.value);
    let source = |g: &Option<Gateway>| g.as_ref().and_then(|g| Some(g.source.as_ref()?.value));
    let prefix = |u: &Uplink| u.prefix6.as_ref().map(|p| p.external.value);
    let rows = [
        ("interface", a.interface.value != b.interface.value),
        ("gateway", hop(&a.v4) != hop(&b.v4)),
        ("source", source(&a.v4) != source(&b.v4)),
        ("gateway6", hop(&a.v6) != hop(&b.v6)),
        ("source6", source(&a.v6) != source(&b.v6)),
        ("weight", a.weight != b.weight),
        ("tier", a.tier != b.tier),
        ("mtu", a.mtu != b.mtu),
        ("prefix6", prefix(a) != prefix(b)),
        ("table", a.table.value != b.table.value),
        ("enabled", a.enabled != b.enabled),
        ("down", a.capacity.down != b.capacity.down),
        ("up", a.capacity.up != b.capacity.up),
        ("quota", a.quota != b.quota),
    ];
    named(&rows)
}

fn sections(a: &Config, b: &Config) -> Vec<String> {
    let names = |list: &[At<String>]| list.iter().map(|n| n.value.clone()).collect::<Vec<_>>();
    let local = |c: &Config| (c.local.enabled, c.local.cgroup.value.clone());
    let nat = |c: &Config| {
        let n = &c.nat;
        let prefix = n.prefix6.as_ref().map(|p| p.value);
        (n.mode, n.on_failover, n.on_failback, n.drain_time, prefix)
    };
    let dns = |c: &Config| {
        let resolvers: Vec<_> = c.dns.resolvers.iter().map(|r| r.value).collect();
        (resolvers, c.dns.ttl_min, c.dns.ttl_max)
    };
    let mpath = |c: &Config| c.mpath.as_ref().map(|m| m.interface.value.clone());
    let metrics = |c: &Config| c.metrics.as_ref().map(|m| m.listen.value);
    let hooks = |c: &Config| c.hooks.as_ref().map(|h| (h.on_change.value.clone(), h.timeout));
    let rows = [
        ("lan", names(&a.lan) != names(&b.lan)),
        ("local", local(a) != local(b)),
        ("nat", nat(a) != nat(b)),
        ("probe", a.probe != b.probe),
        ("health", a.health != b.health),
        ("balance", a.balance != b.balance),
        ("kernel", a.kernel != b.kernel),
        (POLICY, !alike(&a.policies, &b.policies)),
        ("dns", dns(a) != dns(b)),
        ("mpath", mpath(a) != mpath(b)),
        ("metrics", metrics(a) != metrics(b)),
        ("hooks", hooks(a) != hooks(b)),
    ];
    named(&rows)
}

fn alike(a: &[Policy], b: &[Policy]) -> bool {
    let same = |(a, b): (&Policy, &Policy)| {
        let elsewhere = Policy {
            name: b.name.clone(),
            line: b.line,
            ..a.clone()
        };
        a.name.value == b.name.value && elsewhere == *b
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

fn named(rows: &[(&str, bool)]) -> Vec<String> {
    let changed = rows.iter().filter(|(_, changed)| *changed);
    changed.map(|(name, _)| (*name).to_owned()).collect()
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uplinks = self.changed.iter();
        let uplinks = uplinks.map(|(name, keys)| format!("{name} ({})", keys.join(", ")));
        let sections = self.sections.iter().map(|s| match &**s {
            POLICY => format!("[[{s}]]"),
            _ => format!("[{s}]"),
        });
        let changed: Vec<String> = uplinks.chain(sections).collect();
        let mut parts = Vec::new();
        for (what, list) in [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &changed),
        ] {
            if !list.is_empty() {
                parts.push(format!("{what} {}", list.join(", ")));
            }
        }
        match parts.is_empty() {
            true => f.write_str("nothing has changed"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const FILE: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"

[[uplink]]
name = "isp2"
interface = "eth0"
gateway = "10.0.0.1"
"#;

    fn told(new: &str) -> String {
        let read = |text: &str| crate::config::parse(Path::new("u.toml"), text.into()).unwrap();
        Changes::between(&read(FILE), &read(new)).to_string()
    }

    #[test]
    fn a_summary_reads_like_this() {
        assert_eq!(told(FILE), "nothing has changed");
        assert_eq!(told(&format!("# a comment\n{FILE}")), "nothing has changed");
        let new = FILE
            .replace("isp2", "isp3")
            .replace("192.168.1.1\"", "192.168.1.2\"\nweight = 3");
        let new = format!("{new}[probe]\nfall = 2\n[nat]\non_failback = \"drain\"");
        let expected = "added isp3; removed isp2; changed isp1 (gateway, weight), [nat], [probe]";
        assert_eq!(told(&new), expected);
    }

    #[test]
    fn every_section_is_told_and_its_place_is_not() {
        let policy = "[[policy]]\nname = \"web\"\nmatch = { dport = 443 }\nuse = \"isp1\"\n";
        for (text, section) in [
            (policy, "[[policy]]"),
            ("[dns]\nttl_min = \"90s\"\n", "[dns]"),
            ("[mpath]\ninterface = \"mpath0\"\n", "[mpath]"),
            ("[metrics]\nlisten = \"127.0.0.1:9477\"\n", "[metrics]"),
            ("[hooks]\non_change = \"/etc/uplink/hook\"\n", "[hooks]"),
        ] {
            assert_eq!(told(&format!("{FILE}{text}")), format!("changed {section}"));
        }
        let read = |text: &str| crate::config::parse(Path::new("u.toml"), text.into()).unwrap();
        let [here, there] =
            [format!("{FILE}{policy}"), format!("{FILE}\n# moved\n{policy}")].map(|t| read(&t));
        assert_eq!(Changes::between(&here, &there), Changes::default());
    }

    #[test]
    fn every_key_of_an_uplink_is_told() {
        #[rustfmt::skip] // One row, one line.
        let rows = [
            ("interface = \"eth0\"", "interface = \"eth1\"", "isp1 (interface)"),
            ("192.168.1.1\"", "192.168.1.1\"\nsource = \"192.168.1.9\"", "isp1 (source)"),
            ("192.168.1.1\"", "192.168.1.1\"\ngateway6 = \"fd00::1\"", "isp1 (gateway6)"),
            ("192.168.1.1\"", "192.168.1.1\"\ntier = 2", "isp1 (tier)"),
            ("192.168.1.1\"", "192.168.1.1\"\nmtu = 1400", "isp1 (mtu)"),
            ("192.168.1.1\"", "192.168.1.1\"\nenabled = false", "isp1 (enabled)"),
            ("192.168.1.1\"", "192.168.1.1\"\ndown = \"1gbit\"\nup = \"1mbit\"", "isp1 (down, up)"),
            ("192.168.1.1\"", "192.168.1.1\"\nquota = { bytes = \"1GB\" }", "isp1 (quota)"),
            ("192.168.1.1\"", "192.168.1.1\"\nprobe = { rise = 9 }", "isp1 (probe)"),
            ("192.168.1.1\"", "auto\"", "isp1 (gateway)"),
            ("192.168.1.1\"", "192.168.1.1\"\ntable = 9", "isp1 (table)"),
            ("192.168.1.1\"", "192.168.1.1\"\ngateway6 = \"fd00::1\"\nprefix6 = \"fd01::/64\"\n[nat]\nprefix6 = \"fd02::/64\"", "isp1 (gateway6, prefix6), [nat]"),
            ("[[uplink]]", "[lan]\ninterfaces = [\"eth0\"]\n[[uplink]]", "[lan]"),
            ("[[uplink]]", "[local]\ncgroup = \"/a\"\n[[uplink]]", "[local]"),
            ("[[uplink]]", "[kernel]\nstale_after = \"1min\"\n[[uplink]]", "[kernel]"),
        ];
        for (from, to, expected) in rows {
            assert_eq!(told(&FILE.replacen(from, to, 1)), format!("changed {expected}"));
        }
    }
}
