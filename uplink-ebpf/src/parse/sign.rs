//! What a packet tells of its path, beside its flow.

use uplink_common::{Addr, Family, FlowKey};

use super::{Bytes, MORE_FRAGMENTS, Network, TCP, UDP, be16, is_extension};

/// What is known of a packet.
#[repr(C)]
pub struct Packet {
    /// Its flow.
    pub key: FlowKey,
    /// The source in its own header, at egress: an error's key is that of what it quotes.
    pub source: Addr,
    /// Its family by number, where it is known to be read again.
    pub v6: u32,
    /// Its policy at ingress, as `policy::find` answers.
    pub policy: u32,
    /// What pin its flow had, at ingress: one of those in `place`.
    pub was: u32,
    /// 1 where it may be the first of a connection, at egress. Four bytes that are cleared by one store;
    /// for more of them the compiler calls a loop.
    pub opens: u8,
    /// The uplink that it leaves by, at egress; 0: none.
    pub out: u8,
    /// The uplink that it came in by, where it is for a host behind us; 0: none.
    pub back: u8,
    /// 1 where it leaves without NAT.
    pub leaks: u8,
    /// 1 where it came past the kernel's forwarding, at egress.
    pub past: u32,
    /// What it tells of its path: [`NOTHING`] or one of those that follow.
    pub sign: u32,
    /// TSval of a [`STAMPED`] segment.
    pub tsval: u32,
    /// TSecr of a [`STAMPED`] segment.
    pub tsecr: u32,
    /// 1 where a [`STAMPED`] segment has payload.
    pub payload: u32,
}

impl Packet {
    /// The family, where it was noted.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        match self.v6 {
            0 => Family::V4,
            _ => Family::V6,
        }
    }
}

/// [`Packet::sign`]: nothing.
pub const NOTHING: u32 = 0;
/// [`Packet::sign`]: SYN without ACK.
pub const SYN: u32 = 1;
/// [`Packet::sign`]: SYN and ACK.
pub const SYN_ACK: u32 = 2;
/// [`Packet::sign`]: RST.
pub const RESET: u32 = 3;
/// [`Packet::sign`]: a datagram to the DNS port.
pub const QUERY: u32 = 4;
/// [`Packet::sign`]: a datagram from the DNS port.
pub const RESPONSE: u32 = 5;
/// [`Packet::sign`]: a later TCP segment with timestamps.
pub const STAMPED: u32 = 6;
/// [`Packet::sign`]: the same with payload, but not read yet.
pub const STAMPED_DATA: u32 = 7;

/// TCP flags.
const FIN: u8 = 0x01;
const S: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// How the options of a segment with timestamps begin.
const LEADING: [u8; 4] = [1, 1, 8, 10];
/// The port of DNS.
const DNS: [u8; 2] = [0, 53];

/// The sign of a packet that asks nothing, neither by SYN nor by DNS. `None`: it does, or has to be read
/// whole to know.
#[inline(always)]
pub fn glance<B: Bytes>(bytes: &B, net: &Network) -> Option<u32> {
    let (proto, offset) = match net.family {
        Family::V4 => {
            let head: [u8; 10] = bytes.get(net.offset)?;
            let whole = be16([head[6], head[7]]) & (MORE_FRAGMENTS | 0x1fff) == 0;
            (
                if head[0] == 0x45 && whole {
                    head[9]
                } else {
                    return None;
                },
                net.offset + 20,
            )
        }
        Family::V6 => (bytes.get::<2>(net.offset + 6)?[0], net.offset + 40),
    };
    match proto {
        TCP => under_way(bytes, offset),
        UDP if bytes.get(offset + 2)? == DNS => None,
        _ if net.family == Family::V6 && is_extension(u32::from(proto)) => None,
        _ => Some(NOTHING),
    }
}

#[inline(always)]
fn under_way<B: Bytes>(bytes: &B, offset: usize) -> Option<u32> {
    let [words, flags] = bytes.get(offset + 12)?;
    if flags & (S | ACK) == S {
        return None;
    }
    let later = flags & (FIN | S | RST | ACK) == ACK;
    let stamped = later && words >> 4 >= 8 && bytes.get(offset + 20) == Some(LEADING);
    Some(if stamped && has_payload(bytes, offset, words >> 4) {
        STAMPED_DATA
    } else {
        NOTHING
    })
}

/// Two bytes of it: see [`Bytes::get`].
#[inline(always)]
fn has_payload<B: Bytes>(bytes: &B, offset: usize, words: u8) -> bool {
    bytes.get::<2>(offset + usize::from(words) * 4).is_some()
}

#[inline(always)]
pub(super) fn datagram(key: &FlowKey) -> u32 {
    match (key.sport, key.dport) {
        (_, DNS) => QUERY,
        (DNS, _) => RESPONSE,
        _ => NOTHING,
    }
}

/// The sign of a TCP segment.
#[inline(always)]
pub(super) fn segment<B: Bytes>(bytes: &B, offset: usize, packet: &mut Packet) {
    let Some([words, flags]) = bytes.get(offset + 12) else {
        return;
    };
    if flags & (FIN | S | RST | ACK) == ACK {
        stamps(bytes, offset, words >> 4, packet);
    } else if flags & RST != 0 {
        packet.sign = RESET;
    } else if flags & S != 0 {
        packet.sign = if flags & ACK == 0 { SYN } else { SYN_ACK };
    }
}

/// Timestamps where Linux, Windows, macOS and the BSDs have them: in front, aligned by two NOPs
/// (RFC 7323, appendix A). `words` is the length of the TCP header.
#[inline(always)]
fn stamps<B: Bytes>(bytes: &B, offset: usize, words: u8, packet: &mut Packet) {
    let Some([a, b, c, d, options @ ..]) = bytes.get::<12>(offset + 20) else {
        return;
    };
    if words < 8 || [a, b, c, d] != LEADING {
        return;
    }
    let [e, f, g, h, i, j, k, l] = options;
    packet.tsval = u32::from_be_bytes([e, f, g, h]);
    packet.tsecr = u32::from_be_bytes([i, j, k, l]);
    packet.payload = u32::from(has_payload(bytes, offset, words));
    packet.sign = STAMPED;
}
