//! DNS over UDP: who are the name servers of a name?
//!
//! An answer counts only from the address asked, to a random port, with a random identifier and
//! the question repeated (RFC 5452). What is anything else is counted, and waiting goes on.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};
use socket2::Type;
use tokio::net::UdpSocket;

use super::kinds::{Refused, Reply, Way, socket, unsent};
use super::random;
use crate::config::Target;

const HEADER: usize = 12;
/// Of the third octet: this is a response, to an ordinary query.
const RESPONSE_AND_OPCODE: u8 = 0b1111_1000;
const RESPONSE: u8 = 0b1000_0000;
/// Of the fourth octet: the response code.
const CODE: u8 = 0x0f;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
const REFUSED: u8 = 5;
/// Without EDNS an answer has at most 512 octets; of a longer one only the front matters.
const LONGEST: usize = 512;

/// A query, its identifier still to be set.
#[derive(Debug)]
pub(super) struct Query(Vec<u8>);

impl Query {
    /// A query for the NS records of a name.
    ///
    /// # Errors
    /// When the name is none: labels of 1 to 63 octets, 255 in all.
    pub fn new(name: &str) -> Result<Self> {
        let wrong = || format!("{name:?} is no domain name: use \".\" or one like \"example.com\"");
        let relative = name.strip_suffix('.').unwrap_or(name);
        // The library leaves empty labels out.
        ensure!(
            relative.is_empty() || relative.split('.').all(|label| !label.is_empty()),
            wrong()
        );
        let qname = Name::new(relative).with_context(wrong)?;
        let mut packet = Packet::new_query(0);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let question = Question::new(qname, TYPE::NS.into(), CLASS::IN.into(), false);
        packet.questions.push(question);
        Ok(Self(packet.build_bytes_vec().with_context(wrong)?))
    }

    /// Sends the query and waits for its answer.
    pub async fn ask(&self, way: &Way, target: Target, refused: &Refused) -> Reply {
        match self.exchange(way, target, refused).await {
            Ok(reply) => reply,
            Err(failure) => unsent(&failure, refused),
        }
    }

    /// An error in receiving is "port unreachable" from the target: nobody there speaks DNS.
    async fn exchange(&self, way: &Way, target: Target, refused: &Refused) -> std::io::Result<Reply> {
        let socket = UdpSocket::from_std(socket(way, Type::DGRAM)?.into())?;
        socket
            .connect(SocketAddr::new(target.address, target.port))
            .await?;
        let query = self.with_id(random()?);
        socket.send(&query).await?;
        let mut buffer = [0; LONGEST];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match judge(&query, &buffer[..length]) {
                Ok(reply) => return Ok(reply),
                Err(why) => refused.note(why),
            }
        }
    }

    fn with_id(&self, id: [u8; 2]) -> Vec<u8> {
        let mut query = self.0.clone();
        query[..2].copy_from_slice(&id);
        query
    }
}

/// The verdict of an answer, or why it is none. What follows the question is not looked at.
fn judge(query: &[u8], answer: &[u8]) -> Result<Reply, &'static str> {
    let header = answer.get(..HEADER).ok_or("dns-garbage")?;
    if header[..2] != query[..2] {
        return Err("dns-id");
    }
    if header[2] & RESPONSE_AND_OPCODE != RESPONSE {
        return Err("dns-garbage");
    }
    // Compared as octets: the first name of a message cannot be compressed, and no length of a
    // label is a letter.
    let question = answer.get(HEADER..query.len()).ok_or("dns-question")?;
    if header[4..6] != query[4..6] || !question.eq_ignore_ascii_case(&query[HEADER..]) {
        return Err("dns-question");
    }
    match header[3] & CODE {
        NO_ERROR | NAME_ERROR => Ok(Reply::Answered),
        SERVER_FAILURE | REFUSED => Ok(Reply::Lost),
        _ => Err("dns-code"),
    }
}

#[cfg(test)]
mod tests;
