//! The bell: what changed in this network namespace, decoded as little as possible.

use std::io;
use std::net::IpAddr;

use anyhow::{Context, Result};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::Parseable;
use rtnetlink::packet_route::neighbour::{NeighbourMessage, NeighbourState as Nud};
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
/// In it, the socket that caused the event; 0 for the kernel itself.
const PORT_ID: std::ops::Range<usize> = 12..16;
/// IFF_UP and IFF_RUNNING: the kernel sets RUNNING while the operational state is up or unknown.
const RUNNING: u32 = 0x1 | 0x40;
const AF_UNSPEC: u8 = 0;
const GROUPS: [MulticastGroup; 10] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
];

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link, an address, a route, a rule, or whether an interface forwards, changed: a new snapshot is due.
    Changed,
    /// As [`Self::Changed`], and here is what a link is now.
    Link {
        /// The interface.
        ifindex: u32,
        /// Administratively up and with carrier; `false` for one that is gone.
        running: bool,
    },
    /// A neighbour is found, lost or forgotten.
    Neighbour {
        /// The interface.
        ifindex: u32,
        /// The neighbour's address.
        address: IpAddr,
        /// What is known of it now.
        state: NeighbourState,
    },
    /// There was more to say than the socket or the channel holds: anything may have changed,
    /// neighbours too.
    Overrun,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// It can be sent to, at this MAC address.
    At([u8; 6]),
    /// The kernel asked for it and nobody answered.
    Failed,
    /// It was forgotten, which says nothing about whether it is there.
    Gone,
}

/// Rings on every change of a link, its forwarding, an address, route, rule or neighbour in this network namespace.
/// The receiver ends if the socket breaks.
pub async fn watch() -> Result<mpsc::Receiver<Event>> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    let groups = GROUPS.iter().fold(0, |all, g| all | 1 << (*g as u32 - 1));
    socket
        .socket_mut()
        .bind(&SocketAddr::new(0, groups))
        .context("subscribing to events of links, addresses, routes, rules and neighbours")?;
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
    match kind {
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour(kind, datagram),
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Some(link(kind, datagram).unwrap_or(Event::Changed)),
        _ => Some(Event::Changed),
    }
}

