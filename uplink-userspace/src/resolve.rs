//! The configuration applied to this host: names become indices, gateways get their source.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::mark::Mask;
use uplink_common::{Family, MAX_UPLINKS};

use crate::config::{self, At, Config, Gateway, Problem, Problems};
use crate::host::{Host, Interface};

/// An uplink with everything the kernel needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its id in marks and maps, from 1. Stays with the name across restarts.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// The interface's index.
    pub ifindex: u32,
    /// IPv4 leg.
    pub v4: Option<Leg>,
    /// IPv6 leg.
    pub v6: Option<Leg>,
    /// Configured weight.
    pub weight: u32,
    /// Lower is preferred.
    pub tier: u32,
    /// MTU of its routes.
    pub mtu: Option<u32>,
    /// Its routing table.
    pub table: u32,
    /// Its mark, our bits only.
    pub mark: u32,
    /// The mark of this host's sockets placed here.
    pub host_mark: u32,
    /// IPv6 prefix translation instead of SNAT, where configured.
    pub translation: Option<uplink_common::Translation>,
}

/// One address family of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Next hop.
    pub gateway: IpAddr,
    /// Our address towards it.
    pub source: IpAddr,
    /// The connected prefix they share, host bits zero.
    pub prefix: IpNet,
}

impl Uplink {
    /// The leg of a family.
    #[must_use]
    pub const fn leg(&self, family: Family) -> Option<&Leg> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// The uplinks of `config` on `host`, in the order of the file.
///
/// `ids` are those of an earlier run by name. They stay, because marks and pins of live
/// connections carry them. Other uplinks take the lowest id from 1 that `ids` does not mention,
/// so that a new uplink does not inherit the connections of a removed one.
///
/// # Errors
///
/// All that the file says and this host contradicts.
pub fn resolve(config: &Config, host: &Host, ids: &BTreeMap<String, u8>) -> Result<Vec<Uplink>, Problems> {
    let mut problems = Vec::new();
    for name in &config.lan {
        known_interface(host, name, &mut problems);
    }
    tables(config, host, &mut problems);
    let ids = assign(config, ids);
    let highest = ids.iter().copied().max().unwrap_or(0);
    let mut uplinks = Vec::new();
    for (uplink, id) in config.uplinks.iter().zip(ids) {
        let mask = config.kernel.fwmark_mask;
        let marks = (mask.of(id), mask.of_host(id, highest));
        uplinks.extend(one(uplink, host, id, marks, &mut problems));
    }
    Problems::check(&config.file, problems)?;
    Ok(uplinks)
}

/// Where client traffic enters, each interface once: what `[lan]` says, else where the uplinks
/// are, since the gateway of a one-armed router shares its wire with the clients.
#[must_use]
pub fn lan_interfaces(config: &Config) -> Vec<String> {
    let given = config.lan.iter();
    let mut names: Vec<String> = Vec::new();
    let uplinks = config.uplinks.iter().map(|u| &u.interface);
    let uplinks = uplinks.filter(|_| config.lan.is_empty());
    for name in given.chain(uplinks) {
        if !names.contains(&name.value) {
            names.push(name.value.clone());
        }
    }
    names
}

/// An id for each uplink, in their order. An old id that no longer fits the mask is as good as none.
fn assign(config: &Config, old: &BTreeMap<String, u8>) -> Vec<u8> {
    let most = most_ids(config.kernel.fwmark_mask);
    let mut taken = BTreeSet::new();
    let mut kept = Vec::new();
    for uplink in &config.uplinks {
        let id = old.get(&uplink.name.value).copied();
        kept.push(id.filter(|id| (1..=most).contains(id) && taken.insert(*id)));
    }
    let retired: BTreeSet<u8> = old.values().copied().collect();
    let mut ids = Vec::new();
    for id in kept {
        ids.push(id.unwrap_or_else(|| lowest_free(most, &mut taken, &retired)));
    }
    ids
}

fn most_ids(mask: Mask) -> u8 {
    u8::try_from(mask.max_id().min(MAX_UPLINKS)).unwrap_or(u8::MAX)
}

/// The mask holds all uplinks, so some id is free; retired ones serve when no other is left.
fn lowest_free(most: u8, taken: &mut BTreeSet<u8>, retired: &BTreeSet<u8>) -> u8 {
    let fresh = (1..=most).find(|id| !taken.contains(id) && !retired.contains(id));
    let free = fresh.or_else(|| (1..=most).find(|id| !taken.contains(id)));
    let id = free.unwrap_or(most);
    taken.insert(id);
    id
}

fn tables(config: &Config, host: &Host, problems: &mut Vec<Problem>) {
    let help = "another number: `ip route show table all` lists those in use";
    for uplink in &config.uplinks {
        let (name, table) = (&uplink.name.value, uplink.table.value);
        if host.foreign_tables.contains(&table) {
            let message = format!("table {table} of uplink {name} is in use by somebody else");
            problems.push(Problem::new(uplink.table_span(), message, help));
        }
    }
    let catch_all = config.kernel.rule_priority;
    if host.foreign_tables.contains(&catch_all) {
        let message = format!("table {catch_all}, numbered as rule_priority, is in use by somebody else");
        let help = "set [kernel] rule_priority to another number";
        problems.push(Problem::new(0..0, message, help));
    }
}

fn one(
    uplink: &config::Uplink,
    host: &Host,
    id: u8,
    (mark, host_mark): (u32, u32),
    problems: &mut Vec<Problem>,
) -> Option<Uplink> {
    let interface = known_interface(host, &uplink.interface, problems)?;
    let mut leg = |gateway: &Option<Gateway>| {
        let gateway = gateway.as_ref()?;
        leg(gateway, host, interface).map_err(|p| problems.push(p)).ok()
    };
    Some(Uplink {
        id,
        name: uplink.name.value.clone(),
        interface: interface.name.clone(),
        ifindex: interface.index,
        v4: leg(&uplink.v4),
        v6: leg(&uplink.v6),
        weight: uplink.weight,
        tier: uplink.tier,
        mtu: uplink.mtu,
        table: uplink.table.value,
        mark,
        host_mark,
        translation: uplink.prefix6.as_ref().map(translation),
    })
}

/// The record of a prefix translation.
fn translation(prefixes: &config::Prefixes) -> uplink_common::Translation {
    let [internal, external] = [prefixes.internal, prefixes.external.value];
    let of = |net: ipnet::Ipv6Net| IpAddr::from(net.network()).into();
    let length = u32::from(internal.prefix_len());
    uplink_common::Translation::new(of(internal), of(external), length)
}

fn known_interface<'h>(
    host: &'h Host,
    name: &At<String>,
    problems: &mut Vec<Problem>,
) -> Option<&'h Interface> {
    let found = host.interface(&name.value);
    if found.is_none() {
        let names: Vec<&str> = host.interfaces.iter().map(|i| &*i.name).collect();
        let message = format!("interface {} does not exist", name.value);
        let help = format!("this host has: {}", listed(&names));
        problems.push(Problem::new(name.span.clone(), message, help));
    }
    found
}

