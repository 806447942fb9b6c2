//! One bare segment in somebody else's name.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use etherparse::{PacketBuilder, TcpOptionElement};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};
use uplink_common::FlowKey;

const HOPS: u8 = 64;
const WINDOW: u16 = 1;
const GARBAGE: [u8; 1] = [0];
/// Raw sockets for both families.
pub(super) struct Sender {
    v4: Socket,
    /// None where the kernel has no IPv6.
    v6: Option<Socket>,
}

impl Sender {
    pub fn open(mark: u32) -> Result<Self> {
        let v4 = socket(Domain::IPV4, mark).context("opening a raw socket")?;
        let v6 = socket(Domain::IPV6, mark).and_then(|v6| {
            // The control message below names sources that are not ours.
            v6.set_freebind_v6(true)?;
            Ok(v6)
        });
        let v6 = v6.inspect_err(|error| tracing::debug!(%error, "no raw IPv6 socket"));
        Ok(Self { v4, v6: v6.ok() })
    }

    /// Sends one segment with the source and destination of `key`.
    pub fn send(&self, key: &FlowKey) -> io::Result<()> {
        match (IpAddr::from(key.src), IpAddr::from(key.dst)) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.send_v4(src, dst, &segment(key)?),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.send_v6(src, dst, &segment(key)?),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    // The routing rules look at the control message's source, not at the header: with it a packet
    // in the name of an uplink's address leaves by that uplink.

    fn send_v4(&self, src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8]) -> io::Result<()> {
        let any = libc::in_addr { s_addr: 0 };
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from_ne_bytes(src.octets()),
            },
            ipi_addr: any,
        };
        let to = SockaddrIn::from(SocketAddrV4::new(dst, 0));
        transmit(&self.v4, bytes, ControlMessage::Ipv4PacketInfo(&info), &to)
    }

    fn send_v6(&self, src: Ipv6Addr, dst: Ipv6Addr, bytes: &[u8]) -> io::Result<()> {
        let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: src.octets(),
            },
            ipi6_ifindex: 0,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(dst, 0, 0, 0));
        transmit(socket, bytes, ControlMessage::Ipv6PacketInfo(&info), &to)
    }
}

fn socket(domain: Domain, mark: u32) -> io::Result<Socket> {
    // With this protocol every packet brings its IP header.
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = Socket::new(domain, Type::RAW, Some(raw))?;
    socket.set_mark(mark)?;
    Ok(socket)
}

fn transmit(
    socket: &Socket,
    bytes: &[u8],
    source: ControlMessage<'_>,
    to: &impl SockaddrLike,
) -> io::Result<()> {
    let data = [IoSlice::new(bytes)];
    sendmsg(
        socket.as_raw_fd(),
        &data,
        &[source],
        MsgFlags::MSG_DONTWAIT,
        Some(to),
    )?;
    Ok(())
}

/// An acknowledgement whose numbers fit no window, with one byte like an old keepalive's: what
/// is old and brings nothing is dropped without an answer by Linux (since 6.14) and FreeBSD.
/// It has timestamps, since an end that agreed on them may ignore a segment without (RFC 7323,
/// section 3.2); whether zero looks old or new, the answer is the same.
fn segment(key: &FlowKey) -> io::Result<Vec<u8>> {
    let builder = match (IpAddr::from(key.src), IpAddr::from(key.dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), HOPS),
        (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), HOPS),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let (sport, dport) = (u16::from_be_bytes(key.sport), u16::from_be_bytes(key.dport));
    let stamps = [
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::Timestamp(0, 0),
    ];
    let builder = builder.tcp(sport, dport, 0, WINDOW).ack(0);
    let builder = builder.options(&stamps).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(builder.size(GARBAGE.len()));
    builder.write(&mut bytes, &GARBAGE).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{SlicedPacket, TransportSlice};
    use uplink_common::Addr;

    fn key(src: &str, dst: &str) -> FlowKey {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        FlowKey {
            src: addr(src),
            dst: addr(dst),
            sport: 443u16.to_be_bytes(),
            dport: 4711u16.to_be_bytes(),
            proto: 6,
            pad: [0; 3],
        }
    }

    #[test]
    fn the_segment_is_an_acknowledgement_that_asks_for_an_answer() {
        for (src, dst) in [("192.0.2.1", "10.0.0.2"), ("2001:db8::1", "fd00::2")] {
            let bytes = segment(&key(src, dst)).unwrap();
            let packet = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
                panic!("no TCP in {bytes:x?}");
            };
            assert_eq!(tcp.payload(), GARBAGE);
            let header = tcp.to_header();
            assert!(header.ack && !header.syn && !header.rst && !header.fin);
            assert_eq!((header.source_port, header.destination_port), (443, 4711));
            assert_eq!((header.sequence_number, header.acknowledgment_number), (0, 0));
            assert_eq!(header.options_iterator().count(), 3);
        }
    }

    #[test]
    fn mixed_families_are_refused() {
        assert!(segment(&key("192.0.2.1", "fd00::2")).is_err());
    }
}
