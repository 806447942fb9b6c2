//! The bell: what changed in this network namespace, decoded as little as possible.

use std::io;
use std::net::IpAddr;

use anyhow::{Context, Result};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::Parseable;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::mpsc;

use super::neighbours;

/// Changes say "look again", so more of them say nothing new; neighbours come in crowds.
const PENDING: usize = 64;
/// A neighbour event fits. Others are cut off: their header is enough.
const BUFFER: usize = 512;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link, an address, a route or a rule changed: a new snapshot is due.
    Changed,
    /// A neighbour has this MAC address now, or none any more.
    Neighbour {
        /// The interface.
        ifindex: u32,
        /// The neighbour's address.
        address: IpAddr,
        /// Its MAC address, while it can be sent to.
        mac: Option<[u8; 6]>,
    },
    /// There was more to say than the socket or the channel holds: anything may have changed,
    /// neighbours too.
    Overrun,
}

/// Rings on every change of a link, address, route, rule or neighbour in this network namespace.
/// The receiver ends if the socket breaks.
pub async fn watch() -> Result<mpsc::Receiver<Event>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    let groups = GROUPS.iter().fold(0, |all, g| all | 1 << (*g as u32 - 1));
    socket
        .socket_mut()
        .bind(&SocketAddr::new(0, groups))
        .context("subscribing to link, address, route, rule and neighbour events")?;
    let (sender, receiver) = mpsc::channel(PENDING);
    tokio::spawn(ring(socket, sender));
    Ok(receiver)
}

async fn ring(socket: TokioSocket, sender: mpsc::Sender<Event>) {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut owed = None;
    loop {
        buffer.clear();
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            Ok(room) = sender.reserve(), if owed.is_some() => {
                if let Some(event) = owed.take() {
                    room.send(event);
                }
                continue;
            }
            () = sender.closed() => return,
        };
        let event = match received {
            Ok(()) => decode(&buffer),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Some(Event::Overrun),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!(%error, "the netlink socket for events broke");
                return;
            }
        };
        if let Some(event) = event {
            offer(&sender, &mut owed, event);
        }
    }
}

/// Sends what there is room for. The rest is owed as one event that stands for all of it, and
/// what comes after it joins it, so that nothing is overtaken.
fn offer(sender: &mpsc::Sender<Event>, owed: &mut Option<Event>, event: Event) {
    if owed.is_none() && sender.try_send(event).is_ok() {
        return;
    }
    *owed = match (*owed, event) {
        (None | Some(Event::Changed), Event::Changed) => Some(Event::Changed),
        _ => Some(Event::Overrun),
    };
}

/// The first message of a datagram: the kernel sends each event in one of its own.
fn decode(datagram: &[u8]) -> Option<Event> {
    let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
    if !matches!(kind, libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH) {
        return Some(Event::Changed);
    }
    let message = NeighbourMessage::parse(datagram.get(HEADER..)?).ok()?;
    let address = neighbours::address(&message)?;
    let mac = neighbours::mac(&message).filter(|_| kind == libc::RTM_NEWNEIGH);
    Some(Event::Neighbour {
        ifindex: message.header.ifindex,
        address,
        mac,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::Emitable;
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourState};

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn datagram(kind: u16, family: AddressFamily, state: NeighbourState) -> Vec<u8> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(GATEWAY.into()),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
        ];
        let mut bytes = vec![0; HEADER + message.buffer_len()];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.emit(&mut bytes[HEADER..]);
        bytes
    }

    fn neighbour(mac: Option<[u8; 6]>) -> Event {
        Event::Neighbour {
            ifindex: 7,
            address: GATEWAY,
            mac,
        }
    }

    #[test]
    fn neighbours_are_told_apart_from_what_needs_a_new_look() {
        let of = |kind, state| decode(&datagram(kind, AddressFamily::Inet, state));
        let mac = Some([2, 0, 0, 0, 0, 9]);
        assert_eq!(
            of(libc::RTM_NEWNEIGH, NeighbourState::Stale),
            Some(neighbour(mac))
        );
        assert_eq!(
            of(libc::RTM_NEWNEIGH, NeighbourState::Failed),
            Some(neighbour(None))
        );
        assert_eq!(
            of(libc::RTM_DELNEIGH, NeighbourState::Stale),
            Some(neighbour(None))
        );
        assert_eq!(
            of(libc::RTM_NEWROUTE, NeighbourState::Stale),
            Some(Event::Changed)
        );
        let bridge = datagram(libc::RTM_NEWNEIGH, AddressFamily::Bridge, NeighbourState::Stale);
        assert_eq!(decode(&bridge), None);
    }

    #[test]
    fn no_length_of_a_datagram_is_trusted() {
        let whole = datagram(libc::RTM_NEWNEIGH, AddressFamily::Inet, NeighbourState::Stale);
        for length in 0..whole.len() {
            decode(&whole[..length]);
        }
    }

    #[test]
    fn a_full_channel_owes_a_change_and_turns_lost_neighbours_into_an_overrun() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut owed = None;
        offer(&sender, &mut owed, neighbour(None));
        assert_eq!(owed, None);
        offer(&sender, &mut owed, Event::Changed);
        offer(&sender, &mut owed, Event::Changed);
        assert_eq!(owed, Some(Event::Changed));
        offer(&sender, &mut owed, neighbour(None));
        assert_eq!(owed, Some(Event::Overrun));
        assert_eq!(receiver.try_recv(), Ok(neighbour(None)));
        // There is room again, but what is owed comes first.
        offer(&sender, &mut owed, Event::Changed);
        assert_eq!(owed, Some(Event::Overrun));
        assert!(receiver.try_recv().is_err());
    }
}
