//! The shell around the engine: carries events in and commands out. Everything it does outside
//! the maps is "compute the desired state, apply the difference", at start, after every event,
//! every few seconds, and at the stop.

mod control;
mod explain;
mod failover;
mod fast;
mod follow;
mod gateways;
mod measure;
mod metrics;
mod names;
mod news;
mod nexthop;
mod outages;
mod policies;
mod reload;
mod repair;
pub(crate) mod start;
mod stop;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::census::Census;
use crate::changes::Changes;
use crate::config::{self, Config};
use crate::engine::{Command, Engine, Event};
use crate::events::{self, Journal, News};
use crate::history::History;
use crate::hooks::Hooks;
use crate::host::Host;
use crate::loader::{Loaded, Port};
use crate::lock::Lock;
use crate::maps::{self, Maps};
use crate::names::Told;
use crate::nexthop::xfrm;
use crate::options::Options;
use crate::plan::Plan;
use crate::probe::Probers;
use crate::repairs::{Kind, Repairs};
use crate::resolve::Followed;
use crate::routes::Routes;
use crate::status::Warning;
use crate::tally::Tally;
use crate::{api, links, nat};

use failover::Retiring;
use gateways::Gateways;
use measure::Measured;
use names::Names;
use policies::Policies;
use repair::Cause;

pub use stop::down;

/// Between full comparisons with the kernel.
const COMPARE: Duration = Duration::from_secs(5);
/// Netlink events come in bursts: wait for the end of one.
const SETTLE: Duration = Duration::from_millis(100);
/// Between looks at what nobody tells us about: silent gateways, programs, pins, missing NAT.
const PULSE: Duration = Duration::from_millis(250);
/// Pulses between writing down what was learned of names.
const KEEP_NAMES: u32 = 240;
/// Hooks that run at the stop have so long to end.
const LAST_HOOKS: Duration = Duration::from_secs(2);
/// Between looks at what the users' own packets tell.
const LISTEN: Duration = Duration::from_millis(100);

/// A running daemon.
pub struct Daemon {
    options: Options,
    config: Config,
    engine: Engine,
    maps: Maps,
    loaded: Loaded,
    routes: Routes,
    /// What the kernel was last brought to.
    applied: Plan,
    settings: maps::Settings,
    ports: Vec<Port>,
    /// The host as it was last seen, and how the uplinks fit it.
    host: Host,
    followed: Followed,
    gateways: Gateways,
    measured: Measured,
    policies: Policies,
    names: Names,
    /// Commands that wait for a table to be published.
    pending: VecDeque<Command>,
    retiring: Vec<Retiring>,
    /// Pulses so far.
    pulses: u32,
    /// The last heartbeat by which the programs went.
    beat: Option<Instant>,
    /// Who changed the nftables ruleset last.
    changed_nft: Option<nat::Process>,
    since: SystemTime,
    begun: Instant,
    warnings: Vec<Warning>,
    repairs: Repairs,
    census: Census,
    journal: Journal,
    told: news::Told,
    hooks: Hooks,
    tally: Tally,
    history: History,
    fast: fast::FastPath,
    /// An earlier daemon's steering was there, which a failure may not take away.
    has_adopted: bool,
    lock: Lock,
}

/// Where events come from.
struct Sources {
    probes: mpsc::Receiver<Event>,
    told: mpsc::Receiver<Told>,
    network: mpsc::Receiver<links::Event>,
    nft: mpsc::Receiver<nat::Event>,
    ipsec: mpsc::Receiver<()>,
    requests: mpsc::Receiver<api::Request>,
    signals: Signals,
    /// Probers, made anew by a reload.
    probers: Probers,
    /// Those are of addresses that are no more.
    probers_are_due: bool,
    metrics: metrics::Served,
    _api: JoinSet<()>,
}

/// Heard from the first moment on: one that comes during the start is obeyed after it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hand_over: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hand_over: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Put everything back.
    Stop,
    /// Leave the kernel steering with the last good table.
    HandOver,
}

