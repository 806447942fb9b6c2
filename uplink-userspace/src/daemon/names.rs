//! Learning names: a thread of its own hears DNS packets, because a client connects as soon as it has its answer.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use uplink_common::{Addr, Family, Reason};

use super::Daemon;
use crate::config::{self, Config, Domain};
use crate::flow_map;
use crate::host::Host;
use crate::maps::Maps;
use crate::maps::policies::NameTable;
use crate::names::kept::{self, Row};
use crate::names::{Change, Ear, Entry, Resolver, Servers, Settings, Told, Wanted, Whom};
use crate::resolve::Uplink;
use crate::status::{self, Warning};

/// Packets between two looks at whether somebody else wants the lock.
const AT_ONCE: usize = 64;
/// Answers of our own that wait to be learned.
const WAITING: usize = 256;

/// What is known of names, and who learns them.
pub(super) struct Names {
    shared: Arc<Mutex<Shared>>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    resolver: Option<Resolver>,
    /// What the resolver was started with.
    asks: Option<Asks>,
    send: mpsc::Sender<Told>,
    settings: Settings,
}

type Asks = (Vec<String>, Whom, std::ops::RangeInclusive<u64>);

/// An address, its names, and when they are forgotten.
type Learned<'a> = (Addr, Vec<&'a str>, u32);

struct Shared {
    ear: Ear,
    table: NameTable,
    /// Addresses that no policy wants by name.
    others: crate::maps::policies::OtherNames,
    /// Addresses that could not be written, for want of room or because the kernel refused.
    failed: u64,
    /// Something was learned or forgotten since it was last kept.
    changed: bool,
}

impl Names {
    /// Nothing is known yet. Also where our resolver's answers come from.
    ///
    /// # Errors
    /// When a map was taken before, or the thread cannot be had.
    pub(super) fn new(maps: &mut Maps) -> Result<(Self, mpsc::Receiver<Told>)> {
        let (send, told) = mpsc::channel(WAITING);
        let settings = Settings {
            servers: Servers::default(),
            ttl_s: 0..=0,
            excluded: HashSet::new(),
            wanted: Wanted::default(),
        };
        let shared = Arc::new(Mutex::new(Shared {
            ear: Ear::new(settings.clone()),
            table: maps.names.take().context("the map `names` was taken before")?,
            others: maps
                .other_names
                .take()
                .context("the map `other_names` was taken before")?,
            failed: 0,
            changed: false,
        }));
        let answers = maps
            .answers
            .take()
            .context("the map `answers` was taken before")?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let thread = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("names".into())
                .spawn(move || listen(answers, &shared, &stop))
                .context("starting the thread that hears DNS packets")?
        };
        let names = Self {
            shared,
            stop,
            thread: Some(thread),
            resolver: None,
            asks: None,
            send,
            settings,
        };
        Ok((names, told))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes by this configuration from now on. Before the policies are written, which takes what was learned along.
    pub(super) fn follow(&mut self, config: &Config, host: &Host, uplinks: &[Uplink]) -> Result<()> {
        let settings = Settings {
            servers: Servers::new(&config.dns),
            ttl_s: config.dns.ttl_min.as_secs()..=config.dns.ttl_max.as_secs(),
            excluded: excluded(config, host, uplinks),
            wanted: Wanted::new(domains(config)),
        };
        if settings != self.settings {
            let mut shared = self.shared();
            let changes = shared.ear.follow(settings.clone());
            shared.apply(changes);
            drop(shared);
            self.settings = settings;
        }
        self.ask(config)
    }

    /// Our own questions begin, go on, or end.
    fn ask(&mut self, config: &Config) -> Result<()> {
        let names = self.settings.wanted.names();
        if names.is_empty() {
            (self.resolver, self.asks) = (None, None);
            return Ok(());
        }
        let asks = (names, Whom::new(&config.dns), self.settings.ttl_s.clone());
        if self.asks.as_ref() != Some(&asks) {
            self.asks = Some(asks);
            self.ask_again();
        }
        Ok(())
    }

