//! Servers that tell a client the address they see it by.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::topology::{Family, Isp, Lab, servers};

/// Port of the servers, UDP and TCP.
pub const PORT: u16 = 7000;
/// Bytes of a request: sequence number and kind, both big-endian.
pub const REQUEST: usize = 8;
/// Bytes of a reply: the request, then the address family (4 or 6) and address seen.
pub const REPLY: usize = REQUEST + 17;
/// Kind of the first request of a flow.
pub const FIRST: u32 = 1;

const TICK: Duration = Duration::from_millis(100);

/// The servers, running until dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// New flows by ISP; the last field is for sources of neither.
#[derive(Debug, Default)]
struct Seen([AtomicU64; 3]);

impl Echo {
    /// Starts UDP and TCP servers on every address of [`servers`].
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (stop, seen) = <(Arc<AtomicBool>, Arc<Seen>)>::default();
        let mut echo = Self {
            stop,
            seen,
            threads: Vec::new(),
        };
        for ip in [Family::V4, Family::V6].into_iter().flat_map(servers) {
            let at = SocketAddr::new(ip, PORT);
            let (udp, tcp) = lab
                .internet
                .enter(|| (UdpSocket::bind(at), TcpListener::bind(at)))?;
            echo.serve_udp(lab, udp.with_context(|| format!("bind udp {at}"))?)?;
            echo.serve_tcp(lab, tcp.with_context(|| format!("bind tcp {at}"))?)?;
        }
        Ok(echo)
    }

    /// New flows seen since the start: by ISP one, by ISP two, from elsewhere.
    #[must_use]
    pub fn new_flows(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.seen.0[i].load(Ordering::Relaxed))
    }

    fn serve_udp(&mut self, lab: &Lab, socket: UdpSocket) -> Result<()> {
        socket.set_read_timeout(Some(TICK))?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
        let (stop, seen) = (self.stop.clone(), self.seen.clone());
        self.threads.push(lab.internet.spawn(move || {
            let mut buffer = [0; REQUEST];
            while !stop.load(Ordering::Relaxed) {
                let Ok((REQUEST, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let _ = socket.send_to(&seen.answer(&buffer, from.ip()), from);
            }
            Ok(())
        })?);
        Ok(())
    }

    fn serve_tcp(&mut self, lab: &Lab, listener: TcpListener) -> Result<()> {
        // Linux honours the read timeout in accept, too.
        socket2::SockRef::from(&listener).set_read_timeout(Some(TICK))?;
        let (stop, seen) = (self.stop.clone(), self.seen.clone());
        self.threads.push(lab.internet.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, from)) = listener.accept() else {
                    continue;
                };
                serve_connection(stream, from.ip(), &stop, &seen)?;
            }
            Ok(())
        })?);
        Ok(())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn answer(&self, request: &[u8; REQUEST], from: IpAddr) -> [u8; REPLY] {
        let from = from.to_canonical();
        if request[4..] == FIRST.to_be_bytes() {
            let index = Isp::of(from).map_or(2, Isp::index);
            self.0[index].fetch_add(1, Ordering::Relaxed);
        }
        let mut reply = [0; REPLY];
        reply[..REQUEST].copy_from_slice(request);
        match from {
            IpAddr::V4(a) => {
                reply[REQUEST] = 4;
                reply[REQUEST + 1..REQUEST + 5].copy_from_slice(&a.octets());
            }
            IpAddr::V6(a) => {
                reply[REQUEST] = 6;
                reply[REQUEST + 1..].copy_from_slice(&a.octets());
            }
        }
        reply
    }
}

fn serve_connection(
    mut stream: TcpStream,
    from: IpAddr,
    stop: &Arc<AtomicBool>,
    seen: &Arc<Seen>,
) -> Result<()> {
    let (stop, seen) = (stop.clone(), seen.clone());
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    // Not joined: it ends with the connection, or within a tick of `stop`.
    std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
        let mut request = [0; REQUEST];
        while !stop.load(Ordering::Relaxed) {
            match stream.read(&mut request) {
                Ok(REQUEST) => {
                    if stream.write_all(&seen.answer(&request, from)).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                // Requests are single small segments: a part of one means the client is gone.
                _ => return,
            }
        }
    })?;
    Ok(())
}