/// `struct ifinfomsg`: family, padding, type (2 bytes), index, flags.
fn link(kind: u16, datagram: &[u8]) -> Option<Event> {
    let word = |at: usize| {
        let bytes = datagram.get(HEADER + at..HEADER + at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (ifindex, flags) = (word(4)?, word(8)?);
    let gone = kind == libc::RTM_DELLINK;
    // Leaving a bridge is told as a deletion, too; the link itself stays.
    if gone && *datagram.get(HEADER)? != AF_UNSPEC {
        return None;
    }
    let running = flags & RUNNING == RUNNING && !gone;
    Some(Event::Link { ifindex, running })
}

fn neighbour(kind: u16, datagram: &[u8]) -> Option<Event> {
    let message = NeighbourMessage::parse(datagram.get(HEADER..)?).ok()?;
    let address = neighbours::address(&message)?;
    let asked_for = datagram.get(PORT_ID)? != [0; 4];
    let state = match (neighbours::mac(&message), message.header.state) {
        _ if kind == libc::RTM_DELNEIGH => NeighbourState::Gone,
        (Some(mac), _) => NeighbourState::At(mac),
        // Before a deletion on request the kernel reports a failure as well, in the name of
        // whoever asked. What it finds out by itself has nobody's name on it.
        (None, Nud::Failed) if asked_for => NeighbourState::Gone,
        (None, Nud::Failed) => NeighbourState::Failed,
        // Nothing is known yet.
        (None, _) => return None,
    };
    Some(Event::Neighbour {
        ifindex: message.header.ifindex,
        address,
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::Emitable;
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::neighbour::NeighbourAttribute;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn datagram(kind: u16, family: AddressFamily, state: Nud) -> Vec<u8> {
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

    fn neighbour(state: NeighbourState) -> Event {
        Event::Neighbour {
            ifindex: 7,
            address: GATEWAY,
            state,
        }
    }

    #[test]
    fn neighbours_are_told_apart_from_what_needs_a_new_look() {
        let of = |kind, state| decode(&datagram(kind, AddressFamily::Inet, state));
        let found = neighbour(NeighbourState::At([2, 0, 0, 0, 0, 9]));
        let (new, gone) = (libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH);
        assert_eq!(of(new, Nud::Stale), Some(found));
        assert_eq!(of(new, Nud::Failed), Some(neighbour(NeighbourState::Failed)));
        assert_eq!(of(new, Nud::Incomplete), None);
        assert_eq!(of(gone, Nud::Stale), Some(neighbour(NeighbourState::Gone)));
        assert_eq!(of(gone, Nud::Failed), Some(neighbour(NeighbourState::Gone)));
        assert_eq!(of(libc::RTM_NEWROUTE, Nud::Stale), Some(Event::Changed));
        let bridge = datagram(new, AddressFamily::Bridge, Nud::Stale);
        assert_eq!(decode(&bridge), None);
    }

    #[test]
    fn a_neighbour_that_somebody_deletes_has_not_failed() {
        let mut bytes = datagram(libc::RTM_NEWNEIGH, AddressFamily::Inet, Nud::Failed);
        bytes[PORT_ID].copy_from_slice(&22_501_u32.to_ne_bytes());
        assert_eq!(decode(&bytes), Some(neighbour(NeighbourState::Gone)));
    }

    /// What the kernel sends of a link, up to the flags.
    fn link_event(kind: u16, family: u8, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[HEADER] = family;
        bytes[HEADER + 4..HEADER + 8].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[HEADER + 8..HEADER + 12].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_link_runs_when_it_is_up_and_has_carrier() {
        let (up, running, other) = (0x1, 0x40, 0x1002);
        let of = |kind, family, flags| decode(&link_event(kind, family, flags));
        let link = |running| Some(Event::Link { ifindex: 3, running });
        let (new, gone) = (libc::RTM_NEWLINK, libc::RTM_DELLINK);
        assert_eq!(of(new, 0, up | running | other), link(true));
        assert_eq!(of(new, 0, up | other), link(false));
        assert_eq!(of(new, 0, running), link(false));
        assert_eq!(of(gone, 0, up | running), link(false));
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        assert_eq!(of(new, bridge, up | running), link(true));
        assert_eq!(of(gone, bridge, up | running), Some(Event::Changed));
        // Cut off, it still rings.
        let cut = &link_event(new, 0, up)[..HEADER + 11];
        assert_eq!(decode(cut), Some(Event::Changed));
    }

    #[test]
    fn no_length_of_a_datagram_is_trusted() {
        let whole = datagram(libc::RTM_NEWNEIGH, AddressFamily::Inet, Nud::Stale);
        for length in 0..whole.len() {
            decode(&whole[..length]);
        }
    }

    #[test]
    fn a_full_channel_owes_a_change_and_turns_lost_neighbours_into_an_overrun() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut owed = None;
        offer(&sender, &mut owed, neighbour(NeighbourState::Gone));
        assert_eq!(owed, None);
        offer(&sender, &mut owed, Event::Changed);
        offer(&sender, &mut owed, Event::Changed);
        assert_eq!(owed, Some(Event::Changed));
        offer(&sender, &mut owed, neighbour(NeighbourState::Gone));
        assert_eq!(owed, Some(Event::Overrun));
        assert_eq!(receiver.try_recv(), Ok(neighbour(NeighbourState::Gone)));
        // There is room again, but what is owed comes first.
        offer(&sender, &mut owed, Event::Changed);
        assert_eq!(owed, Some(Event::Overrun));
        assert!(receiver.try_recv().is_err());
    }
}