    /// Asks at once: what failed before may succeed now.
    pub(super) fn ask_again(&mut self) {
        if let Some((names, whom, ttl_s)) = self.asks.clone() {
            self.resolver = Some(Resolver::start(names, whom, ttl_s, self.send.clone()));
        }
    }

    /// Lets `write` make the table hold all that was learned.
    pub(super) fn write(
        &self,
        write: impl FnOnce(&mut NameTable, Vec<Learned<'_>>) -> Result<usize>,
    ) -> Result<usize> {
        let mut shared = self.shared();
        let Shared { ear, table, .. } = &mut *shared;
        let wanted = ear.learned().iter().filter(|(_, entry)| entry.is_wanted());
        let learned = wanted.map(|(address, entry)| {
            let names = entry.names().map(|(name, _)| &**name).collect();
            (address.into(), names, seconds(entry.expires_s()))
        });
        write(table, learned.collect())
    }

    /// What one of our own questions was answered.
    pub(super) fn tell(&self, told: &Told) {
        let mut shared = self.shared();
        let changes = shared.ear.tell(told, now());
        shared.apply(changes);
    }

    /// Forgets what is too old.
    pub(super) fn expire(&self) {
        let mut shared = self.shared();
        let changes = shared.ear.expire(now());
        shared.apply(changes);
    }

    /// Goes on with what an earlier daemon had learned.
    pub(super) fn restore(&self, dir: &Path) {
        match kept::read(dir) {
            Ok(rows) => {
                let mut shared = self.shared();
                let changes = shared.ear.restore(rows, now());
                shared.apply(changes);
            }
            Err(e) => tracing::warn!("what an earlier daemon had learned of names is lost: {e:#}"),
        }
    }

    /// Keeps what was learned for the next daemon.
    ///
    /// # Errors
    /// When it cannot be written; it is tried again next time.
    pub(super) fn keep(&self, dir: &Path) -> Result<()> {
        let mut shared = self.shared();
        if !std::mem::take(&mut shared.changed) {
            return Ok(());
        }
        let rows = Row::all(shared.ear.learned());
        drop(shared);
        kept::write(dir, rows).inspect_err(|_| self.shared().changed = true)
    }

    /// What is known of an address.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<Entry> {
        self.shared().ear.learned().lookup(address).cloned()
    }

    /// For people: how many addresses are known, what became of what was heard, and how often there was no room.
    pub(super) fn counts(&self) -> (usize, Vec<(&'static str, u64)>, u64) {
        let shared = self.shared();
        let counts = shared.ear.counts().iter().collect();
        (shared.ear.learned().len(), counts, shared.failed)
    }

    /// Addresses with the names that policies want them by, where there are several.
    pub(super) fn several(&self) -> Vec<(IpAddr, Vec<String>)> {
        let shared = self.shared();
        let entries = shared.ear.learned().iter();
        let named = entries.map(|(address, entry)| {
            let wanted = entry.names().filter(|(_, known)| known.wanted);
            (
                address,
                wanted.map(|(name, _)| name.to_string()).collect::<Vec<_>>(),
            )
        });
        named.filter(|(_, names)| names.len() > 1).collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Tells the programs what is known now.
    fn apply(&mut self, changes: Vec<Change>) {
        self.changed |= !changes.is_empty();
        for change in changes {
            if let Err(e) = self.apply_one(&change) {
                self.failed += 1;
                tracing::debug!("{change:?}: {e:#}");
            }
        }
    }

    fn apply_one(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Known {
                address,
                names,
                expires_s,
            } => {
                let (address, expires_s) = (Addr::from(*address), seconds(*expires_s));
                if names.iter().any(|name| self.table.wants(name)) {
                    self.table.insert(address, names.iter().map(|n| &**n), expires_s)
                } else {
                    self.table.remove(address)?;
                    self.others.insert(address, expires_s)
                }
            }
            Change::Gone { address } => {
                self.table.remove(Addr::from(*address))?;
                self.others.remove(Addr::from(*address))
            }
        }
    }
}

/// Hears until it is told to stop.
fn listen(mut answers: RingBuf<MapData>, shared: &Mutex<Shared>, stop: &EventFd) {
    loop {
        let both = [answers.as_fd(), stop.as_fd()];
        let mut fds = both.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return tracing::error!("DNS packets are not heard any more: {e}"),
        }
        if fds[1].any() == Some(true) {
            return;
        }
        while hear(&mut answers, shared) == AT_ONCE {}
    }
}

