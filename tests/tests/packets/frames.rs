//! Frames as a client sends them, built by etherparse, with the few that it cannot build.

use etherparse::PacketBuilder;
use uplink_common::{Addr, FlowKey};

/// Our interface's MAC address.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The MAC address of the client.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVER4: [u8; 4] = [203, 0, 113, 10];
const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const CLIENT6: [u8; 16] = [0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const UDP: u8 = 17;
const TCP: u8 = 6;
const ETH: usize = 14;

/// An IPv4 flow of a client.
#[derive(Clone, Copy)]
pub struct V4 {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    sport: u16,
    dport: u16,
    proto: u8,
}

impl V4 {
    pub fn udp(sport: u16, dport: u16) -> Self {
        Self {
            src: [172, 16, 0, 2],
            dst: SERVER4,
            sport,
            dport,
            proto: UDP,
        }
    }

    pub fn tcp(sport: u16, dport: u16) -> Self {
        Self {
            proto: TCP,
            ..Self::udp(sport, dport)
        }
    }

    pub fn to(self, dst: [u8; 4]) -> Self {
        Self { dst, ..self }
    }

    pub fn from(self, src: [u8; 4]) -> Self {
        Self { src, ..self }
    }

    /// The other direction.
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
        }
    }

    /// The n-th client of a large network.
    pub fn client(self, n: u32) -> Self {
        let [_, _, a, b] = n.to_be_bytes();
        self.from([172, 20 + (n >> 16 & 3) as u8, a, b.max(1)])
    }

    pub fn key(&self) -> FlowKey {
        FlowKey {
            src: Addr::v4(self.src),
            dst: Addr::v4(self.dst),
            sport: self.sport.to_be_bytes(),
            dport: self.dport.to_be_bytes(),
            proto: self.proto,
            pad: [0; 3],
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        self.frame_to(ROUTER_MAC)
    }

    pub fn frame_to(&self, mac: [u8; 6]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, mac).ipv4(self.src, self.dst, 64);
        let mut out = Vec::new();
        let written = match self.proto {
            TCP => builder
                .tcp(self.sport, self.dport, 1, 1000)
                .syn()
                .write(&mut out, b"payload"),
            _ => builder.udp(self.sport, self.dport).write(&mut out, b"payload"),
        };
        written.expect("writing to memory");
        out
    }

    /// An echo request with this identifier.
    pub fn echo(&self, id: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, ROUTER_MAC).ipv4(self.src, self.dst, 64);
        let mut out = Vec::new();
        builder
            .icmpv4_echo_request(id, 1)
            .write(&mut out, b"ping")
            .expect("writing to memory");
        out
    }

    /// With four bytes of options (NOP) after the header.
    pub fn with_options(&self) -> Vec<u8> {
        let mut f = self.frame();
        f[ETH] = 0x46;
        f.splice(ETH + 20..ETH + 20, [1, 1, 1, 1]);
        f
    }

    pub fn first_fragment(&self) -> Vec<u8> {
        let mut f = self.frame();
        (f[ETH + 6], f[ETH + 7]) = (0x20, 0);
        f
    }

    pub fn later_fragment(&self) -> Vec<u8> {
        let mut f = self.frame();
        (f[ETH + 6], f[ETH + 7]) = (0x20, 100);
        f
    }

    /// A protocol without ports.
    pub fn protocol(&self, proto: u8) -> Vec<u8> {
        let mut f = self.frame();
        f[ETH + 9] = proto;
        f
    }

    /// The client's "port unreachable" about the server's answer.
    pub fn error_about_reply(&self) -> Vec<u8> {
        let mut f = self.protocol(1);
        f.truncate(ETH + 20);
        f.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        f.extend(&self.reversed().frame()[ETH..]);
        f
    }
}

/// An IPv6 flow of a client.
#[derive(Clone, Copy)]
pub struct V6 {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    sport: u16,
    dport: u16,
    proto: u8,
}

impl V6 {
    pub fn udp(sport: u16, dport: u16) -> Self {
        Self {
            src: CLIENT6,
            dst: SERVER6,
            sport,
            dport,
            proto: UDP,
        }
    }

    pub fn tcp(sport: u16, dport: u16) -> Self {
        Self {
            proto: TCP,
            ..Self::udp(sport, dport)
        }
    }

