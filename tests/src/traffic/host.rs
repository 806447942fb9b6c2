//! What programs on the router itself send.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use socket2::{Domain, Socket, Type};

use super::burst::{tcp_by, udp_by};
use super::{PATIENCE, Reply, Tally, any, connect_tcp, request};
use crate::echo::{FIRST, PORT, REPLY};
use crate::topology::{Family, Lab, elsewhere};

/// What the program asked of its socket before it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Nothing.
    Free,
    /// This source address.
    Bound(IpAddr),
    /// `SO_MARK`.
    Marked(u32),
    /// `SO_BINDTODEVICE`.
    Device(&'static str),
    /// To be another user's.
    User(u32),
}

/// `n` connected UDP sockets of the router, each to another destination, three packets each.
///
/// # Errors
/// As [`super::udp_flows`].
pub fn host_udp(lab: &Lab, n: usize, family: Family, how: How) -> Result<Tally> {
    udp_by(&lab.router, n, || connected_udp(family, how))
}

/// `n` TCP connections of the router, each to another destination.
///
/// # Errors
/// As [`super::tcp_connects`].
pub fn host_tcp(lab: &Lab, n: usize, family: Family, how: How) -> Result<Tally> {
    tcp_by(&lab.router, n, || connected_tcp(family, how))
}

/// One unconnected UDP socket of the router, and two packets to each of `n` destinations.
///
/// # Errors
/// When the socket cannot be had or a packet not be sent.
pub fn host_sendto(lab: &Lab, n: usize, family: Family) -> Result<Tally> {
    host_sendto_as(lab, n, family, How::Free)
}

/// As [`host_sendto`], on a socket that asked for something.
///
/// # Errors
/// As [`host_sendto`].
pub fn host_sendto_as(lab: &Lab, n: usize, family: Family, how: How) -> Result<Tally> {
    lab.router.enter(|| {
        let to: Vec<_> = (0..n).map(|_| fresh_destination(family)).collect();
        let socket = prepared(SocketAddr::new(any(to[0].ip()), 0), Type::DGRAM, how)?;
        let socket = UdpSocket::from(socket);
        let mut replies: HashMap<SocketAddr, Vec<Reply>> = HashMap::new();
        for batch in to.chunks(100) {
            for seq in 0..2 {
                for to in batch {
                    let sent = socket.send_to(&request(seq, if seq == 0 { FIRST } else { 0 }), to);
                    sent.with_context(|| format!("send to {to}"))?;
                }
                collect(&socket, batch.len(), &mut replies)?;
            }
        }
        let mut tally = Tally::default();
        for to in &to {
            let whole = replies.get(to).filter(|replies| replies.len() == 2);
            tally.add(whole.map_or(&[], Vec::as_slice));
        }
        Ok(tally)
    })?
}

/// Takes in `n` replies, or as many as come in time.
fn collect(socket: &UdpSocket, n: usize, replies: &mut HashMap<SocketAddr, Vec<Reply>>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; REPLY];
    for _ in 0..n {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        if let Ok((REPLY, from)) = socket.recv_from(&mut buffer) {
            replies.entry(from).or_default().push(Reply::parse(&buffer));
        }
    }
    Ok(())
}

pub(super) fn connected_udp(family: Family, how: How) -> io::Result<UdpSocket> {
    let to = fresh_destination(family);
    let socket = prepared(to, Type::DGRAM, how)?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn connected_tcp(family: Family, how: How) -> io::Result<TcpStream> {
    let to = fresh_destination(family);
    connect_tcp(prepared(to, Type::STREAM, how)?, to)
}

fn prepared(to: SocketAddr, kind: Type, how: How) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    match how {
        How::Free => {}
        How::Bound(ip) => socket.bind(&SocketAddr::new(ip, 0).into())?,
        How::Marked(mark) => socket.set_mark(mark)?,
        How::Device(name) => socket.bind_device(Some(name.as_bytes()))?,
        How::User(uid) => become_user(uid)?,
    }
    Ok(socket)
}

/// This thread alone, and for good.
fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: three numbers; the C library's own function would change all threads.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    Errno::result(done).map(drop).map_err(Into::into)
}

/// The hash of an unbound socket's flow knows no source port, so destinations must differ.
fn fresh_destination(family: Family) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    SocketAddr::new(elsewhere(family, NEXT.fetch_add(1, Ordering::Relaxed)), PORT)
}
