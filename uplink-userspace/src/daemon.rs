//! The shell around the engine: carries events in and commands out. Everything it does outside
//! the maps is "compute the desired state, apply the difference", at start, after every event,
//! every few seconds, and at the stop.

mod reload;
mod start;
mod stop;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cli::Options;
use crate::config::{self, Config};
use crate::engine::{Command, Engine, Event, Settings};
use crate::health::{Thresholds, Verdict};
use crate::loader::{Loaded, Port};
use crate::lock::Lock;
use crate::maps::{self, Maps};
use crate::routes::Routes;
use crate::status::{self, Status, Warning};
use crate::{api, conntrack, inspect, links, nat, probe, sysctl};

pub use stop::down;

/// Between full comparisons with the kernel.
const COMPARE: Duration = Duration::from_secs(5);
/// Netlink events come in bursts: wait for the end of one.
const SETTLE: Duration = Duration::from_millis(100);

/// A running daemon.
pub struct Daemon {
    options: Options,
    config: Config,
    engine: Engine,
    maps: Maps,
    loaded: Loaded,
    routes: Routes,
    settings: maps::Settings,
    ports: Vec<Port>,
    since: SystemTime,
    warnings: Vec<Warning>,
    lock: Lock,
}

/// Where events come from.
struct Sources {
    probes: mpsc::Receiver<Event>,
    network: mpsc::Receiver<links::Event>,
    requests: mpsc::Receiver<api::Request>,
    terminate: Signal,
    interrupt: Signal,
    hand_over: Signal,
    reload: Signal,
    /// Probers, made anew by a reload.
    probers: JoinSet<()>,
    _api: JoinSet<()>,
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Put everything back.
    Stop,
    /// Leave the kernel steering with the last good table.
    HandOver,
}

