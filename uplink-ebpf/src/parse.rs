//! From bytes to a flow key. Every check comes before any write, so giving up is always safe.

use uplink_common::{Addr, Family, FlowKey, Reason};

/// Bytes with bounds checks; the packet in the kernel, a slice in tests.
pub trait Bytes {
    /// `N` bytes at `offset`, if they are there. At least two: for one, the compiler turns the
    /// check into `>=`, from which the verifier learns nothing at a variable offset.
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// Where the network header starts, and its family.
pub struct Network {
    /// Address family.
    pub family: Family,
    /// Start of the IP header.
    pub offset: usize,
}

const ETH_LEN: usize = 14;
const VLAN_LEN: usize = 4;
const MAX_EXTENSIONS: usize = 6;

const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;

const MORE_FRAGMENTS: u16 = 0x2000;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
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

/// The source address alone.
#[inline(always)]
pub fn source<B: Bytes>(bytes: &B, net: &Network) -> Option<Addr> {
    match net.family {
        Family::V4 => bytes.get(net.offset + 12).map(Addr::v4),
        Family::V6 => bytes.get(net.offset + 8).map(Addr::v6),
    }
}

/// What an ICMPv6 error quotes begins here, if the packet is one without extension headers.
#[inline(always)]
pub fn quoted_by_icmpv6<B: Bytes>(bytes: &B, net: &Network) -> Option<usize> {
    let [next, _] = bytes.get(net.offset + 6)?;
    let payload = net.offset + 40;
    is_icmp_error(bytes, next, payload).then_some(payload + 8)
}

/// Fills in the flow of a packet and returns where its payload starts, 0 where that says nothing
/// about the flow (fragments, ICMP errors). An ICMP error belongs to the flow that it quotes.
///
/// The key is written in place: the program's stack has 512 bytes, so nothing is copied.
#[inline(always)]
pub fn flow<B: Bytes>(
    bytes: &B,
    net: &Network,
    defragmented: bool,
    key: &mut FlowKey,
) -> Result<usize, Reason> {
    let ip = header(bytes, net.family, net.offset, key)?;
    if ip.later_fragment || (ip.first_fragment && !defragmented) {
        return Ok(0);
    }
    if is_icmp_error(bytes, key.proto, ip.payload) {
        quoted(bytes, net.family, ip.payload + 8, key)?;
        return Ok(0);
    }
    ports(bytes, ip.payload, key)?;
    Ok(ip.payload)
}

/// Whether the packet may be the first of a connection: every one that is no TCP segment, and of
/// those the ones with SYN but without ACK.
#[inline(always)]
pub fn opens<B: Bytes>(bytes: &B, key: &FlowKey, payload: usize) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    if payload == 0 {
        return false;
    }
    if key.proto != TCP {
        return true;
    }
    let flags: Option<[u8; 2]> = bytes.get(payload + 12);
    flags.is_some_and(|[_, flags]| flags & (SYN | ACK) == SYN)
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
fn extensions<B: Bytes>(bytes: &B, mut offset: usize, key: &mut FlowKey) -> Result<Upper, Reason> {
    let mut first_fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        let units = match key.proto {
            HOP_BY_HOP | ROUTING | DESTINATION => 8,
            AUTHENTICATION => 4,
            FRAGMENT => {
                let f: [u8; 4] = bytes.get(offset).ok_or(Reason::Truncated)?;
                key.proto = f[0];
                offset += 8;
                if be16([f[2], f[3]]) & 0xfff8 != 0 {
                    return Ok(Upper {
                        payload: offset,
                        first_fragment,
                        later_fragment: true,
                    });
                }
                first_fragment = f[3] & 1 != 0;
                continue;
            }
            _ => {
                return Ok(Upper {
                    payload: offset,
                    first_fragment,
                    later_fragment: false,
                });
            }
        };
        let [next, length] = bytes.get(offset).ok_or(Reason::Truncated)?;
        key.proto = next;
        // RFC 8200 counts 8-byte units beyond the first 8, RFC 4302 4-byte units beyond 8.
        offset += 8 + length as usize * units;
    }
    Err(Reason::TooDeep)
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

#[inline(always)]
const fn be16(b: [u8; 2]) -> u16 {
    u16::from_be_bytes(b)
}
