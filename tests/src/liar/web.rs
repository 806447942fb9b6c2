//! Web servers: good ones, and such as never come to an end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tls;
use crate::topology::Lab;

/// What a server does with a request; each has a port of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// Status 200.
    Good,
    /// The same by TLS, with a certificate of the authority in [`CA`], for [`NAME`] and the
    /// servers' addresses.
    Tls,
    /// The same, with a certificate that nobody trusts.
    Untrusted,
    /// Status 503.
    Failure,
    /// A header that never ends, as fast as it can.
    EndlessHeader,
    /// Status 200 and a body that never ends, as fast as it can.
    EndlessBody,
    /// Status 200, a byte each 100 ms.
    Dribble,
    /// Bytes that are no HTTP at all.
    Garbage,
    /// Takes the request and says nothing.
    Silent,
}

/// The authority's certificate, PEM.
pub const CA: &str = "/run/lab/ca.pem";
/// A name in the certificate of [`Page::Tls`].
pub const NAME: &str = "probe.test";

impl Page {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Good,
        Self::Tls,
        Self::Untrusted,
        Self::Failure,
        Self::EndlessHeader,
        Self::EndlessBody,
        Self::Dribble,
        Self::Garbage,
        Self::Silent,
    ];

    /// Its TCP port: 80, 443, or 8002 and up.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Good => 80,
            Self::Tls => 443,
            bad => 8000 + bad as u16,
        }
    }
}

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes";
const BAD: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";

/// Web servers of every [`Page`] on every address of the Internet, until dropped.
#[derive(Debug)]
pub struct Web {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    served: AtomicU64,
    open: AtomicU64,
}

impl Web {
    /// Starts them and writes [`CA`].
    ///
    /// # Errors
    /// When a port cannot be had or a certificate cannot be made.
    pub fn start(lab: &Lab) -> Result<Self> {
        let identities = tls::identities(CA)?;
        let ports = lab.internet.enter(listeners)??;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || accept(&ports, &identities, &theirs));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Connections so far.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the web server failed: {e:#}");
        }
    }
}

fn listeners() -> Result<Vec<(Page, TcpListener)>> {
    let one = |page: Page| {
        let at = (Ipv6Addr::UNSPECIFIED, page.port());
        let listener = TcpListener::bind(at).with_context(|| format!("tcp {at:?}"))?;
        listener.set_nonblocking(true)?;
        Ok((page, listener))
    };
    Page::ALL.into_iter().map(one).collect()
}

fn accept(ports: &[(Page, TcpListener)], identities: &tls::Identities, shared: &Arc<Shared>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut waiting = Vec::new();
        for (_, listener) in ports {
            waiting.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::from(100u8)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("wait for connections"),
        }
        for (page, listener) in ports {
            match listener.accept() {
                Ok((stream, _)) => attend(stream, *page, identities.of(*page), shared.clone()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e).context("accept a connection"),
            }
        }
    }
    Ok(())
}

/// In a thread of its own, which ends with the client.
fn attend(stream: TcpStream, page: Page, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    shared.served.fetch_add(1, Ordering::Relaxed);
    shared.open.fetch_add(1, Ordering::Relaxed);
    std::thread::spawn(move || {
        let _ = match tls {
            Some(config) => serve_tls(stream, config),
            None => serve(stream, page, &shared.stop),
        };
        shared.open.fetch_sub(1, Ordering::Relaxed);
    });
}

fn serve_tls(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    prepare(&stream)?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    request(&mut stream)?;
    stream.write_all(GOOD)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let patience = Some(Duration::from_secs(3));
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)
}

fn serve(mut stream: TcpStream, page: Page, stop: &AtomicBool) -> io::Result<()> {
    prepare(&stream)?;
    request(&mut stream)?;
    let endlessly = |stream: &mut TcpStream, bytes: &[u8], pause: Duration| -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(bytes)?;
            std::thread::sleep(pause);
        }
        Ok(())
    };
    match page {
        Page::Good | Page::Tls | Page::Untrusted => stream.write_all(GOOD),
        Page::Failure => stream.write_all(BAD),
        Page::EndlessHeader => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
            endlessly(&mut stream, &[b'x'; 4096], Duration::ZERO)
        }
        Page::EndlessBody => {
            stream.write_all(ENDLESS)?;
            endlessly(&mut stream, &[b'x'; 4096], Duration::ZERO)
        }
        Page::Dribble => GOOD.chunks(1).try_for_each(|byte| {
            stream.write_all(byte)?;
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        }),
        Page::Garbage => stream.write_all(&[0xa5; 2000]),
        Page::Silent => {
            // Until the client gives up.
            stream.set_read_timeout(None)?;
            while stream.read(&mut [0; 64])? > 0 {}
            Ok(())
        }
    }
}

/// Reads to the end of the request's header.
fn request(stream: &mut impl Read) -> io::Result<()> {
    let (mut got, mut part) = (Vec::new(), [0; 1024]);
    while !got.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => got.extend_from_slice(&part[..n]),
        }
        if got.len() > 16_384 {
            return Err(io::Error::other("a request of more than 16 KiB"));
        }
    }
    Ok(())
}
