//! Many long-lived flows at once, driven by one thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{PATIENCE, Reply, fresh_tcp, fresh_udp, request};
use crate::echo::{FIRST, REPLY};
use crate::ns::Namespace;
use crate::topology::{Family, Isp, Lab};

/// Every flow sends a request this often.
const INTERVAL: Duration = Duration::from_millis(500);
/// Requests at a stretch when the thread is behind: no more than socket buffers hold.
const BURST: usize = 200;

/// Flows that last until [`Fleet::stop`], each sending a request twice a second.
#[derive(Debug)]
pub struct Fleet {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<FleetReport>>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Segments that were sent again before we began.
    resent: u64,
    ends: [Namespace; 2],
}

/// What became of the flows so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FleetReport {
    /// Flows in all.
    pub flows: usize,
    /// Requests sent.
    pub requests: usize,
    /// Requests whose reply is overdue (at the end: did not come).
    pub lost: usize,
    /// Requests answered after more than a second; a stalled machine does that, too.
    pub late: usize,
    /// Flows that the server saw from more than one address.
    pub moved: usize,
    /// Flows that heard nothing for more than a second and a half.
    pub silent: usize,
    /// TCP connections that ended.
    pub broken: usize,
    /// Flows by the ISP last seen.
    pub by_isp: [usize; 2],
    /// TCP segments that either end had to send again.
    pub resent: u64,
}

impl Fleet {
    /// Starts the flows, half of them IPv6, and waits until each had a reply.
    ///
    /// # Errors
    /// When sockets cannot be had or a first request is not answered within two seconds.
    pub fn start(lab: &Lab, udp: usize, tcp: usize) -> Result<Self> {
        Self::start_of(lab, &Family::ALL, udp, tcp)
    }

    /// As [`Self::start`], of these families in turn.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_of(lab: &Lab, families: &[Family], udp: usize, tcp: usize) -> Result<Self> {
        let ends = [lab.client.try_clone()?, lab.internet.try_clone()?];
        let resent = resent(&ends)?;
        let flows = lab.client.enter(|| open(families, udp, tcp))??;
        let (stop, report) = <(Arc<AtomicBool>, Arc<Mutex<FleetReport>>)>::default();
        let (theirs, log) = (stop.clone(), report.clone());
        let thread = lab.client.spawn(move || Engine::new(flows)?.run(&theirs, &log))?;
        let fleet = Self {
            stop,
            report,
            thread: Some(thread),
            resent,
            ends,
        };
        fleet.await_replies(udp + tcp)?;
        Ok(fleet)
    }

    fn await_replies(&self, flows: usize) -> Result<()> {
        let deadline = Instant::now() + INTERVAL + 2 * PATIENCE;
        while Instant::now() < deadline {
            if self.report()?.by_isp.iter().sum::<usize>() == flows {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("not every flow of the fleet got a reply: {:?}", self.report()?)
    }

    /// What happened so far, as of some milliseconds ago.
    ///
    /// # Errors
    /// When the kernel's statistics cannot be read.
    pub fn report(&self) -> Result<FleetReport> {
        let report = *self.report.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(FleetReport {
            resent: resent(&self.ends)?.saturating_sub(self.resent),
            ..report
        })
    }

    /// Stops sending, waits a second for outstanding replies and returns all.
    ///
    /// # Errors
    /// When the thread failed.
    pub fn stop(mut self) -> Result<FleetReport> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("the fleet panicked"))??;
        self.report()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl FleetReport {
    /// Fails unless every request was answered and every flow stayed where it was.
    ///
    /// # Errors
    /// When one was not or did not.
    pub fn expect_unharmed(&self, what: &str) -> Result<()> {
        println!("    {what}: {self:?}");
        ensure!(
            (self.lost, self.moved, self.broken) == (0, 0, 0),
            "{what}: flows were harmed: {self:?}"
        );
        ensure!(
            self.by_isp.iter().all(|n| *n > 0),
            "{what}: one ISP only: {self:?}"
        );
        Ok(())
    }
}

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
    Broken,
}

#[derive(Debug)]
struct Flow {
    link: Link,
    sent: u32,
    /// Requests without a reply so far.
    open: VecDeque<(u32, Instant)>,
    seen: Option<IpAddr>,
    heard: Instant,
    moved: bool,
    late: usize,
}

fn open(families: &[Family], udp: usize, tcp: usize) -> Result<Vec<Flow>> {
    let family = |n: usize| families[n % families.len()];
    let links = (0..udp)
        .map(|n| fresh_udp(family(n)).map(Link::Udp))
        .chain((0..tcp).map(|n| fresh_tcp(family(n)).map(|s| Link::Tcp(s, Vec::new()))));
    let flow = |link| Flow {
        link,
        sent: 0,
        open: VecDeque::new(),
        seen: None,
        heard: Instant::now(),
        moved: false,
        late: 0,
    };
    links
        .map(|link| link.map(flow))
        .collect::<io::Result<_>>()
        .context("open the fleet's sockets")
}

