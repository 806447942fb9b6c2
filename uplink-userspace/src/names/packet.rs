//! What map `answers` brings -> who says what to whom.

use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use uplink_common::Family;
use uplink_common::policy::{Capture, FROM_GATEWAY};

use super::Outcome;

/// Where servers listen.
pub const PORT: u16 = 53;
const HEADER: usize = size_of::<Capture>();

/// A DNS packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard<'a> {
    /// Of its addresses.
    pub family: Family,
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// It came in by an uplink.
    pub outside: bool,
    /// Of a TCP connection; `None`: UDP.
    pub tcp: Option<TcpSegment>,
    /// What UDP or TCP carries.
    pub payload: &'a [u8],
}

/// What of a TCP header matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpSegment {
    /// The number of its first byte.
    pub seq: u32,
    /// A connection begins.
    pub syn: bool,
    /// Nothing follows.
    pub fin: bool,
    /// A connection is aborted.
    pub rst: bool,
}

/// Reads a capture: its header, and the packet from the IP header on. Checksums are not looked at: the network
/// card may have to fill them in yet, or has checked them.
///
/// # Errors
/// Why it is not looked at.
pub fn read(capture: &[u8]) -> Result<Heard<'_>, Outcome> {
    let packet = SlicedPacket::from_ip(whole(capture)?).map_err(|_| Outcome::Malformed)?;
    let net = packet.net.as_ref().ok_or(Outcome::NotDns)?;
    if net.ip_payload_ref().is_none_or(|p| p.fragmented) {
        return Err(Outcome::Fragment);
    }
    let (source, destination) = addresses(net).ok_or(Outcome::NotDns)?;
    let (ports, tcp, payload) = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => ((udp.source_port(), udp.destination_port()), None, udp.payload()),
        Some(TransportSlice::Tcp(tcp)) => (
            (tcp.source_port(), tcp.destination_port()),
            Some(segment(tcp)),
            tcp.payload(),
        ),
        _ => return Err(Outcome::NotDns),
    };
    if ports.0 != PORT && ports.1 != PORT {
        return Err(Outcome::NotDns);
    }
    Ok(Heard {
        family: family(source),
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        outside: number(capture, std::mem::offset_of!(Capture, inward)) == Some(FROM_GATEWAY),
        tcp,
        payload,
    })
}

/// The packet in a capture, if all of it is there. What is behind it is the ring buffer's.
fn whole(capture: &[u8]) -> Result<&[u8], Outcome> {
    let length = number(capture, std::mem::offset_of!(Capture, length)).ok_or(Outcome::Malformed)?;
    let whole = number(capture, std::mem::offset_of!(Capture, whole)).ok_or(Outcome::Malformed)?;
    if length < whole {
        return Err(Outcome::Cut);
    }
    capture
        .get(HEADER..)
        .and_then(|packet| packet.get(..length as usize))
        .ok_or(Outcome::Malformed)
}

/// A field of the header.
fn number(capture: &[u8], at: usize) -> Option<u32> {
    let bytes = capture.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn addresses(net: &NetSlice<'_>) -> Option<(IpAddr, IpAddr)> {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        NetSlice::Arp(_) => None,
    }
}

const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn segment(tcp: &TcpSlice<'_>) -> TcpSegment {
    TcpSegment {
        seq: tcp.sequence_number(),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
    }
}
