//! Flows that look as a test wants them, for what tells flows apart.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::burst::{tcp_by, udp_by};
use super::{Tally, connect_tcp, fresh_ends};
use crate::ns::Namespace;
use crate::topology::{Family, Lab, elsewhere};

/// By then packets are forwarded, and noted.
const FORWARDED: Duration = Duration::from_millis(50);

/// The ends of a flow, and its code point.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    from: SocketAddr,
    to: SocketAddr,
    code_point: u8,
}

impl Flow {
    /// One between a client and a server that no flow of this process had before.
    #[must_use]
    pub fn fresh(family: Family) -> Self {
        let (from, to) = fresh_ends(family);
        Self {
            from,
            to,
            code_point: 0,
        }
    }

    /// From this address instead, and a port that no other such flow has (within 25,000), nor any fresh one.
    #[must_use]
    pub fn from_address(self, ip: IpAddr) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let port = 35_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 25_000) as u16;
        let from = SocketAddr::new(ip, port);
        Self { from, ..self }
    }

    /// From this port instead.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        self.from.set_port(port);
        self
    }

    /// To this address instead.
    #[must_use]
    pub fn to_address(mut self, ip: IpAddr) -> Self {
        self.to.set_ip(ip);
        self
    }

    /// To this port instead.
    #[must_use]
    pub fn to_port(mut self, port: u16) -> Self {
        self.to.set_port(port);
        self
    }

    /// Its source and destination.
    #[must_use]
    pub const fn ends(&self) -> [SocketAddr; 2] {
        [self.from, self.to]
    }

    /// With this code point in every packet.
    #[must_use]
    pub const fn code_point(self, code_point: u8) -> Self {
        Self { code_point, ..self }
    }

    fn socket(&self, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.from), kind, None)?;
        let field = u32::from(self.code_point) << 2;
        match self.from {
            SocketAddr::V4(_) => socket.set_tos_v4(field)?,
            SocketAddr::V6(_) => socket.set_tclass_v6(field)?,
        }
        socket.set_reuse_address(kind == Type::STREAM)?;
        socket.bind(&self.from.into())?;
        Ok(socket)
    }

    /// A UDP socket of the current namespace, connected.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn udp(&self) -> io::Result<UdpSocket> {
        let socket = self.socket(Type::DGRAM)?;
        socket.connect(&self.to.into())?;
        Ok(socket.into())
    }

    /// A TCP connection of the current namespace.
    ///
    /// # Errors
    /// When nobody answers, or the kernel refuses.
    pub fn tcp(&self) -> io::Result<TcpStream> {
        connect_tcp(self.socket(Type::STREAM)?, self.to)
    }

    /// As [`Self::tcp`], which may take so long.
    ///
    /// # Errors
    /// As [`Self::tcp`].
    pub fn tcp_within(&self, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM)?;
        socket.connect_timeout(&self.to.into(), limit)?;
        Ok(socket.into())
    }
}

/// `n` UDP flows in a namespace, each as `flow` makes it of its number.
///
/// # Errors
/// As [`super::udp_flows`].
pub fn udp_like(ns: &Namespace, n: usize, flow: impl Fn(usize) -> Flow + Send) -> Result<Tally> {
    let mut numbers = 0..n;
    udp_by(ns, n, move || flow(numbers.next().unwrap_or_default()).udp())
}

/// As [`udp_like`], TCP connections.
///
/// # Errors
/// As [`super::tcp_connects`].
pub fn tcp_like(ns: &Namespace, n: usize, flow: impl Fn(usize) -> Flow + Send) -> Result<Tally> {
    let mut numbers = 0..n;
    tcp_by(ns, n, move || flow(numbers.next().unwrap_or_default()).tcp())
}

/// So many addresses of the Internet, none of which this process asked for before (within 65,000).
#[must_use]
pub fn fresh_addresses(family: Family, n: usize) -> Vec<IpAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let one = |_| elsewhere(family, NEXT.fetch_add(1, Ordering::Relaxed));
    (0..n).map(one).collect()
}

/// One client sends a packet of this protocol, which begins like that, to each of these addresses. See
/// [`Lab::note_passage`] for who carried it.
///
/// # Errors
/// When sockets cannot be had or packets not be sent.
pub fn raw_packets(lab: &Lab, protocol: u8, header: &[u8], to: &[IpAddr]) -> Result<()> {
    let send = |to: &IpAddr| {
        let to = SocketAddr::new(*to, 0);
        let socket = Socket::new(
            Domain::for_address(to),
            Type::RAW,
            Some(Protocol::from(i32::from(protocol))),
        )?;
        socket.send_to(header, &to.into()).map(drop)
    };
    let sent = lab.client.enter(|| to.iter().try_for_each(send))?;
    sent.with_context(|| format!("send packets of protocol {protocol}"))?;
    std::thread::sleep(FORWARDED);
    Ok(())
}

/// One client pings each of these addresses. See [`Lab::note_passage`] for who carried it.
///
/// # Errors
/// When sockets cannot be had or packets not be sent.
pub fn pings(lab: &Lab, to: &[IpAddr]) -> Result<()> {
    // Both families; even root needs the permission.
    lab.client.sysctl("ipv4/ping_group_range", "0 0")?;
    let send = |to: &IpAddr| {
        let (protocol, request) = match to {
            IpAddr::V4(_) => (Protocol::ICMPV4, 8),
            IpAddr::V6(_) => (Protocol::ICMPV6, 128),
        };
        let to = SocketAddr::new(*to, 0);
        let mut socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol))?;
        socket.connect(&to.into())?;
        // The kernel fills in identifier and checksum.
        socket.write_all(&[request, 0, 0, 0, 0, 0, 0, 1])
    };
    lab.client
        .enter(|| to.iter().try_for_each(send))?
        .context("ping")?;
    std::thread::sleep(FORWARDED);
    Ok(())
}
