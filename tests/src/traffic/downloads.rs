//! Downloads by several clients at once, counted by the ISP that carried them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::fresh_ends;
use crate::topology::{Family, Isp, Lab};

/// Where files are served, TCP over IPv4.
pub const FILES: u16 = 7100;
const CHUNK: usize = 64 << 10;
/// Many downloads on a narrow link are lost again and again, six times in a row some of them; this is beyond their pauses,
/// which double.
const LONGEST: Duration = Duration::from_secs(30);

/// A server of files, until dropped. A file has the size that the client names, and its first
/// byte is the ISP by which the client came (255: none).
#[derive(Debug)]
pub struct Files {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Files {
    /// Serves on every address of the Internet.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn serve(lab: &Lab) -> Result<Self> {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, FILES));
        let listener = lab.internet.enter(listen)?.context("serve files")?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || accept(&listener, &theirs));
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the file server failed: {e:#}");
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                // A thread ends with its client, or when that stops reading.
                std::thread::spawn(move || send_file(stream, from));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => return Err(e).context("accept a download"),
        }
    }
    Ok(())
}

fn send_file(mut stream: TcpStream, from: SocketAddr) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(LONGEST))?;
    let mut size = [0; 8];
    stream.read_exact(&mut size)?;
    let by = Isp::of(from.ip()).map_or(u8::MAX, |isp| isp.index() as u8);
    let (mut left, chunk) = (u64::from_be_bytes(size), [by; CHUNK]);
    while left > 0 {
        let part = left.min(CHUNK as u64);
        stream.write_all(&chunk[..part as usize])?;
        left -= part;
    }
    Ok(())
}

/// What downloads brought in.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Megabits per second by ISP, as clients got them: without headers and repetitions.
    pub mbit: [f64; 2],
    /// Files that were complete.
    pub files: u64,
    /// Connections that failed or broke.
    pub failed: u64,
}

impl Rates {
    /// By both ISPs together.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.mbit.iter().sum()
    }
}

#[derive(Debug, Default)]
struct Counts {
    bytes: [AtomicU64; 2],
    files: AtomicU64,
    failed: AtomicU64,
}

/// Downloads that go on until dropped: each client takes one file after the other.
#[derive(Debug)]
pub struct Downloads {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Downloads {
    /// `n` clients at once and files of `size` bytes.
    ///
    /// # Errors
    /// When threads cannot be had.
    pub fn start(lab: &Lab, n: usize, size: u64) -> Result<Self> {
        let mut downloads = Self {
            stop: Arc::default(),
            counts: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..n {
            let (stop, counts) = (downloads.stop.clone(), downloads.counts.clone());
            let thread = lab.client.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let done = download(size, &stop, &counts).is_ok();
                    let count = if done { &counts.files } else { &counts.failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    if !done {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                Ok(())
            });
            downloads.threads.push(thread?);
        }
        Ok(downloads)
    }

    /// The rates over the next `time`.
    #[must_use]
    pub fn measure(&self, time: Duration) -> Rates {
        let (begun, before) = (Instant::now(), self.bytes());
        std::thread::sleep(time);
        let (after, seconds) = (self.bytes(), begun.elapsed().as_secs_f64());
        let mbit = |n: usize| (after[n] - before[n]) as f64 * 8.0 / seconds / 1e6;
        Rates {
            mbit: [mbit(0), mbit(1)],
            files: self.counts.files.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }

    /// Bytes so far, by ISP.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        self.counts.bytes.each_ref().map(|n| n.load(Ordering::Relaxed))
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn download(size: u64, stop: &AtomicBool, counts: &Counts) -> std::io::Result<()> {
    let (source, server) = fresh_ends(Family::V4);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    socket.connect_timeout(&SocketAddr::new(server.ip(), FILES).into(), LONGEST)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LONGEST))?;
    stream.write_all(&size.to_be_bytes())?;
    let (mut left, mut buffer) = (size, vec![0; CHUNK]);
    while left > 0 && !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => {
                left -= n as u64;
                if let Some(count) = counts.bytes.get(usize::from(buffer[0])) {
                    count.fetch_add(n as u64, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}
