//! Reads what is at interfaces.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp};
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::queues::Device;
use crate::links;
use crate::loader::{self, Attached, Port, query};
use crate::routes::socket::Netlink;

/// The interfaces of `ports`, without what is `ours`. One that is gone is left out.
pub(super) async fn read(ours: &Attached, ports: &[Port]) -> Result<Vec<Device>> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    let links = netlink.dump(Message::GetLink(LinkMessage::default())).await;
    let links = links.context("reading interfaces")?;
    let qdiscs = netlink
        .dump(Message::GetQueueDiscipline(TcMessage::default()))
        .await;
    let qdiscs = qdiscs.context("reading qdiscs")?;
    let names: BTreeMap<u32, String> = links.iter().filter_map(name).collect();
    let ports = with_parents(ports, &links, &names);
    let mut devices = Vec::new();
    for message in &links {
        let Message::NewLink(link) = message else { continue };
        let Some(port) = ports.iter().find(|p| p.ifindex == link.header.index) else {
            continue;
        };
        let mut device = device(link, port, &names);
        device.qdiscs = qdiscs.iter().filter_map(|q| qdisc(q, port.ifindex)).collect();
        device.filters = loader::foreign_filters(ours.hook, port).await?;
        device.programs = loader::foreign_programs(ours, port)?;
        device.programs.extend(xdp(link, ours));
        devices.push(device);
    }
    Ok(devices)
}

/// With the devices below VLANs, whose queues and programs see their packets, too.
fn with_parents(ports: &[Port], links: &[Message], names: &BTreeMap<u32, String>) -> Vec<Port> {
    let mut all = ports.to_vec();
    for message in links {
        let Message::NewLink(link) = message else { continue };
        if ports.iter().all(|p| p.ifindex != link.header.index) {
            continue;
        }
        let parent = links::below(link).filter(|index| all.iter().all(|p| p.ifindex != *index));
        all.extend(parent.map(|ifindex| Port {
            name: names.get(&ifindex).cloned().unwrap_or_default(),
            ifindex,
            steers: false,
        }));
    }
    all
}

fn name(message: &Message) -> Option<(u32, String)> {
    let Message::NewLink(link) = message else {
        return None;
    };
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some((link.header.index, name.clone())),
        _ => None,
    })
}

fn device(link: &LinkMessage, port: &Port, names: &BTreeMap<u32, String>) -> Device {
    let mut device = Device {
        name: port.name.clone(),
        is_ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        ..Device::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Controller(index) if *index != 0 => {
                let name = names.get(index).cloned();
                device.master = Some(name.unwrap_or_else(|| format!("interface {index}")));
            }
            LinkAttribute::LinkInfo(infos) => {
                device.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    device
}

fn qdisc(message: &Message, ifindex: u32) -> Option<String> {
    let Message::NewQueueDiscipline(qdisc) = message else {
        return None;
    };
    let kind = qdisc.attributes.iter().find_map(|a| match a {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    });
    (u32::try_from(qdisc.header.index) == Ok(ifindex)).then(|| kind.unwrap_or_else(|| "?".into()))
}

/// The names of others' XDP programs at a link.
fn xdp(link: &LinkMessage, ours: &Attached) -> Vec<String> {
    let attributes = link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    });
    let ids = attributes.flatten().filter_map(|a| match a {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    });
    let mut ids: Vec<u32> = ids.filter(|id| *id != 0 && !ours.programs.contains(id)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(query::name).collect()
}
