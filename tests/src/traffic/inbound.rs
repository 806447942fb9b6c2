//! What comes from the Internet: servers' view is of no ISP, so a [`Tally`] counts it as
//! `elsewhere`, and by which ISP the replies left is for [`Lab::expect_right_isps`] to say.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::burst::{tcp_by, udp_by};
use super::{PATIENCE, Tally, connect_tcp};
use crate::topology::Lab;

/// Echo request and reply.
const ICMP: (u8, u8) = (8, 0);
const ICMP6: (u8, u8) = (128, 129);

/// `n` UDP flows from the Internet to `to`, three packets each.
///
/// # Errors
/// As [`super::udp_flows`].
pub fn ask_udp(lab: &Lab, to: SocketAddr, n: usize) -> Result<Tally> {
    udp_by(&lab.internet, n, || {
        let socket = UdpSocket::bind(fresh_source(to))?;
        socket.connect(to)?;
        Ok(socket)
    })
}

/// `n` TCP connections from the Internet to `to`.
///
/// # Errors
/// As [`super::tcp_connects`].
pub fn ask_tcp(lab: &Lab, to: SocketAddr, n: usize) -> Result<Tally> {
    tcp_by(&lab.internet, n, || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&fresh_source(to).into())?;
        connect_tcp(socket, to)
    })
}

/// Pings from the Internet, `n` with an identifier of its own each; how many were answered.
///
/// # Errors
/// When sockets cannot be had.
pub fn ping(lab: &Lab, to: IpAddr, n: usize) -> Result<usize> {
    // Both families; even root needs the permission.
    lab.internet.sysctl("ipv4/ping_group_range", "0 0")?;
    lab.internet.enter(|| {
        let mut answered = 0;
        for _ in 0..n {
            answered += usize::from(one_ping(to).context("ping")?);
        }
        Ok(answered)
    })?
}

fn one_ping(to: IpAddr) -> std::io::Result<bool> {
    let (protocol, (request, reply)) = match to {
        IpAddr::V4(_) => (Protocol::ICMPV4, ICMP),
        IpAddr::V6(_) => (Protocol::ICMPV6, ICMP6),
    };
    let to = SocketAddr::new(to, 0);
    let mut socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol))?;
    socket.connect(&to.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // The kernel fills in identifier and checksum.
    socket.write_all(&[request, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4])?;
    let mut answer = [0; 64];
    Ok(matches!(socket.read(&mut answer), Ok(n) if n > 0 && answer[0] == reply))
}

/// A port that no flow of this process asked from before (within 30,000): a port that comes again
/// would meet what conntrack remembers of the earlier flow.
fn fresh_source(to: SocketAddr) -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::new(any(to.ip()), 20_000 + (n % 30_000) as u16)
}

pub(crate) fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
