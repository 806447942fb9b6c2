//! Asks the kernel where it would send a packet (`ip route get`), on a socket of its own that waits for the answer.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use uplink_common::Family;

use super::world::{Ask, Routed, Way};
use crate::routes::wire;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where the kernel would send it.
///
/// # Errors
/// When netlink does not work. That there is no route is an answer.
pub(super) fn route(ask: &Ask) -> Result<Routed> {
    let answer = exchange(ask)?;
    match answer {
        // The reverse path filter speaks: it looks at where a packet comes from, which the programs do not.
        Err(libc::EXDEV | libc::EINVAL) if ask.iif.is_some() => {
            let plain = Ask {
                src: None,
                iif: None,
                ..*ask
            };
            exchange(&plain).map(routed)
        }
        answer => Ok(routed(answer)),
    }
}

fn routed(answer: Result<RouteMessage, i32>) -> Routed {
    match answer {
        Ok(message) => read(&message),
        Err(errno) => Routed::Nowhere(Errno::from_raw(errno).desc().to_owned()),
    }
}

/// The route, or the kernel's error number.
fn exchange(ask: &Ask) -> Result<Result<RouteMessage, i32>> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut request = NetlinkMessage::new(
        header,
        NetlinkPayload::InnerMessage(Message::GetRoute(question(ask))),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0).context("asking for a route")?;
    let (answer, _) = socket.recv_from_full().context("reading a route")?;
    let answer = NetlinkMessage::<Message>::deserialize(&answer).context("the kernel's route")?;
    match answer.payload {
        NetlinkPayload::InnerMessage(Message::NewRoute(message)) => Ok(Ok(message)),
        NetlinkPayload::Error(error) => Ok(Err(error.raw_code().abs())),
        other => bail!("the kernel answers a question for a route with {other:?}"),
    }
}

fn question(ask: &Ask) -> RouteMessage {
    let family = if ask.dst.is_ipv4() { Family::V4 } else { Family::V6 };
    let whole = if ask.dst.is_ipv4() { 32 } else { 128 };
    let mut message = RouteMessage::default();
    message.header.address_family = wire::address_family(family);
    message.header.destination_prefix_length = whole;
    message.header.flags = RouteFlags::LookupTable;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(ask.dst.into()));
    if let Some(src) = ask.src {
        message.header.source_prefix_length = whole;
        attributes.push(RouteAttribute::Source(src.into()));
    }
    attributes.extend(ask.iif.map(RouteAttribute::Iif));
    attributes.extend(ask.uid.map(RouteAttribute::Uid));
    if ask.mark != 0 {
        attributes.push(RouteAttribute::Mark(ask.mark));
    }
    if matches!(ask.proto, ICMP | TCP | UDP) && !(ask.proto == ICMP && ask.dst.is_ipv6()) {
        attributes.push(RouteAttribute::IpProto(ask.proto));
    }
    if let Some((sport, dport)) = ask.ports.filter(|_| matches!(ask.proto, TCP | UDP)) {
        attributes.push(RouteAttribute::Sport(sport));
        attributes.push(RouteAttribute::Dport(dport));
    }
    message
}

fn read(message: &RouteMessage) -> Routed {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
            return Routed::Local;
        }
        other => return Routed::Nowhere(format!("{other:?}").to_lowercase()),
    }
    let mut way = Way {
        gateway: None,
        ifindex: 0,
        interface: String::new(),
        table: wire::table(message),
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(gateway) => way.gateway = wire::ip(gateway),
            RouteAttribute::Via(via) => way.gateway = other_family(via),
            RouteAttribute::Oif(index) => way.ifindex = *index,
            RouteAttribute::PrefSource(source) => way.source = wire::ip(source),
            _ => {}
        }
    }
    way.interface = name(way.ifindex);
    Routed::By(way)
}

const fn other_family(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(a) => Some(IpAddr::V4(*a)),
        RouteVia::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn name(ifindex: u32) -> String {
    let name = if_indextoname(ifindex).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| format!("interface {ifindex}"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_loopback_address_is_this_hosts() {
        let ask = Ask {
            src: None,
            dst: Ipv4Addr::LOCALHOST.into(),
            proto: TCP,
            ports: Some((40_000, 443)),
            iif: None,
            mark: 0,
            uid: None,
        };
        assert_eq!(route(&ask).unwrap(), Routed::Local);
    }
}
