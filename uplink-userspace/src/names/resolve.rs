//! Asks for the names that policies mention, before anybody else does, and again before the answers expire.
//!
//! The answers go by the same parser and the same rules as those that are overheard, which are tested against
//! hostile ones; a resolver library would bring another parser, a cache that has to be gone around, and half a hundred
//! crates for two types of questions.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use simple_dns::rdata::OPT;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Outcome;
use super::message::{self, A, AAAA, Answer, Head, LONGEST, Told};
use super::packet::PORT;
use crate::config::{self, Dns};
use crate::probe::random;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// So many questions wait at once.
const AT_ONCE: usize = 16;
/// A server that has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Every server is asked so often before a question counts as failed.
const TRIES: usize = 2;
/// What fits into a packet on every path (DNS Flag Day 2020).
const UDP_SIZE: u16 = 1_232;

const NO_ERROR: u8 = 0;
const NAME_ERROR: u8 = 3;

/// Whom to ask: first those listed, then those in the file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Whom {
    /// In order.
    pub listed: Vec<SocketAddr>,
    /// A file like `/etc/resolv.conf`, which is read for every question: it may change.
    pub file: Option<PathBuf>,
}

impl Whom {
    /// As `[dns]` says.
    #[must_use]
    pub fn new(dns: &Dns) -> Self {
        let mut whom = Self::default();
        for resolver in &dns.resolvers {
            match resolver.value {
                config::Resolver::Auto => whom.file = Some(RESOLV_CONF.into()),
                config::Resolver::At(address) => whom.listed.push(SocketAddr::new(address, PORT)),
            }
        }
        whom
    }

    pub(super) fn servers(&self) -> io::Result<Vec<SocketAddr>> {
        let mut all = self.listed.clone();
        if let Some(path) = &self.file {
            match std::fs::read_to_string(path) {
                Ok(text) => all.extend(servers(&text)),
                Err(e) if all.is_empty() => {
                    return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display())));
                }
                Err(_) => {}
            }
        }
        Ok(all)
    }

    fn nobody(&self) -> io::Error {
        let place = self.file.as_deref().unwrap_or(Path::new("[dns]"));
        let place = place.display();
        io::Error::other(format!(
            "{place} has no name server: write some into [dns] resolvers"
        ))
    }
}

/// The questions that are asked over and over; they end with it.
pub struct Resolver {
    _tasks: JoinSet<()>,
}

impl Resolver {
    /// Begins to ask for the IPv4 and IPv6 addresses of all names. Every answer that has any goes into `told`.
    /// `ttl_s` is for how long answers count, at least and at most, as in [`super::Settings`]. Needs a tokio runtime.
    #[must_use]
    pub fn start(
        names: Vec<String>,
        whom: Whom,
        ttl_s: RangeInclusive<u64>,
        told: mpsc::Sender<Told>,
    ) -> Self {
        let asker = Arc::new(Asker {
            whom,
            ttl_s,
            told,
            at_once: Semaphore::new(AT_ONCE),
        });
        let mut tasks = JoinSet::new();
        for name in names {
            for kind in [A, AAAA] {
                tasks.spawn(Arc::clone(&asker).keep_asking(name.clone(), kind));
            }
        }
        Self { _tasks: tasks }
    }
}

/// The name servers in a file like `/etc/resolv.conf`. An address with a zone is none that can be asked here.
#[must_use]
pub fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words
                .next()
                .filter(|word| *word == "nameserver")
                .and(words.next())?;
            Some(SocketAddr::new(address.parse().ok()?, PORT))
        })
        .collect()
}

/// How a question ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// With addresses, the first of which expires after so many seconds.
    Addresses(u32),
    /// There are none.
    Nothing,
    /// Nobody gave an answer that is of use.
    Failed,
}

/// When to ask again. `failures` are those in a row, `dice` is 0 to 1 and keeps questions from being asked
/// all at the same time.
pub(super) fn pause(end: End, failures: u32, ttl_s: &RangeInclusive<u64>, dice: f64) -> Duration {
    const FIRST: Duration = Duration::from_secs(5);
    const LONGEST: Duration = Duration::from_secs(300);
    const NOTHING: Duration = Duration::from_secs(60);
    /// Less than the shortest time for which an answer counts, a second.
    const LEAST: Duration = Duration::from_millis(500);
    let pause = match end {
        End::Addresses(ttl) => {
            let counts_s = u64::from(ttl).min(*ttl_s.end()).max(*ttl_s.start());
            Duration::from_secs(counts_s).mul_f64(0.8)
        }
        End::Nothing => NOTHING,
        End::Failed => FIRST
            .saturating_mul(1 << failures.saturating_sub(1).min(10))
            .min(LONGEST),
    };
    pause.mul_f64(1.0 - 0.1 * dice.clamp(0.0, 1.0)).max(LEAST)
}

