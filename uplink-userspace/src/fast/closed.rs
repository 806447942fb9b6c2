//! Tells which connections conntrack has destroyed: expired, closed, deleted by hand or flushed.
//!
//! With `nf_conntrack_events = 2`, the default since Linux 5.19, the kernel tells the end of connections only that
//! began while somebody listened.

use std::io::{self, ErrorKind};
use std::thread;

use anyhow::{Context, Result};
use netlink_packet_netfilter::conntrack::Tuple;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator, Parseable};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::sync::mpsc;
use uplink_common::FlowKey;

use super::watch::enlarge;
use crate::conntrack::{Connection, tuple};

/// `NFNLGRP_CONNTRACK_DESTROY`.
const GROUP: u32 = 3;
/// `IPCTNL_MSG_CT_DELETE` of the conntrack subsystem.
const DESTROYED: u16 = 1 << 8 | 2;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 20;
/// `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
/// A message is far smaller.
const DATAGRAM: usize = 4096;
/// What a flush of the whole table may hold in the kernel, in bytes: about 1 kB a connection.
const QUEUED: usize = 256 << 20;
/// Connections told at a time, at most.
const BATCH: usize = 1024;
/// Batches that wait for whoever asked.
const PENDING: usize = 64;
/// So often the thread looks whether anybody still wants to know, in seconds.
const PATIENCE_S: i64 = 1;

/// What conntrack told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// These TCP and UDP connections are gone.
    Gone(Vec<Connection>),
    /// More are gone than we took: any may be.
    Lost,
}

/// Tells of connections in this network namespace. The receiver ends if the socket breaks: then nobody tells, and
/// the fast path has to go off.
///
/// # Errors
/// When the kernel has no conntrack events, or no thread is to be had.
pub fn watch() -> Result<mpsc::Receiver<Closed>> {
    let mut socket = Socket::new(NETLINK_NETFILTER).context("opening a netfilter socket")?;
    enlarge(&socket, QUEUED);
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))
        .context("bounding the wait for conntrack events")?;
    socket
        .bind(&SocketAddr::new(0, 0))
        .context("binding a netfilter socket")?;
    socket
        .add_membership(GROUP)
        .context("subscribing to conntrack events")?;
    let (sender, receiver) = mpsc::channel(PENDING);
    // The daemon may be busy for longer than the socket's queue lasts.
    thread::Builder::new()
        .name("conntrack".into())
        .spawn(move || tell(&socket, &sender))
        .context("starting a thread for conntrack events")?;
    Ok(receiver)
}

fn tell(socket: &Socket, sender: &mpsc::Sender<Closed>) {
    let mut buffer = Vec::with_capacity(DATAGRAM);
    while !sender.is_closed() {
        let mut gone = Vec::new();
        let ended = take(socket, &mut buffer, &mut gone);
        if !gone.is_empty() && sender.blocking_send(Closed::Gone(gone)).is_err() {
            return;
        }
        match ended.map_err(|e| (e.raw_os_error(), e)) {
            Ok(()) => {}
            Err((Some(libc::ENOBUFS), _)) => {
                if sender.blocking_send(Closed::Lost).is_err() {
                    return;
                }
            }
            Err((_, error)) => return tracing::warn!(%error, "the netlink socket for conntrack events broke"),
        }
    }
}

/// Waits for the first and takes what is there, up to a batch.
fn take(socket: &Socket, buffer: &mut Vec<u8>, gone: &mut Vec<Connection>) -> io::Result<()> {
    let mut flags = 0;
    while gone.len() < BATCH {
        buffer.clear();
        match socket.recv(buffer, flags) {
            Ok(_) => destroyed(buffer, gone),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
        flags = libc::MSG_DONTWAIT;
    }
    Ok(())
}

fn destroyed(mut datagram: &[u8], gone: &mut Vec<Connection>) {
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        let length = message.length() as usize;
        if message.message_type() == DESTROYED {
            gone.extend(datagram.get(HEADERS..length).and_then(connection));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Only the two tuples are parsed: a flush tells of many at once.
fn connection(attributes: &[u8]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    for attribute in NlasIterator::new(attributes).filter_map(Result::ok) {
        match attribute.kind() {
            ORIGINAL => original = key(&attribute),
            REPLY => reply = key(&attribute),
            _ => continue,
        }
        if let (Some(original), Some(reply)) = (original, reply) {
            return Some(Connection { original, reply });
        }
    }
    None
}

fn key(attribute: &NlaBuffer<&[u8]>) -> Option<FlowKey> {
    let parts = NlasIterator::new(attribute.value()).filter_map(Result::ok);
    let parts: Vec<Tuple> = parts.filter_map(|part| Tuple::parse(&part).ok()).collect();
    let key = tuple::key(&parts)?;
    let is_fast = matches!(i32::from(key.proto), libc::IPPROTO_TCP | libc::IPPROTO_UDP);
    is_fast.then_some(key)
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
    use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
    use rtnetlink::packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};

    use super::*;
    use crate::conntrack::tuple::tests::flow;

    fn datagram(original: FlowKey, reply: FlowKey) -> Vec<u8> {
        let attributes = vec![
            ConntrackAttribute::CtaTupleOrig(tuple::of_key(&original)),
            ConntrackAttribute::CtaTupleReply(tuple::of_key(&reply)),
            ConntrackAttribute::CtaMark(7),
        ];
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let message = NetfilterMessage::new(header, ConntrackMessage::Delete(attributes));
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn found(datagram: &[u8]) -> Vec<Connection> {
        let mut gone = Vec::new();
        destroyed(datagram, &mut gone);
        gone
    }

    #[test]
    fn both_tuples_are_told_after_translation() {
        for (src, dst, translated) in [
            ("10.0.0.1", "192.0.2.1", "198.51.100.7"),
            ("fd00::1", "2001:db8::1", "2001:db8:7::1"),
        ] {
            for proto in [6, 17] {
                let original = flow(src, dst, proto);
                let reply = flow(translated, dst, proto).reversed();
                let both = [datagram(original, reply), datagram(original, reply)].concat();
                assert_eq!(found(&both), [Connection { original, reply }; 2]);
            }
        }
        let gre = flow("10.0.0.1", "192.0.2.1", 47);
        assert_eq!(found(&datagram(gre, gre.reversed())), []);
    }

    #[test]
    fn no_length_is_trusted_and_other_messages_tell_nothing() {
        let original = flow("10.0.0.1", "192.0.2.1", 6);
        let mut whole = datagram(original, original.reversed());
        for length in 0..whole.len() {
            assert_eq!(found(&whole[..length]), []);
        }
        // IPCTNL_MSG_CT_NEW.
        whole[4] = 0;
        assert_eq!(found(&whole), []);
    }
}
