//! Flows to addresses that were looked up, and to given ones.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::burst::{await_reply, exchange};
use super::{PATIENCE, Reply, Tally, any, connect_tcp, fresh_socket, request};
use crate::echo::{FIRST, PORT};
use crate::names::resolve;
use crate::ns::Namespace;
use crate::topology::Family;

/// What a client does with an address as soon as it has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contact {
    /// Sends a datagram, by a socket that waits for that: its very next system call.
    Send,
    /// Opens a TCP connection.
    Connect,
    /// Sends a datagram after a while.
    SendAfter(Duration),
}

/// A client asks `server` for one name after the other and gets in contact with the first address of each at once.
/// What became of the flows, and where they went.
///
/// # Errors
/// When a name is not known, or nothing gets through.
pub fn named_flows(
    ns: &Namespace,
    server: IpAddr,
    names: &[String],
    family: Family,
    contact: Contact,
) -> Result<(Tally, Vec<IpAddr>)> {
    ns.enter(|| {
        let (mut tally, mut addresses) = (Tally::default(), Vec::new());
        for name in names {
            let socket = fresh_socket(any(server))?;
            let resolved = resolve(server, name, family)?;
            let address = *resolved.first().context("no address")?;
            tally.add(get_in_contact(&socket, address, contact)?.as_slice());
            addresses.push(address);
            ensure!(tally.lost < 10, "nothing gets through: {tally:?}");
        }
        Ok((tally, addresses))
    })?
}

/// A new UDP flow to each address, one after the other.
///
/// # Errors
/// When sockets cannot be had.
pub fn flows_to(ns: &Namespace, addresses: &[IpAddr]) -> Result<Tally> {
    ns.enter(|| {
        let mut tally = Tally::default();
        for address in addresses {
            let socket = fresh_socket(any(*address))?;
            tally.add(get_in_contact(&socket, *address, Contact::Send)?.as_slice());
        }
        Ok(tally)
    })?
}

fn get_in_contact(socket: &UdpSocket, address: IpAddr, contact: Contact) -> Result<Option<Reply>> {
    let to = SocketAddr::new(address, PORT);
    match contact {
        Contact::Connect => {
            let stream = connect_tcp(Socket::new(Domain::for_address(to), Type::STREAM, None)?, to);
            return Ok(stream.ok().and_then(|mut stream| exchange(&mut stream)));
        }
        Contact::SendAfter(pause) => std::thread::sleep(pause),
        Contact::Send => {}
    }
    socket
        .send_to(&request(0, FIRST), to)
        .with_context(|| format!("send to {to}"))?;
    Ok(await_reply(socket, 0, Instant::now() + PATIENCE))
}
