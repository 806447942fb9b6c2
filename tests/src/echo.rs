//! Servers that tell a client the address they see it by.

use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::ns::Namespace;
use crate::topology::{Isp, Lab};

/// Port of the servers, UDP and TCP.
pub const PORT: u16 = 7000;
/// Bytes of a request: sequence number and kind, both big-endian.
pub const REQUEST: usize = 8;
/// Bytes of a reply: the request, then the address family (4 or 6) and address seen.
pub const REPLY: usize = REQUEST + 17;
/// Kind of the first request of a flow.
pub const FIRST: u32 = 1;

const TICK_MS: u16 = 100;

/// The servers, running until dropped. One thread serves every socket.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// New flows by ISP; the last field is for sources of neither.
#[derive(Debug, Default)]
struct Seen([AtomicU64; 3]);

impl Echo {
    /// Serves UDP and TCP on every address of the Internet.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn start(lab: &Lab) -> Result<Self> {
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        Self::serve(&lab.internet, &any.map(|ip: IpAddr| SocketAddr::new(ip, PORT)))
    }

    /// Serves UDP and TCP on these addresses. On an unspecified one a UDP reply leaves from the
    /// address that was asked, as good servers do it (`IP_PKTINFO`).
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn serve(ns: &Namespace, at: &[SocketAddr]) -> Result<Self> {
        let (stop, seen) = <(Arc<AtomicBool>, Arc<Seen>)>::default();
        let mut server = Server::new(seen.clone())?;
        ns.enter(|| at.iter().try_for_each(|at| server.listen(*at)))??;
        let theirs = stop.clone();
        let thread = ns.spawn(move || server.run(&theirs))?;
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// New flows seen since the start: by ISP one, by ISP two, from elsewhere.
    #[must_use]
    pub fn new_flows(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.seen.0[i].load(Ordering::Relaxed))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the echo server failed: {e:#}");
        }
    }
}

impl Seen {
    fn answer(&self, request: &[u8], from: IpAddr) -> [u8; REPLY] {
        let from = from.to_canonical();
        if request[4..] == FIRST.to_be_bytes() {
            let index = Isp::of(from).map_or(2, Isp::index);
            self.0[index].fetch_add(1, Ordering::Relaxed);
        }
        let mut reply = [0; REPLY];
        reply[..REQUEST].copy_from_slice(request);
        match from {
            IpAddr::V4(a) => {
                reply[REQUEST] = 4;
                reply[REQUEST + 1..REQUEST + 5].copy_from_slice(&a.octets());
            }
            IpAddr::V6(a) => {
                reply[REQUEST] = 6;
                reply[REQUEST + 1..].copy_from_slice(&a.octets());
            }
        }
        reply
    }
}

#[derive(Debug)]
enum Port {
    Udp(UdpSocket),
    Listener(TcpListener),
    Connection(TcpStream, IpAddr),
}

/// Every socket, by the number that epoll knows it by.
struct Server {
    epoll: Epoll,
    ports: Vec<Option<Port>>,
    seen: Arc<Seen>,
}

impl Server {
    fn new(seen: Arc<Seen>) -> Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            ports: Vec::new(),
            seen,
        })
    }

    fn listen(&mut self, at: SocketAddr) -> Result<()> {
        let udp = bound(at, Type::DGRAM, Protocol::UDP).with_context(|| format!("udp {at}"))?;
        udp.set_recv_buffer_size(4 << 20)?;
        if at.is_ipv4() {
            setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        let tcp = bound(at, Type::STREAM, Protocol::TCP).with_context(|| format!("tcp {at}"))?;
        tcp.listen(1024)?;
        self.add(Port::Udp(udp.into()))?;
        self.add(Port::Listener(tcp.into()))
    }

    fn add(&mut self, port: Port) -> Result<()> {
        let free = self.ports.iter().position(Option::is_none);
        let at = free.unwrap_or(self.ports.len());
        let fd = match &port {
            Port::Udp(socket) => socket.as_fd(),
            Port::Listener(listener) => listener.as_fd(),
            Port::Connection(stream, _) => stream.as_fd(),
        };
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        if at == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[at] = Some(port);
        Ok(())
    }

    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        while !stop.load(Ordering::Relaxed) {
            let n = match self.epoll.wait(&mut events, TICK_MS) {
                Err(nix::errno::Errno::EINTR) => 0,
                n => n?,
            };
            for event in &events[..n] {
                self.ready(event.data() as usize)?;
            }
        }
        Ok(())
    }

    fn ready(&mut self, at: usize) -> Result<()> {
        match &self.ports[at] {
            Some(Port::Udp(socket)) => while answer_udp(socket, &self.seen).is_some() {},
            Some(Port::Listener(listener)) => {
                if let Ok((stream, from)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    self.add(Port::Connection(stream, from.ip()))?;
                }
            }
            Some(Port::Connection(stream, from)) if !answer_tcp(stream, *from, &self.seen) => {
                self.ports[at] = None;
            }
            Some(Port::Connection(..)) | None => {}
        }
        Ok(())
    }
}

fn bound(at: SocketAddr, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

/// `None` when there is nothing more to read.
fn answer_udp(socket: &UdpSocket, seen: &Seen) -> Option<()> {
    let mut request = [0; REQUEST];
    let mut buffer = [IoSliceMut::new(&mut request)];
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrStorage>(fd, &mut buffer, Some(&mut control), flags).ok()?;
    let (length, from) = (message.bytes, message.address?);
    let asked = message.cmsgs().ok()?.next();
    if length == REQUEST {
        let reply = seen.answer(&request, ip(&from)?);
        let reply = [std::io::IoSlice::new(&reply)];
        // An error would be an ICMP answer to an earlier reply; the client will tell.
        let _ = match asked {
            Some(ControlMessageOwned::Ipv4PacketInfo(mut info)) => {
                (info.ipi_ifindex, info.ipi_spec_dst) = (0, info.ipi_addr);
                let info: in_pktinfo = info;
                sendmsg(
                    fd,
                    &reply,
                    &[ControlMessage::Ipv4PacketInfo(&info)],
                    flags,
                    Some(&from),
                )
            }
            Some(ControlMessageOwned::Ipv6PacketInfo(mut info)) => {
                info.ipi6_ifindex = 0;
                sendmsg(
                    fd,
                    &reply,
                    &[ControlMessage::Ipv6PacketInfo(&info)],
                    flags,
                    Some(&from),
                )
            }
            _ => sendmsg(fd, &reply, &[], flags, Some(&from)),
        };
    }
    Some(())
}

pub(crate) fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| a.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
}

/// Whether the connection goes on.
fn answer_tcp(mut stream: &TcpStream, from: IpAddr, seen: &Seen) -> bool {
    let mut requests = [0; 16 * REQUEST];
    match stream.read(&mut requests) {
        // Requests are single small segments: a part of one means the client is gone.
        Ok(n) if n > 0 && n % REQUEST == 0 => requests[..n]
            .chunks(REQUEST)
            .all(|request| stream.write_all(&seen.answer(request, from)).is_ok()),
        Err(e) => e.kind() == ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}
