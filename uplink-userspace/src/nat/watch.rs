//! A bell that rings when somebody changes nftables, whoever that was.

use std::io;

use anyhow::{Context, Result};
use rtnetlink::packet_core::{NetlinkBuffer, NlasIterator, parse_string, parse_u32_be};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::mpsc;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN` of the nftables subsystem: a transaction is complete.
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 20;
/// `NFTA_GEN_PROC_PID`.
const PROC_PID: u16 = 2;
/// `NFTA_GEN_PROC_NAME`.
const PROC_NAME: u16 = 3;
/// The kernel packs a transaction's events into datagrams of at most this size.
const DATAGRAM: usize = 16 * 1024;
/// More events than this say nothing new: every one of them means "look again".
const PENDING: usize = 16;

/// Why to compare the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction changed the ruleset, ours or another table of it.
    Changed(Option<Process>),
    /// The kernel had more to say than the socket holds: anything may have changed.
    Overrun,
}

/// Who made a transaction. Our own `nft` is one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// As the initial pid namespace numbers it.
    pub pid: u32,
    /// The name of its program, up to 15 bytes.
    pub name: String,
}

/// Rings once for every transaction on the ruleset of this network namespace, whichever table it
/// is about. The receiver ends if the socket breaks.
///
/// # Errors
/// When the kernel has no nftables or refuses the subscription.
pub async fn watch() -> Result<mpsc::Receiver<Event>> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER).context("opening a netfilter socket")?;
    let inner = socket.socket_mut();
    // An unbound socket takes no membership here.
    inner
        .bind(&SocketAddr::new(0, 0))
        .context("binding a netfilter socket")?;
    inner
        .add_membership(GROUP)
        .context("subscribing to nftables events")?;
    let (sender, receiver) = mpsc::channel(PENDING);
    tokio::spawn(ring(socket, sender));
    Ok(receiver)
}

async fn ring(socket: TokioSocket, sender: mpsc::Sender<Event>) {
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            () = sender.closed() => return,
        };
        let event = match received {
            Ok(()) => event(&buffer),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Some(Event::Overrun),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!(%error, "the netlink socket for nftables events broke");
                return;
            }
        };
        if let Some(event) = event {
            // A full channel already says "look again".
            let _ = sender.try_send(event);
        }
    }
}

/// What a datagram says; `None` where the end of the transaction is still to come.
fn event(mut datagram: &[u8]) -> Option<Event> {
    let mut found = None;
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        let length = message.length() as usize;
        if message.message_type() == NEW_GENERATION {
            found = Some(Event::Changed(process(&datagram[..length])));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// netlink-packet-netfilter decodes these attributes, but keeps their type to itself.
fn process(message: &[u8]) -> Option<Process> {
    let (mut pid, mut name) = (None, None);
    let attributes = NlasIterator::new(message.get(HEADERS..)?);
    for attribute in attributes.filter_map(Result::ok) {
        match attribute.kind() {
            PROC_PID => pid = parse_u32_be(attribute.value()).ok(),
            PROC_NAME => name = parse_string(attribute.value()).ok(),
            _ => {}
        }
    }
    Some(Process {
        pid: pid?,
        name: name?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((20 + attributes.len() as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0; 4]);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn the_end_of_a_transaction_names_who_made_it() {
        let mut who = attribute(1, &7u32.to_be_bytes());
        who.extend(attribute(2, &4711u32.to_be_bytes()));
        who.extend(attribute(3, b"nft\0"));
        let mut datagram = message(10 << 8, &[]);
        assert_eq!(event(&datagram), None);
        datagram.extend(message(NEW_GENERATION, &who));
        let nft = Process {
            pid: 4711,
            name: "nft".into(),
        };
        assert_eq!(event(&datagram), Some(Event::Changed(Some(nft))));
    }

    #[test]
    fn garbage_rings_no_bell_and_breaks_nothing() {
        let whole = message(NEW_GENERATION, &attribute(3, b"nft\0"));
        assert_eq!(event(&whole), Some(Event::Changed(None)));
        for length in 0..whole.len() {
            assert_eq!(event(&whole[..length]), None);
        }
        assert_eq!(event(&[0; 64]), None);
    }
}
