//! Messages and packets as tests write them.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::PacketBuilder;
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE};
use uplink_common::policy::{Capture, FROM_GATEWAY};

use super::{Change, Ear, Servers, Settings, Wanted};
use crate::config::Domain;

mod ear;
mod fuzz;
mod learned;
mod message;
mod packet;
mod questions;
mod resolve;
mod stream;

const CLIENT: &str = "192.168.7.2:4000";
const SERVER: &str = "192.0.2.53:53";
const NOW: Duration = Duration::from_secs(1_000);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A question.
fn query(id: u16, name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question(name, kind));
    packet.build_bytes_vec().unwrap()
}

fn question(name: &str, kind: TYPE) -> Question<'_> {
    Question::new(Name::new(name).unwrap(), kind.into(), CLASS::IN.into(), false)
}

/// An answer; records are (name, TTL, address or name).
fn reply(id: u16, name: &str, kind: TYPE, records: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut packet = Packet::new_reply(id);
    packet.questions.push(question(name, kind));
    packet.answers = records.iter().map(|r| record(*r)).collect();
    packet.build_bytes_vec_compressed().unwrap()
}

fn record<'a>((name, ttl, data): (&'a str, u32, &'a str)) -> ResourceRecord<'a> {
    let data = match data.parse() {
        Ok(IpAddr::V4(a)) => RData::A(A { address: a.into() }),
        Ok(IpAddr::V6(a)) => RData::AAAA(AAAA { address: a.into() }),
        Err(_) => RData::CNAME(CNAME(Name::new(data).unwrap())),
    };
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, data)
}

/// A packet by UDP, captured.
fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (at(from), at(to));
    let mut packet = Vec::new();
    builder(from, to)
        .udp(from.port(), to.port())
        .write(&mut packet, payload)
        .unwrap();
    capture(&packet)
}

/// A TCP segment, captured; `flags` are some of "SFR".
fn tcp(from: &str, to: &str, seq: u32, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (at(from), at(to));
    let mut builder = builder(from, to).tcp(from.port(), to.port(), seq, 1_000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'F' => builder.fin(),
            _ => builder.rst(),
        };
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    capture(&packet)
}

fn builder(from: SocketAddr, to: SocketAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, from.octets(), to.octets())
                .unwrap(),
            Default::default(),
        )),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ip(etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                source: from.octets(),
                destination: to.octets(),
                hop_limit: 64,
                ..Default::default()
            },
            Default::default(),
        )),
        _ => panic!("two families"),
    }
}

fn capture(packet: &[u8]) -> Vec<u8> {
    let length = packet.len() as u32;
    let mut bytes: Vec<u8> = [length, length, 2, 1]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect();
    bytes.extend_from_slice(packet);
    bytes
}

/// The same, come in from an uplink's gateway.
fn from_gateway(mut capture: Vec<u8>) -> Vec<u8> {
    let at = std::mem::offset_of!(Capture, inward);
    capture[at..at + 4].copy_from_slice(&FROM_GATEWAY.to_ne_bytes());
    capture
}

fn settings() -> Settings {
    let domain = |name: &str| Domain {
        name: name.into(),
        below: true,
    };
    Settings {
        servers: Servers {
            any: true,
            listed: HashSet::new(),
        },
        ttl_s: 60..=86_400,
        excluded: HashSet::new(),
        wanted: Wanted::new(&[domain("example.org")]),
    }
}

fn ear() -> Ear {
    Ear::new(settings())
}

/// A change as a line: address, names, and for how long from `NOW`.
fn line(change: &Change) -> String {
    match change {
        Change::Known {
            address,
            names,
            expires_s,
        } => format!("{address} {} {}", names.join(","), expires_s - NOW.as_secs()),
        Change::Gone { address } => format!("{address} gone"),
    }
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(line).collect()
}