/// Runs until a signal. With `wait`, what the file needs and the host has not yet is waited for.
///
/// # Errors
/// When the start fails (nothing is left then), or the stop.
pub async fn run(options: &Options, wait: bool) -> Result<()> {
    let signals = Signals::new()?;
    let config = config::load(&options.config)?;
    let (mut daemon, told) = start::start(options, config, wait).await?;
    let mut sources = match daemon.sources(told, signals).await {
        Ok(sources) => sources,
        Err(e) => {
            match daemon.has_adopted {
                true => tracing::error!("{}", start::GOES_ON),
                false => daemon.stop().await?,
            }
            return Err(e);
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let ready = format!("ready: {} uplinks", daemon.engine.uplinks().len());
    tracing::info!("{ready}");
    daemon.tell(News::of(events::Kind::Start, ready));
    let end = daemon.serve(&mut sources).await;
    let words = match end {
        End::Stop => "stopping: everything is put back",
        End::HandOver => "leaving the kernel to steer with the last good table",
    };
    daemon.tell(News::of(events::Kind::Stop, words));
    drop(sources);
    daemon.weigh().await;
    daemon.keep_usage();
    daemon.keep_names();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let hooks = std::mem::take(&mut daemon.hooks);
    let ended = match end {
        End::Stop => daemon.stop().await,
        End::HandOver => {
            tracing::info!("{words}");
            let _ = std::fs::remove_file(api::path(&daemon.options.runtime_dir));
            Ok(())
        }
    };
    // The kernel is as it shall be: nobody waits for them but whoever waits for us.
    hooks.finish(LAST_HOOKS).await;
    ended
}

impl Daemon {
    async fn sources(&self, told: mpsc::Receiver<Told>, signals: Signals) -> Result<Sources> {
        let (probers, probes) = self.probers()?;
        let (send_request, requests) = mpsc::channel(16);
        let socket = api::path(&self.options.runtime_dir);
        let listener = api::bind(&socket)?;
        let allowed = api::Allowed::at(&socket)?;
        let metrics = metrics::Served::new(send_request.clone());
        let mut api = JoinSet::new();
        api.spawn_local(api::serve(listener, allowed, send_request));
        Ok(Sources {
            probers,
            probers_are_due: false,
            probes,
            told,
            requests,
            network: links::watch().await?,
            nft: nat::watch().await?,
            ipsec: xfrm::watch()?,
            signals,
            metrics,
            _api: api,
        })
    }

    fn probers(&self) -> Result<(Probers, mpsc::Receiver<Event>)> {
        let (send, probes) = mpsc::channel(256);
        Ok((
            Probers::start(self.engine.uplinks(), &self.config, &send)?,
            probes,
        ))
    }

    async fn serve(&mut self, from: &mut Sources) -> End {
        let mut compare = every(COMPARE);
        let mut pulse = every(PULSE);
        let mut listen = every(LISTEN);
        let mut watchdog = tokio::time::interval(watchdog_period());
        let mut settled: Option<Instant> = None;
        // What happened while nobody listened, and from where to count.
        self.look_again(from).await;
        self.weigh().await;
        self.remember_history();
        self.follow_metrics(&mut from.metrics);
        loop {
            tokio::select! {
                Some(event) = from.probes.recv() => {
                    self.handle(event).await;
                    for path in self.engine.witnesses() {
                        from.probers.suspect(path);
                    }
                }
                Some(event) = from.network.recv() => {
                    if self.heard(event, &from.probers).await {
                        settled = settled.or(Some(Instant::now() + SETTLE));
                    }
                }
                () = until(settled) => {
                    let followed = self.look_again(from).await;
                    settled = (!followed).then(|| Instant::now() + COMPARE);
                }
                Some(event) = from.nft.recv() => self.heard_nft(event).await,
                Some(()) = from.ipsec.recv() => self.heard_ipsec().await,
                Some(request) = from.requests.recv() => self.answer(request, from).await,
                seen = self.fast.seen() => self.heard_fast(seen).await,
                Some(ended) = self.hooks.ended() => self.hook_ended(ended),
                Some(told) = from.told.recv() => self.names.tell(&told),
                _ = compare.tick() => match from.probers_are_due {
                    true => drop(self.look_again(from).await),
                    false => self.repair(Cause::Others).await,
                },
                _ = pulse.tick() => {
                    self.pulse(&from.probers).await;
                    self.follow_metrics(&mut from.metrics);
                }
                _ = listen.tick() => self.listen(&from.probers),
                _ = watchdog.tick() => { let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]); }
                _ = from.signals.terminate.recv() => return End::Stop,
                _ = from.signals.interrupt.recv() => return End::Stop,
                _ = from.signals.hand_over.recv() => return End::HandOver,
                _ = from.signals.reload.recv() => drop(self.reload_now(from).await),
            }
        }
    }

    /// Whether the host has to be looked at anew.
    async fn heard(&mut self, event: links::Event, probers: &Probers) -> bool {
        match event {
            links::Event::Changed => true,
            links::Event::Link { ifindex, running } => {
                self.link(ifindex, running).await;
                true
            }
            links::Event::Neighbour {
                ifindex,
                address,
                state,
            } => {
                self.neighbour(ifindex, address, state, probers).await;
                false
            }
            links::Event::Overrun => {
                self.note(Kind::Overrun, "netlink events were lost, everything is compared");
                true
            }
        }
    }

    async fn heard_nft(&mut self, event: nat::Event) {
        if let nat::Event::Changed(Some(process)) = event {
            // Our own nft rings, too, and says nothing about a repair.
            self.changed_nft = Some(process);
        }
        // A firewall that has just come shall see what is under way.
        self.follow_mode().await;
        self.repair_nft().await;
    }

    /// What was learned of names, for the next daemon; it is only slower without.
    fn keep_names(&mut self) {
        let kept = self.names.keep(&self.options.runtime_dir);
        self.warnings.retain(|w| w.code != "not-written");
        if let Err(e) = kept {
            tracing::warn!("what was learned of names will not outlive this daemon: {e:#}");
            self.warnings.push(Warning {
                code: "not-written".into(),
                text: format!("what was learned of names will not outlive this daemon: {e:#}"),
                remedy: "make room there; it is tried again every minute".into(),
            });
        }
    }

    /// Gateways and time every time, the rest every second or fourth time.
    async fn pulse(&mut self, probers: &Probers) {
        self.pulses = self.pulses.wrapping_add(1);
        self.ask_silent_gateways().await;
        self.tick(probers).await;
        self.tell_states();
        if self.pulses.is_multiple_of(4) {
            self.weigh().await;
            self.follow_fast().await;
            self.names.expire();
            self.count_flows();
            self.tell_warnings();
            self.remember_history();
        }
        if self.pulses.is_multiple_of(KEEP_NAMES) {
            self.keep_names();
        }
        if !self.pulses.is_multiple_of(2) {
            return;
        }
        if self.settings.stale_after_s != 0 || self.settings.next_hop != [false; 2] || self.fast.is_on() {
            self.heartbeat();
        }
        self.notice_silence();
        self.follow_policies();
        self.look_for_legacy().await;
        self.repair_again().await;
        self.repair_programs().await;
        self.repair_leaks().await;
        self.retry().await;
        self.retire_due().await;
    }

    /// Tells systemd and the log, too.
    async fn reload_now(&mut self, from: &mut Sources) -> Result<Changes> {
        let before = self.config.clone();
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
        let reloaded = match self.reload().await {
            // Results of the old probers belong to the old engine.
            Ok(()) => {
                match self.probers() {
                    Ok(new) => (from.probers, from.probes) = new,
                    Err(e) => {
                        tracing::error!("probing by the new configuration has to be tried again: {e:#}");
                        from.probers_are_due = true;
                    }
                }
                self.look_again(from).await;
                Ok(())
            }
            Err(e) => Err(e),
        };
        self.warnings.retain(|w| w.code != "reload-failed");
        match &reloaded {
            Ok(()) => {
                let changes = format!("reloaded: {}", Changes::between(&before, &self.config));
                tracing::info!("{changes}");
                self.tell(News::of(events::Kind::Reload, changes));
            }
            Err(e) => {
                self.tell(News::of(
                    events::Kind::Reload,
                    format!("not reloaded, the old configuration stays: {e:#}"),
                ));
                tracing::error!("not reloaded, the old configuration stays: {e:#}");
                let old = Command::Publish(self.engine.selection().clone());
                self.carry_out(vec![old]).await;
                self.follow_policies();
                self.warnings.push(Warning {
                    code: "reload-failed".into(),
                    text: format!("{e:#}"),
                    remedy: "correct the file and reload again".into(),
                });
            }
        }
        self.follow_metrics(&mut from.metrics);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        reloaded.map(|()| Changes::between(&before, &self.config))
    }
}

/// systemd wants to hear from us at least every period; never where it does not watch.
fn watchdog_period() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |period| period / 3)
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
