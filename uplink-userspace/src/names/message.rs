//! A DNS message -> a question, or what an answer says of the name that was asked for.
//!
//! The head is read first and costs little. The records are read only once a question is found that they answer.

use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, RCODE, ResourceRecord, header_buffer};

use super::Outcome;

/// Longer messages are not looked at.
pub const LONGEST: usize = 4_096;
/// From one name to the next, at most so often.
pub const MOST_LINKS: usize = 16;
/// Of a question for IPv4 addresses.
pub const A: u16 = 1;
/// Of a question for IPv6 addresses.
pub const AAAA: u16 = 28;
/// Of a question for whatever there is.
pub const ANY: u16 = 255;

const HEADER: usize = 12;
/// Where the numbers of records are in the header: answers, authorities, additional ones.
const ANSWERS: std::ops::Range<usize> = 6..8;
const OTHERS: std::ops::Range<usize> = 8..HEADER;
/// Header and question: the longest name, type and class.
const FRONT: usize = HEADER + 255 + 4;
/// A record of the root, without data.
const SHORTEST_RECORD: usize = 11;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Question {
    /// The identifier, which the answer repeats.
    pub id: u16,
    /// The name as by [`text`].
    pub name: Arc<str>,
    /// The type of the records.
    pub kind: u16,
}

/// The beginning of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// What is asked for, or answered.
    pub question: Question,
    /// This is an answer.
    pub is_answer: bool,
    /// Records were left out, since they were too many for UDP.
    pub truncated: bool,
    /// The response code; 0: no error.
    pub rcode: u8,
}

/// An answer that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What it answers.
    pub question: Question,
    /// The response code; 0: no error.
    pub rcode: u8,
    /// Of the name that was asked for.
    pub addresses: Vec<Address>,
}

/// An address in an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// For how long, in seconds: the least of all records that lead to it.
    pub ttl_s: u32,
    /// The names that lead to it, the one that was asked for first.
    pub names: Vec<Arc<str>>,
}

/// An answer, and who gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// What it says.
    pub answer: Answer,
    /// Who says so.
    pub server: IpAddr,
}

/// Reads the beginning. Of several questions in one message nobody knows what they mean (RFC 9619).
///
/// # Errors
/// Why it is not looked at.
pub fn head(message: &[u8]) -> Result<Head, Outcome> {
    if message.len() > LONGEST {
        return Err(Outcome::Oversized);
    }
    if header_buffer::questions(message) != Ok(1) {
        return Err(Outcome::Malformed);
    }
    let mut front = [0; FRONT];
    let length = message.len().min(FRONT);
    let (front, _) = front.split_at_mut(length);
    front.copy_from_slice(message.get(..length).ok_or(Outcome::Malformed)?);
    clear(front, ANSWERS);
    clear(front, OTHERS);
    let packet = Packet::parse(front).map_err(|_| Outcome::Malformed)?;
    let question = packet.questions.first().ok_or(Outcome::Malformed)?;
    let is_internet = question.qclass == QCLASS::CLASS(CLASS::IN) && !question.unicast_response;
    if packet.opcode() != OPCODE::StandardQuery || !is_internet {
        return Err(Outcome::Malformed);
    }
    Ok(Head {
        question: Question {
            id: packet.id(),
            name: text(&question.qname).into(),
            kind: question.qtype.into(),
        },
        is_answer: packet.has_flags(PacketFlag::RESPONSE),
        truncated: packet.has_flags(PacketFlag::TRUNCATION),
        rcode: code(message),
    })
}

/// Reads the records of a message that [`head`] has read. Only those of the answer section are looked at, and of
/// these only addresses and aliases of the name that was asked for.
///
/// # Errors
/// Why it says nothing.
pub fn answer(message: &[u8], head: Head) -> Result<Answer, Outcome> {
    if head.truncated {
        return Err(Outcome::Truncated);
    }
    let records = header_buffer::answers(message).map_err(|_| Outcome::Malformed)?;
    // The library makes room for as many records as are announced.
    if usize::from(records) * SHORTEST_RECORD > message.len().saturating_sub(HEADER) {
        return Err(Outcome::Malformed);
    }
    let mut message = message.to_vec();
    clear(&mut message, OTHERS);
    let packet = Packet::parse(&message).map_err(|_| Outcome::Malformed)?;
    let addresses = if packet.rcode() == RCODE::NoError {
        addresses(&packet)?
    } else {
        Vec::new()
    };
    Ok(Answer {
        question: head.question,
        rcode: head.rcode,
        addresses,
    })
}