struct Asker {
    whom: Whom,
    ttl_s: RangeInclusive<u64>,
    told: mpsc::Sender<Told>,
    at_once: Semaphore,
}

impl Asker {
    /// Until nobody listens any more.
    async fn keep_asking(self: Arc<Self>, name: String, kind: u16) {
        let mut failures = 0;
        loop {
            let end = match self.ask(&name, kind).await {
                Ok(told) => {
                    let end = end(&told.answer);
                    if end != End::Nothing && self.told.send(told).await.is_err() {
                        return;
                    }
                    end
                }
                Err(error) => {
                    tracing::debug!(name, kind, %error, "no name server answers");
                    End::Failed
                }
            };
            failures = if end == End::Failed { failures + 1 } else { 0 };
            sleep(pause(end, failures, &self.ttl_s, dice())).await;
        }
    }

    /// Asks all servers in turn, until one knows.
    async fn ask(&self, name: &str, kind: u16) -> io::Result<Told> {
        let _turn = self.at_once.acquire().await.map_err(io::Error::other)?;
        let mut error = self.whom.nobody();
        for server in self.whom.servers()?.repeat(TRIES) {
            match timeout(PATIENCE, ask(server, name, kind)).await {
                Ok(Ok(answer)) if matches!(answer.rcode, NO_ERROR | NAME_ERROR) => {
                    let server = server.ip();
                    return Ok(Told { answer, server });
                }
                Ok(Ok(answer)) => error = io::Error::other(format!("{server}: error {}", answer.rcode)),
                Ok(Err(e)) => error = e,
                Err(e) => error = e.into(),
            }
        }
        Err(error)
    }
}

fn end(answer: &Answer) -> End {
    let first = answer.addresses.iter().map(|a| a.ttl_s).min();
    first.map_or(End::Nothing, End::Addresses)
}

fn dice() -> f64 {
    random().map_or(0.5, |bytes| {
        f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
    })
}

/// One server, by UDP, and by TCP where that is too small.
async fn ask(server: SocketAddr, name: &str, kind: u16) -> io::Result<Answer> {
    let (id, query) = query(name, kind)?;
    let is_ours = |head: &Head| head.is_answer && head.question.id == id && is_for(head, name, kind);
    let reply = by_udp(server, &query, is_ours).await?;
    match read(&reply) {
        Err(Outcome::Truncated) => {
            let reply = by_tcp(server, &query).await?;
            if !message::head(&reply).is_ok_and(|head| is_ours(&head)) {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "the answer is to another question",
                ));
            }
            read(&reply)
        }
        read => read,
    }
    .map_err(|why| io::Error::new(ErrorKind::InvalidData, format!("{server}: {}", why.name())))
}

fn read(reply: &[u8]) -> Result<Answer, Outcome> {
    message::answer(reply, message::head(reply)?)
}

fn is_for(head: &Head, name: &str, kind: u16) -> bool {
    head.question.kind == kind && *head.question.name == *name
}

fn query(name: &str, kind: u16) -> io::Result<(u16, Vec<u8>)> {
    let id = u16::from_ne_bytes(random()?);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let qname = Name::new(name).map_err(io::Error::other)?;
    let question = Question::new(qname, TYPE::from(kind).into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    *packet.opt_mut() = Some(OPT {
        opt_codes: Vec::new(),
        udp_packet_size: UDP_SIZE,
        version: 0,
    });
    Ok((id, packet.build_bytes_vec().map_err(io::Error::other)?))
}

/// What is no answer to this question from this server is not heard.
async fn by_udp(server: SocketAddr, query: &[u8], is_ours: impl Fn(&Head) -> bool) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let reply = buffer.get(..length).unwrap_or_default();
        if message::head(reply).is_ok_and(|head| is_ours(&head)) {
            return Ok(reply.to_vec());
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], query].concat())
        .await?;
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST {
        return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}
