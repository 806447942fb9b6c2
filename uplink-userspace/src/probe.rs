//! ICMP echo through every uplink: the same targets, told apart by mark and source address.
//!
//! Rounds overlap: a timeout never delays the next probe. An answer counts only when its
//! source, identifier, sequence and 64-bit nonce are those of an open probe.

// The schedule is what calls them.
#[allow(dead_code)]
mod dns;
#[allow(dead_code)]
mod exec;
#[allow(dead_code)]
mod http;
#[allow(dead_code)]
mod kinds;
#[allow(dead_code)]
mod tcp;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use uplink_common::Family;

use crate::config;
use crate::engine::{Event, Path};
use crate::resolve::{Leg, Uplink};

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const HEADER: usize = 8;
const NONCE: usize = 8;

/// Starts a prober for every path; the tasks end when the receiver is dropped.
///
/// # Errors
/// When a raw socket cannot be had.
pub fn start(
    uplinks: &[Uplink],
    settings: &config::Probe,
    events: &mpsc::Sender<Event>,
) -> Result<tokio::task::JoinSet<()>> {
    let mut tasks = tokio::task::JoinSet::new();
    for u in uplinks {
        for family in Family::ALL {
            let Some(leg) = u.leg(family) else { continue };
            let path = Path { uplink: u.id, family };
            let targets: Vec<IpAddr> = settings.targets_of(family).map(|t| t.address).collect();
            if !targets.is_empty() {
                let prober = Prober::new(path, u.mark, leg, targets, settings)
                    .with_context(|| format!("probing by {} needs CAP_NET_RAW", u.name))?;
                tasks.spawn_local(prober.run(events.clone()));
            }
        }
    }
    Ok(tasks)
}

struct Prober {
    path: Path,
    socket: Rc<AsyncFd<Socket>>,
    targets: Vec<IpAddr>,
    interval: Duration,
    timeout: Duration,
    id: u16,
    round: u64,
    sequence: u16,
    open: HashMap<u16, Open>,
}

/// A probe that waits for its answer.
struct Open {
    round: u64,
    target: IpAddr,
    nonce: [u8; NONCE],
    sent: Instant,
}

impl Prober {
    fn new(
        path: Path,
        mark: u32,
        leg: &Leg,
        targets: Vec<IpAddr>,
        settings: &config::Probe,
    ) -> io::Result<Self> {
        let socket = socket(path.family, mark, leg.source)?;
        // SAFETY: the socket owns its descriptor and keeps it open and the same until dropped.
        let socket = Rc::new(unsafe { AsyncFd::register(socket) }?);
        let id = u16::from_ne_bytes(random()?);
        let (interval, timeout) = (settings.interval, settings.timeout);
        let (round, sequence, open) = (first_round(), 0, HashMap::new());
        Ok(Self {
            path,
            socket,
            targets,
            interval,
            timeout,
            id,
            round,
            sequence,
            open,
        })
    }

