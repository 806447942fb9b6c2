//! More flows than sockets: single UDP packets from a raw socket, told apart by what they carry.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::topology::{CLIENTS, Family, Isp, Lab, client, servers};

/// Nobody answers here, so that a flow costs one packet.
const PORTS: [u16; 8] = [7100, 7101, 7102, 7103, 7104, 7105, 7106, 7107];
const HEADERS: usize = 28;
/// Packets per millisecond: what the lab forwards without loss on half a processor.
const PACE: usize = 20;

/// UDP flows (IPv4) of one packet now and then; the Internet notes the ISP of each.
#[derive(Debug)]
pub struct Swarm {
    socket: Socket,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    sinks: Vec<JoinHandle<Result<()>>>,
}

/// By flow: 0 not seen, 1 and 2 the ISPs, 3 elsewhere.
#[derive(Debug)]
struct Seen {
    via: Vec<AtomicU8>,
    count: AtomicUsize,
}

impl Swarm {
    /// The flows, none of which has sent anything yet.
    ///
    /// # Errors
    /// When sockets cannot be had.
    pub fn new(lab: &Lab, flows: usize) -> Result<Self> {
        ensure!(flows <= usize::from(CLIENTS) * 32_768, "too many flows");
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        let mut swarm = Self {
            socket: lab.client.enter(raw)?.context("a raw socket")?,
            seen: Arc::new(Seen {
                via: (0..flows).map(|_| AtomicU8::new(0)).collect(),
                count: AtomicUsize::new(0),
            }),
            stop: Arc::default(),
            sinks: Vec::new(),
        };
        for server in servers(Family::V4) {
            for port in PORTS {
                swarm.sink(lab, SocketAddr::new(server, port))?;
            }
        }
        Ok(swarm)
    }

    fn sink(&mut self, lab: &Lab, at: SocketAddr) -> Result<()> {
        let socket = lab.internet.enter(|| UdpSocket::bind(at))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20)?;
        let (stop, seen) = (self.stop.clone(), self.seen.clone());
        self.sinks.push(lab.internet.spawn(move || {
            let mut flow = [0; 4];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((4, from)) = socket.recv_from(&mut flow) {
                    seen.note(u32::from_be_bytes(flow) as usize, from.ip());
                }
            }
            Ok(())
        })?);
        Ok(())
    }

    /// Every flow sends a packet, again until it arrives, three times at most. The ISP of each.
    ///
    /// # Errors
    /// When packets cannot be sent.
    pub fn round(&self) -> Result<Vec<Option<Isp>>> {
        for via in &self.seen.via {
            via.store(0, Ordering::Relaxed);
        }
        self.seen.count.store(0, Ordering::Relaxed);
        for _ in 0..3 {
            self.send_unseen()?;
            if self.arrived() {
                break;
            }
        }
        let isp = |via: &AtomicU8| match via.load(Ordering::Relaxed) {
            1 => Some(Isp::One),
            2 => Some(Isp::Two),
            _ => None,
        };
        Ok(self.seen.via.iter().map(isp).collect())
    }

    fn send_unseen(&self) -> Result<()> {
        let (begun, mut sent) = (Instant::now(), 0);
        for (flow, via) in self.seen.via.iter().enumerate() {
            if via.load(Ordering::Relaxed) != 0 {
                continue;
            }
            let (packet, to) = packet(flow);
            self.socket
                .send_to(&packet, &to.into())
                .context("send a packet")?;
            sent += 1;
            if sent % PACE == 0 {
                let due = begun + Duration::from_millis((sent / PACE) as u64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    /// Whether all packets arrive within half a second.
    fn arrived(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            if self.seen.count.load(Ordering::Relaxed) == self.seen.via.len() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for sink in self.sinks.drain(..) {
            let _ = sink.join();
        }
    }
}

impl Seen {
    fn note(&self, flow: usize, from: IpAddr) {
        let via = Isp::of(from).map_or(3, |isp| isp.index() as u8 + 1);
        if let Some(old) = self.via.get(flow)
            && old.swap(via, Ordering::Relaxed) == 0
        {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The packet of a flow, IP header and all, and where it goes.
fn packet(flow: usize) -> ([u8; HEADERS + 4], SocketAddr) {
    let clients = usize::from(CLIENTS);
    let server = servers(Family::V4)[flow % 2];
    let to = SocketAddr::new(server, PORTS[flow / 2 % PORTS.len()]);
    let source = client(Family::V4, (flow % clients) as u8);
    let port = 20_000 + (flow / clients) as u16;
    let mut bytes = [0; HEADERS + 4];
    bytes[0] = 0x45;
    // The kernel fills in length, identification and checksum; no UDP checksum is fine, too.
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(&octets(source));
    bytes[16..20].copy_from_slice(&octets(server));
    bytes[20..22].copy_from_slice(&port.to_be_bytes());
    bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
    bytes[24..26].copy_from_slice(&12u16.to_be_bytes());
    bytes[HEADERS..].copy_from_slice(&(flow as u32).to_be_bytes());
    (bytes, SocketAddr::new(server, 0))
}

fn octets(ip: IpAddr) -> [u8; 4] {
    match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.octets(),
    }
}
