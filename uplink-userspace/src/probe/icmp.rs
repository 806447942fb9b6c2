//! ICMP echo. An answer counts only when its source, identifier, sequence and 64-bit nonce are
//! those of an open probe; so does the word of a router that a probe cannot arrive.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use uplink_common::Family;

use super::kinds::Refused;
use super::path::{Asker, Said, Word};
use super::random;
use crate::config::Target;

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Packets, and errors; that it can be written to again is no news.
const NEWS: Interest = Interest::READABLE.add(Interest::ERROR);
const HEADER: usize = 8;
const NONCE: usize = 8;

/// The echo requests of one path.
pub(super) struct Icmp {
    family: Family,
    socket: AsyncFd<Socket>,
    targets: Vec<IpAddr>,
    id: u16,
    sequence: u16,
    /// By sequence number.
    open: BTreeMap<u16, Open>,
    refused: Refused,
}

/// A probe that an answer may come to.
#[derive(Clone, Copy)]
struct Open {
    round: u64,
    target: u8,
    nonce: [u8; NONCE],
}

impl Icmp {
    pub(super) fn new(
        family: Family,
        mark: u32,
        source: IpAddr,
        targets: &[Target],
        refused: Refused,
    ) -> io::Result<Self> {
        let id = u16::from_ne_bytes(random()?);
        let socket = socket(family, mark, source)?;
        socket.attach_filter(&only(family, id))?;
        // SAFETY: the socket owns its descriptor and keeps it open and the same until dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, NEWS) }?;
        Ok(Self {
            family,
            socket,
            targets: targets.iter().map(|t| t.address).collect(),
            id,
            sequence: 0,
            open: BTreeMap::new(),
            refused,
        })
    }

    fn send(&mut self, round: u64, target: u8, to: IpAddr) {
        let Ok(nonce) = random() else { return };
        self.sequence = self.sequence.wrapping_add(1);
        let packet = request(self.family, self.id, self.sequence, nonce);
        let to = SockAddr::from(SocketAddr::new(to, 0));
        let _ = self.socket.get_ref().send_to(&packet, &to);
        let open = Open { round, target, nonce };
        self.open.insert(self.sequence, open);
    }

    /// What a packet means. Other people's echo replies arrive as well and are no news.
    fn read(&self, answer: &Answer) -> Option<Word> {
        let (sequence, nonce) = reply(self.family, self.id, &answer.bytes)?;
        let Some(open) = self.open.get(&sequence) else {
            self.refused.note("icmp-sequence");
            return None;
        };
        if self.targets[usize::from(open.target)] != answer.from {
            self.refused.note("icmp-source");
            return None;
        }
        if open.nonce != nonce {
            self.refused.note("icmp-nonce");
            return None;
        }
        Some(open.word(Said::Answered))
    }

    /// What an entry of the error queue means. A forged one does not know the nonce.
    fn blamed(&self, quoted: &[u8]) -> Option<Word> {
        let (sequence, nonce) = echo(request_type(self.family), self.id, quoted)?;
        let open = self.open.get(&sequence)?;
        (open.nonce == nonce).then(|| open.word(Said::Refused))
    }

    /// Something that the socket has, if it is about a probe. `None`: nothing is left.
    fn next(&self) -> Option<Option<Word>> {
        let mut buffer = [MaybeUninit::uninit(); 512];
        match self.socket.get_ref().recv_from(&mut buffer) {
            Ok((n, from)) => {
                // SAFETY: the kernel filled the first n bytes.
                let bytes = buffer[..n].iter().map(|b| unsafe { b.assume_init() }).collect();
                let from = from.as_socket()?.ip();
                Some(self.read(&Answer { from, bytes }))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            // Told of an earlier packet; what it was stands in the error queue.
            Err(_) => Some(error(self.socket.get_ref()).and_then(|quoted| self.blamed(&quoted))),
        }
    }
}

impl Open {
    fn word(&self, said: Said) -> Word {
        Word {
            round: self.round,
            target: self.target,
            said,
        }
    }
}

impl Asker for Icmp {
    fn ask(&mut self, round: u64) {
        for (at, to) in self.targets.clone().into_iter().enumerate() {
            self.send(round, at as u8, to);
        }
    }

    async fn hear(&mut self) -> Word {
        loop {
            if let Some(word) = self.heard() {
                return word;
            }
            match self.socket.ready(NEWS).await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => std::future::pending().await,
            }
        }
    }

    fn heard(&mut self) -> Option<Word> {
        while let Some(read) = self.next() {
            if read.is_some() {
                return read;
            }
        }
        None
    }

    fn forget(&mut self, before: u64) {
        self.open.retain(|_, open| open.round >= before);
    }
}

struct Answer {
    from: IpAddr,
    bytes: Vec<u8>,
}

/// A filter that passes packets with this identifier: every raw socket gets every ICMP packet, and
/// with many uplinks most are other probers'. What passes by chance is read and refused.
fn only(family: Family, id: u16) -> Vec<SockFilter> {
    fn step(code: u16, jf: u8, k: u32) -> SockFilter {
        SockFilter::new(code, 0, jf, k)
    }
    // Classic BPF (linux/filter.h): X = length of the IPv4 header; the half word at X + 4.
    const HEADER_LENGTH: u16 = 0xb1;
    const HALF_BEHIND_X: u16 = 0x48;
    const HALF: u16 = 0x28;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let read = match family {
        // A raw IPv4 socket sees the IP header, too.
        Family::V4 => vec![step(HEADER_LENGTH, 0, 0), step(HALF_BEHIND_X, 0, 4)],
        Family::V6 => vec![step(HALF, 0, 4)],
    };
    let judge = [
        step(EQUAL, 1, id.into()),
        step(RETURN, 0, u32::MAX),
        step(RETURN, 0, 0),
    ];
    read.into_iter().chain(judge).collect()
}

