//! Echo replies that are not what was asked for.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::echo::ip;
use crate::topology::{Family, Lab, servers};

/// What a host of the Internet answers to an echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Another payload: whoever answers blindly does not know the nonce.
    Payload,
    /// Another id.
    Id,
    /// A sequence number that is still to come.
    Future,
    /// From another address, else right.
    Source,
    /// The header alone.
    Short,
    /// Three times the truth.
    Thrice,
}

impl Lie {
    fn replies(self, request: &[u8]) -> Vec<Vec<u8>> {
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = request.to_vec();
            change(&mut bytes);
            vec![bytes]
        };
        match self {
            Self::Payload => changed(|b| b[8..].iter_mut().for_each(|byte| *byte ^= 0x5a)),
            Self::Id => changed(|b| b[5] ^= 1),
            Self::Future => changed(|b| {
                let next = u16::from_be_bytes([b[6], b[7]]).wrapping_add(1);
                b[6..8].copy_from_slice(&next.to_be_bytes());
            }),
            Self::Source => changed(|_| {}),
            Self::Short => changed(|b| b.truncate(8)),
            Self::Thrice => vec![request.to_vec(); 3],
        }
    }
}

/// Answers every echo request to the Internet in the kernel's place, until dropped.
#[derive(Debug)]
pub struct Liar {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Liar {
    /// Those addresses lie, all others tell the truth.
    ///
    /// # Errors
    /// When raw sockets cannot be had.
    pub fn start(lab: &Lab, lies: &[(IpAddr, Lie)]) -> Result<Self> {
        lab.internet.sysctl("ipv4/icmp_echo_ignore_all", "1")?;
        lab.internet.sysctl("ipv6/icmp/echo_ignore_all", "1")?;
        let sockets = lab
            .internet
            .enter(|| -> Result<_> { Ok([open(Family::V4)?, open(Family::V6)?]) })??;
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, lies) = (stop.clone(), lies.to_vec());
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                wait(&sockets)?;
                for (family, socket) in Family::ALL.into_iter().zip(&sockets) {
                    while let Some(asked) = receive(socket, family) {
                        reply(socket, family, &asked, &lies);
                    }
                }
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the liar failed: {e:#}");
        }
    }
}

fn open(family: Family) -> Result<Socket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).context("a raw socket")?;
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(socket)
}

fn wait(sockets: &[Socket; 2]) -> Result<()> {
    let mut waiting = sockets
        .each_ref()
        .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN));
    match poll(&mut waiting, PollTimeout::from(100u8)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e).context("wait for echo requests"),
    }
}

/// An ICMP message, who sent it and who is asked.
struct Asked {
    message: Vec<u8>,
    from: SockaddrStorage,
    to: IpAddr,
}

/// `None` when there is nothing more to read.
fn receive(socket: &Socket, family: Family) -> Option<Asked> {
    let mut buffer = vec![0; 2048];
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::empty();
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).ok()?;
    let (n, from) = (got.bytes, got.address?);
    let to = match got.cmsgs().ok()?.next()? {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into()
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
        _ => return None,
    };
    // An IPv4 raw socket gets the IP header, too.
    let skip = match family {
        Family::V4 => usize::from(buffer[0] & 15) * 4,
        Family::V6 => 0,
    };
    let message = buffer.get(skip..n).unwrap_or_default().to_vec();
    Some(Asked { message, from, to })
}

fn reply(socket: &Socket, family: Family, asked: &Asked, lies: &[(IpAddr, Lie)]) {
    let (request, answer) = match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    };
    if asked.message.len() < 8 || asked.message[0] != request {
        return;
    }
    let lie = lies
        .iter()
        .find(|(address, _)| *address == asked.to)
        .map(|(_, lie)| *lie);
    let from = match lie {
        Some(Lie::Source) => other_than(asked.to),
        _ => asked.to,
    };
    for mut bytes in lie.map_or_else(|| vec![asked.message.clone()], |lie| lie.replies(&asked.message)) {
        bytes[0] = answer;
        if family == Family::V4 {
            // The kernel fills in the checksum of ICMPv6 only.
            bytes[2..4].fill(0);
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        send(socket, &bytes, from, &asked.from);
    }
}

/// The other server.
fn other_than(address: IpAddr) -> IpAddr {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let [one, two] = servers(family);
    if address == one { two } else { one }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

fn send(socket: &Socket, bytes: &[u8], from: IpAddr, to: &SockaddrStorage) {
    let (fd, bytes, flags) = (socket.as_raw_fd(), [IoSlice::new(bytes)], MsgFlags::empty());
    // Who does not get it will tell.
    let _ = match from {
        IpAddr::V4(from) => {
            let address = in_addr {
                s_addr: u32::from_ne_bytes(from.octets()),
            };
            let info = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address,
                ipi_addr: address,
            };
            sendmsg(
                fd,
                &bytes,
                &[ControlMessage::Ipv4PacketInfo(&info)],
                flags,
                Some(to),
            )
        }
        IpAddr::V6(from) => {
            let address = in6_addr {
                s6_addr: from.octets(),
            };
            let info = in6_pktinfo {
                ipi6_addr: address,
                ipi6_ifindex: 0,
            };
            sendmsg(
                fd,
                &bytes,
                &[ControlMessage::Ipv6PacketInfo(&info)],
                flags,
                Some(to),
            )
        }
    };
}

/// Sends an echo request from the calling thread's namespace, waits a second for a reply at most and `patience`
/// for more of them, and returns every one, with who sent it.
///
/// # Errors
/// When a raw socket cannot be had.
pub fn ask(to: IpAddr, patience: Duration) -> Result<Vec<(IpAddr, Vec<u8>)>> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = open(family)?;
    let (request, answer) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let mut bytes = [&[request, 0, 0, 0, 0x12, 0x34, 0, 1][..], b"a nonce of 16 by"].concat();
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send_to(&bytes, &SocketAddr::new(to, 0).into())?;
    let begun = Instant::now();
    let mut replies = Vec::new();
    let mut take = || {
        let received = std::iter::from_fn(|| receive(&socket, family));
        let of_ours = received.filter(|got| got.message.first() == Some(&answer));
        replies.extend(of_ours.filter_map(|got| Some((ip(&got.from)?, got.message))));
        !replies.is_empty()
    };
    while !take() && begun.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(patience);
    take();
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use super::{Lie, checksum};

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let mut bytes = *b"\x00\x00\x00\x00\x12\x34\x00\x01odd";
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&bytes), 0);
        assert_ne!(sum, 0);
    }

    #[test]
    fn a_lie_differs_in_one_thing() {
        let request = *b"\x08\x00..\x12\x34\xff\xffnonce";
        let one = |lie: Lie| lie.replies(&request).remove(0);
        assert_eq!(one(Lie::Future)[6..8], [0, 0]);
        assert_eq!(one(Lie::Future)[8..], request[8..]);
        assert_eq!(one(Lie::Id)[4..6], [0x12, 0x35]);
        assert_eq!(one(Lie::Payload)[..8], request[..8]);
        assert_ne!(one(Lie::Payload)[8..], request[8..]);
        assert_eq!(one(Lie::Short).len(), 8);
        assert_eq!(one(Lie::Source), request);
        assert_eq!(Lie::Thrice.replies(&request).len(), 3);
    }
}
