//! How many IPsec policies the kernel has.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use rtnetlink::packet_core::{NetlinkBuffer, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_XFRM;
use rtnetlink::sys::{Socket, SocketAddr};

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
