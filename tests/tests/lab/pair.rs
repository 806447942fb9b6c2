//! A client's socket and a server's, both in the scenario's hands.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use uplink_lab::topology::client;
use uplink_lab::traffic::fresh_socket;
use uplink_lab::{Family, Lab};

const PATIENCE: Duration = Duration::from_secs(1);

/// A server's UDP socket in the Internet.
pub fn udp_server(lab: &Lab, at: SocketAddr) -> Result<UdpSocket> {
    let bind = || UdpSocket::bind(at);
    let socket = lab.internet.enter(bind)?.with_context(|| at.to_string())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A connected UDP socket of client number `n`.
pub fn udp_client(lab: &Lab, family: Family, n: usize, to: SocketAddr) -> Result<UdpSocket> {
    let open = || {
        let socket = fresh_socket(client(family, n as u8))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        std::io::Result::Ok(socket)
    };
    Ok(lab.client.enter(open)??)
}

/// A server's TCP socket in the Internet.
pub fn tcp_server(lab: &Lab, at: SocketAddr) -> Result<TcpListener> {
    let bind = || TcpListener::bind(at);
    lab.internet.enter(bind)?.with_context(|| at.to_string())
}

/// Both ends of a new connection of client number `n`, and from where the server sees it.
pub fn tcp(
    lab: &Lab,
    family: Family,
    n: usize,
    server: &TcpListener,
) -> Result<(TcpStream, TcpStream, SocketAddr)> {
    let to = server.local_addr()?;
    let open = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(client(family, n as u8), 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        std::io::Result::Ok(TcpStream::from(socket))
    };
    let near = lab
        .client
        .enter(open)?
        .with_context(|| format!("connect to {to}"))?;
    let (far, from) = server.accept()?;
    Ok((near, far, from))
}