fn leg(gateway: &Gateway, host: &Host, interface: &Interface) -> Result<Leg, Problem> {
    let At { value: address, span } = &gateway.address;
    let refuse = |message: String, help: String| Problem::new(span.clone(), message, help);
    let mut all = host.interfaces.iter().flat_map(|i| i.addresses.iter());
    if all.any(|net| net.addr() == *address) {
        let help = "the address of the ISP's router, as `ip route show default` prints it";
        return Err(refuse(
            format!("gateway {address} is this host's own address"),
            help.into(),
        ));
    }
    let name = &interface.name;
    let Some(towards) = interface.towards(*address) else {
        let help = format!("{name} has: {}", listed(&subnets(interface, *address)));
        return Err(refuse(
            format!("gateway {address} is outside every subnet of {name}"),
            help,
        ));
    };
    if no_host_of(towards, *address) {
        let help = format!("{} names no single host there", towards.trunc());
        return Err(refuse(
            format!("gateway {address} cannot be the address of a router"),
            help,
        ));
    }
    let source = source(gateway, interface, towards)?;
    let prefix = towards.trunc();
    Ok(Leg {
        gateway: *address,
        source,
        prefix,
    })
}

fn source(gateway: &Gateway, interface: &Interface, towards: IpNet) -> Result<IpAddr, Problem> {
    let name = &interface.name;
    if let Some(source) = &gateway.source {
        if interface.addresses.iter().any(|net| net.addr() == source.value) {
            return Ok(source.value);
        }
        let message = format!("source {} is not an address of {name}", source.value);
        let help = format!("{name} has: {}", listed(&addresses(interface, source.value)));
        return Err(Problem::new(source.span.clone(), message, help));
    }
    if !link_local(towards.addr()) {
        return Ok(towards.addr());
    }
    // The router is reached by link-local addresses, the Internet needs a global one.
    let global = interface.addresses.iter().map(IpNet::addr);
    let global = global
        .filter(|a| a.is_ipv6() && !link_local(*a))
        .min_by_key(|a| unique_local(*a));
    global.ok_or_else(|| {
        let message = format!("{name} has no IPv6 address but link-local ones");
        let help = "give it a global address, or remove gateway6";
        Problem::new(gateway.address.span.clone(), message, help)
    })
}

