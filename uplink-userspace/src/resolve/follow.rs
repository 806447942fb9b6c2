//! A running daemon's uplinks on a host that changes: what is known once stays usable.

use std::fmt;

use uplink_common::Family;

use super::{Leg, Place, Uplink, family_name, legs};
use crate::config::{Config, Gateway, NextHop};
use crate::host::{Host, Interface};

/// The uplinks as the host allows them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The same uplinks with the same ids, marks and tables.
    pub uplinks: Vec<Uplink>,
    /// Legs that do not fit this host at the moment; among `uplinks` they are as they were,
    /// `None` if they never fitted.
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

/// A new configuration on a host that lacks a leg for the moment: it keeps the one that the running daemon has for the uplink
/// of that name and interface, if its gateway is found out or still the same.
#[must_use]
pub fn keep(config: &Config, mut uplinks: Vec<Uplink>, running: &[Uplink]) -> Vec<Uplink> {
    for u in &mut uplinks {
        let same = |old: &&Uplink| (&old.name, &old.interface) == (&u.name, &u.interface);
        let (Some(old), Some(configured)) = (
            running.iter().find(same),
            config.uplinks.iter().find(|c| c.name.value == u.name),
        ) else {
            continue;
        };
        let keeps = |gateway: &Option<Gateway>, leg: &Leg| match gateway.as_ref().map(|g| g.address.value) {
            Some(NextHop::Auto) => true,
            Some(NextHop::Fixed(address)) => address == leg.gateway,
            None => false,
        };
        u.v4 = u.v4.or(old.v4.filter(|leg| keeps(&configured.v4, leg)));
        u.v6 = u.v6.or(old.v6.filter(|leg| keeps(&configured.v6, leg)));
        if u.ifindex == 0 {
            u.ifindex = old.ifindex;
        }
    }
    uplinks
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
/// off with what it had than with nothing. A leg with `gateway = "auto"` that was missing is there
/// as soon as its default route is.
#[must_use]
pub fn follow(config: &Config, host: &Host, previous: &[Uplink]) -> Followed {
    let mut followed = Followed::default();
    for u in previous {
        let mut now = u.clone();
        let uplink = config.uplinks.iter().find(|c| c.name.value == u.name);
        if let Some(uplink) = uplink {
            let found = host.interface(&u.interface);
            now.ifindex = found.map_or(u.ifindex, |i| i.index);
            for family in Family::ALL {
                let place = Place {
                    config,
                    uplink,
                    family,
                    host,
                };
                followed.leg(&place, &mut now, found);
            }
        }
        followed.uplinks.push(now);
    }
    followed
}

impl Followed {
    fn leg(&mut self, place: &Place<'_>, u: &mut Uplink, interface: Option<&Interface>) {
        let family = place.family;
        let Some(gateway) = place.uplink.gateway(family) else {
            return;
        };
        match legs::find(place, interface, gateway, u.leg(family)) {
            Ok(now) => *u.leg_mut(family) = Some(now),
            Err(reason) => self.unusable.push(Unusable::new(&u.name, family, reason)),
        }
    }
}

impl Unusable {
    pub(super) fn new(name: &str, family: Family, reason: String) -> Self {
        Self {
            name: name.into(),
            family,
            reason,
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, family_name(self.family), self.reason)
    }
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
        let ids = BTreeMap::from([("isp1".into(), 9)]);
        let before = super::super::resolve(&config, &host, &ids).unwrap().uplinks;
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
