//! A flow key as the attributes that name a connection, and back.

use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{IPTuple, ProtoTuple, Tuple};
use rtnetlink::packet_core::DefaultNla;
use uplink_common::{Addr, FlowKey};

const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;
/// `CTA_PROTO_ICMP_ID`; type and code follow it.
const ICMP_ID: u16 = 4;
/// `CTA_PROTO_ICMPV6_ID`; type and code follow it.
const ICMPV6_ID: u16 = 7;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// The tuple of a flow's first direction.
pub(crate) fn of_key(key: &FlowKey) -> Vec<Tuple> {
    let address = |a: Addr| IpAddr::from(a);
    let ip = vec![
        IPTuple::SourceAddress(address(key.src)),
        IPTuple::DestinationAddress(address(key.dst)),
    ];
    let mut proto = vec![ProtoTuple::Protocol(key.proto.into())];
    match key.proto {
        ICMP => proto.extend(echo(key, ICMP_ID, ECHO_REQUEST)),
        ICMPV6 => proto.extend(echo(key, ICMPV6_ID, ECHO_REQUEST_V6)),
        _ => proto.extend([
            ProtoTuple::SourcePort(u16::from_be_bytes(key.sport)),
            ProtoTuple::DestinationPort(u16::from_be_bytes(key.dport)),
        ]),
    }
    vec![Tuple::Ip(ip), Tuple::Proto(proto)]
}

/// Its identifier, type and code.
fn echo(key: &FlowKey, first: u16, kind: u8) -> [ProtoTuple; 3] {
    let attribute = |kind, value| ProtoTuple::Other(DefaultNla::new(kind, value));
    [
        attribute(first, key.sport.to_vec()),
        attribute(first + 1, vec![kind]),
        attribute(first + 2, vec![0]),
    ]
}

/// How the kernel reads the addresses of the tuple.
pub(crate) fn family(key: &FlowKey) -> NetfilterProtoFamily {
    match IpAddr::from(key.src) {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    }
}

/// The key of a tuple with ports; `None` for what has none.
pub(crate) fn key(tuples: &[Tuple]) -> Option<FlowKey> {
    let mut found = FlowKey::default();
    let (mut source, mut destination) = (None, None);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => source = Some(Addr::from(*address)),
                        IPTuple::DestinationAddress(address) => destination = Some(Addr::from(*address)),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => ports(&mut found, parts),
            _ => {}
        }
    }
    (found.src, found.dst) = (source?, destination?);
    (found.sport != [0; 2] && found.dport != [0; 2]).then_some(found)
}

fn ports(key: &mut FlowKey, parts: &[ProtoTuple]) {
    for part in parts {
        match part {
            ProtoTuple::Protocol(protocol) => key.proto = (*protocol).into(),
            ProtoTuple::SourcePort(port) => key.sport = port.to_be_bytes(),
            ProtoTuple::DestinationPort(port) => key.dport = port.to_be_bytes(),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn flow(src: &str, dst: &str, proto: u8) -> FlowKey {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        FlowKey {
            src: addr(src),
            dst: addr(dst),
            sport: 4711u16.to_be_bytes(),
            dport: 443u16.to_be_bytes(),
            proto,
            pad: [0; 3],
        }
    }

    #[test]
    fn a_key_with_ports_survives_the_round_trip() {
        for (src, dst) in [("10.0.0.1", "192.0.2.1"), ("fd00::1", "2001:db8::1")] {
            let before = flow(src, dst, 6);
            assert_eq!(key(&of_key(&before)), Some(before));
        }
        assert_eq!(
            family(&flow("10.0.0.1", "192.0.2.1", 6)),
            NetfilterProtoFamily::IPv4
        );
        assert_eq!(family(&flow("fd00::1", "fd00::2", 6)), NetfilterProtoFamily::IPv6);
    }

    #[test]
    fn an_echo_is_named_by_its_identifier() {
        for (kind, first, request) in [(ICMP, 4, 8), (ICMPV6, 7, 128)] {
            let tuple = of_key(&flow("10.0.0.1", "192.0.2.1", kind));
            let id = DefaultNla::new(first, 4711u16.to_be_bytes().to_vec());
            let request = DefaultNla::new(first + 1, vec![request]);
            let Tuple::Proto(parts) = &tuple[1] else { panic!() };
            assert!(parts.contains(&ProtoTuple::Other(id)));
            assert!(parts.contains(&ProtoTuple::Other(request)));
            assert_eq!(key(&tuple), None);
        }
        assert_eq!(key(&[]), None);
    }
}