/// A raw ICMP socket: ping sockets are refused even to root by the default sysctl.
fn socket(family: Family, mark: u32, source: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_mark(mark)?;
    socket.set_nonblocking(true)?;
    // An address that is gone for the moment makes probes fail, not the prober.
    match family {
        Family::V4 => socket.set_freebind_v4(true)?,
        Family::V6 => socket.set_freebind_v6(true)?,
    }
    // Routers that say "unreachable" are heard.
    match family {
        Family::V4 => option(&socket, libc::SOL_IP, libc::IP_RECVERR)?,
        Family::V6 => option(&socket, libc::SOL_IPV6, libc::IPV6_RECVERR)?,
    }
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(socket)
}

fn option(socket: &Socket, level: i32, name: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is valid for its size.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), size) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the next entry of the error queue quotes of our packet, from its ICMP header on, where
/// the network made it; errors of this host itself tell nothing of the path.
fn error(socket: &Socket) -> Option<Vec<u8>> {
    const FROM_NETWORK: [u8; 2] = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6];
    let mut bytes = [0u8; 128];
    let mut control = [0u64; 32];
    let mut io = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: zero is valid for this structure of integers and pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut io;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all pointers are valid for the lengths beside them during the call.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE) };
    let n = usize::try_from(n).ok()?;
    // SAFETY: the kernel filled in the control messages within their length.
    let origin = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let errors = [
            (libc::SOL_IP, libc::IP_RECVERR),
            (libc::SOL_IPV6, libc::IPV6_RECVERR),
        ];
        if header.is_null() || !errors.contains(&((*header).cmsg_level, (*header).cmsg_type)) {
            0
        } else {
            libc::CMSG_DATA(header)
                .cast::<libc::sock_extended_err>()
                .read_unaligned()
                .ee_origin
        }
    };
    Some(if FROM_NETWORK.contains(&origin) {
        bytes[..n].to_vec()
    } else {
        Vec::new()
    })
}

/// An echo request. The kernel fills in the checksum of ICMPv6 only.
fn request(family: Family, id: u16, sequence: u16, nonce: [u8; NONCE]) -> [u8; HEADER + NONCE] {
    let mut p = [0; HEADER + NONCE];
    p[0] = request_type(family);
    p[4..6].copy_from_slice(&id.to_be_bytes());
    p[6..8].copy_from_slice(&sequence.to_be_bytes());
    p[HEADER..].copy_from_slice(&nonce);
    if family == Family::V4 {
        let sum = checksum(&p);
        p[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    p
}

/// Sequence and nonce of an echo reply to us. A raw IPv4 socket shows the IP header, too.
fn reply(family: Family, id: u16, bytes: &[u8]) -> Option<(u16, [u8; NONCE])> {
    let icmp = match family {
        Family::V4 => bytes.get(usize::from(bytes.first()? & 0x0f) * 4..)?,
        Family::V6 => bytes,
    };
    let kind = match family {
        Family::V4 => ECHO_REPLY_V4,
        Family::V6 => ECHO_REPLY_V6,
    };
    echo(kind, id, icmp)
}

/// Sequence and nonce of an ICMP packet, where it is of that type and has our identifier.
fn echo(kind: u8, id: u16, icmp: &[u8]) -> Option<(u16, [u8; NONCE])> {
    let header = icmp.get(..HEADER)?;
    if header[0] != kind || header[4..6] != id.to_be_bytes() {
        return None;
    }
    let nonce = icmp.get(HEADER..HEADER + NONCE)?.try_into().ok()?;
    Some((u16::from_be_bytes([header[6], header[7]]), nonce))
}

const fn request_type(family: Family) -> u8 {
    match family {
        Family::V4 => ECHO_REQUEST_V4,
        Family::V6 => ECHO_REQUEST_V6,
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoed(family: Family, request: &[u8]) -> Vec<u8> {
        let mut r = request.to_vec();
        r[0] = if family == Family::V4 {
            ECHO_REPLY_V4
        } else {
            ECHO_REPLY_V6
        };
        match family {
            Family::V4 => [&[0x45; 1][..], &[0; 19], &r].concat(),
            Family::V6 => r,
        }
    }

    #[test]
    fn a_reply_names_its_request() {
        for family in Family::ALL {
            let sent = request(family, 7, 42, *b"12345678");
            assert_eq!(reply(family, 7, &echoed(family, &sent)), Some((42, *b"12345678")));
        }
    }

    #[test]
    fn other_replies_and_short_ones_are_none() {
        let good = echoed(Family::V4, &request(Family::V4, 7, 42, *b"12345678"));
        assert_eq!(reply(Family::V4, 8, &good), None);
        for n in 0..good.len() {
            assert_eq!(reply(Family::V4, 7, &good[..n]), None);
        }
    }

    #[test]
    fn the_checksum_of_a_checked_packet_is_zero() {
        assert_eq!(checksum(&request(Family::V4, 1, 2, *b"abcdefgh")), 0);
    }
}
