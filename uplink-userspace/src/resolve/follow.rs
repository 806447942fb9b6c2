//! A running daemon's uplinks on a host that changes: what is known once stays usable.

use uplink_common::Family;

use super::{Leg, Uplink, legs};
use crate::config::{self, Config, Gateway};
use crate::host::{Host, Interface};

/// The uplinks as the host allows them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The same uplinks with the same ids, marks and tables.
    pub uplinks: Vec<Uplink>,
    /// Legs that no longer fit this host; among `uplinks` they are as they were.
    pub unusable: Vec<Unusable>,
}

/// A leg that does not fit the host at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The uplink's name.
    pub name: String,
    /// The family of the leg.
    pub family: Family,
    /// Why, for people.
    pub reason: String,
}

impl Followed {
    /// Whether that leg fits the host.
    #[must_use]
    pub fn is_usable(&self, u: &Uplink, family: Family) -> bool {
        let mut unusable = self.unusable.iter();
        !unusable.any(|other| other.name == u.name && other.family == family)
    }
}

/// Looks interfaces, sources and prefixes of `previous` up again.
///
/// Nothing here is an error: interfaces and addresses come back, and until then a leg is better
/// off with what it had than with nothing.
#[must_use]
pub fn follow(config: &Config, host: &Host, previous: &[Uplink]) -> Followed {
    let mut followed = Followed::default();
    for u in previous {
        let mut now = u.clone();
        let configured = config.uplinks.iter().find(|c| c.name.value == u.name);
        if let Some(configured) = configured {
            let found = host.interface(&u.interface);
            now.ifindex = found.map_or(u.ifindex, |i| i.index);
            for family in Family::ALL {
                followed.leg(&mut now, family, configured, host, found);
            }
        }
        followed.uplinks.push(now);
    }
    followed
}

impl Followed {
    fn leg(
        &mut self,
        u: &mut Uplink,
        family: Family,
        configured: &config::Uplink,
        host: &Host,
        interface: Option<&Interface>,
    ) {
        let (gateway, leg) = match family {
            Family::V4 => (&configured.v4, &mut u.v4),
            Family::V6 => (&configured.v6, &mut u.v6),
        };
        let Some(gateway) = gateway else { return };
        let derived = match interface {
            Some(interface) => derive(gateway, host, interface, leg.as_ref()),
            None => Err(format!("interface {} does not exist", u.interface)),
        };
        match derived {
            Ok(now) => *leg = Some(now),
            Err(reason) => self.unusable.push(Unusable {
                name: u.name.clone(),
                family,
                reason,
            }),
        }
    }
}

