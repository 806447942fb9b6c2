//! A client of resolvers. Call it inside of a namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

use super::PORT;
use crate::topology::Family;
use crate::traffic::{PATIENCE, any};

/// How a question is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By UDP.
    Udp,
    /// By UDP, for answers up to this size (EDNS).
    Edns(u16),
    /// By TCP.
    Tcp,
}

/// What a resolver answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The addresses in it.
    pub addresses: Vec<IpAddr>,
    /// How many aliases are in it.
    pub aliases: usize,
    /// Whether it says that it was too long for UDP.
    pub truncated: bool,
    /// How long the message is.
    pub length: usize,
}

/// Asks for the addresses of a name, as programs do: by UDP, and by TCP where the answer is too long.
///
/// # Errors
/// When nobody answers, or says that there are none.
pub fn resolve(server: IpAddr, name: &str, family: Family) -> Result<Vec<IpAddr>> {
    let addresses = lookup(server, name, family, Way::Udp)?.addresses;
    anyhow::ensure!(
        !addresses.is_empty(),
        "{server} knows no {family:?} address of {name}"
    );
    Ok(addresses)
}

/// As [`ask`], and by TCP where the answer is too long.
///
/// # Errors
/// As [`ask`].
pub fn lookup(server: IpAddr, name: &str, family: Family, way: Way) -> Result<Answer> {
    let answer = ask(server, name, family, way)?;
    if answer.truncated {
        return ask(server, name, family, Way::Tcp);
    }
    Ok(answer)
}

/// One question, and the answer.
///
/// # Errors
/// When there is none, or another one than to this question.
pub fn ask(server: IpAddr, name: &str, family: Family, way: Way) -> Result<Answer> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let server = SocketAddr::new(server, PORT);
    let asked = || format!("ask {server} for {name} by {way:?}");
    let kind = match family {
        Family::V4 => 1,
        Family::V6 => 28,
    };
    let query = query(id, name, kind, way.size())?;
    let reply = match way {
        Way::Tcp => by_tcp(server, &query),
        _ => by_udp(server, &query),
    };
    let reply = reply.with_context(asked)?;
    read(&reply, id).with_context(asked)
}

impl Way {
    const fn size(self) -> Option<u16> {
        match self {
            Self::Edns(size) => Some(size),
            _ => None,
        }
    }
}

pub(super) fn query(id: u16, name: &str, kind: u16, size: Option<u16>) -> Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(Name::new(name)?, TYPE::from(kind).into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    *packet.opt_mut() = size.map(|udp_packet_size| OPT {
        opt_codes: Vec::new(),
        udp_packet_size,
        version: 0,
    });
    Ok(packet.build_bytes_vec()?)
}

fn by_udp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((any(server.ip()), 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(query)?;
    let mut reply = vec![0; 65_535];
    let n = socket.recv(&mut reply)?;
    reply.truncate(n);
    Ok(reply)
}

fn by_tcp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(query.len())?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn read(reply: &[u8], id: u16) -> Result<Answer> {
    let packet = Packet::parse(reply)?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        bail!("an answer to something else");
    }
    let address = |data: &RData<'_>| match data {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(a) => Some(IpAddr::V6(a.address.into())),
        _ => None,
    };
    let data = || packet.answers.iter().map(|record| &record.rdata);
    Ok(Answer {
        addresses: data().filter_map(address).collect(),
        aliases: data().filter(|data| matches!(data, RData::CNAME(_))).count(),
        truncated: packet.has_flags(PacketFlag::TRUNCATION),
        length: reply.len(),
    })
}
