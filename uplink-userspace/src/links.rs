//! Interfaces, addresses and foreign tables as they are, and a bell that rings on changes.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::mpsc;
use uplink_common::Family;

use crate::host::{Host, Interface};
use crate::routes::socket::Netlink;
use crate::routes::{tolerate, wire};

/// Unspecified, default, main and local: everybody's tables.
const COMMON_TABLES: [u32; 4] = [0, 253, 254, 255];
/// More events than this say nothing new: every one of them means "look again".
const PENDING: usize = 16;
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Why to take a new snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link, an address, a route or a rule changed.
    Changed,
    /// The kernel had more to say than the socket holds: anything may have changed.
    Overrun,
}

/// The host as it is now. Routes with `protocol` are ours, so their tables are not foreign.
pub async fn snapshot(protocol: u8) -> Result<Host> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    let links = netlink
        .dump(Message::GetLink(LinkMessage::default()))
        .await
        .context("reading interfaces")?;
    let mut interfaces: Vec<Interface> = links.iter().filter_map(interface).collect();
    let addresses = netlink
        .dump(Message::GetAddress(AddressMessage::default()))
        .await
        .context("reading addresses")?;
    assign(&mut interfaces, &addresses);
    let foreign_tables = foreign_tables(&netlink, protocol).await?;
    Ok(Host {
        interfaces,
        foreign_tables,
    })
}

/// Rings on every change of a link, address, route or rule in this network namespace. Events
/// are not decoded: each means that a new snapshot is due. The receiver ends if the socket
/// breaks.
pub async fn watch() -> Result<mpsc::Receiver<Event>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    let groups = GROUPS.iter().fold(0, |all, g| all | 1 << (*g as u32 - 1));
    socket
        .socket_mut()
        .bind(&SocketAddr::new(0, groups))
        .context("subscribing to link, address, route and rule events")?;
    let (sender, receiver) = mpsc::channel(PENDING);
    tokio::spawn(ring(socket, sender));
    Ok(receiver)
}

async fn ring(socket: TokioSocket, sender: mpsc::Sender<Event>) {
    let mut buffer = Vec::with_capacity(32);
    loop {
        buffer.clear();
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            () = sender.closed() => return,
        };
        let event = match received {
            Ok(()) => Event::Changed,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Event::Overrun,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!(%error, "the netlink socket for events broke");
                return;
            }
        };
        // A full channel already says "look again".
        let _ = sender.try_send(event);
    }
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
        name,
        running: link.header.flags.contains(running),
        addresses: Vec::new(),
    })
}

/// Gives every interface its addresses: lasting ones before temporary ones, deprecated ones
/// last, since the first that fits becomes an uplink's source.
fn assign(interfaces: &mut [Interface], addresses: &[Message]) {
    let mut found: Vec<(u8, u32, IpNet)> = addresses.iter().filter_map(address).collect();
    found.sort_by_key(|(rank, ..)| *rank);
    for (_, index, net) in found {
        if let Some(interface) = interfaces.iter_mut().find(|i| i.index == index) {
            interface.addresses.push(net);
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

const fn from_header(flags: AddressHeaderFlags) -> AddressFlags {
    AddressFlags::from_bits_retain(flags.bits() as u32)
}

const fn rank(flags: AddressFlags) -> u8 {
    if flags.contains(AddressFlags::Deprecated) {
        2
    } else {
        // Temporary is the same bit.
        flags.contains(AddressFlags::Secondary) as u8
    }
}

async fn foreign_tables(netlink: &Netlink<Message>, protocol: u8) -> Result<Vec<u32>> {
    let mut tables = BTreeSet::new();
    for family in Family::ALL {
        let mut request = RouteMessage::default();
        request.header.address_family = wire::address_family(family);
        let dump = netlink.dump(Message::GetRoute(request)).await;
        for message in tolerate(dump).context("reading routes")? {
            if let Message::NewRoute(route) = message
                && u8::from(route.header.protocol) != protocol
            {
                tables.insert(wire::table(&route));
            }
        }
    }
    tables.retain(|table| !COMMON_TABLES.contains(table));
    Ok(tables.into_iter().collect())
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
            addresses: vec![],
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