    async fn run(mut self, events: mpsc::Sender<Event>) {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let socket = Rc::clone(&self.socket);
        loop {
            let expiry = self.next_expiry();
            let report = tokio::select! {
                _ = tick.tick() => { self.send_round(); Vec::new() }
                answer = receive(&socket) => self.answered(&answer).into_iter().collect(),
                () = sleep_until(expiry) => self.expired(Instant::now()),
            };
            for event in report {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    /// A probe that cannot be sent stays open and is lost at its time: "no route" is an answer
    /// about the uplink, too.
    fn send_round(&mut self) {
        self.round += 1;
        for target in self.targets.clone() {
            let Ok(nonce) = random() else { continue };
            self.sequence = self.sequence.wrapping_add(1);
            let packet = request(self.path.family, self.id, self.sequence, nonce);
            let to = SockAddr::from(SocketAddr::new(target, 0));
            let _ = self.socket.get_ref().send_to(&packet, &to);
            let open = Open {
                round: self.round,
                target,
                nonce,
                sent: Instant::now(),
            };
            self.open.insert(self.sequence, open);
        }
    }

    fn answered(&mut self, answer: &Answer) -> Option<Event> {
        let (sequence, nonce) = reply(self.path.family, self.id, &answer.bytes)?;
        let open = self.open.get(&sequence)?;
        if open.target != answer.from || open.nonce != nonce {
            return None;
        }
        let open = self.open.remove(&sequence)?;
        let rtt = open.sent.elapsed();
        Some(Event::Answered {
            path: self.path,
            target: 0,
            round: open.round,
            rtt,
        })
    }

    fn expired(&mut self, now: Instant) -> Vec<Event> {
        let timeout = self.timeout;
        let path = self.path;
        let mut rounds = Vec::new();
        self.open.retain(|_, open| {
            let late = now.duration_since(open.sent) >= timeout;
            if late {
                rounds.push(open.round);
            }
            !late
        });
        rounds.sort_unstable();
        rounds
            .into_iter()
            .map(|round| Event::Lost {
                path,
                target: 0,
                round,
            })
            .collect()
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.open
            .values()
            .map(|o| o.sent)
            .min()
            .map(|sent| sent + self.timeout)
    }
}

/// Rounds of a later prober of the same path must not be taken for those of an earlier one.
fn first_round() -> u64 {
    static PROBERS: AtomicU64 = AtomicU64::new(0);
    PROBERS.fetch_add(1, Ordering::Relaxed) << 32
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A raw ICMP socket: ping sockets are refused even to root by the default sysctl.
fn socket(family: Family, mark: u32, source: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_mark(mark)?;
    socket.set_nonblocking(true)?;
    // An address that is gone for the moment makes probes fail, not the prober.
    match family {
        Family::V4 => socket.set_freebind_v4(true)?,
        Family::V6 => socket.set_freebind_v6(true)?,
    }
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(socket)
}

struct Answer {
    from: IpAddr,
    bytes: Vec<u8>,
}

async fn receive(socket: &AsyncFd<Socket>) -> Answer {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        // An error is an ICMP message about an earlier probe, which will be lost at its time.
        if let Ok(Ok((n, from))) = ready.try_io(|s| s.get_ref().recv_from(&mut buffer)) {
            // SAFETY: the kernel filled the first n bytes.
            let bytes = buffer[..n].iter().map(|b| unsafe { b.assume_init() }).collect();
            if let Some(from) = from.as_socket() {
                return Answer {
                    from: from.ip(),
                    bytes,
                };
            }
        }
    }
}

/// An echo request. The kernel fills in the checksum of ICMPv6 only.
fn request(family: Family, id: u16, sequence: u16, nonce: [u8; NONCE]) -> [u8; HEADER + NONCE] {
    let mut p = [0; HEADER + NONCE];
    p[0] = if family == Family::V4 {
        ECHO_REQUEST_V4
    } else {
        ECHO_REQUEST_V6
    };
    p[4..6].copy_from_slice(&id.to_be_bytes());
    p[6..8].copy_from_slice(&sequence.to_be_bytes());
    p[HEADER..].copy_from_slice(&nonce);
    if family == Family::V4 {
        let sum = checksum(&p);
        p[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    p
}

/// Sequence and nonce of an echo reply to us. A raw IPv4 socket shows the IP header, too.
fn reply(family: Family, id: u16, bytes: &[u8]) -> Option<(u16, [u8; NONCE])> {
    let icmp = match family {
        Family::V4 => bytes.get(usize::from(bytes.first()? & 0x0f) * 4..)?,
        Family::V6 => bytes,
    };
    let kind = if family == Family::V4 {
        ECHO_REPLY_V4
    } else {
        ECHO_REPLY_V6
    };
    let header = icmp.get(..HEADER)?;
    if header[0] != kind || header[4..6] != id.to_be_bytes() {
        return None;
    }
    let nonce = icmp.get(HEADER..HEADER + NONCE)?.try_into().ok()?;
    Some((u16::from_be_bytes([header[6], header[7]]), nonce))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Random bytes from the kernel.
///
/// # Errors
/// When there are none, which does not happen after boot.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is writable for N bytes.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if n == N as isize {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoed(family: Family, request: &[u8]) -> Vec<u8> {
        let mut r = request.to_vec();
        r[0] = if family == Family::V4 {
            ECHO_REPLY_V4
        } else {
            ECHO_REPLY_V6
        };
        match family {
            Family::V4 => [&[0x45; 1][..], &[0; 19], &r].concat(),
            Family::V6 => r,
        }
    }

    #[test]
    fn a_reply_names_its_request() {
        for family in Family::ALL {
            let sent = request(family, 7, 42, *b"12345678");
            assert_eq!(reply(family, 7, &echoed(family, &sent)), Some((42, *b"12345678")));
        }
    }

    #[test]
    fn other_replies_and_short_ones_are_none() {
        let good = echoed(Family::V4, &request(Family::V4, 7, 42, *b"12345678"));
        assert_eq!(reply(Family::V4, 8, &good), None);
        for n in 0..good.len() {
            assert_eq!(reply(Family::V4, 7, &good[..n]), None);
        }
    }

    #[test]
    fn the_checksum_of_a_checked_packet_is_zero() {
        assert_eq!(checksum(&request(Family::V4, 1, 2, *b"abcdefgh")), 0);
    }
}