impl Flow {
    fn send(&mut self) {
        let bytes = request(self.sent, if self.sent == 0 { FIRST } else { 0 });
        let sent = match &mut self.link {
            // The missing reply will tell.
            Link::Udp(socket) => socket.send(&bytes).map_or(Ok(()), |_| Ok(())),
            Link::Tcp(stream, _) => stream.write_all(&bytes),
            Link::Broken => return,
        };
        if sent.is_err() {
            self.link = Link::Broken;
        }
        self.open.push_back((self.sent, Instant::now()));
        self.sent += 1;
    }

    fn receive(&mut self) {
        let mut buffer = [0; 16 * REPLY];
        let mut replies = Vec::new();
        match &mut self.link {
            Link::Udp(socket) => {
                while let Ok(REPLY) = socket.recv(&mut buffer) {
                    replies.extend_from_slice(&buffer[..REPLY]);
                }
            }
            Link::Tcp(stream, partial) => match stream.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    partial.extend_from_slice(&buffer[..n]);
                    let whole = partial.len() / REPLY * REPLY;
                    replies.extend(partial.drain(..whole));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                _ => self.link = Link::Broken,
            },
            Link::Broken => {}
        }
        replies
            .as_chunks::<REPLY>()
            .0
            .iter()
            .for_each(|bytes| self.note(Reply::parse(bytes)));
    }

    fn note(&mut self, reply: Reply) {
        self.moved |= self.seen.is_some_and(|seen| seen != reply.seen);
        self.seen = Some(reply.seen);
        self.heard = Instant::now();
        if let Some(at) = self.open.iter().position(|(seq, _)| *seq == reply.seq)
            && let Some((_, sent)) = self.open.remove(at)
        {
            self.late += usize::from(sent.elapsed() > PATIENCE);
        }
    }
}

struct Engine {
    flows: Vec<Flow>,
    epoll: Epoll,
    requests: usize,
}

impl Engine {
    fn new(flows: Vec<Flow>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (n, flow) in flows.iter().enumerate() {
            let fd = match &flow.link {
                Link::Udp(socket) => {
                    socket.set_nonblocking(true)?;
                    socket.as_fd()
                }
                Link::Tcp(stream, _) => {
                    stream.set_nonblocking(true)?;
                    stream.as_fd()
                }
                Link::Broken => continue,
            };
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, n as u64))?;
        }
        Ok(Self {
            flows,
            epoll,
            requests: 0,
        })
    }

    fn run(mut self, stop: &AtomicBool, report: &Mutex<FleetReport>) -> Result<()> {
        let (begun, mut told) = (Instant::now(), Instant::now());
        let gap = INTERVAL.as_secs_f64() / self.flows.len().max(1) as f64;
        let publish = |report_now| *report.lock().unwrap_or_else(PoisonError::into_inner) = report_now;
        while !stop.load(Ordering::Relaxed) {
            let due = (begun.elapsed().as_secs_f64() / gap) as usize;
            for _ in 0..due.saturating_sub(self.requests).min(BURST) {
                let next = self.requests % self.flows.len();
                self.flows[next].send();
                self.requests += 1;
            }
            self.collect()?;
            if told.elapsed() > Duration::from_millis(20) {
                publish(self.report(PATIENCE));
                told = Instant::now();
            }
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && self.flows.iter().any(|flow| !flow.open.is_empty()) {
            self.collect()?;
        }
        publish(self.report(Duration::ZERO));
        Ok(())
    }

    /// Takes in what is there, or waits a millisecond for it.
    fn collect(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let n = match self.epoll.wait(&mut events, 1u16) {
            Err(nix::errno::Errno::EINTR) => 0,
            n => n?,
        };
        for event in &events[..n] {
            self.flows[event.data() as usize].receive();
        }
        Ok(())
    }

    /// Requests older than `overdue` without a reply count as lost.
    fn report(&self, overdue: Duration) -> FleetReport {
        let mut report = FleetReport {
            flows: self.flows.len(),
            requests: self.requests,
            ..FleetReport::default()
        };
        for flow in &self.flows {
            report.lost += flow
                .open
                .iter()
                .filter(|(_, sent)| sent.elapsed() > overdue)
                .count();
            report.late += flow.late;
            report.moved += usize::from(flow.moved);
            report.silent += usize::from(flow.heard.elapsed() > 3 * INTERVAL);
            report.broken += usize::from(matches!(flow.link, Link::Broken));
            if let Some(isp) = flow.seen.and_then(Isp::of) {
                report.by_isp[isp.index()] += 1;
            }
        }
        report
    }
}

/// `RetransSegs` of both namespaces.
fn resent(ends: &[Namespace; 2]) -> Result<u64> {
    let one = |ns: &Namespace| -> Result<u64> {
        let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let names = tcp.next().context("no Tcp in snmp")?.split(' ');
        let values = tcp.next().context("no Tcp in snmp")?.split(' ');
        let mut pairs = names.zip(values);
        let found = pairs.find(|(name, _)| *name == "RetransSegs");
        Ok(found.context("no RetransSegs")?.1.parse()?)
    };
    Ok(one(&ends[0])? + one(&ends[1])?)
}
