//! Interfaces, addresses, neighbours and other people's routing as they are, and a bell that
//! rings on changes.

mod default_route;
mod foreign;
mod neighbours;
mod watch;
mod wires;

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::aggregate;
use crate::host::{Host, Interface, Peer};
use crate::routes::socket::Netlink;
use crate::sysctl;

pub use neighbours::forget_neighbour;
pub(crate) use neighbours::{address as neighbour_address, mac as neighbour_mac};
pub use watch::{Event, NeighbourState, watch};
pub use wires::{Wire, below, takes_tags, wires};

/// The host as it is now. Routes with `protocol` are ours, so their tables are not foreign.
pub async fn snapshot(protocol: u8) -> Result<Host> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    let links = netlink
        .dump(Message::GetLink(LinkMessage::default()))
        .await
        .context("reading interfaces")?;
    let mut interfaces: Vec<Interface> = links.iter().filter_map(interface).collect();
    let aggregates = aggregates(&links);
    let addresses = netlink
        .dump(Message::GetAddress(AddressMessage::default()))
        .await
        .context("reading addresses")?;
    assign(&mut interfaces, &addresses);
    let rules = foreign::rules(&netlink, protocol)
        .await
        .context("reading rules")?;
    let tables = foreign::tables(&netlink, protocol, &rules, &aggregates).await;
    let tables = tables.context("reading routes")?;
    let neighbours = neighbours::read(&netlink).await.context("reading neighbours")?;
    Ok(Host {
        interfaces,
        foreign_tables: tables.foreign.into_iter().collect(),
        neighbours,
        rules,
        tables: tables.destinations,
        default_routes: tables.defaults,
        peers: addresses.iter().filter_map(peer).collect(),
        aggregates,
        entering: tables.entering,
    })
}

fn aggregates(links: &[Message]) -> Vec<u32> {
    let ours = |message: &Message| match message {
        Message::NewLink(link) => aggregate::is_ours(link).then_some(link.header.index),
        _ => None,
    };
    links.iter().filter_map(ours).collect()
}

fn interface(message: &Message) -> Option<Interface> {
    let Message::NewLink(link) = message else {
        return None;
    };
    let name = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    // The kernel sets RUNNING while the operational state is up or unknown.
    let running = LinkFlags::Up | LinkFlags::Running;
    Some(Interface {
        index: link.header.index,
        running: link.header.flags.contains(running),
        mtu: mtu(link, &name),
        addresses: Vec::new(),
        deprecated: Vec::new(),
        name,
    })
}

/// A router may announce a lower MTU for IPv6 than the link has.
fn mtu(link: &LinkMessage, name: &str) -> [u32; 2] {
    let own = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let own = own.unwrap_or(0);
    let announced = sysctl::read(&format!("net/ipv6/conf/{name}/mtu")).and_then(|v| v.parse().ok());
    [own, announced.map_or(own, |v6: u32| v6.min(own))]
}

/// Gives every interface its addresses: lasting ones before temporary ones, deprecated ones
/// last, since the first that fits becomes an uplink's source.
fn assign(interfaces: &mut [Interface], addresses: &[Message]) {
    let mut found: Vec<(u8, u32, IpNet)> = addresses.iter().filter_map(address).collect();
    found.sort_by_key(|(rank, ..)| *rank);
    for (rank, index, net) in found {
        if let Some(interface) = interfaces.iter_mut().find(|i| i.index == index) {
            interface.addresses.push(net);
            if rank == DEPRECATED {
                interface.deprecated.push(net.addr());
            }
        }
    }
}

fn address(message: &Message) -> Option<(u8, u32, IpNet)> {
    let Message::NewAddress(message) = message else {
        return None;
    };
    let (mut local, mut peer) = (None, None);
    let mut flags = from_header(message.header.flags);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    if flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    // On a point-to-point link ADDRESS is the other end's; IPv6 has only ADDRESS otherwise.
    let ours: IpAddr = local.or(peer)?;
    let net = IpNet::new(ours, message.header.prefix_len).ok()?;
    Some((rank(flags), message.header.index, net))
}

/// The far end, where an address has one.
fn peer(message: &Message) -> Option<Peer> {
    let Message::NewAddress(message) = message else {
        return None;
    };
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    // Without a far end both are our own.
    let (local, remote) = (local?, remote.filter(|r| Some(*r) != local)?);
    Some(Peer {
        ifindex: message.header.index,
        local,
        remote: IpNet::new(remote, message.header.prefix_len).ok()?,
    })
}

const fn from_header(flags: AddressHeaderFlags) -> AddressFlags {
    AddressFlags::from_bits_retain(flags.bits() as u32)
}

/// The last rank.
const DEPRECATED: u8 = 2;

const fn rank(flags: AddressFlags) -> u8 {
    if flags.contains(AddressFlags::Deprecated) {
        DEPRECATED
    } else {
        // Temporary is the same bit.
        flags.contains(AddressFlags::Secondary) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(address: [u8; 4], flags: AddressFlags) -> Message {
        let mut m = AddressMessage::default();
        m.header.index = 2;
        m.header.prefix_len = 24;
        m.attributes = vec![
            AddressAttribute::Address(IpAddr::from(address)),
            AddressAttribute::Flags(flags),
        ];
        Message::NewAddress(m)
    }

    #[test]
    fn lasting_addresses_come_first_and_duplicates_not_at_all() {
        let mut interfaces = [Interface {
            index: 2,
            name: "eth0".into(),
            running: true,
            mtu: [1500; 2],
            addresses: vec![],
            deprecated: vec![],
        }];
        let found = [
            message([10, 0, 0, 1], AddressFlags::Deprecated),
            message([10, 0, 0, 2], AddressFlags::Secondary),
            message([10, 0, 0, 3], AddressFlags::Dadfailed),
            message([10, 0, 0, 4], AddressFlags::Permanent),
        ];
        assign(&mut interfaces, &found);
        let text: Vec<String> = interfaces[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.4/24", "10.0.0.2/24", "10.0.0.1/24"]);
        assert_eq!(interfaces[0].deprecated, [IpAddr::from([10, 0, 0, 1])]);
    }

    #[test]
    fn a_far_end_is_no_address_of_ours() {
        let pair = |local: [u8; 4], address: [u8; 4]| {
            let mut m = AddressMessage::default();
            (m.header.index, m.header.prefix_len) = (5, 32);
            m.attributes = vec![
                AddressAttribute::Address(address.into()),
                AddressAttribute::Local(local.into()),
            ];
            Message::NewAddress(m)
        };
        let ppp = pair([100, 64, 0, 5], [100, 64, 0, 1]);
        let found = peer(&ppp).unwrap();
        assert_eq!((found.ifindex, found.local), (5, [100, 64, 0, 5].into()));
        assert_eq!(found.remote.to_string(), "100.64.0.1/32");
        assert_eq!(address(&ppp).unwrap().2.to_string(), "100.64.0.5/32");
        assert_eq!(peer(&pair([10, 0, 0, 1], [10, 0, 0, 1])), None);
        assert_eq!(peer(&message([10, 0, 0, 1], AddressFlags::Permanent)), None);
    }

    #[test]
    fn running_needs_up_and_carrier() {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName("eth0".into())];
        link.header.flags = LinkFlags::Up;
        let down = interface(&Message::NewLink(link.clone())).unwrap();
        link.header.flags |= LinkFlags::Running;
        let up = interface(&Message::NewLink(link)).unwrap();
        assert_eq!((down.running, up.running), (false, true));
    }
}
