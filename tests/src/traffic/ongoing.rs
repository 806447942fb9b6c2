//! Traffic that goes on in a thread while the test breaks and mends things.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::burst::tcp_exchange;
use super::host::connected_udp;
use super::{How, PATIENCE, Reply, fresh_tcp, fresh_udp, request};
use crate::echo::{FIRST, REPLY};
use crate::topology::{Family, Isp, Lab};

/// A request and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// When it was sent.
    pub sent: Instant,
    /// When the reply came, and what it said.
    pub reply: Option<(Instant, Reply)>,
}

/// A copy of the beats so far.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// In the order sent.
    pub beats: Vec<Beat>,
}

/// Requests sent at a steady rate until [`Ongoing::stop`].
#[derive(Debug)]
pub struct Ongoing {
    stop: Arc<AtomicBool>,
    beats: Arc<Mutex<Vec<Beat>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// In the lab a reply takes a millisecond; what takes longer than this is as good as lost.
const SOON: Duration = Duration::from_millis(250);

impl Ongoing {
    /// A new UDP flow of one packet at every `interval`.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn new_flows(lab: &Lab, family: Family, interval: Duration) -> Result<Self> {
        Self::spawn(lab, move |stop, beats| {
            udp_loop(None, family, interval, stop, beats)
        })
    }

    /// A new TCP connection with one request, and a pause of `interval`, one after the other.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn new_connections(lab: &Lab, family: Family, interval: Duration) -> Result<Self> {
        Self::spawn(lab, move |stop, beats| {
            while !stop.load(Ordering::Relaxed) {
                let seq = push(beats, Instant::now());
                if let Some(Reply { seen, .. }) = tcp_exchange(family) {
                    note(&mut lock(beats), Reply { seq, seen });
                }
                std::thread::sleep(interval);
            }
            Ok(())
        })
    }

    /// One UDP flow with a packet every 10 ms.
    ///
    /// # Errors
    /// When its first packet is not answered.
    pub fn udp_stream(lab: &Lab, family: Family) -> Result<Self> {
        Self::unanswered_udp_stream(lab, family)?.answered()
    }

    /// As [`Self::udp_stream`], without waiting for a reply.
    ///
    /// # Errors
    /// When the socket or the thread cannot be had.
    pub fn unanswered_udp_stream(lab: &Lab, family: Family) -> Result<Self> {
        let socket = lab.client.enter(|| fresh_udp(family))??;
        Self::stream_on(lab, socket, family)
    }

    /// As [`Self::udp_stream`], on a connected socket of the router itself.
    ///
    /// # Errors
    /// As [`Self::udp_stream`].
    pub fn host_stream(lab: &Lab, family: Family) -> Result<Self> {
        let socket = lab.router.enter(|| connected_udp(family, How::Free))??;
        Self::stream_on(lab, socket, family)?.answered()
    }

    fn stream_on(lab: &Lab, socket: UdpSocket, family: Family) -> Result<Self> {
        let interval = Duration::from_millis(10);
        Self::spawn(lab, move |stop, beats| {
            udp_loop(Some(socket), family, interval, stop, beats)
        })
    }

    /// One TCP connection with a request every 10 ms, each after the reply to the last.
    ///
    /// # Errors
    /// When it cannot connect or the first request is not answered.
    pub fn tcp_stream(lab: &Lab, family: Family) -> Result<Self> {
        Self::spawn(lab, move |stop, beats| tcp_loop(family, stop, beats))?.answered()
    }

    /// A UDP stream that happens to go through `isp`.
    ///
    /// # Errors
    /// When none of 100 does.
    pub fn udp_stream_on(lab: &Lab, family: Family, isp: Isp) -> Result<Self> {
        for _ in 0..100 {
            let stream = Self::udp_stream(lab, family)?;
            if stream.report().isps() == [isp] {
                return Ok(stream);
            }
        }
        bail!("none of 100 new flows took {}", isp.name())
    }

    /// What happened so far.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            beats: self.beats.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Stops sending, waits for outstanding replies and returns all.
    ///
    /// # Errors
    /// When the thread failed.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread
            .join()
            .map_err(|_| anyhow!("the traffic thread panicked"))??;
        Ok(self.report())
    }

    pub(super) fn spawn<F>(lab: &Lab, run: F) -> Result<Self>
    where
        F: FnOnce(&AtomicBool, &Mutex<Vec<Beat>>) -> Result<()> + Send + 'static,
    {
        let (stop, beats) = <(Arc<AtomicBool>, Arc<Mutex<Vec<Beat>>>)>::default();
        let (theirs, log) = (stop.clone(), beats.clone());
        let thread = lab.client.spawn(move || run(&theirs, &log))?;
        Ok(Self {
            stop,
            beats,
            thread: Some(thread),
        })
    }

    fn answered(self) -> Result<Self> {
        let deadline = Instant::now() + 2 * PATIENCE;
        while Instant::now() < deadline {
            if self.report().beats.first().is_some_and(|b| b.reply.is_some()) {
                return Ok(self);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("the first packet of a new stream was not answered")
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Report {
    /// Requests without a reply.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.beats.iter().filter(|b| b.reply.is_none()).count()
    }

    /// Requests sent at `since` or later whose reply is overdue.
    #[must_use]
    pub fn lost_since(&self, since: Instant) -> usize {
        self.beats
            .iter()
            .filter(|b| b.sent >= since && overdue(b))
            .count()
    }

    /// The ISPs that replies came by, in order of first appearance.
    #[must_use]
    pub fn isps(&self) -> Vec<Isp> {
        let mut isps = Vec::new();
        for isp in self.beats.iter().filter_map(|b| b.reply?.1.via()) {
            if !isps.contains(&isp) {
                isps.push(isp);
            }
        }
        isps
    }

    /// Replies by ISP to requests sent at `since` or later.
    #[must_use]
    pub fn shares(&self, since: Instant) -> [usize; 2] {
        let mut counts = [0; 2];
        for beat in self.beats.iter().filter(|b| b.sent >= since) {
            if let Some(isp) = beat.reply.and_then(|(_, reply)| reply.via()) {
                counts[isp.index()] += 1;
            }
        }
        counts
    }

    /// How long after `fault` the first reply came from which on every request was answered.
    /// `None` while fewer than 20 in a row were.
    #[must_use]
    pub fn recovered_after(&self, fault: Instant) -> Option<Duration> {
        let after = || self.beats.iter().filter(|b| b.sent >= fault);
        let last_lost = after()
            .filter(|b| overdue(b))
            .map(|b| b.sent)
            .next_back()
            .unwrap_or(fault);
        let good = || after().filter(|b| b.sent >= last_lost).filter_map(|b| b.reply);
        let first = good().next()?.0;
        (good().count() >= 20).then(|| first.duration_since(fault))
    }
}

fn overdue(beat: &Beat) -> bool {
    beat.reply.is_none() && beat.sent.elapsed() > SOON
}

/// One flow when a socket is given, else a new one for every request.
fn udp_loop(
    keep: Option<UdpSocket>,
    family: Family,
    interval: Duration,
    stop: &AtomicBool,
    beats: &Mutex<Vec<Beat>>,
) -> Result<()> {
    let fresh = keep.is_none();
    let mut open: Vec<(Instant, UdpSocket)> = Vec::new();
    if let Some(socket) = keep {
        socket.set_nonblocking(true)?;
        open.push((Instant::now(), socket));
    }
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        if fresh {
            let socket = fresh_udp(family).context("open a UDP socket")?;
            socket.set_nonblocking(true)?;
            open.retain(|(since, _)| since.elapsed() < PATIENCE);
            open.push((sent, socket));
        }
        if let Some((_, socket)) = open.last() {
            let seq = push(beats, sent);
            let kind = if fresh || seq == 0 { FIRST } else { 0 };
            let _ = socket.send(&request(seq, kind));
        }
        collect_until(sent + interval, &mut open, fresh, beats);
    }
    // What is on its way is not lost, however busy the machine.
    let ended = Instant::now();
    let is_awaited = |b: &Beat| b.reply.is_none() && ended - b.sent < PATIENCE;
    while ended.elapsed() < PATIENCE && lock(beats).iter().any(is_awaited) {
        collect_until(Instant::now() + interval, &mut open, fresh, beats);
    }
    Ok(())
}

/// Takes in replies, a look each 2 ms, until `deadline`; flows of one packet end with theirs.
fn collect_until(
    deadline: Instant,
    open: &mut Vec<(Instant, UdpSocket)>,
    fresh: bool,
    beats: &Mutex<Vec<Beat>>,
) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(2)));
        open.retain(|(_, socket)| !(collect(socket, beats) && fresh));
        if left.is_zero() {
            return;
        }
    }
}