/// The network's own or its broadcast address, where the subnet is large enough to have them.
fn no_host_of(net: IpNet, address: IpAddr) -> bool {
    let small = net.max_prefix_len() - net.prefix_len() < 2;
    net.addr().is_ipv4() && !small && (net.network() == address || net.broadcast() == address)
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

fn unique_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unique_local())
}

/// The subnets of an interface in the family of `like`.
fn subnets(interface: &Interface, like: IpAddr) -> Vec<String> {
    let same = interface
        .addresses
        .iter()
        .filter(|n| n.addr().is_ipv4() == like.is_ipv4());
    same.map(|n| n.trunc().to_string()).collect()
}

/// The addresses of an interface in the family of `like`, without those that cannot be a source.
fn addresses(interface: &Interface, like: IpAddr) -> Vec<String> {
    let all = interface.addresses.iter().map(IpNet::addr);
    let same = all.filter(|a| a.is_ipv4() == like.is_ipv4() && !link_local(*a));
    same.map(|a| a.to_string()).collect()
}

fn listed<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.is_empty() {
        true => "nothing".into(),
        false => items.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const FILE: &str = r#"
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

    fn host() -> Host {
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
            addresses,
            deprecated: vec![],
        };
        let lan0 = Interface {
            index: 8,
            name: "lan0".into(),
            running: true,
            addresses: vec!["10.9.0.1/24".parse().unwrap()],
            deprecated: vec![],
        };
        Host {
            interfaces: vec![eth0, lan0],
            foreign_tables: vec![77],
            ..Host::default()
        }
    }

    fn config(text: &str) -> Config {
        config::parse(Path::new("u.toml"), text.into()).unwrap()
    }

    fn ids(pairs: &[(&str, u8)], config: &Config) -> Vec<u8> {
        let old = pairs.iter().map(|(n, id)| ((*n).to_owned(), *id)).collect();
        resolve(config, &host(), &old)
            .unwrap()
            .iter()
            .map(|u| u.id)
            .collect()
    }

    #[test]
    fn the_articles_scenario_finds_its_sources() {
        let uplinks = resolve(&config(FILE), &host(), &BTreeMap::new()).unwrap();
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
        let uplinks = resolve(&config(FILE), &host(), &BTreeMap::new()).unwrap();
        let v6 = uplinks[0].leg(Family::V6).unwrap();
        assert_eq!(v6.source.to_string(), "2001:db8::2");
        assert_eq!(v6.prefix.to_string(), "fe80::/64");
        let given = FILE.replace("\"fe80::1\"", "\"fe80::1\"\nsource6 = \"fd00::2\"");
        let uplinks = resolve(&config(&given), &host(), &BTreeMap::new()).unwrap();
        assert_eq!(uplinks[0].v6.unwrap().source.to_string(), "fd00::2");
    }

    #[test]
    fn a_prefix_is_translated_from_inside_to_outside() {
        let text = FILE.replace("\"fe80::1\"", "\"fe80::1\"\nprefix6 = \"2001:db8:1::/56\"");
        let c = config(&format!("{text}[nat]\nprefix6 = \"fd00:10::/56\""));
        let uplinks = resolve(&c, &host(), &BTreeMap::new()).unwrap();
        let t = uplinks[0].translation.unwrap();
        let of = |text: &str| text.parse::<IpAddr>().unwrap().into();
        assert_eq!(
            (t.internal, t.external, t.length),
            (of("fd00:10::"), of("2001:db8:1::"), 56)
        );
        assert_eq!(uplinks[1].translation, None);
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
            ("192.168.1.1\"", "192.168.1.1\"\nsource = \"192.168.1.7\"", "u.toml:6:10", "source 192.168.1.7 is not an address of eth0", "192.168.1.100, 10.0.0.2"),
            ("192.168.1.1\"", "192.168.1.1\"\ntable = 77", "u.toml:6:9", "table 77 of uplink isp1 is in use by somebody else", "ip route"),
            ("\n[[uplink]]", "[lan]\ninterfaces = [\"eth0\", \"lan7\"]\n[[uplink]]", "u.toml:2:23", "interface lan7 does not exist", "lan0"),
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
}
