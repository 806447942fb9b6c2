//! A DNS server whose answers nobody should learn from.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::PORT;
use super::client::query;
use crate::topology::{Family, Isp, Lab, elsewhere, servers};
use crate::traffic::PATIENCE;

/// What is wrong with the answer to a name of the trick's own, [`Trick::name`]. It says that an address of the
/// trick's own, [`Trick::victim`], is what the name has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trick {
    /// Nothing.
    None,
    /// It has another identifier.
    WrongId,
    /// It answers another question.
    WrongName,
    /// It comes from another server.
    OtherServer,
    /// It comes from another port.
    OtherPort,
    /// It goes to another port.
    ToOtherPort,
    /// It is the second one, behind one without addresses.
    Second,
    /// The address belongs to a name that is no alias of the one asked for.
    Stowaway,
    /// The name is an alias of an alias of itself, which has the address.
    AliasLoop,
    /// A name in it points at itself.
    PointerLoop,
    /// It announces more records than there are.
    TooFewRecords,
    /// It ends in the middle of the address.
    CutShort,
    /// By UDP in fragments; by TCP longer than anything that is looked at.
    TooLong,
    /// It says that the server has failed, but has the address.
    Failure,
    /// The address is a private one.
    Private,
    /// The address is the gateway's.
    Gateway,
    /// The address is one that probes go to.
    ProbeTarget,
    /// Whoever answers has asked as well, in somebody else's name.
    Planted,
}

impl Trick {
    /// All that are wrong, but for [`Self::Planted`], which needs no question.
    pub const ALL: [Self; 16] = [
        Self::WrongId,
        Self::WrongName,
        Self::OtherServer,
        Self::OtherPort,
        Self::ToOtherPort,
        Self::Second,
        Self::Stowaway,
        Self::AliasLoop,
        Self::PointerLoop,
        Self::TooFewRecords,
        Self::CutShort,
        Self::TooLong,
        Self::Failure,
        Self::Private,
        Self::Gateway,
        Self::ProbeTarget,
    ];

    /// The name to ask for.
    #[must_use]
    pub fn name(self) -> String {
        format!("trick-{}.example.org", self as u8)
    }

    /// The address in the answer.
    #[must_use]
    pub fn victim(self) -> Ipv4Addr {
        match (self, elsewhere(Family::V4, 30_000 + self as u16)) {
            (Self::Private, _) => Ipv4Addr::new(10, 77, 0, 1),
            (Self::Gateway, _) => Isp::One.gateways().0.parse().unwrap_or(Ipv4Addr::LOCALHOST),
            (Self::ProbeTarget, _) => Ipv4Addr::new(1, 1, 1, 1),
            (_, IpAddr::V4(address)) => address,
            (_, IpAddr::V6(_)) => Ipv4Addr::LOCALHOST,
        }
    }

    /// A question for its name, and the answer.
    ///
    /// # Errors
    /// Never: the name is a good one.
    pub fn exchange(self) -> Result<[Vec<u8>; 2]> {
        let query = query(self as u16, &self.name(), A, None)?;
        let answer = answer(&query, self).context("no answer")?;
        Ok([query, answer])
    }

    /// The trick that a query asks for; none where it asks for another name.
    fn of(query: &[u8]) -> Self {
        let of_trick = |trick: &Self| {
            let label = format!("trick-{}", *trick as u8);
            query
                .get(HEADER + 1..)
                .is_some_and(|name| name.starts_with(label.as_bytes()))
                && query.get(HEADER).copied() == u8::try_from(label.len()).ok()
        };
        Self::ALL.into_iter().find(of_trick).unwrap_or(Self::None)
    }
}

/// The server, at the first server's address, with the second one's as an accomplice; until dropped.
#[derive(Debug)]
pub struct Trickster {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Trickster {
    /// Starts it.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub fn start(lab: &Lab) -> Result<Self> {
        let server = lab.internet.enter(Server::new)??;
        let stop: Arc<AtomicBool> = Arc::default();
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                server.serve()?;
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Trickster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the trickster failed: {e:#}");
        }
    }
}

struct Server {
    udp: UdpSocket,
    other_port: UdpSocket,
    other_server: UdpSocket,
    tcp: TcpListener,
}

