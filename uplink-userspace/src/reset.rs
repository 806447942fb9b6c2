//! Ends dead TCP connections so that both ends learn of it at once and connect anew.
//!
//! Nobody here knows sequence numbers, so whatever we made up would be ignored. Instead each end
//! gets a segment that cannot fit: it answers with an acknowledgement that carries its true
//! numbers (RFC 5961, section 3), and that answer meets either the reject rules of our table or
//! a kernel without such a socket. Both answer with a reset that fits.
//!
//! The order is: [`prepare`], delete the connections from conntrack, [`provoke`].

mod packet;
mod sockets;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use uplink_common::{Addr, Family, FlowKey};

use crate::conntrack::Connection;
use crate::nat;
use packet::Sender;

/// Connections that get resets at most. Those beyond end by their own timeouts.
pub const MOST: usize = 65_536;
/// Tuples for one run of nft.
const BATCH: usize = 16_384;
/// Packets between two looks at other tasks.
const BURST: usize = 512;

/// What [`prepare`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Forwarded connections whose next packets are answered with a reset.
    pub armed: usize,
    /// Sockets of this host that are closed.
    pub closed: usize,
}

/// Ends those connections that this host's own sockets have, and arms the reset sets of the
/// nftables table for the others. Conntrack must still have them: a socket says goodbye by the
/// address that its peer knows.
///
/// # Errors
/// When the table has no reset sets or nft fails; when the kernel refuses to close sockets.
pub async fn prepare(connections: &[Connection]) -> Result<Prepared> {
    let own = own_addresses()?;
    let connections = bounded(connections);
    let (local, forwarded): (Vec<&Connection>, Vec<_>) =
        connections.iter().partition(|c| socket(c, &own).is_some());
    let sockets: Vec<FlowKey> = local.iter().filter_map(|c| socket(c, &own)).collect();
    let closed = sockets::close(&sockets).await?;
    for family in Family::ALL {
        arm(&forwarded, family).await?;
    }
    let armed = forwarded.len();
    Ok(Prepared { armed, closed })
}

/// Makes both ends of every forwarded connection answer, and returns how many packets were sent.
/// `mark` is [`nat::reset_mark`], which keeps them out of conntrack. Conntrack must have forgotten
/// the connections already, or else it would deliver the answers instead.
///
/// # Errors
/// When there is no raw socket. Single packets that cannot be sent are left out.
pub async fn provoke(connections: &[Connection], mark: u32) -> Result<usize> {
    let own = own_addresses()?;
    let sender = Sender::open(mark)?;
    let forwarded = bounded(connections).iter().filter(|c| socket(c, &own).is_none());
    let packets: Vec<FlowKey> = forwarded
        .flat_map(|c| [c.original.reversed(), c.reply.reversed()])
        .collect();
    let mut sent = 0;
    for burst in packets.chunks(BURST) {
        for packet in burst {
            match sender.send(packet) {
                Ok(()) => sent += 1,
                Err(error) => tracing::debug!(%error, ?packet, "a probe for a reset was not sent"),
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(sent)
}

async fn arm(connections: &[&Connection], family: Family) -> Result<()> {
    let of_family = connections.iter().filter(|c| self::family(&c.original) == family);
    let tuples: BTreeSet<String> = of_family.flat_map(|c| elements(c)).collect();
    let set = match family {
        Family::V4 => "reset4",
        Family::V6 => "reset6",
    };
    for batch in Vec::from_iter(tuples).chunks(BATCH) {
        let text = format!("add element inet uplink {set} {{ {} }}\n", batch.join(", "));
        nat::load(&text).await.context("arming the reset sets")?;
    }
    Ok(())
}

fn family(key: &FlowKey) -> Family {
    match IpAddr::from(key.src) {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn bounded(connections: &[Connection]) -> &[Connection] {
    let taken = &connections[..connections.len().min(MOST)];
    if taken.len() < connections.len() {
        tracing::warn!(
            "{} connections get no reset, only the first {MOST} do",
            connections.len() - MOST
        );
    }
    taken
}

fn own_addresses() -> Result<HashSet<Addr>> {
    let all = nix::ifaddrs::getifaddrs().context("reading this host's addresses")?;
    let storage = all.filter_map(|interface| interface.address);
    Ok(storage
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .map(Addr::from)
        .collect())
}

/// The connection as a socket of this host has it, its own end first. A connection from here
/// has its original tuple, one to here the translated one.
fn socket(connection: &Connection, own: &HashSet<Addr>) -> Option<FlowKey> {
    let ends = [connection.original, connection.reply];
    ends.into_iter().find(|key| own.contains(&key.src))
}

/// What the next packets look like once conntrack has forgotten the connection: the first
/// direction behind destination NAT, as its rules still apply, and the answers as they arrive.
fn elements(connection: &Connection) -> [String; 2] {
    let (original, reply) = (&connection.original, &connection.reply);
    let forward = FlowKey {
        dst: reply.src,
        dport: reply.sport,
        ..*original
    };
    [&forward, reply].map(element)
}

fn element(key: &FlowKey) -> String {
    let (src, dst) = (IpAddr::from(key.src), IpAddr::from(key.dst));
    let (sport, dport) = (u16::from_be_bytes(key.sport), u16::from_be_bytes(key.dport));
    format!("{src} . {sport} . {dst} . {dport}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(src: &str, sport: u16, dst: &str, dport: u16) -> FlowKey {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        FlowKey {
            src: addr(src),
            dst: addr(dst),
            sport: sport.to_be_bytes(),
            dport: dport.to_be_bytes(),
            proto: 6,
            pad: [0; 3],
        }
    }

    fn outward() -> Connection {
        Connection {
            original: flow("10.0.0.2", 4711, "192.0.2.1", 443),
            reply: flow("192.0.2.1", 443, "198.51.100.7", 1024),
        }
    }

    #[test]
    fn both_directions_are_expected_as_they_arrive() {
        assert_eq!(
            elements(&outward()),
            [
                "10.0.0.2 . 4711 . 192.0.2.1 . 443",
                "192.0.2.1 . 443 . 198.51.100.7 . 1024",
            ]
        );
        let inward = Connection {
            original: flow("2001:db8::9", 4711, "2001:db8::1", 80),
            reply: flow("fd00::2", 8080, "2001:db8::9", 4711),
        };
        assert_eq!(
            elements(&inward),
            [
                "2001:db8::9 . 4711 . fd00::2 . 8080",
                "fd00::2 . 8080 . 2001:db8::9 . 4711",
            ]
        );
    }

    #[test]
    fn a_socket_of_this_host_is_known_by_its_own_end() {
        let c = outward();
        let own = |address| HashSet::from([address]);
        assert_eq!(socket(&c, &own(c.reply.dst)), None);
        assert_eq!(socket(&c, &own(c.original.src)), Some(c.original));
        assert_eq!(socket(&c, &own(c.reply.src)), Some(c.reply));
    }
}
