//! What is asked: a flow in the words of a person.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use uplink_common::policy::has_ports;
use uplink_common::{Addr, Family, FlowKey};

use crate::flows;

/// Parameters of `org.uplink.Explain`, which are those of the command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Source address and port; "-" is a socket of this host, which has no address yet.
    pub src: String,
    /// Destination address and port.
    pub dst: String,
    /// Protocol by name or number; by default tcp where a port is given, else an ICMP echo.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proto: Option<String>,
    /// Where it comes in; by default the first LAN interface.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iif: Option<String>,
    /// Code point; by default 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dscp: Option<u8>,
    /// MAC address of the sender.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<String>,
    /// Whose socket it is, by number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// The process's cgroup, below the cgroup v2 mount.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<String>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A socket of this host that has not chosen an address.
    Socket,
    /// A host, or a socket that has.
    Address(IpAddr),
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub src: Source,
    /// The destination.
    pub dst: IpAddr,
    /// Source port; the identifier of an ICMP echo. `None`: any.
    pub sport: Option<u16>,
    /// Destination port, likewise.
    pub dport: Option<u16>,
    /// IP protocol.
    pub proto: u8,
    /// Code point.
    pub dscp: Option<u8>,
    /// Who sent the frame.
    pub mac: Option<[u8; 6]>,
    /// Whose socket it is.
    pub uid: Option<u32>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Question {
    /// The flow that is meant.
    ///
    /// # Errors
    /// In the words for whoever asked.
    pub fn flow(&self) -> Result<Flow, String> {
        let (dst, dport) = end("DST", &self.dst)?;
        let (src, sport) = match &*self.src {
            "-" => (Source::Socket, None),
            text => end("SRC", text).map(|(ip, port)| (Source::Address(ip), port))?,
        };
        if let Source::Address(src) = src
            && src.is_ipv4() != dst.is_ipv4()
        {
            return Err(format!(
                "{src} and {dst} are of different families: give two IPv4 or two IPv6 addresses"
            ));
        }
        self.fits(src)?;
        let proto = self.protocol(dst, sport.is_some() || dport.is_some())?;
        let mut flow = Flow {
            src,
            dst,
            sport,
            dport,
            proto,
            dscp: (src != Source::Socket).then(|| self.dscp.unwrap_or(0)),
            mac: self.mac.as_deref().map(station).transpose()?,
            uid: self.uid,
        };
        flow.settle_ports();
        Ok(flow)
    }

    /// What forwarded packets have is not there before a socket has sent any, and the other way round.
    fn fits(&self, src: Source) -> Result<(), String> {
        if self.dscp.is_some_and(|dscp| dscp > 63) {
            return Err(format!(
                "{} is no code point: give a number from 0 to 63",
                self.dscp.unwrap_or(0)
            ));
        }
        let of_packets = [
            ("--iif", self.iif.is_some()),
            ("--dscp", self.dscp.is_some()),
            ("--mac", self.mac.is_some()),
        ];
        let of_sockets = [("--uid", self.uid.is_some()), ("--cgroup", self.cgroup.is_some())];
        let (odd, why) = match src {
            Source::Socket => (
                of_packets.as_slice(),
                "a socket of this host has none: leave it out, or give an address as SRC",
            ),
            Source::Address(_) => (
                of_sockets.as_slice(),
                "a forwarded flow has none: leave it out, or give \"-\" as SRC",
            ),
        };
        match odd.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(format!("{option}: {why}")),
            None => Ok(()),
        }
    }

    fn protocol(&self, dst: IpAddr, port: bool) -> Result<u8, String> {
        let echo = if dst.is_ipv4() { ICMP } else { ICMPV6 };
        match self.proto.as_deref() {
            None if port => Ok(TCP),
            None | Some("icmp") => Ok(echo),
            Some(name) => flows::protocol_number(name).ok_or_else(|| {
                format!(
                    "{name:?} is no protocol: give tcp, udp, icmp, sctp, another name, or a number up to 255"
                )
            }),
        }
    }
}

impl Flow {
    /// Other protocols have no ports. An echo has one identifier, which stands in both places.
    fn settle_ports(&mut self) {
        let both = match self.proto {
            ICMP | ICMPV6 => self.sport.or(self.dport),
            proto if has_ports(proto) => return,
            _ => Some(0),
        };
        (self.sport, self.dport) = (both, both);
    }

    /// The address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.dst {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The key of the flow, if everything about it is known.
    #[must_use]
    pub fn key(&self) -> Option<FlowKey> {
        let Source::Address(src) = self.src else {
            return None;
        };
        Some(FlowKey {
            src: src.into(),
            dst: self.dst.into(),
            sport: self.sport?.to_be_bytes(),
            dport: self.dport?.to_be_bytes(),
            proto: self.proto,
            pad: [0; 3],
        })
    }

    /// The key of its two ends alone, as far as the source is known.
    #[must_use]
    pub fn ends(&self, both: bool) -> FlowKey {
        let mut ends = FlowKey::default();
        if let Source::Address(src) = self.src {
            ends.src = src.into();
        }
        if both {
            ends.dst = Addr::from(self.dst);
        }
        ends
    }

    /// Whether it is one that the programs of this host's sockets see.
    #[must_use]
    pub const fn is_tcp_or_udp(&self) -> bool {
        matches!(self.proto, TCP | UDP)
    }
}

/// An address and a port, where there is one.
fn end(what: &str, text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().map(|ip| (ip, None));
    let (ip, port) = address
        .or_else(|_| text.parse::<SocketAddr>().map(|a| (a.ip(), Some(a.port()))))
        .map_err(|_| {
            let also = if what == "SRC" { ", or - for a socket of this host" } else { "" };
            format!("{what} {text:?}: give an address or ADDRESS:PORT, such as 192.0.2.1:443 or [2001:db8::1]:443{also}")
        })?;
    Ok((ip.to_canonical(), port))
}

fn station(text: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    let digits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
    for byte in &mut mac {
        let part = parts.next().filter(|part| digits(part));
        *byte = part
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or_else(|| no_mac(text))?;
    }
    match parts.next() {
        None => Ok(mac),
        Some(_) => Err(no_mac(text)),
    }
}

fn no_mac(text: &str) -> String {
    format!("{text:?} is no MAC address: give one such as 02:00:5e:10:00:01")
}
