//! From bytes to a flow key. Every check comes before any write, so giving up is always safe.

mod sign;

use uplink_common::{Addr, Family, FlowKey, Reason};

pub use sign::{NOTHING, Packet, QUERY, RESET, RESPONSE, STAMPED, STAMPED_DATA, SYN, SYN_ACK, glance};

use sign::{datagram, segment};

/// Bytes with bounds checks; the packet in the kernel, a slice in tests.
pub trait Bytes {
    /// `N` bytes at `offset`, if they are there. At least two: for one, the compiler turns the
    /// check into `>=`, from which the verifier learns nothing at a variable offset.
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Calls `step` for up to [`MAX_EXTENSIONS`] headers.
    fn walk(&self, walk: &mut Walk);
}

/// A walk over IPv6 extension headers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    /// Where the next header is. One byte, so that the verifier of older kernels knows its bounds
    /// again behind the walk.
    pub offset: u8,
    /// Its protocol.
    pub proto: u32,
    /// More fragments follow this one.
    first_fragment: u32,
    /// An earlier fragment has the upper protocol's header.
    later_fragment: u32,
    /// Why the walk has ended, or [`WALKING`].
    end: u32,
}

/// Headers are read up to here: Ethernet, two tags, IPv6 with extension headers, and what an ICMP
/// error quotes.
pub const HEADERS: u32 = 192;

const WALKING: u32 = 0;
const ARRIVED: u32 = 1;
const CUT_SHORT: u32 = 2;
const TOO_FAR: u32 = 3;

/// Where the network header starts, and its family.
pub struct Network {
    /// Address family.
    pub family: Family,
    /// Start of the IP header.
    pub offset: usize,
}

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
const VLAN_LEN: usize = 4;
/// Extension headers that are followed.
pub const MAX_EXTENSIONS: u32 = 6;

/// Ethertype of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const ETH_IPV6: u16 = 0x86dd;
/// Ethertype of a VLAN tag.
pub const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;

const MORE_FRAGMENTS: u16 = 0x2000;

const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Steps over Ethernet and up to two VLAN tags.
#[inline(always)]
pub fn network<B: Bytes>(bytes: &B) -> Result<Network, Reason> {
    let mut ethertype = be16(bytes.get(ETH_LEN - 2).ok_or(Reason::Truncated)?);
    let mut offset = ETH_LEN;
    if is_tag(ethertype) {
        ethertype = be16(bytes.get(offset + 2).ok_or(Reason::Truncated)?);
        offset += VLAN_LEN;
    }
    if is_tag(ethertype) {
        ethertype = be16(bytes.get(offset + 2).ok_or(Reason::Truncated)?);
        offset += VLAN_LEN;
    }
    match ethertype {
        ETH_IPV4 => Ok(Network {
            family: Family::V4,
            offset,
        }),
        ETH_IPV6 => Ok(Network {
            family: Family::V6,
            offset,
        }),
        t if is_tag(t) => Err(Reason::TooDeep),
        _ => Err(Reason::NotIp),
    }
}

/// The source address of an IPv4 packet behind a plain Ethernet header.
#[inline(always)]
pub fn untagged_v4_source<B: Bytes>(bytes: &B) -> Option<Addr> {
    if be16(bytes.get(ETH_LEN - 2)?) != ETH_IPV4 {
        return None;
    }
    bytes.get(ETH_LEN + 12).map(Addr::v4)
}

/// The source address alone.
#[inline(always)]
pub fn source<B: Bytes>(bytes: &B, net: &Network) -> Option<Addr> {
    match net.family {
        Family::V4 => bytes.get(net.offset + 12).map(Addr::v4),
        Family::V6 => bytes.get(net.offset + 8).map(Addr::v6),
    }
}

/// The differentiated services code point (RFC 2474).
#[inline(always)]
pub fn code_point<B: Bytes>(bytes: &B, net: &Network) -> Option<u32> {
    let [first, second] = bytes.get(net.offset)?;
    let class = match net.family {
        Family::V4 => second,
        Family::V6 => first << 4 | second >> 4,
    };
    Some(u32::from(class >> 2))
}