impl Server {
    fn new() -> Result<Self> {
        let [at, accomplice] = servers(Family::V4);
        let udp = |at: IpAddr, port: u16| {
            UdpSocket::bind((at, port)).with_context(|| format!("udp {at} port {port}"))
        };
        let server = Self {
            udp: udp(at, PORT)?,
            other_port: udp(at, 5353)?,
            other_server: udp(accomplice, PORT)?,
            tcp: TcpListener::bind((at, PORT))?,
        };
        server.udp.set_read_timeout(Some(Duration::from_millis(20)))?;
        server.tcp.set_nonblocking(true)?;
        Ok(server)
    }

    fn serve(&self) -> Result<()> {
        if let Ok((stream, _)) = self.tcp.accept() {
            // A client that goes away will tell.
            let _ = serve_tcp(stream);
        }
        let mut query = [0; 512];
        match self.udp.recv_from(&mut query) {
            Ok((n, from)) => self.answer(&query[..n], from),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e).context("wait for queries"),
        }
        Ok(())
    }

    /// What cannot be sent the client will miss.
    fn answer(&self, query: &[u8], from: SocketAddr) {
        let trick = Trick::of(query);
        let Some(answer) = answer(query, trick) else {
            return;
        };
        let from_whom = match trick {
            Trick::OtherServer => &self.other_server,
            Trick::OtherPort => &self.other_port,
            _ => &self.udp,
        };
        let mut to = from;
        if trick == Trick::ToOtherPort {
            to.set_port(from.port() ^ 1);
        }
        if trick == Trick::Second
            && let Some(empty) = message(query, 0, &[])
        {
            let _ = self.udp.send_to(&empty, to);
        }
        let _ = from_whom.send_to(&answer, to);
    }
}

fn serve_tcp(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query)?;
    let answer = answer(&query, Trick::of(&query)).context("no query")?;
    let length = u16::try_from(answer.len())?.to_be_bytes();
    stream.set_nodelay(true)?;
    // One segment each: a veth would pass all of it on at once, longer than anybody looks at.
    for part in [&length[..], &answer].concat().chunks(1_000) {
        stream.write_all(part)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

const HEADER: usize = 12;
/// A pointer to the name in the question.
const ASKED: &[u8] = &[0xc0, HEADER as u8];
const ELSEWHERE: &[u8] = b"\x04else\x07example\x03org\0";
const A: u16 = 1;
const CNAME: u16 = 5;

fn answer(query: &[u8], trick: Trick) -> Option<Vec<u8>> {
    let victim = trick.victim().octets();
    let good = record(ASKED, A, &victim);
    let records = match trick {
        Trick::Stowaway => vec![record(ELSEWHERE, A, &victim)],
        Trick::AliasLoop => vec![
            record(ASKED, CNAME, ELSEWHERE),
            record(ELSEWHERE, CNAME, ASKED),
            good,
        ],
        Trick::PointerLoop => vec![record(&pointer_to_itself(query)?, A, &victim)],
        Trick::TooLong => vec![good; 400],
        _ => vec![good],
    };
    let mut message = message(query, records.len() as u16, &records)?;
    match trick {
        Trick::WrongId => message[1] ^= 1,
        Trick::WrongName => *message.get_mut(HEADER + 1)? ^= 1,
        Trick::TooFewRecords => message[6..8].fill(0x0f),
        Trick::CutShort => message.truncate(message.len() - 2),
        Trick::Failure => message[3] |= 2,
        _ => {}
    }
    Some(message)
}

fn pointer_to_itself(query: &[u8]) -> Option<[u8; 2]> {
    let [high, low] = u16::try_from(question_end(query)?).ok()?.to_be_bytes();
    Some([0xc0 | high, low])
}

/// The question of `query` with these records as an answer.
fn message(query: &[u8], count: u16, records: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut bytes = query.get(..question_end(query)?)?.to_vec();
    // Response, recursion desired and available, no error.
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    bytes[8..HEADER].fill(0);
    bytes.extend(records.concat());
    Some(bytes)
}

/// Of class IN, for five minutes.
fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [name, &kind, &[0, 1, 0, 0, 1, 0x2c, 0, data.len() as u8], data].concat()
}

/// Where the only question ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            label => at += 1 + label,
        }
    }
    let end = at + 5;
    (end <= message.len() && message[4..6] == [0, 1]).then_some(end)
}
