//! What is measured while it runs: the users' own packets, rates, quotas, capacities. The engine
//! hears of it, and the probers are told where to look closer.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use jiff::{Timestamp, Zoned};

use super::Daemon;
use crate::config::Config;
use crate::engine::{Event, Path};
use crate::options::Options;
use crate::passive::Watch;
use crate::probe::Probers;
use crate::quota::{Counter, Quotas};
use crate::rates::{self, Rates};
use crate::resolve::Uplink;
use crate::status::{self, Measured as Seen};
use crate::usage::{self, Kept, Store};

/// What is measured beside the probes, and where it is kept.
#[derive(Debug)]
pub(super) struct Measured {
    pub watch: Watch,
    rates: Rates,
    quotas: Quotas,
    store: Store,
    maps: String,
}

impl Measured {
    /// Goes on with what an earlier daemon kept.
    pub(super) fn new(options: &Options, config: &Config, uplinks: &[Uplink]) -> Self {
        let store = Store::new(&options.state_dir());
        let maps = identity(options).unwrap_or_else(|e| {
            tracing::warn!("the counters of an earlier daemon are not told from new ones: {e:#}");
            String::new()
        });
        let kept = store.read().unwrap_or_else(|e| {
            tracing::warn!("what was used of quotas before is not known: {e:#}");
            None
        });
        let mut rates = Rates::default();
        let mut quotas = Quotas::default();
        if let Some(kept) = kept {
            for (name, capacity) in kept.capacities_at(Timestamp::now()) {
                if let Some(u) = uplinks.iter().find(|u| u.name == name) {
                    rates.seed(u.id, capacity);
                }
            }
            quotas = Quotas::restore(kept.quotas, kept.maps == maps);
        }
        let mut measured = Self {
            watch: Watch::default(),
            rates,
            quotas,
            store,
            maps,
        };
        measured.follow(config);
        measured
    }

    /// Takes the quotas of a new configuration.
    pub(super) fn follow(&mut self, config: &Config) {
        let quotas = config.uplinks.iter();
        self.quotas
            .set(quotas.filter_map(|u| Some((u.name.value.clone(), u.quota?))));
    }

    /// An id that may be another uplink's next.
    pub(super) fn forget(&mut self, path: Path) {
        self.watch.forget(path);
        self.rates.forget(path.uplink);
    }

    /// Bytes of its quota that an uplink has used in this period.
    pub(super) fn quota_used(&self, name: &str) -> Option<u64> {
        self.quotas.usage(name).map(|u| u.bytes)
    }

    /// What `status` shows of it. `sized`: the configuration says what the uplink can carry.
    pub(super) fn describe(&self, u: &Uplink, sized: bool, of: &mut status::Uplink) {
        let rate = self.rates.of(u.id).unwrap_or_default();
        (of.rx_bps, of.tx_bps) = (rate.down as u64, rate.up as u64);
        of.quota = self.quotas.text(&u.name);
        let seen = self.rates.capacity(u.id).filter(|_| !sized);
        of.measured = seen.map(|seen| Seen {
            down: rates::suggestion(seen.down),
            up: rates::suggestion(seen.up),
        });
    }
}

/// Names the maps whose counters are read.
fn identity(options: &Options) -> Result<String> {
    let pin = options.bpffs.join("sent");
    usage::maps_identity(aya::maps::MapInfo::from_pin(pin)?.id())
}

impl Daemon {
    /// Ten times a second: new flows of users that get no answer have probes look at once.
    pub(super) fn listen(&mut self, probers: &Probers) {
        let now = self.now();
        for path in self.engine.paths() {
            match self.maps.passive(path) {
                Ok(totals) => self.measured.watch.observe(now, path, &totals),
                Err(e) => tracing::debug!("reading what the users' packets tell: {e:#}"),
            }
        }
        for suspicion in self.measured.watch.suspects(now) {
            if let Some(u) = self.uplink(suspicion.path.uplink) {
                let n = suspicion.unanswered;
                tracing::info!("{}: {n} new flows got no answer, probing at once", u.name);
            }
            // What ails one family may ail the other.
            for family in uplink_common::Family::ALL {
                probers.suspect(Path {
                    family,
                    ..suspicion.path
                });
            }
        }
    }

    /// Four times a second: time goes by for the engine, and paths in doubt get more probes.
    pub(super) async fn tick(&mut self, probers: &Probers) {
        self.handle(Event::Tick).await;
        for path in self.engine.doubtful() {
            probers.sample(path);
        }
    }

    /// Once a second: what every uplink carries, and whether its quota allows more.
    pub(super) async fn weigh(&mut self) {
        let now = self.now();
        let today = Zoned::now().date();
        for u in self.engine.uplinks() {
            match self.maps.carried(u.id) {
                Ok(carried) => {
                    let (received, sent) = (carried.received.bytes, carried.sent.bytes);
                    self.measured.rates.observe(now, u.id, received, sent);
                    let bytes = received.saturating_add(sent);
                    let counter = Counter { id: u.id, bytes };
                    self.measured.quotas.count(&u.name, counter, today);
                }
                Err(e) => tracing::debug!("reading what {} carries: {e:#}", u.name),
            }
        }
        let uplinks = || self.engine.uplinks().iter();
        let rates = uplinks().filter_map(|u| Some((u.id, self.measured.rates.of(u.id)?)));
        let carried: BTreeMap<_, _> = rates.collect();
        let used_up = uplinks().filter(|u| self.measured.quotas.used_up(&u.name));
        let used_up: BTreeSet<u8> = used_up.map(|u| u.id).collect();
        self.handle(Event::Carried(carried)).await;
        self.handle(Event::UsedUp(used_up)).await;
        if self.measured.store.due(now) && self.keeps() {
            let (store, kept) = (self.measured.store.clone(), self.kept());
            tokio::task::spawn_blocking(move || complain(store.write(&kept)));
        }
    }

    /// Quotas need a memory; capacities use one where there is one.
    fn keeps(&self) -> bool {
        let quotas = self.config.uplinks.iter().any(|u| u.quota.is_some());
        quotas || self.measured.store.has_directory()
    }

    /// At the end, and wherever a minute of usage must not be lost.
    pub(super) fn keep_usage(&self) {
        if self.keeps() {
            complain(self.measured.store.write(&self.kept()));
        }
    }

    fn kept(&self) -> Kept {
        let named = |id: u8| Some(self.uplink(id)?.name.clone());
        let capacities = self.measured.rates.snapshot().into_iter();
        Kept::new(
            Timestamp::now(),
            self.measured.maps.clone(),
            self.measured.quotas.books().clone(),
            capacities
                .filter_map(|(id, rate)| Some((named(id)?, rate)))
                .collect(),
        )
    }
}

fn complain(written: Result<()>) {
    if let Err(e) = written {
        tracing::warn!("what was used of quotas is not kept: {e:#}");
    }
}