/// Runs until a signal.
///
/// # Errors
/// When the start fails (nothing is left then), or the stop.
pub async fn run(options: &Options) -> Result<()> {
    let config = config::load(&options.config)?;
    let mut daemon = start::start(options, config).await?;
    let mut sources = match daemon.sources().await {
        Ok(sources) => sources,
        Err(e) => {
            daemon.stop().await?;
            return Err(e);
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready: {} uplinks", daemon.engine.uplinks().len());
    let end = daemon.serve(&mut sources).await;
    drop(sources);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    match end {
        End::Stop => daemon.stop().await,
        End::HandOver => {
            tracing::info!("leaving the kernel to steer with the last good table");
            let _ = std::fs::remove_file(api::path(&daemon.options.runtime_dir));
            Ok(())
        }
    }
}

/// What the engine needs of the configuration.
#[must_use]
pub fn engine_settings(config: &Config) -> Settings {
    let thresholds = Thresholds {
        fall: config.probe.fall,
        rise: config.probe.rise,
    };
    let count = |family| probe::targets(&config.probe, family).len();
    let targets = uplink_common::Family::ALL.map(count);
    Settings { thresholds, targets }
}

impl Daemon {
    async fn sources(&self) -> Result<Sources> {
        let (probers, probes) = self.probers()?;
        let (send_request, requests) = mpsc::channel(16);
        let listener = api::bind(&api::path(&self.options.runtime_dir))?;
        let mut api = JoinSet::new();
        api.spawn_local(api::serve(listener, send_request));
        Ok(Sources {
            probers,
            probes,
            requests,
            network: links::watch().await?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hand_over: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
            _api: api,
        })
    }

    fn probers(&self) -> Result<(JoinSet<()>, mpsc::Receiver<Event>)> {
        let (send, probes) = mpsc::channel(256);
        Ok((
            probe::start(self.engine.uplinks(), &self.config.probe, &send)?,
            probes,
        ))
    }

    async fn serve(&mut self, from: &mut Sources) -> End {
        let mut compare = tokio::time::interval(COMPARE);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = tokio::time::interval(watchdog_period());
        let mut settled: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(event) = from.probes.recv() => self.handle(event).await,
                Some(_) = from.network.recv() => settled = settled.or(Some(Instant::now() + SETTLE)),
                () = until(settled) => {
                    settled = None;
                    self.repair(true).await;
                }
                Some(request) = from.requests.recv() => self.answer(request),
                _ = compare.tick() => self.repair(false).await,
                _ = watchdog.tick() => { let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]); }
                _ = from.terminate.recv() => return End::Stop,
                _ = from.interrupt.recv() => return End::Stop,
                _ = from.hand_over.recv() => return End::HandOver,
                _ = from.reload.recv() => self.reload_on_signal(from).await,
            }
        }
    }

    async fn reload_on_signal(&mut self, from: &mut Sources) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
        let reloaded = match self.reload().await {
            // Results of the old probers belong to the old engine.
            Ok(()) => self.probers().map(|new| (from.probers, from.probes) = new),
            Err(e) => Err(e),
        };
        self.warnings.retain(|w| w.code != "reload-failed");
        match reloaded {
            Ok(()) => tracing::info!("reloaded: {} uplinks", self.engine.uplinks().len()),
            Err(e) => {
                tracing::error!("not reloaded, the old configuration stays: {e:#}");
                self.publish().await;
                self.warnings.push(Warning {
                    code: "reload-failed".into(),
                    text: format!("{e:#}"),
                    remedy: "correct the file and reload again".into(),
                });
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    async fn handle(&mut self, event: Event) {
        for command in self.engine.handle(event) {
            match command {
                Command::Publish(_) => self.publish().await,
                Command::Abandon(path) => self.abandon(path).await,
                Command::Announce(change) => self.announce(&change),
            }
        }
    }

    /// Maps first: they decide about every packet that our program sees.
    async fn publish(&mut self) {
        let published = self
            .maps
            .publish(self.engine.uplinks(), self.engine.selection(), &self.settings);
        if let Err(e) = published {
            tracing::error!("the new table is not live: {e:#}");
            return;
        }
        self.repair(false).await;
    }

    /// Forgets the dead uplink's connections, without NAT, too: their marks would keep them there.
    async fn abandon(&mut self, path: crate::engine::Path) {
        let Some(u) = self.engine.uplinks().iter().find(|u| u.id == path.uplink) else {
            return;
        };
        match conntrack::delete_by_mark(u.mark, self.config.kernel.fwmark_mask.bits()).await {
            Ok(n) => tracing::info!("{}: {n} connections start anew elsewhere", u.name),
            Err(e) => tracing::error!("{}: its connections could not be forgotten: {e:#}", u.name),
        }
    }

    fn announce(&mut self, change: &crate::engine::Change) {
        let Some(u) = self.engine.uplinks().iter().find(|u| u.id == change.path.uplink) else {
            return;
        };
        let family = if change.path.family == uplink_common::Family::V4 {
            "IPv4"
        } else {
            "IPv6"
        };
        match change.to {
            Verdict::Up => tracing::info!("{} is up ({family})", u.name),
            Verdict::Unknown => {}
            Verdict::Down if change.kept => {
                tracing::error!(
                    "{} is down ({family}), but nobody else answers either: the last good table stays",
                    u.name
                );
            }
            Verdict::Down => tracing::warn!("{} is down ({family}): new flows avoid it", u.name),
        }
    }

    /// Applies the difference between what should be and what is. `routes_moved` voids what
    /// flows were told about the kernel's own routes.
    async fn repair(&mut self, routes_moved: bool) {
        let failed = self
            .try_repair(routes_moved)
            .await
            .err()
            .map(|e| format!("{e:#}"));
        let before = self.warnings.iter().position(|w| w.code == "repair-failed");
        let before = before.map(|i| self.warnings.remove(i).text);
        match (failed, before) {
            (Some(text), before) => {
                // Once is enough for the log; `status` shows it as long as it lasts.
                if before.as_ref() != Some(&text) {
                    tracing::error!("the kernel's state is not as it should be: {text}");
                }
                self.warnings.push(Warning {
                    code: "repair-failed".into(),
                    text,
                    remedy: "it is tried again every few seconds; `journalctl -u uplink` has the history"
                        .into(),
                });
            }
            (None, Some(_)) => tracing::info!("the kernel's state is as it should be again"),
            (None, None) => {}
        }
    }

    async fn try_repair(&mut self, routes_moved: bool) -> Result<()> {
        let host = links::snapshot(self.config.kernel.protocol).await?;
        let up = |u: &crate::resolve::Uplink| host.interface(&u.interface).is_some_and(|i| i.running);
        let plan = inspect::plan(&self.config, &self.engine, up);
        let changes = self.routes.apply(&plan).await?;
        if changes.added + changes.removed > 0 {
            tracing::info!("routing: {} added, {} removed", changes.added, changes.removed);
        }
        if nat::present().await?.as_deref() != nat::hash(&plan.nft) {
            nat::apply(&plan.nft).await?;
            tracing::info!("the nftables table is as it should be again");
        }
        for change in sysctl::apply(&plan.sysctls)? {
            tracing::info!("sysctl {change}");
        }
        self.maps
            .set_addresses(&start::addresses(&host, self.engine.uplinks()))?;
        if routes_moved {
            self.maps.routes_changed()?;
        }
        Ok(())
    }

    fn answer(&self, request: api::Request) {
        if request.method != api::STATUS {
            let _ = request
                .reply
                .send(Err(anyhow::anyhow!("unknown method {}", request.method)));
            return;
        }
        let status = self.status();
        let ids: Vec<u8> = self.engine.uplinks().iter().map(|u| u.id).collect();
        let pin = self.options.bpffs.join(maps::FLOWS);
        // Counting pins reads the whole flow table: not on the thread that steers.
        tokio::task::spawn_blocking(move || {
            let _ = request.reply.send(status.and_then(|s| with_flows(s, &ids, &pin)));
        });
    }

    fn status(&self) -> Result<Status> {
        let mut uplinks = Vec::new();
        for u in self.engine.uplinks() {
            let carried = self.maps.carried(u.id)?;
            uplinks.push(status::Uplink {
                rx_bytes: carried.received.bytes,
                tx_bytes: carried.sent.bytes,
                ..status::uplink(&self.engine, u)
            });
        }
        let counters = self.maps.counters()?;
        Ok(Status {
            version: status::VERSION,
            config: self.config.file.path.display().to_string(),
            since: humantime::format_rfc3339_seconds(self.since).to_string(),
            attach: self.loaded.hook.to_string(),
            uplinks,
            policies: Vec::new(),
            packets: counters
                .into_iter()
                .map(|(r, n)| (r.name().to_owned(), n))
                .collect(),
            warnings: self.warnings(),
        })
    }

    /// Standing conditions that need attention now.
    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.warnings.clone();
        let alive = |u: &crate::resolve::Uplink| status::state(&self.engine, u).0 != status::State::Down;
        if !self.engine.uplinks().iter().any(alive) {
            warnings.push(Warning {
                code: "all-down".into(),
                text: "no uplink answers; traffic keeps using the last good table".into(),
                remedy: "check the links and the probe targets".into(),
            });
        }
        warnings
    }
}

fn with_flows(mut status: Status, ids: &[u8], pin: &std::path::Path) -> Result<Value> {
    let flows = maps::count_flows(pin)?;
    for (u, id) in status.uplinks.iter_mut().zip(ids) {
        u.flows = flows.get(usize::from(*id)).copied().unwrap_or(0);
    }
    Ok(serde_json::to_value(status)?)
}

/// systemd wants to hear from us at least every period; never where it does not watch.
fn watchdog_period() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |period| period / 3)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
