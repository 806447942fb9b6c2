//! Closes TCP sockets of this host by their addresses (`SOCK_DESTROY`).

use std::convert::Infallible;
use std::net::IpAddr;

use anyhow::{Context, Result};
use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use uplink_common::{Addr, FlowKey};

use crate::routes::socket::Netlink;

const SOCK_DESTROY: u16 = 21;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
const PORTS: usize = 8;
const SOURCE: usize = 12;
const DESTINATION: usize = 28;
const COOKIE: usize = 48;
/// `INET_DIAG_NOCOOKIE`, twice: whichever socket has these addresses.
const ANY: [u8; 8] = [0xff; 8];

/// Closes the connected sockets with these local (first) and remote ends, and returns how many
/// there were. A kernel that cannot do it closes none.
///
/// # Errors
/// When the kernel refuses.
pub(super) async fn close(sockets: &[FlowKey]) -> Result<usize> {
    if sockets.is_empty() {
        return Ok(0);
    }
    let netlink = Netlink::<Destroy>::open(NETLINK_SOCK_DIAG).context("opening a socket for sockets")?;
    let mut closed = 0;
    for socket in sockets {
        match netlink.execute(Destroy(*socket), 0).await {
            Ok(()) => closed += 1,
            Err(failure) if failure.errno == libc::ENOENT => {}
            Err(failure) if failure.errno == libc::EOPNOTSUPP => {
                tracing::debug!("this kernel closes no sockets (no INET_DIAG_DESTROY)");
                break;
            }
            Err(failure) => return Err(failure).with_context(|| format!("closing the socket {socket:?}")),
        }
    }
    Ok(closed)
}

/// A request; it is acknowledged, not answered.
#[derive(Clone, Debug)]
struct Destroy(FlowKey);

impl NetlinkSerializable for Destroy {
    fn message_type(&self) -> u16 {
        SOCK_DESTROY
    }

    fn buffer_len(&self) -> usize {
        REQUEST
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let key = &self.0;
        buffer.fill(0);
        buffer[0] = family(key.src);
        buffer[1] = libc::IPPROTO_TCP as u8;
        // Whatever its state.
        buffer[4..PORTS].fill(0xff);
        put(buffer, PORTS, &key.sport);
        put(buffer, PORTS + 2, &key.dport);
        address(buffer, SOURCE, key.src);
        address(buffer, DESTINATION, key.dst);
        put(buffer, COOKIE, &ANY);
    }
}

impl NetlinkDeserializable for Destroy {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Infallible> {
        Ok(Self(FlowKey::default()))
    }
}

fn family(address: Addr) -> u8 {
    let family = match IpAddr::from(address) {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    family as u8
}

/// IPv4 in the first of four words.
fn address(buffer: &mut [u8], at: usize, address: Addr) {
    match IpAddr::from(address) {
        IpAddr::V4(a) => put(buffer, at, &a.octets()),
        IpAddr::V6(a) => put(buffer, at, &a.octets()),
    }
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_kernels_layout() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let key = FlowKey {
            src: addr("10.0.0.1"),
            dst: addr("192.0.2.1"),
            sport: [0x12, 0x34],
            dport: [0x01, 0xbb],
            proto: 6,
            pad: [0; 3],
        };
        let mut bytes = [0xaa; REQUEST];
        Destroy(key).serialize(&mut bytes);
        assert_eq!(bytes[..8], [2, 6, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[8..12], [0x12, 0x34, 0x01, 0xbb]);
        assert_eq!(bytes[12..16], [10, 0, 0, 1]);
        assert_eq!(bytes[28..32], [192, 0, 2, 1]);
        assert_eq!(bytes[44..48], [0; 4]);
        assert_eq!(bytes[48..], ANY);
    }
}