/// What an ICMPv6 error quotes begins here, if the packet is one without extension headers.
#[inline(always)]
pub fn quoted_by_icmpv6<B: Bytes>(bytes: &B, net: &Network) -> Option<usize> {
    let [next, _] = bytes.get(net.offset + 6)?;
    let payload = net.offset + 40;
    is_icmp_error(bytes, next, payload).then_some(payload + 8)
}

/// Fills in the flow of a packet and its sign. An ICMP error belongs to the flow that it quotes. Returns whether
/// the packet may be the first of a connection: every one that is no fragment, ICMP error or TCP
/// segment, and of those the ones with SYN but without ACK.
///
/// The key is written in place: the program's stack has 512 bytes, so nothing is copied. No offset
/// leaves this function, or the verifier would look at all that follows once for each of them.
#[inline(always)]
pub fn flow<B: Bytes>(
    bytes: &B,
    net: &Network,
    defragmented: bool,
    packet: &mut Packet,
) -> Result<bool, Reason> {
    packet.sign = NOTHING;
    let key = &mut packet.key;
    (key.sport, key.dport) = ([0; 2], [0; 2]);
    let ip = header(bytes, net.family, net.offset, key)?;
    if ip.later_fragment || (ip.first_fragment && !defragmented) {
        return Ok(false);
    }
    if is_icmp_error(bytes, key.proto, ip.payload) {
        quoted(bytes, net.family, ip.payload + 8, key)?;
        return Ok(false);
    }
    ports(bytes, ip.payload, key)?;
    match key.proto {
        TCP => {
            segment(bytes, ip.payload, packet);
            Ok(packet.sign == SYN)
        }
        UDP => {
            packet.sign = datagram(&packet.key);
            Ok(true)
        }
        _ => Ok(true),
    }
}

/// The flow that an ICMP error quotes, seen from the sender of the error.
#[inline(always)]
fn quoted<B: Bytes>(bytes: &B, family: Family, offset: usize, key: &mut FlowKey) -> Result<(), Reason> {
    let ip = header(bytes, family, offset, key)?;
    if !ip.later_fragment {
        ports(bytes, ip.payload, key)?;
    }
    core::mem::swap(&mut key.src, &mut key.dst);
    core::mem::swap(&mut key.sport, &mut key.dport);
    Ok(())
}

/// What follows an IP header.
#[derive(Clone, Copy)]
struct Upper {
    payload: usize,
    first_fragment: bool,
    later_fragment: bool,
}

/// Reads addresses and protocol into the key.
#[inline(always)]
fn header<B: Bytes>(bytes: &B, family: Family, offset: usize, key: &mut FlowKey) -> Result<Upper, Reason> {
    match family {
        Family::V4 => v4(bytes, offset, key),
        Family::V6 => v6(bytes, offset, key),
    }
}

#[inline(always)]
fn v4<B: Bytes>(bytes: &B, offset: usize, key: &mut FlowKey) -> Result<Upper, Reason> {
    let [first, _] = bytes.get(offset).ok_or(Reason::Truncated)?;
    let length = ((first & 0x0f) as usize) * 4;
    if first >> 4 != 4 || length < 20 {
        return Err(Reason::Truncated);
    }
    let fragment: [u8; 2] = bytes.get(offset + 6).ok_or(Reason::Truncated)?;
    let [_, proto] = bytes.get(offset + 8).ok_or(Reason::Truncated)?;
    key.src = Addr::v4(bytes.get(offset + 12).ok_or(Reason::Truncated)?);
    key.dst = Addr::v4(bytes.get(offset + 16).ok_or(Reason::Truncated)?);
    key.proto = proto;
    let fragment = be16(fragment);
    let later_fragment = fragment & 0x1fff != 0;
    Ok(Upper {
        payload: offset + length,
        first_fragment: fragment & MORE_FRAGMENTS != 0 && !later_fragment,
        later_fragment,
    })
}

#[inline(always)]
fn v6<B: Bytes>(bytes: &B, offset: usize, key: &mut FlowKey) -> Result<Upper, Reason> {
    let [version, _] = bytes.get(offset).ok_or(Reason::Truncated)?;
    if version >> 4 != 6 {
        return Err(Reason::Truncated);
    }
    let [next, _] = bytes.get(offset + 6).ok_or(Reason::Truncated)?;
    key.src = Addr::v6(bytes.get(offset + 8).ok_or(Reason::Truncated)?);
    key.dst = Addr::v6(bytes.get(offset + 24).ok_or(Reason::Truncated)?);
    key.proto = next;
    extensions(bytes, offset + 40, key)
}

