//! A DNS message -> a question, or what an answer says of the name that was asked for.
//!
//! The head is read first and costs little. The records are read only once a question is found that they answer.

use std::collections::{HashMap, HashSet};
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
        addresses(&head.question, &packet.answers)?
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

/// A name that leads to addresses.
struct Link {
    name: Arc<str>,
    ttl_s: u32,
}

fn addresses(question: &Question, records: &[ResourceRecord<'_>]) -> Result<Vec<Address>, Outcome> {
    let chain = chain(&question.name, records)?;
    let mut found: Vec<Address> = Vec::new();
    for (name, ttl_s, address) in records.iter().filter_map(|r| host(r, question.kind)) {
        let Some(at) = chain.iter().position(|link| *link.name == *name) else {
            continue;
        };
        let links = chain.get(..=at).unwrap_or_default();
        found.push(Address {
            address,
            ttl_s: links.last().map_or(ttl_s, |link| link.ttl_s.min(ttl_s)),
            names: links.iter().map(|link| Arc::clone(&link.name)).collect(),
        });
    }
    Ok(found)
}

/// From the name that was asked for, alias by alias, which may be in any order.
fn chain(first: &Arc<str>, records: &[ResourceRecord<'_>]) -> Result<Vec<Link>, Outcome> {
    let mut aliases = HashMap::new();
    for (name, ttl_s, target) in records.iter().filter_map(alias) {
        aliases.entry(name).or_insert((ttl_s, target));
    }
    let mut chain = vec![Link {
        name: Arc::clone(first),
        ttl_s: u32::MAX,
    }];
    let mut seen = HashSet::from([first.to_string()]);
    while let Some(last) = chain.last()
        && let Some((ttl_s, target)) = aliases.get(&*last.name)
    {
        if chain.len() > MOST_LINKS || !seen.insert(target.clone()) {
            return Err(Outcome::Looping);
        }
        let ttl_s = last.ttl_s.min(*ttl_s);
        chain.push(Link {
            name: target.as_str().into(),
            ttl_s,
        });
    }
    Ok(chain)
}

fn alias(record: &ResourceRecord<'_>) -> Option<(String, u32, String)> {
    let RData::CNAME(target) = &record.rdata else {
        return None;
    };
    is_internet(record).then(|| (text(&record.name), ttl(record), text(target)))
}

/// An address record of the type that was asked for.
fn host(record: &ResourceRecord<'_>, kind: u16) -> Option<(String, u32, IpAddr)> {
    let address = match &record.rdata {
        RData::A(a) if matches!(kind, A | ANY) => IpAddr::V4(a.address.into()),
        RData::AAAA(a) if matches!(kind, AAAA | ANY) => IpAddr::V6(a.address.into()),
        _ => return None,
    };
    is_internet(record).then(|| (text(&record.name), ttl(record), address))
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
