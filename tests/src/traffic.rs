//! What clients do: bursts of new flows, and flows that go on while something happens.

mod burst;
mod downloads;
mod fleet;
mod host;
mod inbound;
mod named;
mod ongoing;
mod paced;
mod shaped;
mod swarm;

pub use burst::{Tally, ask, exchange, tcp_connects, tcp_stream_on, udp_flows};
pub use downloads::{Downloads, Files, Rates};
pub use fleet::{Fleet, FleetReport};
pub use host::{How, host_sendto, host_sendto_as, host_tcp, host_udp};
pub(crate) use inbound::any;
pub use inbound::{ask_tcp, ask_udp, ping};
pub use named::{Contact, flows_to, named_flows};
pub use ongoing::{Beat, Ongoing, Report};
pub use shaped::{Flow, fresh_addresses, pings, raw_packets, tcp_like, udp_like};
pub use swarm::Swarm;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::echo::{PORT, REPLY, REQUEST};
use crate::topology::{CLIENTS, Family, Isp, client, servers};

/// How long a client waits for a reply.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A decoded reply.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The request's sequence number.
    pub seq: u32,
    /// The address that the server saw.
    pub seen: IpAddr,
}

impl Reply {
    /// The ISP it went through, if the address is one of an ISP.
    #[must_use]
    pub fn via(&self) -> Option<Isp> {
        Isp::of(self.seen)
    }

    fn parse(bytes: &[u8; REPLY]) -> Self {
        let seq = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[REQUEST + 1..]);
        let [a, b, c, d, ..] = address;
        let seen = match bytes[REQUEST] {
            4 => Ipv4Addr::new(a, b, c, d).into(),
            _ => Ipv6Addr::from(address).into(),
        };
        Self { seq, seen }
    }
}

fn request(seq: u32, kind: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&seq.to_be_bytes());
    bytes[4..].copy_from_slice(&kind.to_be_bytes());
    bytes
}

/// Source and destination that no flow of this process had before (within 400,000 flows).
fn fresh_ends(family: Family) -> (SocketAddr, SocketAddr) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = client(family, (n % u32::from(CLIENTS)) as u8);
    let port = 10_000 + (n / u32::from(CLIENTS) % 50_000) as u16;
    let server = servers(family)[(n / u32::from(CLIENTS)) as usize % 2];
    (SocketAddr::new(address, port), SocketAddr::new(server, PORT))
}

/// A socket at a port that no other has had in this process (of 12,768, below those that the kernel chooses): a flow at
/// a port that comes again would meet what is remembered of the earlier one.
///
/// # Errors
/// When there is none.
pub fn fresh_socket(ip: IpAddr) -> io::Result<UdpSocket> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 32_768 - FIRST;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut bound = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        bound = UdpSocket::bind((ip, port as u16));
        match &bound {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    bound
}

fn fresh_udp(family: Family) -> io::Result<UdpSocket> {
    let (source, server) = fresh_ends(family);
    let socket = UdpSocket::bind(source)?;
    socket.connect(server)?;
    Ok(socket)
}

fn fresh_tcp(family: Family) -> io::Result<TcpStream> {
    let (source, server) = fresh_ends(family);
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    connect_tcp(socket, server)
}

fn connect_tcp(socket: Socket, server: SocketAddr) -> io::Result<TcpStream> {
    socket.connect_timeout(&server.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