/// Takes some packets. Returns how many there were.
fn hear(answers: &mut RingBuf<MapData>, shared: &Mutex<Shared>) -> usize {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    for taken in 0..AT_ONCE {
        let Some(record) = answers.next() else {
            return taken;
        };
        let changes = shared.ear.hear(&record, now());
        drop(record);
        shared.apply(changes);
    }
    AT_ONCE
}

/// By the clock of the programs, which look at whole seconds.
fn now() -> Duration {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(now) => now.into(),
        Err(_) => Duration::from_secs(flow_map::now_s().into()),
    }
}

fn seconds(s: u64) -> u32 {
    u32::try_from(s).unwrap_or(u32::MAX)
}

fn domains(config: &Config) -> impl Iterator<Item = &Domain> {
    config.policies.iter().flat_map(|p| &p.matches.domain)
}

/// Addresses that no name may steer: this host's, the gateways', and those that probes go to.
fn excluded(config: &Config, host: &Host, uplinks: &[Uplink]) -> HashSet<IpAddr> {
    let own = host
        .interfaces
        .iter()
        .flat_map(|i| &i.addresses)
        .map(ipnet::IpNet::addr);
    let legs = uplinks
        .iter()
        .flat_map(|u| Family::ALL.map(|family| u.leg(family)));
    let gateways = legs.flatten().map(|leg| leg.gateway);
    let targets = config.uplinks.iter().flat_map(|u| &u.probe.targets);
    own.chain(gateways).chain(targets.map(|t| t.address)).collect()
}

/// Addresses that are named as examples.
const EXAMPLES: usize = 3;

impl Daemon {
    /// What is known of names, for people.
    pub(super) fn describe_names(&self, counters: &[(Reason, u64)]) -> Option<status::Names> {
        if !self.settings.learns {
            return None;
        }
        let of = |reason| counters.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n);
        let (named, nameless) = (of(Reason::Named), of(Reason::Nameless));
        let (addresses, packets, left_out) = self.names.counts();
        Some(status::Names {
            addresses,
            known_share: (named + nameless > 0).then(|| named as f64 / (named + nameless) as f64),
            packets: packets
                .into_iter()
                .map(|(name, n)| (name.to_owned(), n))
                .collect(),
            left_out,
        })
    }

    /// An address that several policies want by different names: the first of them gets it.
    pub(super) fn shared_names(&self) -> Option<Warning> {
        let wants =
            |policy: &config::Policy, name: &str| policy.matches.domain.iter().any(|d| d.matches(name));
        let place = |name: &String| self.config.policies.iter().position(|p| wants(p, name));
        let different = |names: &Vec<String>| {
            let mut places = names.iter().map(place);
            let first = places.next();
            places.any(|p| Some(p) != first)
        };
        let several = self.names.several();
        let shared: Vec<_> = several.iter().filter(|(_, names)| different(names)).collect();
        let example = |(address, names): &&(IpAddr, Vec<String>)| format!("{address} ({})", names.join(", "));
        let examples: Vec<String> = shared
            .iter()
            .copied()
            .take(EXAMPLES)
            .map(|s| example(&s))
            .collect();
        (!shared.is_empty()).then(|| Warning {
            code: "shared-address".into(),
            text: format!(
                "{} addresses are known by names of several policies, of which the first decides: {}",
                shared.len(),
                examples.join("; ")
            ),
            remedy: "nothing, if the order of the policies is right; else move one in front of the other"
                .into(),
        })
    }

    /// Names follow the configuration and the host; policies are written after.
    pub(super) fn follow_names(&mut self) -> Result<()> {
        self.names.follow(&self.config, &self.host, self.engine.uplinks())
    }
}
