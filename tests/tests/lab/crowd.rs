//! A thousand bad clients at the control socket.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::abuse::SOCKET;
use crate::support::pause;

/// Clients at one time.
const CLIENTS: usize = 1000;
/// Most that is sent in all, in bytes.
const MOST: u64 = 1 << 30;
const QUESTION: &[u8] = b"{\"method\":\"org.uplink.Status\"}\0";

/// What a bad client does.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Says nothing.
    Silent,
    /// Sends a byte at a time.
    Slow,
    /// Sends a request without end.
    Huge,
    /// Asks without end, and takes the answers.
    Curious,
    /// Asks without end, and never reads.
    Deaf,
}

/// They come again whenever they are thrown out.
pub struct Crowd {
    over: Arc<AtomicBool>,
    members: JoinHandle<Result<Count>>,
}

#[derive(Default)]
struct Count {
    connected: u64,
    sent: u64,
    answered: u64,
}

impl Crowd {
    /// A crowd of these kinds; its thread becomes somebody else first, if it is to.
    pub fn gather(
        kinds: &'static [Kind],
        become_somebody: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let end = over.clone();
        let members = std::thread::spawn(move || {
            become_somebody()?;
            besiege(kinds, &end)
        });
        pause(1.0);
        ensure!(
            !members.is_finished(),
            "the crowd has left: {:?}",
            members.join().map(|r| r.err())
        );
        Ok(Self { over, members })
    }

    /// They leave; what they did, in words.
    ///
    /// # Errors
    /// Where fewer than this got in.
    pub fn leave(self, least: u64) -> Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let count = self.members.join().map_err(|_| anyhow!("a panic"))??;
        let Count {
            connected,
            sent,
            answered,
        } = count;
        ensure!(connected >= least, "only {connected} connections");
        Ok(format!(
            "{connected} connections, {} KiB sent, {} KiB of answers taken",
            sent >> 10,
            answered >> 10
        ))
    }
}

fn besiege(kinds: &[Kind], over: &AtomicBool) -> Result<Count> {
    let kinds = kinds.iter().cycle().take(CLIENTS);
    let mut clients: Vec<(Kind, Option<Socket>)> = kinds.map(|kind| (*kind, None)).collect();
    let mut count = Count::default();
    while !over.load(Ordering::Relaxed) {
        for (kind, place) in &mut clients {
            match place {
                None => {
                    *place = connect()?;
                    count.connected += u64::from(place.is_some());
                }
                Some(socket) => match turn(*kind, socket, &mut count) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Ok(true) => {}
                    // Thrown out: a new one comes.
                    Ok(false) | Err(_) => *place = None,
                },
            }
        }
        pause(0.02);
    }
    Ok(count)
}

/// What a client does when it is its turn; whether it stays.
fn turn(kind: Kind, socket: &Socket, count: &mut Count) -> std::io::Result<bool> {
    match kind {
        Kind::Silent => return Ok(socket.recv(&mut [MaybeUninit::uninit(); 64])? > 0),
        Kind::Slow => count.sent += socket.send(b"{")? as u64,
        Kind::Huge if count.sent < MOST => count.sent += socket.send(&[b'x'; 64 << 10])? as u64,
        Kind::Huge => {}
        Kind::Deaf => count.sent += socket.send(QUESTION)? as u64,
        Kind::Curious => {
            count.sent += socket.send(QUESTION)? as u64;
            let taken = socket.recv(&mut [MaybeUninit::uninit(); 16 << 10])?;
            count.answered += taken as u64;
            return Ok(taken > 0);
        }
    }
    Ok(true)
}

/// `None` while the backlog is full.
fn connect() -> Result<Option<Socket>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(SOCKET)?) {
        Ok(()) => Ok(Some(socket)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e).context("connect"),
    }
}
