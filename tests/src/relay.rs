//! A slow wire: a relay in user space between an ISP and the Internet, where netem would sit if
//! every kernel had it. The gateway itself stays as near as it was.

pub mod wire;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::ns::Namespace;
use crate::topology::{Isp, Lab, wire};
use wire::{End, Frame};

/// What a wire does to each packet.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Quality {
    /// Added to the round-trip time, half of it in each direction.
    pub rtt: Duration,
    /// Up to so much more per packet and direction, evenly distributed; order is kept.
    pub jitter: Duration,
    /// Packets lost, 0 to 100 percent, each direction by itself.
    pub loss: u8,
}

impl Quality {
    /// A wire that only takes time: so many milliseconds there and back.
    #[must_use]
    pub const fn of_ms(rtt: u64) -> Self {
        Self {
            rtt: Duration::from_millis(rtt),
            jitter: Duration::ZERO,
            loss: 0,
        }
    }
}

/// The relay, working until dropped; then the ISP's wire to the Internet is cut.
#[derive(Debug)]
pub struct Relay {
    quality: Arc<Mutex<Quality>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Packets under way in one direction; more are lost, as in any router.
const QUEUE: usize = 10_000;
const TICK: Duration = Duration::from_millis(100);

impl Relay {
    /// Puts the relay into the ISP's wire, which loses its packets for a moment.
    ///
    /// # Errors
    /// When the wire cannot be replaced, or packet sockets cannot be had.
    pub fn start(lab: &Lab, isp: Isp, quality: Quality) -> Result<Self> {
        let middle = Namespace::new("relay")?;
        middle.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        lab.internet.ip(&format!("link del {}\n", isp.name()))?;
        wire(&lab.internet, isp.name(), &middle, "far")?;
        wire(lab.isp(isp), "up0", &middle, "near")?;
        lab.transit(isp)?;
        let ends = middle.enter(|| -> Result<_> { Ok([End::open("near")?, End::open("far")?]) })??;
        let (quality, stop) = (Arc::new(Mutex::new(quality)), Arc::new(AtomicBool::new(false)));
        let mut work = Work::new(ends, quality.clone());
        let theirs = stop.clone();
        let thread = middle.spawn(move || work.run(&theirs))?;
        Ok(Self {
            quality,
            stop,
            thread: Some(thread),
        })
    }

    /// Another quality from now on. Packets under way keep their time.
    pub fn set(&self, quality: Quality) {
        *self.quality.lock().unwrap_or_else(PoisonError::into_inner) = quality;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    the relay failed: {e:#}");
        }
    }
}

/// Frame by frame, in the order in which they came.
type Queue = VecDeque<(Instant, Frame)>;

struct Work {
    ends: [End; 2],
    /// What is under way to the end of the same number.
    queues: [Queue; 2],
    quality: Arc<Mutex<Quality>>,
    random: RandomState,
    drawn: u64,
}

impl Work {
    fn new(ends: [End; 2], quality: Arc<Mutex<Quality>>) -> Self {
        Self {
            ends,
            queues: Default::default(),
            quality,
            random: RandomState::new(),
            drawn: 0,
        }
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.wait()?;
            self.take_in()?;
            self.deliver();
        }
        Ok(())
    }

    /// Until a frame comes or one is due.
    fn wait(&self) -> Result<()> {
        let due = self.queues.iter().filter_map(|q| q.front()).map(|(due, _)| *due);
        let left = due.min().map(|due| due.saturating_duration_since(Instant::now()));
        let left = TimeSpec::from_duration(left.map_or(TICK, |left| left.min(TICK)));
        let mut ends = self
            .ends
            .each_ref()
            .map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut ends, Some(left), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(e).context("wait for packets"),
        }
    }

    fn take_in(&mut self) -> Result<()> {
        let quality = *self.quality.lock().unwrap_or_else(PoisonError::into_inner);
        for from in [0, 1] {
            while let Some(frame) = self.ends[from].receive()? {
                let lost = self.random() % 100 < u64::from(quality.loss);
                let queue = self.queues[1 - from].len();
                if !lost && queue < QUEUE {
                    let due = Instant::now() + self.delay(&quality);
                    // A packet never overtakes another: TCP would take that for loss.
                    let last = self.queues[1 - from].back().map_or(due, |(last, _)| *last);
                    self.queues[1 - from].push_back((due.max(last), frame));
                }
            }
        }
        Ok(())
    }

    fn delay(&mut self, quality: &Quality) -> Duration {
        let jitter = quality.jitter.as_micros() as u64;
        quality.rtt / 2 + Duration::from_micros(self.random() % (jitter + 1))
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        for (end, queue) in self.ends.iter().zip(&mut self.queues) {
            while queue.front().is_some_and(|(due, _)| *due <= now) {
                queue.pop_front().iter().for_each(|(_, frame)| end.send(frame));
            }
        }
    }

    fn random(&mut self) -> u64 {
        self.drawn += 1;
        self.random.hash_one(self.drawn)
    }
}

impl Lab {
    /// Relays for both ISPs with these round-trip times in milliseconds.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub fn distances(&self, rtt_ms: [u64; 2]) -> Result<[Relay; 2]> {
        ensure!(
            rtt_ms.iter().all(|ms| *ms < 10_000),
            "{rtt_ms:?} ms are no distance"
        );
        let one = |isp: Isp| Relay::start(self, isp, Quality::of_ms(rtt_ms[isp.index()]));
        Ok([one(Isp::One)?, one(Isp::Two)?])
    }
}