/// Walks IPv6 extension headers (RFC 8200, section 4) to the upper protocol.
#[inline(always)]
fn extensions<B: Bytes>(bytes: &B, offset: usize, key: &mut FlowKey) -> Result<Upper, Reason> {
    if !is_extension(u32::from(key.proto)) {
        return Ok(Upper {
            payload: offset,
            first_fragment: false,
            later_fragment: false,
        });
    }
    let mut walk = Walk {
        offset: offset as u8,
        proto: u32::from(key.proto),
        first_fragment: 0,
        later_fragment: 0,
        end: WALKING,
    };
    bytes.walk(&mut walk);
    key.proto = walk.proto as u8;
    if walk.end == CUT_SHORT {
        return Err(Reason::Truncated);
    }
    if walk.end == TOO_FAR || (walk.end == WALKING && is_extension(walk.proto)) {
        return Err(Reason::TooDeep);
    }
    Ok(Upper {
        payload: walk.offset as usize,
        first_fragment: walk.first_fragment != 0,
        later_fragment: walk.later_fragment != 0,
    })
}

impl Walk {
    /// Steps over one header, given its first bytes. Returns whether to go on.
    #[inline(always)]
    pub fn step(&mut self, head: Option<[u8; 4]>) -> bool {
        if !is_extension(self.proto) {
            self.end = ARRIVED;
            return false;
        }
        let Some([next, length, c, d]) = head else {
            self.end = CUT_SHORT;
            return false;
        };
        // RFC 8200 counts 8-byte units beyond the first 8, RFC 4302 4-byte units beyond 8.
        let more = match self.proto as u8 {
            FRAGMENT => 0,
            AUTHENTICATION => u32::from(length) * 4,
            _ => u32::from(length) * 8,
        };
        if self.proto as u8 == FRAGMENT {
            self.first_fragment = u32::from(d & 1);
            self.later_fragment = u32::from(be16([c, d]) & 0xfff8);
        }
        self.proto = u32::from(next);
        let offset = u32::from(self.offset) + 8 + more;
        if offset > HEADERS {
            self.end = TOO_FAR;
            return false;
        }
        self.offset = offset as u8;
        if self.later_fragment != 0 {
            self.first_fragment = 0;
            self.end = ARRIVED;
            return false;
        }
        true
    }
}

/// Whether a header of this number is an extension header that is followed.
#[inline(always)]
pub const fn is_extension(proto: u32) -> bool {
    matches!(
        proto as u8,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

/// Fills in ports, or the identifier of an ICMP echo. Other protocols have none.
#[inline(always)]
fn ports<B: Bytes>(bytes: &B, offset: usize, key: &mut FlowKey) -> Result<(), Reason> {
    match key.proto {
        TCP | UDP | SCTP | UDPLITE => {
            let p: [u8; 4] = bytes.get(offset).ok_or(Reason::Truncated)?;
            key.sport = [p[0], p[1]];
            key.dport = [p[2], p[3]];
        }
        ICMP | ICMPV6 => {
            let p: [u8; 8] = bytes.get(offset).ok_or(Reason::Truncated)?;
            if is_echo(key.proto, p[0]) {
                key.sport = [p[4], p[5]];
                key.dport = [p[4], p[5]];
            }
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn is_icmp_error<B: Bytes>(bytes: &B, proto: u8, offset: usize) -> bool {
    if proto != ICMP && proto != ICMPV6 {
        return false;
    }
    let Some([kind, _]) = bytes.get(offset) else {
        return false;
    };
    match proto {
        // Unreachable, source quench, time exceeded, parameter problem (RFC 792).
        ICMP => matches!(kind, 3 | 4 | 11 | 12),
        // RFC 4443: errors have the high bit clear.
        _ => matches!(kind, 1..=4),
    }
}

#[inline(always)]
const fn is_echo(proto: u8, kind: u8) -> bool {
    match proto {
        ICMP => kind == 8 || kind == 0,
        _ => kind == 128 || kind == 129,
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETH_VLAN || ethertype == ETH_QINQ
}

/// From network byte order.
#[inline(always)]
pub const fn be16(b: [u8; 2]) -> u16 {
    u16::from_be_bytes(b)
}
