//! Many new flows, counted by the ISP they took.

use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{PATIENCE, Reply, fresh_tcp, fresh_udp, request};
use crate::echo::{FIRST, REPLY};
use crate::ns::Namespace;
use crate::topology::{Family, Isp, Lab};

/// Few enough that no socket buffer or queue for neighbour resolution overflows.
const BATCH: usize = 100;
/// So many lost flows end a burst, which would take minutes otherwise.
const HOPELESS: usize = 500;
const PACKETS: u32 = 3;

/// What became of a burst of flows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Flows by ISP, every packet of which was answered and seen from that ISP.
    pub by_isp: [usize; 2],
    /// Flows seen from an address of no ISP.
    pub elsewhere: usize,
    /// Flows whose packets were seen from more than one address.
    pub split: usize,
    /// Flows with a packet that was not answered.
    pub lost: usize,
}

impl Tally {
    /// Flows in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.clean() + self.elsewhere + self.split + self.lost
    }

    /// Flows that went through one ISP wholly.
    #[must_use]
    pub fn clean(&self) -> usize {
        self.by_isp.iter().sum()
    }

    /// The ISP's part of the clean flows, in percent.
    #[must_use]
    pub fn percent(&self, isp: Isp) -> f64 {
        100.0 * self.by_isp[isp.index()] as f64 / self.clean().max(1) as f64
    }

    pub(super) fn add(&mut self, replies: &[Reply]) {
        match replies {
            [] => self.lost += 1,
            [first, rest @ ..] if rest.iter().any(|r| r.seen != first.seen) => self.split += 1,
            [first, ..] => match first.via() {
                Some(isp) => self.by_isp[isp.index()] += 1,
                None => self.elsewhere += 1,
            },
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.by_isp[0] += other.by_isp[0];
        self.by_isp[1] += other.by_isp[1];
        self.elsewhere += other.elsewhere;
        self.split += other.split;
        self.lost += other.lost;
    }
}

/// `n` new UDP flows of three packets each.
///
/// # Errors
/// When sockets cannot be had, or 500 flows are lost; less loss is counted, not an error.
pub fn udp_flows(lab: &Lab, n: usize, family: Family) -> Result<Tally> {
    udp_by(&lab.client, n, || fresh_udp(family))
}

/// `n` TCP connections, one after the other, with one request each.
///
/// # Errors
/// When ten fail; fewer are counted as lost.
pub fn tcp_connects(lab: &Lab, n: usize, family: Family) -> Result<Tally> {
    tcp_by(&lab.client, n, || fresh_tcp(family))
}

/// As [`udp_flows`], on connected sockets that `open` makes in `ns`.
pub(super) fn udp_by(
    ns: &Namespace,
    n: usize,
    mut open: impl FnMut() -> io::Result<UdpSocket> + Send,
) -> Result<Tally> {
    ns.enter(|| {
        let mut tally = Tally::default();
        for start in (0..n).step_by(BATCH) {
            tally += udp_batch(BATCH.min(n - start), &mut open)?;
            ensure!(
                tally.lost < HOPELESS,
                "nothing gets through: {tally:?} of {n} flows"
            );
        }
        Ok(tally)
    })?
}

/// As [`tcp_connects`], on streams that `open` makes in `ns`.
pub(super) fn tcp_by(
    ns: &Namespace,
    n: usize,
    mut open: impl FnMut() -> io::Result<TcpStream> + Send,
) -> Result<Tally> {
    ns.enter(|| {
        let mut tally = Tally::default();
        for _ in 0..n {
            let reply = open().ok().and_then(|mut stream| exchange(&mut stream));
            tally.add(reply.as_slice());
            ensure!(
                tally.lost < HOPELESS / 50,
                "nothing gets through: {tally:?} of {n} flows"
            );
        }
        Ok(tally)
    })?
}

fn udp_batch(n: usize, open: &mut impl FnMut() -> io::Result<UdpSocket>) -> Result<Tally> {
    let mut flows: Vec<(UdpSocket, Vec<Reply>)> = (0..n)
        .map(|_| Ok((open()?, Vec::new())))
        .collect::<io::Result<_>>()
        .context("open UDP sockets")?;
    for seq in 0..PACKETS {
        let kind = if seq == 0 { FIRST } else { 0 };
        for (socket, _) in &flows {
            // An ICMP error of an earlier packet may surface here; the missing reply tells.
            let _ = socket.send(&request(seq, kind));
        }
        let deadline = Instant::now() + PATIENCE;
        for (socket, replies) in &mut flows {
            replies.extend(await_reply(socket, seq, deadline));
        }
        if flows.iter().all(|(_, replies)| replies.is_empty()) {
            // All are lost already; more packets would only take time.
            break;
        }
    }
    let mut tally = Tally::default();
    for (_, replies) in &flows {
        let whole = replies.len() == PACKETS as usize;
        tally.add(if whole { replies } else { &[] });
    }
    Ok(tally)
}

pub(super) fn await_reply(socket: &UdpSocket, seq: u32, deadline: Instant) -> Option<Reply> {
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    socket.set_read_timeout(Some(left)).ok()?;
    let mut buffer = [0; REPLY];
    socket.recv(&mut buffer).ok().filter(|n| *n == REPLY)?;
    Some(Reply::parse(&buffer)).filter(|reply| reply.seq == seq)
}

pub(super) fn tcp_exchange(family: Family) -> Option<Reply> {
    exchange(&mut fresh_tcp(family).ok()?)
}

/// A client's connection, idle, that happens to go through `isp`.
///
/// # Errors
/// When none of 100 does.
pub fn tcp_stream_on(lab: &Lab, family: Family, isp: Isp) -> Result<TcpStream> {
    let on_it = || {
        (0..100).find_map(|_| {
            let mut stream = fresh_tcp(family).ok()?;
            (exchange(&mut stream)?.via() == Some(isp)).then_some(stream)
        })
    };
    lab.client
        .enter(on_it)?
        .with_context(|| format!("none of 100 connections took {}", isp.name()))
}

/// One request on a connection; `None` when it is not answered.
pub fn exchange(stream: &mut TcpStream) -> Option<Reply> {
    stream.write_all(&request(0, FIRST)).ok()?;
    let mut buffer = [0; REPLY];
    stream.read_exact(&mut buffer).ok()?;
    Some(Reply::parse(&buffer))
}

/// One request on a connected UDP socket; `None` when it is not answered.
#[must_use]
pub fn ask(socket: &UdpSocket) -> Option<Reply> {
    socket.send(&request(0, FIRST)).ok()?;
    await_reply(socket, 0, Instant::now() + PATIENCE)
}
