//! How many IPsec policies the kernel has, and a bell that rings when that may have changed.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use rtnetlink::packet_core::{NetlinkBuffer, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_XFRM;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use tokio::sync::mpsc;

/// `XFRM_MSG_NEWSPDINFO`, `XFRM_MSG_GETSPDINFO` (linux/xfrm.h).
const NEW_INFO: u16 = 0x24;
const GET_INFO: u16 = 0x25;
/// `XFRMA_SPD_INFO`.
const COUNTS: u16 = 1;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// The flags in front of the attributes.
const FLAGS: usize = 4;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `XFRMNLGRP_POLICY`.
const POLICIES: u32 = 4;
/// Of an event, which says nothing but that there was one.
const BUFFER: usize = 512;

/// Rings when a policy comes, goes or changes in this network namespace; never, where the kernel has no IPsec. The
/// receiver ends if the socket breaks.
///
/// # Errors
/// When the kernel refuses the subscription.
pub(crate) fn watch() -> Result<mpsc::Receiver<()>> {
    let socket = match TokioSocket::new(NETLINK_XFRM) {
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => None,
        other => Some(other.context("opening a netlink socket for IPsec")?),
    };
    let (sender, receiver) = mpsc::channel(1);
    match socket {
        Some(mut socket) => {
            let bound = socket.socket_mut().bind(&SocketAddr::new(0, 1 << (POLICIES - 1)));
            bound.context("subscribing to IPsec policies")?;
            tokio::spawn(ring(socket, sender));
        }
        None => _ = tokio::spawn(async move { sender.closed().await }),
    }
    Ok(receiver)
}

async fn ring(socket: TokioSocket, sender: mpsc::Sender<()>) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        let received = tokio::select! {
            received = socket.recv(&mut buffer) => received,
            () = sender.closed() => return,
        };
        match received {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return tracing::warn!(%error, "the netlink socket for IPsec policies broke"),
        }
        // A full channel already says so.
        let _ = sender.try_send(());
    }
}

/// Policies for what comes in, goes out and is forwarded; those of sockets are not counted. A kernel without
/// IPsec has none.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn policies() -> Result<u32> {
    let mut socket = match Socket::new(NETLINK_XFRM) {
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        other => other.context("opening a netlink socket for IPsec")?,
    };
    socket.bind(&SocketAddr::new(0, 0)).context("binding it")?;
    socket.send(&request(), 0).context("asking for IPsec policies")?;
    let mut answer = Vec::with_capacity(4096);
    loop {
        answer.clear();
        match socket.recv(&mut answer, 0) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => {
                other.context("reading IPsec policies")?;
                break;
            }
        }
    }
    count(&answer)
}

fn request() -> Vec<u8> {
    let length = (HEADER + FLAGS) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GET_INFO.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.resize(HEADER + FLAGS, 0);
    message
}

/// The first three counts; three for sockets follow.
fn count(answer: &[u8]) -> Result<u32> {
    let message = NetlinkBuffer::new_checked(answer)?;
    if message.message_type() != NEW_INFO {
        bail!("the kernel does not count its IPsec policies");
    }
    let attributes = answer.get(HEADER + FLAGS..message.length() as usize);
    let mut attributes = NlasIterator::new(attributes.context("a short answer")?).filter_map(Result::ok);
    let counts = attributes.find(|a| a.kind() == COUNTS);
    let counts = counts.context("the kernel's answer has no counts")?;
    let (counts, _) = counts.value().as_chunks::<4>();
    Ok(counts.iter().take(3).map(|n| u32::from_ne_bytes(*n)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, counts: &[u32]) -> Vec<u8> {
        let mut attribute = (4 + 4 * counts.len() as u16).to_ne_bytes().to_vec();
        attribute.extend(COUNTS.to_ne_bytes());
        counts.iter().for_each(|n| attribute.extend(n.to_ne_bytes()));
        let mut message = ((HEADER + FLAGS + attribute.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER + FLAGS, 0);
        message.extend(attribute);
        message
    }

    #[test]
    fn policies_of_sockets_are_not_counted() {
        assert_eq!(count(&answer(NEW_INFO, &[1, 2, 3, 10, 20, 30])).unwrap(), 6);
        assert_eq!(count(&answer(NEW_INFO, &[0, 0, 0, 9, 9, 9])).unwrap(), 0);
        assert!(count(&answer(2, &[0; 6])).is_err());
        let whole = answer(NEW_INFO, &[1; 6]);
        for length in 0..whole.len() {
            assert!(count(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