/// An address that serves as well as the one of `before` is no reason to change: connections
/// carry it.
fn derive(
    gateway: &Gateway,
    host: &Host,
    interface: &Interface,
    before: Option<&Leg>,
) -> Result<Leg, String> {
    let leg = legs::derive(gateway, host, interface).map_err(|m| m.reason(gateway, interface))?;
    let given = gateway.source.is_some();
    let kept = before.filter(|b| !given && legs::as_good(b.source, &leg, interface));
    Ok(Leg {
        source: kept.map_or(leg.source, |b| b.source),
        ..leg
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FILE, config, host};
    use super::*;
    use std::collections::BTreeMap;

    /// The uplinks of the file once found on the host, then followed to what `change` makes of it.
    fn followed(file: &str, change: impl Fn(&mut Host)) -> (Vec<Uplink>, Followed) {
        let config = config(file);
        let mut host = host();
        let before = super::super::resolve(&config, &host, &BTreeMap::from([("isp1".into(), 9)])).unwrap();
        change(&mut host);
        let followed = follow(&config, &host, &before);
        (before, followed)
    }

    fn drop_address(host: &mut Host, text: &str) {
        host.interfaces[0].addresses.retain(|net| net.to_string() != text);
    }

    fn add_address(host: &mut Host, at: usize, text: &str) {
        host.interfaces[0].addresses.insert(at, text.parse().unwrap());
    }

    fn reasons(followed: &Followed) -> Vec<String> {
        let shown = |u: &Unusable| format!("{} {:?}: {}", u.name, u.family, u.reason);
        followed.unusable.iter().map(shown).collect()
    }

    fn sources(uplinks: &[Uplink]) -> Vec<String> {
        let legs = uplinks.iter().flat_map(|u| [u.v4, u.v6]).flatten();
        legs.map(|leg| leg.source.to_string()).collect()
    }

    #[test]
    fn an_unchanged_host_changes_nothing() {
        let (before, now) = followed(FILE, |_| {});
        assert_eq!((now.uplinks, now.unusable), (before, vec![]));
    }

    #[test]
    fn an_interface_made_anew_has_another_index() {
        let (before, now) = followed(FILE, |host| host.interfaces[0].index = 70);
        assert!(now.unusable.is_empty());
        let anew: Vec<Uplink> = before.into_iter().map(|u| Uplink { ifindex: 70, ..u }).collect();
        assert_eq!(now.uplinks, anew);
    }

    #[test]
    fn without_its_interface_an_uplink_keeps_what_it_had() {
        let (before, now) = followed(FILE, |host| host.interfaces[0].name = "eth1".into());
        assert_eq!(now.uplinks, before);
        let gone = "interface eth0 does not exist";
        assert_eq!(
            reasons(&now),
            [
                format!("isp1 V4: {gone}"),
                format!("isp1 V6: {gone}"),
                format!("isp2 V4: {gone}")
            ]
        );
    }

    #[test]
    fn an_address_that_is_gone_takes_one_leg_out() {
        let (before, now) = followed(FILE, |host| drop_address(host, "192.168.1.100/24"));
        assert_eq!(now.uplinks, before);
        assert_eq!(
            reasons(&now),
            ["isp1 V4: eth0 has no address in the subnet of 192.168.1.1"]
        );
        let usable = |u: usize, family| now.is_usable(&now.uplinks[u], family);
        assert_eq!(
            [
                usable(0, Family::V4),
                usable(0, Family::V6),
                usable(1, Family::V4)
            ],
            [false, true, true]
        );
    }

    #[test]
    fn another_address_or_prefix_is_taken() {
        let (_, now) = followed(FILE, |host| {
            drop_address(host, "192.168.1.100/24");
            add_address(host, 0, "192.168.1.77/25");
        });
        assert!(now.unusable.is_empty());
        let leg = now.uplinks[0].v4.unwrap();
        assert_eq!(
            (leg.source.to_string(), leg.prefix.to_string()),
            ("192.168.1.77".into(), "192.168.1.0/25".into())
        );
    }

    #[test]
    fn a_source_changes_only_when_it_has_to() {
        let more = |host: &mut Host| {
            add_address(host, 0, "192.168.1.5/24");
            add_address(host, 0, "2001:db8::5/64");
        };
        let (before, now) = followed(FILE, more);
        assert_eq!(sources(&now.uplinks), sources(&before));
        let (_, now) = followed(FILE, |host| {
            more(host);
            host.interfaces[0].deprecated = vec!["2001:db8::2".parse().unwrap()];
        });
        assert_eq!(
            sources(&now.uplinks),
            ["192.168.1.100", "2001:db8::5", "10.0.0.2"]
        );
        // Nearer to the gateway is better.
        let (_, now) = followed(FILE, |host| add_address(host, 0, "192.168.1.5/28"));
        assert_eq!(sources(&now.uplinks)[0], "192.168.1.5");
    }

    #[test]
    fn a_configured_source_that_is_gone_is_missed() {
        let given = FILE.replace("\"192.168.1.1\"", "\"192.168.1.1\"\nsource = \"10.0.0.2\"");
        let (before, now) = followed(&given, |host| {
            drop_address(host, "10.0.0.2/16");
            add_address(host, 0, "10.0.0.3/16");
        });
        assert_eq!(now.uplinks[0], before[0]);
        assert_eq!(
            reasons(&now),
            ["isp1 V4: eth0 does not have the address 10.0.0.2"]
        );
        assert_eq!(now.uplinks[1].v4.unwrap().source.to_string(), "10.0.0.3");
    }

    #[test]
    fn without_a_global_address_only_ipv6_is_out() {
        let (_, now) = followed(FILE, |host| host.interfaces[0].addresses.truncate(3));
        assert_eq!(
            reasons(&now),
            ["isp1 V6: eth0 has no IPv6 address but link-local ones"]
        );
    }
}