/// Whether there was a reply.
fn collect(socket: &UdpSocket, beats: &Mutex<Vec<Beat>>) -> bool {
    let (mut buffer, mut any) = ([0; REPLY], false);
    while matches!(socket.recv(&mut buffer), Ok(REPLY)) {
        note(&mut lock(beats), Reply::parse(&buffer));
        any = true;
    }
    any
}

/// Starts a beat and returns its sequence number.
pub(super) fn push(beats: &Mutex<Vec<Beat>>, sent: Instant) -> u32 {
    let mut beats = lock(beats);
    beats.push(Beat { sent, reply: None });
    (beats.len() - 1) as u32
}

pub(super) fn note(beats: &mut [Beat], reply: Reply) {
    if let Some(beat) = beats.get_mut(reply.seq as usize) {
        beat.reply.get_or_insert((Instant::now(), reply));
    }
}

fn tcp_loop(family: Family, stop: &AtomicBool, beats: &Mutex<Vec<Beat>>) -> Result<()> {
    let mut stream = fresh_tcp(family).context("connect a TCP stream")?;
    while !stop.load(Ordering::Relaxed) {
        let seq = push(beats, Instant::now());
        let kind = if seq == 0 { FIRST } else { 0 };
        let mut buffer = [0; REPLY];
        // The beat without a reply tells; a broken connection stays broken.
        if stream.write_all(&request(seq, kind)).is_err() || stream.read_exact(&mut buffer).is_err() {
            break;
        }
        note(&mut lock(beats), Reply::parse(&buffer));
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub(super) fn lock(beats: &Mutex<Vec<Beat>>) -> std::sync::MutexGuard<'_, Vec<Beat>> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}
