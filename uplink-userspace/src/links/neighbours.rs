//! Neighbours: who is behind a MAC address, and how to ask for it again.

use std::net::IpAddr;

use anyhow::{Context, Result};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use uplink_common::Family;

use crate::host::Neighbour;
use crate::routes::socket::{Failure, Netlink};
use crate::routes::wire;

/// All neighbours of both families that can be sent to.
pub(super) async fn read(netlink: &Netlink<Message>) -> Result<Vec<Neighbour>, Failure> {
    let found = netlink
        .dump(Message::GetNeighbour(NeighbourMessage::default()))
        .await?;
    let neighbour = |message: &Message| {
        let Message::NewNeighbour(message) = message else {
            return None;
        };
        Some(Neighbour {
            ifindex: message.header.ifindex,
            address: address(message)?,
            mac: mac(message)?,
        })
    };
    Ok(found.iter().filter_map(neighbour).collect())
}

/// Deletes what the kernel knows about a neighbour, so that it asks anew for the next packet
/// instead of after tens of seconds of silence. Entries that somebody else made stay: they do
/// not come back by asking.
///
/// # Errors
/// When the kernel refuses; a neighbour that is not known is forgotten already.
pub async fn forget_neighbour(ifindex: u32, address: IpAddr) -> Result<()> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    // Kernels that filter dumps answer for this interface only.
    let all = request(address, NeighbourAttribute::IfIndex(ifindex));
    let found = netlink.dump(Message::GetNeighbour(all)).await;
    let found = found.context("reading neighbours")?;
    if !found.iter().any(|message| is_learned(message, ifindex, address)) {
        return Ok(());
    }
    let mut one = request(address, NeighbourAttribute::Destination(address.into()));
    one.header.ifindex = ifindex;
    match netlink.execute(Message::DelNeighbour(one), 0).await {
        Err(failure) if failure.errno != libc::ENOENT => {
            Err(failure).with_context(|| format!("forgetting the neighbour {address}"))
        }
        _ => Ok(()),
    }
}

fn request(like: IpAddr, attribute: NeighbourAttribute) -> NeighbourMessage {
    let family = if like.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut message = NeighbourMessage::default();
    message.header.family = wire::address_family(family);
    message.attributes = vec![attribute];
    message
}

fn is_learned(message: &Message, ifindex: u32, wanted: IpAddr) -> bool {
    let Message::NewNeighbour(message) = message else {
        return false;
    };
    let given = matches!(
        message.header.state,
        NeighbourState::Permanent | NeighbourState::Noarp
    );
    let given = given || message.header.flags.contains(NeighbourFlags::ExtLearned);
    !given && message.header.ifindex == ifindex && address(message) == Some(wanted)
}

/// The address of a neighbour; `None` for entries of bridges and proxies, which are no neighbours.
pub(crate) fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

/// The MAC address of a neighbour that can be sent to.
pub(crate) fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => {}
        _ => return None,
    }
    let mac = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    // Loopback's.
    mac.filter(|mac| *mac != [0; 6])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn entry(state: NeighbourState, mac: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 2;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(GATEWAY.into()),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        message
    }

    #[test]
    fn a_mac_counts_while_it_can_be_sent_to() {
        let known = [2, 0, 0, 0, 0, 1];
        let of = |state| mac(&entry(state, &known));
        assert_eq!(of(NeighbourState::Probe), Some(known));
        assert_eq!(of(NeighbourState::Noarp), Some(known));
        assert_eq!(of(NeighbourState::Failed), None);
        assert_eq!(of(NeighbourState::Incomplete), None);
        assert_eq!(of(NeighbourState::None), None);
        assert_eq!(mac(&entry(NeighbourState::Noarp, &[0; 6])), None);
        assert_eq!(mac(&entry(NeighbourState::Stale, &[1, 2, 3, 4])), None);
    }

    #[test]
    fn only_what_the_kernel_learned_is_forgotten() {
        let learned = |message: NeighbourMessage| is_learned(&Message::NewNeighbour(message), 2, GATEWAY);
        assert!(learned(entry(NeighbourState::Reachable, &[1; 6])));
        assert!(learned(entry(NeighbourState::Incomplete, &[])));
        assert!(!learned(entry(NeighbourState::Permanent, &[1; 6])));
        let mut message = entry(NeighbourState::Reachable, &[1; 6]);
        message.header.flags = NeighbourFlags::ExtLearned;
        assert!(!learned(message));
        let mut message = entry(NeighbourState::Reachable, &[1; 6]);
        message.header.ifindex = 3;
        assert!(!learned(message));
    }
}
