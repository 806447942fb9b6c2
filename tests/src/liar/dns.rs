//! A DNS server that tells who asks, and others that answer badly.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::topology::{Family, Lab, servers};

/// How a server answers; each has a port of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// The address of who asks to A and AAAA, a name to NS, no data to anything else.
    Good,
    /// The good answer with another id.
    WrongId,
    /// The good answer to another question.
    WrongQuestion,
    /// The query itself, which is no answer.
    Query,
    /// Bytes that are no DNS at all.
    Garbage,
    /// The first 7 bytes of the good answer.
    Short,
    /// SERVFAIL.
    Failure,
    /// The good answer, and 50 times more.
    Many,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Good,
        Self::WrongId,
        Self::WrongQuestion,
        Self::Query,
        Self::Garbage,
        Self::Short,
        Self::Failure,
        Self::Many,
    ];

    /// Its UDP port: 53, or 5301 and up.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Good => 53,
            bad => 5300 + bad as u16,
        }
    }

    fn answers(self, query: &[u8], from: IpAddr) -> Vec<Vec<u8>> {
        let Some(good) = answer(query, from) else {
            return Vec::new();
        };
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            vec![bytes]
        };
        match self {
            Self::Good => vec![good],
            Self::WrongId => changed(|bytes| bytes[1] ^= 1),
            Self::WrongQuestion => changed(|bytes| {
                let kind = bytes.len().min(question_end(bytes).unwrap_or(0)) - 4;
                bytes[kind + 1] ^= 0x55;
            }),
            Self::Query => vec![query.to_vec()],
            Self::Garbage => vec![vec![0xa5; 300]],
            Self::Short => changed(|bytes| bytes.truncate(7)),
            Self::Failure => changed(|bytes| bytes[3] |= 2),
            Self::Many => vec![good; 51],
        }
    }
}

/// DNS servers of every [`Manner`] at the servers' addresses, until dropped.
#[derive(Debug)]
pub struct Dns {
    stop: Arc<AtomicBool>,
    queries: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Dns {
    /// Starts them.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub fn start(lab: &Lab) -> Result<Self> {
        let ports = lab.internet.enter(sockets)??;
        let (stop, queries) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (theirs, count) = (stop.clone(), queries.clone());
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                serve(&ports, &count)?;
            }
            Ok(())
        });
        Ok(Self {
            stop,
            queries,
            thread: Some(thread),
        })
    }

    /// Queries so far.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the DNS server failed: {e:#}");
        }
    }
}

fn sockets() -> Result<Vec<(Manner, UdpSocket)>> {
    let mut sockets = Vec::new();
    for address in Family::ALL.into_iter().flat_map(servers) {
        for manner in Manner::ALL {
            let at = SocketAddr::new(address, manner.port());
            let socket = UdpSocket::bind(at).with_context(|| format!("udp {at}"))?;
            socket.set_nonblocking(true)?;
            sockets.push((manner, socket));
        }
    }
    Ok(sockets)
}

fn serve(ports: &[(Manner, UdpSocket)], queries: &AtomicU64) -> Result<()> {
    let mut waiting = Vec::new();
    for (_, socket) in ports {
        waiting.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    }
    match poll(&mut waiting, PollTimeout::from(100u8)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(e) => return Err(e).context("wait for queries"),
    }
    let mut query = [0; 512];
    for (manner, socket) in ports {
        loop {
            match socket.recv_from(&mut query) {
                Ok((n, from)) => {
                    queries.fetch_add(1, Ordering::Relaxed);
                    for bytes in manner.answers(&query[..n], from.ip()) {
                        // Who does not get it will tell.
                        let _ = socket.send_to(&bytes, from);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier answer.
                Err(_) => {}
            }
        }
    }
    Ok(())
}

const HEADER: usize = 12;
const A: u16 = 1;
const NS: u16 = 2;
const AAAA: u16 = 28;
const NAME: &[u8] = b"\x04seen\x04test\x00";

/// A query for the address by which the server sees the client: A or AAAA.
#[must_use]
pub fn question(id: u16, family: Family) -> Vec<u8> {
    let kind = match family {
        Family::V4 => A,
        Family::V6 => AAAA,
    };
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(NAME);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The address in a good answer to this query, which [`question`] made.
#[must_use]
pub fn seen(answer: &[u8], query: &[u8]) -> Option<IpAddr> {
    let (head, rest) = answer.split_at_checked(question_end(answer)?)?;
    let same = head[..2] == query[..2] && head.get(HEADER..) == query.get(HEADER..);
    if !same || head[2] & 0x80 == 0 || head[3] & 15 != 0 || head[6..8] != [0, 1] {
        return None;
    }
    // Name, type, class, time to live, length.
    let data = rest.get(12..)?;
    let v4 = <[u8; 4]>::try_from(data).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from)).ok()
}

fn answer(query: &[u8], from: IpAddr) -> Option<Vec<u8>> {
    let end = question_end(query)?;
    let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
    let data = match (kind, from.to_canonical()) {
        (A, IpAddr::V4(address)) => address.octets().to_vec(),
        (AAAA, IpAddr::V6(address)) => address.octets().to_vec(),
        (NS, _) => b"\x01a\x00".to_vec(),
        _ => Vec::new(),
    };
    let mut bytes = query[..end].to_vec();
    // Response, recursion desired and available, no error.
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[6..HEADER].fill(0);
    if !data.is_empty() {
        bytes[7] = 1;
        bytes.extend([0xc0, HEADER as u8]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
        bytes.extend(data);
    }
    Some(bytes)
}

/// Where the only question ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            label => at += 1 + label,
        }
    }
    let end = at + 5;
    (end <= message.len() && message[4..6] == [0, 1]).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::{Manner, answer, question, seen};
    use crate::topology::{Family, client};

    #[test]
    fn a_good_answer_names_who_asked() {
        for family in Family::ALL {
            let from = client(family, 3);
            let query = question(0x1234, family);
            assert_eq!(seen(&answer(&query, from).unwrap(), &query), Some(from));
        }
    }

    #[test]
    fn bad_answers_are_not_the_good_one() {
        let query = question(7, Family::V4);
        let from = client(Family::V4, 0);
        let good = answer(&query, from).unwrap();
        for manner in Manner::ALL
            .into_iter()
            .filter(|m| ![Manner::Good, Manner::Many].contains(m))
        {
            let answers = manner.answers(&query, from);
            assert_eq!(answers.len(), 1, "{manner:?}");
            assert_eq!(seen(&answers[0], &query), None, "{manner:?}");
        }
        assert_eq!(seen(&good, &question(8, Family::V4)), None);
        assert_eq!(Manner::Many.answers(&query, from).len(), 51);
        assert!(Manner::Good.answers(b"no query", from).is_empty());
    }
}
