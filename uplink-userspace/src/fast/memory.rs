//! What route netlink said last, to tell what changed from what is only said again: neighbours go stale and come
//! back, links count, addresses are announced anew with every router advertisement.

use std::collections::HashMap;
use std::net::IpAddr;

use rtnetlink::packet_core::{NetlinkBuffer, Parseable};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourMessage;

use super::watch::{Bump, Cause, Neighbour};
use crate::links;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Next hop objects and buckets of their groups (linux/rtnetlink.h).
const NEXT_HOPS: [std::ops::RangeInclusive<u16>; 2] = [104..=106, 116..=118];

/// Interface, prefix length, and the address and the peer's.
type Address = (u32, u8, [Option<IpAddr>; 2]);

/// Links, addresses and neighbours as they were said last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    links: HashMap<u32, (u32, Vec<LinkAttribute>)>,
    addresses: HashMap<Address, (u8, Vec<AddressAttribute>)>,
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
}

impl Memory {
    /// Learns from an answer, where nothing is news.
    pub fn learn(&mut self, message: &Message) {
        match message {
            Message::NewLink(link) => _ = self.link(link),
            Message::NewAddress(address) => _ = self.address(address),
            Message::NewNeighbour(neighbour) => _ = self.neighbour(neighbour),
            _ => {}
        }
    }

    /// What changed by the events of a datagram.
    pub fn news(&mut self, mut datagram: &[u8]) -> Bump {
        let mut news = Bump::default();
        while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
            let length = message.length() as usize;
            let body = datagram.get(HEADER..length).unwrap_or_default();
            match message.message_type() {
                kind @ (libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH) => self.of_neighbour(kind, body, &mut news),
                kind => news.causes.extend(self.event(kind, body)),
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if !datagram.is_empty() {
            // Cut off.
            news.causes.insert(Cause::Lost);
        }
        news
    }

    fn event(&mut self, kind: u16, body: &[u8]) -> Option<Cause> {
        match kind {
            libc::RTM_NEWLINK => match LinkMessage::parse(body) {
                Ok(link) if !self.link(&link) => None,
                _ => Some(Cause::Link),
            },
            libc::RTM_DELLINK => {
                if let Ok(link) = LinkMessage::parse(body) {
                    self.links.remove(&link.header.index);
                }
                Some(Cause::Link)
            }
            libc::RTM_NEWADDR => match AddressMessage::parse(body) {
                Ok(address) if !self.address(&address) => None,
                _ => Some(Cause::Address),
            },
            libc::RTM_DELADDR => {
                if let Ok(address) = AddressMessage::parse(body) {
                    self.addresses.remove(&key(&address));
                }
                Some(Cause::Address)
            }
            other => Some(cause(other)),
        }
    }

    fn of_neighbour(&mut self, kind: u16, body: &[u8], news: &mut Bump) {
        match NeighbourMessage::parse(body) {
            Ok(neighbour) if kind == libc::RTM_NEWNEIGH => news.lost.extend(self.neighbour(&neighbour)),
            Ok(neighbour) => news.lost.extend(self.forget(&neighbour)),
            Err(_) => drop(news.causes.insert(Cause::Lost)),
        }
    }

    /// Whether it is another than it was.
    fn link(&mut self, link: &LinkMessage) -> bool {
        let says = |a: &&LinkAttribute| {
            matches!(
                a,
                LinkAttribute::IfName(_)
                    | LinkAttribute::Mtu(_)
                    | LinkAttribute::Controller(_)
                    | LinkAttribute::Address(_)
                    | LinkAttribute::Qdisc(_)
                    | LinkAttribute::Xdp(_)
                    | LinkAttribute::OperState(_)
                    | LinkAttribute::Link(_)
            )
        };
        // Ports of bridges are told apart from links.
        if u8::from(link.header.interface_family) != 0 {
            return true;
        }
        let said = link.attributes.iter().filter(says).cloned().collect();
        let new = (link.header.flags.bits(), said);
        self.links.insert(link.header.index, new.clone()) != Some(new)
    }

    fn address(&mut self, address: &AddressMessage) -> bool {
        let flags = |a: &&AddressAttribute| {
            matches!(a, AddressAttribute::Flags(_) | AddressAttribute::RoutePriority(_))
        };
        let said = address.attributes.iter().filter(flags).cloned().collect();
        let new = (address.header.flags.bits(), said);
        self.addresses.insert(key(address), new.clone()) != Some(new)
    }

    /// One that could be sent to, and is somewhere else now, or not known where. A new one changes nothing for flows that
    /// are under way.
    fn neighbour(&mut self, neighbour: &NeighbourMessage) -> Option<Neighbour> {
        let Some(now) = links::neighbour_mac(neighbour) else {
            return self.forget(neighbour);
        };
        let ifindex = neighbour.header.ifindex;
        let key = (ifindex, links::neighbour_address(neighbour)?);
        let before = self.neighbours.insert(key, now).filter(|before| *before != now);
        before.map(|mac| Neighbour { ifindex, mac })
    }

    fn forget(&mut self, neighbour: &NeighbourMessage) -> Option<Neighbour> {
        let ifindex = neighbour.header.ifindex;
        let key = (ifindex, links::neighbour_address(neighbour)?);
        self.neighbours.remove(&key).map(|mac| Neighbour { ifindex, mac })
    }
}

fn key(address: &AddressMessage) -> Address {
    let mut named = [None; 2];
    for attribute in &address.attributes {
        match attribute {
            AddressAttribute::Local(local) => named[0] = Some(*local),
            AddressAttribute::Address(peer) => named[1] = Some(*peer),
            _ => {}
        }
    }
    (address.header.index, address.header.prefix_len, named)
}

fn cause(kind: u16) -> Cause {
    match kind {
        libc::RTM_NEWROUTE..=libc::RTM_GETROUTE => Cause::Route,
        libc::RTM_NEWRULE..=libc::RTM_GETRULE => Cause::Rule,
        libc::RTM_NEWNETCONF..=libc::RTM_GETNETCONF => Cause::Forwarding,
        kind if NEXT_HOPS.iter().any(|range| range.contains(&kind)) => Cause::NextHop,
        _ => Cause::Queue,
    }
}

#[cfg(test)]
mod tests;
