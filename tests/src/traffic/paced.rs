//! New connections and queries at a steady rate, however long earlier ones take.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::ongoing::{Beat, lock, note, push};
use super::{Ongoing, PATIENCE, Reply, fresh_ends, request};
use crate::echo::{FIRST, REPLY};
use crate::liar::dns::{self, Manner};
use crate::topology::{Family, Lab, servers};

/// One that waits for its answer. Yields it once.
trait Asking {
    fn answer(&mut self) -> Option<Reply>;
}

impl Ongoing {
    /// A new TCP connection with one request at every `interval`, whatever became of the last.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn connections(lab: &Lab, family: Family, interval: Duration) -> Result<Self> {
        Self::spawn(lab, move |stop, beats| {
            paced(interval, stop, beats, |seq| Connecting::start(family, seq))
        })
    }

    /// A DNS query from a new port at every `interval`. Needs [`crate::liar::Dns`].
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn queries(lab: &Lab, family: Family, interval: Duration) -> Result<Self> {
        Self::spawn(lab, move |stop, beats| {
            paced(interval, stop, beats, |seq| Query::start(family, seq))
        })
    }
}

fn paced<A: Asking>(
    interval: Duration,
    stop: &AtomicBool,
    beats: &Mutex<Vec<Beat>>,
    ask: impl Fn(u32) -> io::Result<A>,
) -> Result<()> {
    let mut asked: Vec<(Instant, A)> = Vec::new();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let seq = push(beats, Instant::now());
        asked.push((Instant::now(), ask(seq).context("ask")?));
        // After a pause of the machine the rate is what it was, without a burst.
        next = (next + interval).max(Instant::now());
        collect_until(next, &mut asked, beats);
    }
    collect_until(Instant::now() + PATIENCE / 4, &mut asked, beats);
    Ok(())
}

/// Takes in answers, a look each 2 ms, until `deadline`.
fn collect_until<A: Asking>(deadline: Instant, asked: &mut Vec<(Instant, A)>, beats: &Mutex<Vec<Beat>>) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(2)));
        asked.retain_mut(|(since, one)| match one.answer() {
            Some(reply) => {
                note(&mut lock(beats), reply);
                false
            }
            None => since.elapsed() < 3 * PATIENCE,
        });
        if left.is_zero() {
            return;
        }
    }
}

/// A connection, and whether its request is on the way.
struct Connecting {
    stream: TcpStream,
    seq: u32,
    sent: bool,
}

impl Connecting {
    fn start(family: Family, seq: u32) -> io::Result<Self> {
        let (source, server) = fresh_ends(family);
        let socket = Socket::new(Domain::for_address(source), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        // In progress, or refused; the missing reply tells.
        let _ = socket.connect(&server.into());
        Ok(Self {
            stream: socket.into(),
            seq,
            sent: false,
        })
    }
}

impl Asking for Connecting {
    fn answer(&mut self) -> Option<Reply> {
        if !self.sent {
            // Refused until the handshake is through.
            self.stream.write_all(&request(self.seq, FIRST)).ok()?;
            self.sent = true;
        }
        let mut buffer = [0; REPLY];
        matches!(self.stream.read(&mut buffer), Ok(REPLY)).then(|| Reply::parse(&buffer))
    }
}

/// A query for the address that the server sees.
struct Query {
    socket: UdpSocket,
    seq: u32,
    question: Vec<u8>,
}

impl Query {
    fn start(family: Family, seq: u32) -> io::Result<Self> {
        let (source, _) = fresh_ends(family);
        let socket = UdpSocket::bind(source)?;
        socket.set_nonblocking(true)?;
        socket.connect(SocketAddr::new(servers(family)[0], Manner::Good.port()))?;
        let question = dns::question(seq as u16, family);
        // The missing answer tells.
        let _ = socket.send(&question);
        Ok(Self {
            socket,
            seq,
            question,
        })
    }
}

impl Asking for Query {
    fn answer(&mut self) -> Option<Reply> {
        let mut buffer = [0; 512];
        let n = self.socket.recv(&mut buffer).ok()?;
        let seen = dns::seen(&buffer[..n], &self.question)?;
        Some(Reply { seq: self.seq, seen })
    }
}
