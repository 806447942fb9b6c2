//! The first packet of a flow.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use super::reference::Flow;
use crate::frames::ROUTER_MAC;

const ETH: usize = 14;

/// The MAC address of our interface.
pub fn router_mac(iif: &str) -> [u8; 6] {
    match iif {
        "eth0" => ROUTER_MAC,
        _ => [2, 0, 0, 0, 0, 7],
    }
}

/// A forwarded flow's first packet.
pub fn frame(flow: &Flow) -> Vec<u8> {
    let mac = flow.mac.expect("a frame has a sender");
    let link = PacketBuilder::ethernet2(mac, router_mac(flow.iif));
    let ip = match (flow.src, flow.dst) {
        (Some(IpAddr::V4(src)), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), 64),
        (Some(IpAddr::V6(src)), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("addresses of two families: {flow:?}"),
    };
    let (sport, dport) = flow.ports.unwrap_or_default();
    let mut frame = Vec::new();
    let written = match flow.proto {
        6 => ip.tcp(sport, dport, 1, 1000).syn().write(&mut frame, b"payload"),
        _ => ip.udp(sport, dport).write(&mut frame, b"payload"),
    };
    written.expect("writing to memory");
    head(&mut frame, flow);
    frame
}

fn head(frame: &mut [u8], flow: &Flow) {
    let dscp = flow.dscp.unwrap_or_default();
    let upper = if flow.dst.is_ipv4() {
        frame[ETH + 1] = dscp << 2;
        frame[ETH + 9] = flow.proto;
        ETH + 20
    } else {
        frame[ETH] = 0x60 | dscp >> 2;
        frame[ETH + 1] = dscp << 6;
        frame[ETH + 6] = flow.proto;
        ETH + 40
    };
    match flow.proto {
        1 => frame[upper..upper + 2].copy_from_slice(&[8, 0]),
        58 => frame[upper..upper + 2].copy_from_slice(&[128, 0]),
        _ => {}
    }
}
