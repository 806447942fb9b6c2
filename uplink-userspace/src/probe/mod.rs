//! Probes through every uplink: the same targets, told apart by mark and source address.
//!
//! A task per path carries out its [`schedule`]: rounds overlap, so that a slow answer never
//! delays the next probe, and what comes late takes a loss back.

mod dns;
mod exec;
mod http;
mod icmp;
mod kinds;
mod path;
mod schedule;
mod tasks;
mod tcp;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use uplink_common::Family;

use crate::config::{self, Config, Kind, Problem, Target};
use crate::engine::{Event, Path};
use crate::resolve::{Leg, Uplink};

use kinds::Refused;
use schedule::{Pace, Schedule};

/// Probing, until it is dropped.
#[derive(Debug)]
pub struct Probers {
    wishes: BTreeMap<Path, Rc<Wishes>>,
    refused: Refused,
    tasks: JoinSet<()>,
}

/// What somebody wants of a prober.
#[derive(Debug, Default)]
struct Wishes {
    suspect: Cell<bool>,
    sample: Cell<bool>,
    bell: Notify,
}

/// What keeps enabled uplinks from being probed, whatever the host: a CA file that cannot be read, a host that is none.
/// Each is said once.
pub fn problems(config: &Config, problems: &mut Vec<Problem>) {
    let mut said = BTreeSet::new();
    let enabled = config.uplinks.iter().filter(|u| u.enabled);
    for u in enabled.filter(|u| !matches!(u.probe.kind, Kind::Icmp)) {
        let Err(why) = kinds::Prepared::new(&u.probe.kind) else {
            continue;
        };
        let why = format!("{why:#}");
        if said.insert(why.clone()) {
            let name = &u.name;
            problems.push(Problem::new(
                name.span.clone(),
                format!("uplink {} cannot be probed: {why}", name.value),
                "what its probe names has to be there, and readable for the service",
            ));
        }
    }
}

impl Probers {
    /// Starts a prober for every path that has targets.
    ///
    /// # Errors
    /// When a raw socket cannot be had, or what the probe needs cannot be read.
    pub fn start(uplinks: &[Uplink], config: &Config, events: &mpsc::Sender<Event>) -> Result<Self> {
        let mut probers = Self {
            wishes: BTreeMap::new(),
            refused: Refused::default(),
            tasks: JoinSet::new(),
        };
        for u in uplinks {
            let configured = config.uplinks.iter().find(|c| c.name.value == u.name);
            let Some(configured) = configured.filter(|c| c.enabled) else {
                continue;
            };
            for family in Family::ALL {
                if let Some(leg) = u.leg(family) {
                    let path = Path { uplink: u.id, family };
                    probers.add(u, leg, path, &configured.probe, events)?;
                }
            }
        }
        Ok(probers)
    }

    fn add(
        &mut self,
        u: &Uplink,
        leg: &Leg,
        path: Path,
        probe: &config::Probe,
        events: &mpsc::Sender<Event>,
    ) -> Result<()> {
        let targets: Vec<Target> = probe.targets_of(path.family).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let pace = Pace {
            interval: probe.interval,
            timeout: probe.timeout,
            fall: probe.fall,
            targets: u8::try_from(targets.len()).unwrap_or(u8::MAX).min(16),
            bursts: !matches!(probe.kind, Kind::Exec { .. }),
        };
        let wishes = Rc::<Wishes>::default();
        // Paths do not ask all at once.
        let start = probe.interval.mul_f64(dice() / 10.0);
        let prober = path::Prober {
            path,
            schedule: Schedule::new(pace, first_round(), start),
            wishes: Rc::clone(&wishes),
            events: events.clone(),
        };
        match &probe.kind {
            Kind::Icmp => {
                let asker = icmp::Icmp::new(path.family, u.mark, leg.source, &targets, self.refused.clone())
                    .with_context(|| format!("probing by {} needs CAP_NET_RAW", u.name))?;
                self.tasks.spawn_local(prober.run(asker));
            }
            _ => {
                let asker = tasks::Tasks::new(probe, u, leg, targets, self.refused.clone())
                    .with_context(|| format!("probing by {}", u.name))?;
                self.tasks.spawn_local(prober.run(asker));
            }
        }
        self.wishes.insert(path, wishes);
        Ok(())
    }

    /// Somebody has reason to believe that a path is dead: it is asked at once, and silence is
    /// borne for a fifth of a second only. At most four times a second.
    pub fn suspect(&self, path: Path) {
        if let Some(wishes) = self.wishes.get(&path) {
            wishes.suspect.set(true);
            wishes.bell.notify_one();
        }
    }

    /// Somebody wants to know more about a path's loss: it is asked more often for a second.
    pub fn sample(&self, path: Path) {
        if let Some(wishes) = self.wishes.get(&path) {
            wishes.sample.set(true);
            wishes.bell.notify_one();
        }
    }

    /// Replies that were not what a probe waited for, by kind: forged, late beyond all bounds, or
    /// broken.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.counts()
    }
}

/// Rounds of a later prober of the same path must not be taken for those of an earlier one.
fn first_round() -> u64 {
    static PROBERS: AtomicU64 = AtomicU64::new(0);
    PROBERS.fetch_add(1, Ordering::Relaxed) << 32
}

/// 0 to 1.
fn dice() -> f64 {
    random().map_or(0.5, |bytes| {
        f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
    })
}

/// Random bytes from the kernel.
///
/// # Errors
/// When there are none, which does not happen after boot.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is writable for N bytes.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if n == N as isize {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}
