//! Which uplink is behind a MAC address: on one NIC nothing else tells where a packet came from.

use std::collections::BTreeMap;

use uplink_common::record::AMBIGUOUS;
use uplink_common::{Family, Station};

use crate::host::Host;
use crate::resolve::{Leg, Uplink};
use crate::status::Warning;

/// The gateways as frames show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stations {
    /// Each known gateway with its uplink's id, or [`AMBIGUOUS`].
    pub known: Vec<(Station, u32)>,
    /// Pairs of uplinks whose gateways have one MAC address on one interface, by name.
    pub shared: Vec<(String, String)>,
}

/// Looks the gateways of both families up among the neighbours.
#[must_use]
pub fn stations(host: &Host, uplinks: &[Uplink]) -> Stations {
    let mut owners: BTreeMap<(u32, [u8; 6]), &Uplink> = BTreeMap::new();
    let mut found = Stations::default();
    let legs = uplinks
        .iter()
        .flat_map(|u| Family::ALL.into_iter().filter_map(move |f| Some((u, u.leg(f)?))));
    for (u, leg) in legs {
        let Some(mac) = mac(host, u, leg) else { continue };
        let owner = *owners.entry((u.ifindex, mac)).or_insert(u);
        found.add(station(u.ifindex, mac), owner, u);
    }
    found
}

impl Stations {
    fn add(&mut self, station: Station, owner: &Uplink, u: &Uplink) {
        let known = self.known.iter_mut().find(|(s, _)| *s == station);
        let Some((_, id)) = known else {
            self.known.push((station, u32::from(u.id)));
            return;
        };
        if owner.id != u.id {
            *id = AMBIGUOUS;
            let pair = (owner.name.clone(), u.name.clone());
            if !self.shared.contains(&pair) {
                self.shared.push(pair);
            }
        }
    }
}

/// What two uplinks with such gateways have to put up with.
#[must_use]
pub fn warning(a: &str, b: &str) -> Warning {
    Warning {
        code: "shared-mac".into(),
        text: format!(
            "the gateways of {a} and {b} have one MAC address: what comes in is told apart by its destination address alone"
        ),
        remedy: "give each uplink a source address of its own, or an interface of its own".into(),
    }
}

fn mac(host: &Host, u: &Uplink, leg: &Leg) -> Option<[u8; 6]> {
    let mut neighbours = host.neighbours.iter();
    let found = neighbours.find(|n| n.ifindex == u.ifindex && n.address == leg.gateway)?;
    Some(found.mac)
}

const fn station(ifindex: u32, mac: [u8; 6]) -> Station {
    Station {
        ifindex,
        mac,
        pad: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Neighbour;
    use crate::weights::tests::uplink;

    fn host(neighbours: &[(u32, &str, u8)]) -> Host {
        let neighbour = |(ifindex, address, mac): &(u32, &str, u8)| Neighbour {
            ifindex: *ifindex,
            address: address.parse().unwrap(),
            mac: [2, 0, 0, 0, 0, *mac],
        };
        Host {
            neighbours: neighbours.iter().map(neighbour).collect(),
            ..Host::default()
        }
    }

    /// Last bytes of MAC addresses with ids, and the pairs.
    type Known = (Vec<(u8, u32)>, Vec<(String, String)>);

    fn known(host: &Host, uplinks: &[Uplink]) -> Known {
        let found = stations(host, uplinks);
        let known = found.known.iter().map(|(s, id)| (s.mac[5], *id)).collect();
        (known, found.shared)
    }

    /// Two uplinks, both with IPv6.
    fn uplinks() -> [Uplink; 2] {
        [1, 2].map(|id| {
            let mut u = uplink(id, 1, 1);
            u.v6 = Some(Leg {
                gateway: format!("fe80::{id}").parse().unwrap(),
                source: "2001:db8::9".parse().unwrap(),
                prefix: "fe80::/64".parse().unwrap(),
            });
            u
        })
    }

    #[test]
    fn both_families_of_an_uplink_may_share_a_router() {
        let host = host(&[
            (2, "10.0.1.1", 11),
            (2, "fe80::1", 11),
            (2, "10.0.2.1", 12),
            (2, "fe80::2", 22),
            (2, "10.0.0.77", 77),
        ]);
        assert_eq!(
            known(&host, &uplinks()),
            (vec![(11, 1), (12, 2), (22, 2)], vec![])
        );
    }

    #[test]
    fn one_mac_for_two_uplinks_names_neither_and_is_told_once() {
        let host = host(&[
            (2, "10.0.1.1", 5),
            (2, "fe80::1", 5),
            (2, "10.0.2.1", 5),
            (2, "fe80::2", 5),
        ]);
        let pair = ("isp1".to_owned(), "isp2".to_owned());
        assert_eq!(known(&host, &uplinks()), (vec![(5, AMBIGUOUS)], vec![pair]));
    }

    #[test]
    fn the_same_mac_elsewhere_is_another_station() {
        let mut uplinks = uplinks();
        uplinks[1].ifindex = 3;
        let host = host(&[(2, "10.0.1.1", 5), (3, "10.0.2.1", 5), (2, "10.0.2.1", 9)]);
        assert_eq!(known(&host, &uplinks), (vec![(5, 1), (5, 2)], vec![]));
    }

    #[test]
    fn an_unknown_gateway_is_no_station() {
        assert_eq!(stations(&host(&[]), &uplinks()), Stations::default());
    }
}