/// A name as policies write it: lower case, without a dot at its end; the root is empty. Whatever is no letter,
/// digit, `-` or `_` is escaped, so that no label of strange bytes is taken for several, or for another.
#[must_use]
pub fn text(name: &Name<'_>) -> String {
    let mut text = String::new();
    for (i, label) in name.as_bytes().enumerate() {
        if i > 0 {
            text.push('.');
        }
        for byte in label.iter().map(u8::to_ascii_lowercase) {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                text.push(byte.into());
            } else {
                text.push_str(&format!("\\{byte:03}"));
            }
        }
    }
    text
}

fn clear(message: &mut [u8], range: std::ops::Range<usize>) {
    if let Some(counts) = message.get_mut(range) {
        counts.fill(0);
    }
}

/// The library reads codes that it does not know as one.
fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(0, |flags| flags & 0x0f)
}

/// A name that leads to addresses, and for how long.
struct Link<'a> {
    name: &'a Name<'a>,
    ttl_s: u32,
}

/// Names are compared as they are and written out only where they lead somewhere: a message may hold hundreds that
/// are as long as can be.
fn addresses(packet: &Packet<'_>) -> Result<Vec<Address>, Outcome> {
    let question = packet.questions.first().ok_or(Outcome::Malformed)?;
    let chain = chain(&question.qname, &packet.answers)?;
    let names: Vec<Arc<str>> = chain.iter().map(|link| text(link.name).into()).collect();
    let mut found = Vec::new();
    for record in packet.answers.iter().filter(|r| is_internet(r)) {
        if let Some(address) = address(record, question.qtype.into())
            && let Some(at) = chain.iter().position(|link| *link.name == record.name)
        {
            found.push(Address {
                address,
                ttl_s: chain.get(at).map_or(0, |link| link.ttl_s).min(ttl(record)),
                names: names.iter().take(at + 1).cloned().collect(),
            });
        }
    }
    Ok(found)
}

/// From the name that was asked for, alias by alias, which may be in any order. A circle has no end, either.
fn chain<'a>(first: &'a Name<'a>, records: &'a [ResourceRecord<'a>]) -> Result<Vec<Link<'a>>, Outcome> {
    let mut last = Link {
        name: first,
        ttl_s: u32::MAX,
    };
    let mut chain = Vec::new();
    while let Some((name, ttl_s)) = alias(last.name, records) {
        if chain.len() == MOST_LINKS {
            return Err(Outcome::Looping);
        }
        let ttl_s = last.ttl_s.min(ttl_s);
        chain.push(std::mem::replace(&mut last, Link { name, ttl_s }));
    }
    chain.push(last);
    Ok(chain)
}

fn alias<'a>(of: &Name<'_>, records: &'a [ResourceRecord<'a>]) -> Option<(&'a Name<'a>, u32)> {
    records.iter().find_map(|record| match &record.rdata {
        RData::CNAME(target) if is_internet(record) && record.name == *of => Some((&target.0, ttl(record))),
        _ => None,
    })
}

/// Of a record of the type that was asked for.
fn address(record: &ResourceRecord<'_>, kind: u16) -> Option<IpAddr> {
    match &record.rdata {
        RData::A(a) if matches!(kind, A | ANY) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(a) if matches!(kind, AAAA | ANY) => Some(IpAddr::V6(a.address.into())),
        _ => None,
    }
}

fn is_internet(record: &ResourceRecord<'_>) -> bool {
    record.class == CLASS::IN && !record.cache_flush
}

/// RFC 2181, section 8: with the highest bit set it is none.
const fn ttl(record: &ResourceRecord<'_>) -> u32 {
    if record.ttl > i32::MAX as u32 {
        0
    } else {
        record.ttl
    }
}
