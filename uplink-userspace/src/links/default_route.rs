//! Default routes of `main`: where the provider's router is, as DHCP, router advertisements, PPP
//! or an administrator found it.

use std::net::IpAddr;

use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RoutePreference, RouteType, RouteVia,
};
use uplink_common::Family;

use crate::host::DefaultRoute;
use crate::routes::wire;

/// The next hops of a route, if it is a default route. One that refuses or discards has none.
pub(super) fn next_hops(family: Family, route: &RouteMessage) -> Vec<DefaultRoute> {
    let header = &route.header;
    let general =
        header.destination_prefix_length == 0 && header.source_prefix_length == 0 && header.tos == 0;
    let real = header.kind == RouteType::Unicast && !header.flags.contains(RouteFlags::Cloned);
    if !general || !real {
        return Vec::new();
    }
    let mut found = DefaultRoute {
        family,
        ifindex: 0,
        gateway: gateway(&route.attributes),
        source: None,
        metric: 0,
        preference: 0,
    };
    let mut hops: &[RouteNextHop] = &[];
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found.ifindex = *index,
            RouteAttribute::PrefSource(address) => found.source = wire::ip(address),
            RouteAttribute::Priority(metric) => found.metric = *metric,
            RouteAttribute::Preference(preference) => found.preference = rank(*preference),
            RouteAttribute::MultiPath(all) => hops = all,
            _ => {}
        }
    }
    if hops.is_empty() {
        return vec![found];
    }
    let one = |hop: &RouteNextHop| DefaultRoute {
        ifindex: hop.interface_index,
        gateway: gateway(&hop.attributes),
        ..found
    };
    hops.iter().map(one).collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(address) => wire::ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

/// RFC 4191, section 2.1: the reserved value counts as medium.
const fn rank(preference: RoutePreference) -> i8 {
    match preference {
        RoutePreference::High => 1,
        RoutePreference::Low => -1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::RouteAddress;

    fn route(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    fn by_dhcp() -> RouteMessage {
        route(vec![
            RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into())),
            RouteAttribute::Oif(7),
            RouteAttribute::PrefSource(RouteAddress::Inet([10, 0, 0, 9].into())),
            RouteAttribute::Priority(100),
        ])
    }

    #[test]
    fn a_default_route_is_read_whole() {
        let expected = DefaultRoute {
            family: Family::V4,
            ifindex: 7,
            gateway: Some([10, 0, 0, 1].into()),
            source: Some([10, 0, 0, 9].into()),
            metric: 100,
            preference: 0,
        };
        assert_eq!(next_hops(Family::V4, &by_dhcp()), [expected]);
        let bare = next_hops(Family::V4, &route(vec![RouteAttribute::Oif(9)]));
        let expected = DefaultRoute {
            ifindex: 9,
            gateway: None,
            source: None,
            metric: 0,
            ..expected
        };
        assert_eq!(bare, [expected]);
    }

    #[test]
    fn every_next_hop_of_a_multipath_route_counts() {
        let hop = |ifindex, last| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = ifindex;
            let gateway = RouteAddress::Inet([10, 0, 0, last].into());
            hop.attributes = vec![RouteAttribute::Gateway(gateway)];
            hop
        };
        let hops = vec![hop(3, 1), hop(4, 2)];
        let found = next_hops(
            Family::V4,
            &route(vec![RouteAttribute::Priority(5), RouteAttribute::MultiPath(hops)]),
        );
        let shown: Vec<_> = found.iter().map(|r| (r.ifindex, r.gateway, r.metric)).collect();
        let gateway = |last| Some([10, 0, 0, last].into());
        assert_eq!(shown, [(3, gateway(1), 5), (4, gateway(2), 5)]);
    }

    #[test]
    fn preferences_are_ordered_and_gateways_may_be_of_the_other_family() {
        let prefer = |p| next_hops(Family::V6, &route(vec![RouteAttribute::Preference(p)]))[0].preference;
        assert!(prefer(RoutePreference::High) > prefer(RoutePreference::Medium));
        assert!(prefer(RoutePreference::Medium) > prefer(RoutePreference::Low));
        assert_eq!(prefer(RoutePreference::Invalid), prefer(RoutePreference::Medium));
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        let found = next_hops(Family::V4, &route(vec![via]));
        assert_eq!(found[0].gateway, Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn what_is_narrower_refuses_or_is_a_copy_is_no_default_route() {
        let mut messages = [by_dhcp(), by_dhcp(), by_dhcp(), by_dhcp(), by_dhcp()];
        // 0.0.0.0/1, as some VPNs have it.
        messages[0].header.destination_prefix_length = 1;
        messages[1].header.source_prefix_length = 24;
        messages[2].header.tos = 16;
        messages[3].header.kind = RouteType::Unreachable;
        messages[4].header.flags = RouteFlags::Cloned;
        for message in messages {
            assert_eq!(next_hops(Family::V4, &message), []);
        }
    }
}
