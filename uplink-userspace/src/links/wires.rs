//! The wires of interfaces: where the fast path sees their frames, and from whom they are.

use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::libc;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use socket2::{Domain, Socket, Type};
use uplink_common::path::Port;

use crate::routes::socket::Netlink;

/// Where an interface's frames are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The interface and the device that has its wire.
    pub port: Port,
    /// The device's name.
    pub device: String,
    /// VLANs share the wire: frames have tags.
    pub is_shared: bool,
}

/// Those of the interfaces with these indices that have Ethernet frames, or why theirs cannot be imitated.
///
/// # Errors
/// When the kernel refuses to tell.
pub async fn wires(indices: &[u32]) -> Result<BTreeMap<u32, Result<Wire, String>>> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    let links = netlink.dump(Message::GetLink(LinkMessage::default())).await;
    let links = links.context("reading interfaces")?;
    let links: Vec<LinkMessage> = links
        .into_iter()
        .filter_map(|message| match message {
            Message::NewLink(link) => Some(link),
            _ => None,
        })
        .collect();
    let wanted = links.iter().filter(|link| indices.contains(&link.header.index));
    let wires = wanted.filter_map(|link| Some((link.header.index, wire(link, &links)?)));
    Ok(wires.collect())
}

/// The index of the device below a VLAN.
pub fn below(link: &LinkMessage) -> Option<u32> {
    vlan(link)?;
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
}

fn wire(link: &LinkMessage, all: &[LinkMessage]) -> Option<Result<Wire, String>> {
    let mac = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    })?;
    let ifindex = link.header.index;
    let (device, vlan) = match vlan(link).map(number) {
        None => (ifindex, 0),
        Some(Ok(number)) => (below(link)?, number),
        Some(Err(e)) => return Some(Err(format!("{}: {e}", name(link)?))),
    };
    let parent = all.iter().find(|l| l.header.index == device)?;
    if device != ifindex && below(parent).is_some() {
        return Some(Err(format!("{} is a VLAN in a VLAN", name(link)?)));
    }
    let port = Port {
        ifindex,
        device,
        mac,
        vlan,
    };
    Some(Ok(Wire {
        port,
        device: name(parent)?,
        is_shared: all.iter().any(|l| below(l) == Some(device)),
    }))
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn vlan(link: &LinkMessage) -> Option<&[InfoVlan]> {
    let infos = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data.as_slice()),
        _ => None,
    })
}

/// The number of a VLAN whose tags have nothing else.
fn number(data: &[InfoVlan]) -> Result<u16, String> {
    let mut number = None;
    for one in data {
        match one {
            InfoVlan::Id(id) => number = Some(*id),
            InfoVlan::Protocol(VlanProtocol::Ieee8021Q) => {}
            InfoVlan::Protocol(other) => return Err(format!("its tags are of {other:?}")),
            InfoVlan::EgressQos(map) if !map.is_empty() => {
                return Err("its tags have priorities (egress-qos-map)".into());
            }
            _ => {}
        }
    }
    number.ok_or_else(|| "it has no number".into())
}

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GFLAGS` of linux/ethtool.h.
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN` of linux/ethtool.h.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether a device takes VLAN tags off its frames, so that XDP programs do not see them.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn takes_tags(device: &str) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = Value {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    let mut name = [0; libc::IFNAMSIZ];
    if device.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    const { assert!(size_of::<Value>() == 8) };
    // SAFETY: the request and the value it points to live through the call and have the layout that it expects.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(value.data & ETH_FLAG_RXVLAN != 0),
        _ => match io::Error::last_os_error() {
            // The driver has no such thing.
            e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::VlanQosMapping;

    use super::*;

    fn link(index: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        ];
        link.attributes.extend(attributes);
        link
    }

    fn vlan_of(index: u32, name: &str, below: u32, data: Vec<InfoVlan>) -> LinkMessage {
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Vlan(data))]);
        link(index, name, vec![LinkAttribute::Link(below), info])
    }

    fn plain(id: u16) -> Vec<InfoVlan> {
        vec![InfoVlan::Id(id), InfoVlan::Protocol(VlanProtocol::Ieee8021Q)]
    }

    #[test]
    fn a_vlan_has_its_parents_wire() {
        let all = [
            link(2, "eth0", vec![]),
            link(3, "eth1", vec![LinkAttribute::Link(9)]),
            vlan_of(5, "eth0.10", 2, plain(10)),
        ];
        let of = |n: usize| wire(&all[n], &all).expect("Ethernet").expect("plain");
        assert_eq!(
            (of(0).port.device, of(0).port.vlan, of(0).is_shared),
            (2, 0, true)
        );
        // A veth has a link, too: its other end.
        assert_eq!(
            (of(1).port.device, of(1).port.vlan, of(1).is_shared),
            (3, 0, false)
        );
        let vlan = of(2);
        assert_eq!((vlan.port.device, vlan.port.vlan, vlan.is_shared), (2, 10, true));
        assert_eq!((vlan.port.ifindex, vlan.device.as_str()), (5, "eth0"));
    }

    #[test]
    fn tags_that_are_more_than_a_number_are_left_to_the_kernel() {
        let other = |data| {
            let all = [
                link(2, "eth0", vec![]),
                vlan_of(5, "eth0.10", 2, plain(10)),
                vlan_of(6, "eth0.10.7", 5, plain(7)),
                vlan_of(7, "eth0.11", 2, data),
            ];
            [2, 3].map(|n| wire(&all[n], &all).expect("Ethernet").map(|w| w.port.vlan))
        };
        let priorities = vec![
            InfoVlan::Id(11),
            InfoVlan::EgressQos(vec![VlanQosMapping::Mapping(0, 5)]),
        ];
        let service = vec![InfoVlan::Id(11), InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)];
        let without = vec![InfoVlan::Id(11), InfoVlan::EgressQos(vec![])];
        let [inner, plain] = other(without);
        assert_eq!(inner, Err("eth0.10.7 is a VLAN in a VLAN".into()));
        assert_eq!(plain, Ok(11));
        assert!(
            other(priorities)[1]
                .as_ref()
                .is_err_and(|e| e.contains("egress-qos-map"))
        );
        assert!(other(service)[1].as_ref().is_err_and(|e| e.contains("8021")));
    }

    #[test]
    fn a_device_tells_whether_it_takes_tags() {
        assert!(takes_tags("lo").is_ok());
        assert!(takes_tags("there-is-none").is_err());
        assert!(takes_tags("a-name-that-is-far-too-long").is_err());
    }
}