    pub fn to(self, dst: [u8; 16]) -> Self {
        Self { dst, ..self }
    }

    pub fn from(self, src: [u8; 16]) -> Self {
        Self { src, ..self }
    }

    /// The other direction.
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
        }
    }

    pub fn key(&self) -> FlowKey {
        FlowKey {
            src: Addr::v6(self.src),
            dst: Addr::v6(self.dst),
            sport: self.sport.to_be_bytes(),
            dport: self.dport.to_be_bytes(),
            proto: self.proto,
            pad: [0; 3],
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, ROUTER_MAC).ipv6(self.src, self.dst, 64);
        let mut out = Vec::new();
        let written = match self.proto {
            TCP => builder
                .tcp(self.sport, self.dport, 1, 1000)
                .syn()
                .write(&mut out, b"payload"),
            _ => builder.udp(self.sport, self.dport).write(&mut out, b"payload"),
        };
        written.expect("writing to memory");
        out
    }

    /// With hop-by-hop options and destination options in front.
    pub fn with_extensions(&self) -> Vec<u8> {
        self.behind(&[[60, 0, 1, 4, 0, 0, 0, 0], [UDP, 0, 1, 4, 0, 0, 0, 0]], 0)
    }

    /// Behind more extension headers than are followed.
    pub fn too_deep(&self) -> Vec<u8> {
        self.behind(&[[60, 0, 1, 4, 0, 0, 0, 0]; 9], 60)
    }

    fn behind(&self, headers: &[[u8; 8]], first: u8) -> Vec<u8> {
        let mut f = self.frame();
        f[ETH + 6] = first;
        f.splice(ETH + 40..ETH + 40, headers.concat());
        f
    }

    /// The client's "port unreachable" about the server's answer.
    pub fn error_about_reply(&self) -> Vec<u8> {
        error6(self, &self.reversed())
    }

    /// "Port unreachable" from the far end about this flow's packet.
    pub fn error_about(&self) -> Vec<u8> {
        error6(&self.reversed(), self)
    }
}

/// An ICMPv6 error with the addresses of one flow about a packet of another.
fn error6(addresses: &V6, about: &V6) -> Vec<u8> {
    let mut f = addresses.frame();
    f[ETH + 6] = 58;
    f.truncate(ETH + 40);
    f.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    f.extend(&about.frame()[ETH..]);
    f
}

/// A frame with VLAN tags in front of its type.
pub fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    let mut f = frame[..12].to_vec();
    for _ in 0..tags {
        f.extend([0x81, 0x00, 0x00, 0x64]);
    }
    f.extend(&frame[12..]);
    f
}

/// A frame of another type.
pub fn of_type(frame: &[u8], ethertype: u16) -> Vec<u8> {
    let mut f = frame.to_vec();
    f[12..14].copy_from_slice(&ethertype.to_be_bytes());
    f
}

/// A frame from another sender on the link.
pub fn sent_by(mac: [u8; 6], frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    f[6..12].copy_from_slice(&mac);
    f
}

/// A frame for another receiver on the link.
pub fn sent_to(mac: [u8; 6], frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    f[..6].copy_from_slice(&mac);
    f
}

/// A SYN as a later segment: ACK instead of SYN.
pub fn established(syn: &[u8]) -> Vec<u8> {
    with_flags(0x10, syn)
}

/// An untagged TCP segment with other flags.
pub fn with_flags(flags: u8, segment: &[u8]) -> Vec<u8> {
    let mut f = segment.to_vec();
    let tcp = tcp_header(segment);
    f[tcp + 13] = flags;
    f
}

/// A SYN as a later segment with timestamps, in front of its payload.
pub fn stamped(tsval: u32, tsecr: u32, syn: &[u8]) -> Vec<u8> {
    let mut f = established(syn);
    let tcp = tcp_header(syn);
    f[tcp + 12] = 8 << 4;
    let options = [[1, 1, 8, 10], tsval.to_be_bytes(), tsecr.to_be_bytes()].concat();
    f.splice(tcp + 20..tcp + 20, options);
    f
}

/// Where it begins in an untagged frame without extension headers.
fn tcp_header(frame: &[u8]) -> usize {
    ETH + if frame[ETH] >> 4 == 4 { 20 } else { 40 }
}
