//! The key of a flow.

use crate::Addr;

/// Identifies a flow in one direction.
///
/// Ports are in network byte order, so the bytes are those of the packet. Protocols without
/// ports, and fragments, carry zero ports; an ICMP echo carries its identifier in both.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, network byte order.
    pub sport: [u8; 2],
    /// Destination port, network byte order.
    pub dport: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// Always zero: the whole key is hashed and compared.
    pub pad: [u8; 3],
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The key as five words for the hash.
    #[inline(always)]
    #[must_use]
    pub fn words(&self) -> [u64; 5] {
        let ([a, b], [c, d]) = (self.src.words(), self.dst.words());
        [
            a,
            b,
            c,
            d,
            u64::from_le_bytes([
                self.sport[0],
                self.sport[1],
                self.dport[0],
                self.dport[1],
                self.proto,
                0,
                0,
                0,
            ]),
        ]
    }

    /// The same flow seen from the other end.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
            pad: [0; 3],
        }
    }
}

/// The source of a flow that a socket of this host begins, before it has an address: its cookie in
/// the discard prefix 100::/64 (RFC 6666), which no packet carries.
#[inline(always)]
#[must_use]
pub const fn socket(cookie: u64) -> Addr {
    let c = cookie.to_be_bytes();
    Addr([
        1, 0, 0, 0, 0, 0, 0, 0, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7],
    ])
}

/// Whether a source stands for a socket.
#[inline(always)]
#[must_use]
pub const fn is_socket(src: &Addr) -> bool {
    src.words()[0] == 1
}
