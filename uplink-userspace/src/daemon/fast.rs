//! The fast path follows what is on the host: a look decides, one store switches, and whatever changes makes void what
//! was learned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use uplink_common::path::Port;
use uplink_common::{Family, FlowKey};

use super::Daemon;
use crate::config::Attach;
use crate::conntrack::Connection;
use crate::fast::closed::{self, Closed};
use crate::fast::drivers;
use crate::fast::look::Looker;
use crate::fast::watch::{self, Bump, Neighbour};
use crate::fast::{LOOK_AGAIN_S, at_the_wire};
use crate::links::{self, Wire};
use crate::loader::Loaded;
use crate::nexthop::{self, look};
use crate::status::Warning;

/// More connections than these within [`ONCE_MORE`]: it is quicker to learn all flows anew. Conntrack takes away 64,000 a second
/// at most that have expired (`GC_SCAN_EXPIRED_MAX` of the kernel), and nobody else's flows may suffer from that.
const MANY: usize = 1 << 16;

/// What is gone is forgotten once more after so long. The answers of a connection take the fast path until then: they are to
/// packets that took it when conntrack had forgotten already, and would find nobody in the kernel. And a packet to a neighbour may
/// have been on its way past the kernel, and learned from, when that was lost.
const ONCE_MORE: Duration = Duration::from_millis(500);

/// Code of the warning about flows that cannot take the fast path.
const NOT_FAST: &str = "not-fast";
/// Code of the warning about what sees fewer packets than it thinks.
const WITH_LESS: &str = "fast-unseen";

/// What the daemon knows of the fast path.
#[derive(Default)]
pub(super) struct FastPath {
    /// By family, whether known flows take it.
    on: [bool; 2],
    /// Why not, or not all of them.
    why_not: Option<String>,
    eyes: Option<Eyes>,
    /// What is gone, and when it is forgotten once more.
    gone: VecDeque<(Instant, Gone)>,
}

/// What paths were learned of.
enum Gone {
    Connection(Connection),
    Neighbour(Neighbour),
}

/// Without them there is no fast path.
struct Eyes {
    bumps: mpsc::Receiver<Bump>,
    closed: mpsc::Receiver<Closed>,
    looker: Looker,
}

/// What they have seen.
pub(super) enum Seen {
    /// Something has changed that the kernel may mind.
    Change(Bump),
    /// Connections are gone.
    Closed(Closed),
    /// Some have been for long enough.
    LongGone,
    /// Nothing is seen any more.
    Blind,
}

/// Has the program at the device that has the wire.
fn ready_wire(loaded: &mut Loaded, wire: Wire) -> Result<Port> {
    let device = &wire.device;
    // Whose tag is gone would look like one that never had one.
    if wire.is_shared && links::takes_tags(device).with_context(|| format!("asking {device}"))? {
        bail!("{device} takes off VLAN tags before programs see them (ethtool -K {device} rxvlan off)");
    }
    if loaded.attach_wire(wire.port.device, device)? {
        tracing::info!("{} at the wire of {device}", Loaded::FAST);
    }
    Ok(wire.port)
}

impl FastPath {
    /// The next that is seen; never, where there is no fast path.
    pub(super) async fn seen(&mut self) -> Seen {
        let Some(eyes) = &mut self.eyes else {
            return std::future::pending().await;
        };
        let due = self.gone.front().map(|(due, _)| *due);
        let seen = tokio::select! {
            bump = eyes.bumps.recv() => bump.map(Seen::Change),
            closed = eyes.closed.recv() => closed.map(Seen::Closed),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Some(Seen::LongGone),
        };
        seen.unwrap_or(Seen::Blind)
    }

    /// Whether any flow may take it.
    pub(super) const fn is_on(&self) -> bool {
        let [v4, v6] = self.on;
        v4 || v6
    }
}

impl Daemon {
    /// Looks for what the fast path would pass by, and switches it.
    pub(super) async fn follow_fast(&mut self) {
        if !self.config.kernel.is_fast() {
            return self.leave_fast();
        }
        let (on, why_not, look_again_s) = match self.look_for_fast().await {
            Ok((why_not, look_again_s)) => (look::forwards(&self.ports), why_not, look_again_s),
            Err(e) => ([false; 2], Some(format!("{e:#}")), LOOK_AGAIN_S),
        };
        self.warn_of_fast(why_not.as_deref());
        if on != self.fast.on || why_not != self.fast.why_not || look_again_s != self.maps.fast.look_again_s()
        {
            self.switch_fast(on, why_not, look_again_s);
        } else if let Err(e) = self.maps.fast.renew() {
            tracing::error!("the fast path is off: its generation is old, and stays: {e:#}");
            self.switch_fast([false; 2], None, look_again_s);
        }
    }

    /// A reload wants none.
    fn leave_fast(&mut self) {
        if self.fast.eyes.is_none() {
            return;
        }
        self.switch_fast([false; 2], None, LOOK_AGAIN_S);
        match self.loaded.detach_other_wires(&[]) {
            Ok(()) => self.fast = FastPath::default(),
            Err(e) => tracing::error!("taking the program off the wire: {e:#}"),
        }
    }

    /// Why some flows cannot take it, and how often the kernel has to see the others.
    ///
    /// # Errors
    /// When none may.
    async fn look_for_fast(&mut self) -> Result<(Option<String>, u32)> {
        if self.fast.eyes.is_none() {
            self.fast.eyes = Some(Eyes {
                bumps: watch::watch().await?,
                closed: closed::watch()?,
                looker: Looker::default(),
            });
        }
        let (wires, without) = self.wires().await?;
        let eyes = self.fast.eyes.as_mut().context("nobody watches")?;
        let found = eyes.looker.look(&self.loaded.attached(), &self.ports).await;
        let obstacles = found.obstacles.map_err(anyhow::Error::msg)?;
        let mut words: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
        match self.is_asked_for() {
            true => self.warn_of_less(found.warnings),
            // Nobody said that others may see less.
            false => words.extend(found.warnings),
        }
        ensure!(words.is_empty(), "{}", words.join("; "));
        // A driver may stop for a moment when it gets a program, so that comes last.
        let why_not = self.ready_wires(wires, without).await?;
        Ok((why_not, found.look_again_s))
    }

    /// The file says that there is one; else a start found that it suits.
    fn is_asked_for(&self) -> bool {
        self.config.kernel.attach == Attach::Xdp
    }

    fn warn_of_less(&mut self, texts: Vec<String>) {
        let warnings = texts.into_iter().map(|text| Warning {
            code: WITH_LESS.into(),
            text,
            remedy: "live with it, or say attach = \"auto\"".into(),
        });
        self.replace_warnings(&[WITH_LESS], warnings);
    }

    /// Only where somebody asked for it.
    fn warn_of_fast(&mut self, why_not: Option<&str>) {
        let is_asked_for = self.is_asked_for();
        let warning = why_not.filter(|_| is_asked_for).map(|why| Warning {
            code: NOT_FAST.into(),
            text: format!("flows go the kernel's way: {why}"),
            remedy: "take that away, or say attach = \"auto\"".into(),
        });
        self.replace_warnings(&[NOT_FAST], warning.into_iter());
    }

    /// The wires of our interfaces, and why some have none. An earlier daemon's program there becomes ours, and leaves all
    /// others.
    async fn wires(&mut self) -> Result<(Vec<Wire>, Vec<String>)> {
        let indices: Vec<u32> = self.ports.iter().map(|p| p.ifindex).collect();
        let mut found = links::wires(&indices).await?;
        let (mut wires, mut without) = (Vec::new(), Vec::new());
        for port in &self.ports {
            match found.remove(&port.ifindex) {
                Some(Ok(wire)) => wires.push(wire),
                Some(Err(e)) => without.push(e),
                None => without.push(format!("{} has no Ethernet frames", port.name)),
            }
        }
        let all: Vec<Port> = wires.iter().map(|wire| wire.port).collect();
        self.loaded.detach_other_wires(&all)?;
        // An earlier daemon's would stand in our way.
        for port in &all {
            self.loaded.adopt_wire(port.device)?;
        }
        Ok((wires, without))
    }

    /// Has the program at every wire that can have it. What comes in or leaves elsewhere goes the kernel's way, and why is said.
    async fn ready_wires(&mut self, wires: Vec<Wire>, mut without: Vec<String>) -> Result<Option<String>> {
        let (mut ready, mut names) = (Vec::new(), BTreeMap::new());
        for wire in wires {
            names.insert(wire.port.device, wire.device.clone());
            match ready_wire(&mut self.loaded, wire) {
                Ok(port) => ready.push(port),
                Err(e) => without.push(format!("{e:#}")),
            }
        }
        self.loaded.detach_other_wires(&ready)?;
        // Only with the program do some say that they can. Where nobody tells, the file's word counts.
        let devices = ready.iter().map(|port| port.device);
        let unable = drivers::unable(devices).await.unwrap_or_default();
        ready.retain(|port| !unable.contains(&port.device));
        without.extend(unable.iter().filter_map(|device| {
            let name = names.get(device)?;
            Some(format!(
                "{name} does not send what programs have for it (a veth does while its other end runs one)"
            ))
        }));
        ensure!(!ready.is_empty(), "{}", without.join("; "));
        self.maps.fast.set_ports(&ready)?;
        Ok((!without.is_empty()).then(|| without.join("; ")))
    }

    fn switch_fast(&mut self, on: [bool; 2], why_not: Option<String>, look_again_s: u32) {
        (self.fast.on, self.fast.why_not) = (on, why_not);
        // The programs go by it only while somebody lives.
        self.heartbeat();
        if let Err(e) = self.maps.fast.switch(on, look_again_s) {
            // Looked at again as if it were off.
            self.fast.on = [false; 2];
            return tracing::error!("the fast path could not be switched: {e:#}");
        }
        let families: Vec<&str> = Family::ALL
            .into_iter()
            .filter(|f| on[*f as usize])
            .map(nexthop::name)
            .collect();
        match (&self.fast.why_not, families.is_empty()) {
            // A warning says so where somebody asked for it.
            (Some(_), true) if self.is_asked_for() => {}
            (Some(why), true) => tracing::info!("no fast path: {why}"),
            (None, true) if self.config.kernel.is_fast() => {
                tracing::info!("no fast path: the kernel does not forward");
            }
            (None, true) => tracing::info!("no fast path any more"),
            (_, false) => tracing::info!("known flows take the fast path ({})", families.join(", ")),
        }
    }

    /// Something was seen that makes void what was learned of some flows, or of all.
    pub(super) async fn heard_fast(&mut self, seen: Seen) {
        match seen {
            Seen::Change(bump) if bump.causes.is_empty() => self.lose_neighbours(bump.lost),
            Seen::Change(bump) => {
                tracing::debug!(of = ?bump.causes, "a change makes void what was learned of flows");
                self.advance_fast();
                if let Some(eyes) = self.fast.eyes.as_mut().filter(|_| bump.of_rules()) {
                    eyes.looker.rules_changed();
                }
                self.follow_fast().await;
            }
            Seen::Closed(Closed::Gone(gone)) if self.fast.gone.len() + gone.len() <= MANY => {
                self.forget_fast(&gone);
            }
            Seen::Closed(_) => {
                tracing::debug!(
                    "too many connections are gone to forget one by one: all flows are learned anew"
                );
                self.fast.gone = VecDeque::new();
                self.advance_fast();
            }
            Seen::LongGone => self.forget_once_more(),
            Seen::Blind => {
                self.fast.eyes = None;
                self.advance_fast();
                self.follow_fast().await;
            }
        }
    }

    /// Flows take the kernel's way again.
    pub(super) fn advance_fast(&mut self) {
        if let Err(e) = self.maps.fast.advance() {
            tracing::error!("what was learned of flows may be wrong now, and stays: {e:#}");
        }
    }

    /// Flows to these take the kernel's way again.
    fn lose_neighbours(&mut self, lost: BTreeSet<Neighbour>) {
        tracing::debug!(?lost, "flows to lost neighbours are learned anew");
        self.close_ways(&lost);
        let due = Instant::now() + ONCE_MORE;
        self.fast
            .gone
            .extend(lost.into_iter().map(|n| (due, Gone::Neighbour(n))));
    }

    fn close_ways(&mut self, lost: &BTreeSet<Neighbour>) {
        if let Err(e) = self.maps.fast.close(lost) {
            tracing::warn!("forgetting the ways to neighbours that are lost: {e:#}");
            self.advance_fast();
        }
    }

    fn forget_fast(&mut self, gone: &[Connection]) {
        self.forget_keys(gone.iter().map(|c| &c.original));
        let due = Instant::now() + ONCE_MORE;
        self.fast
            .gone
            .extend(gone.iter().map(|c| (due, Gone::Connection(*c))));
    }

    fn forget_once_more(&mut self) {
        let now = Instant::now();
        let due = self.fast.gone.partition_point(|(due, _)| *due <= now);
        let (mut connections, mut neighbours) = (Vec::new(), BTreeSet::new());
        for (_, gone) in self.fast.gone.drain(..due) {
            match gone {
                Gone::Connection(connection) => connections.push(connection),
                Gone::Neighbour(neighbour) => _ = neighbours.insert(neighbour),
            }
        }
        // Questions first, which may be known again: none may take the fast path whose answer does not.
        self.forget_keys(connections.iter().flat_map(|c| [&c.original, &c.reply]));
        if !neighbours.is_empty() {
            self.close_ways(&neighbours);
        }
    }

    fn forget_keys<'a>(&mut self, keys: impl Iterator<Item = &'a FlowKey>) {
        let translations = self.engine.uplinks().iter().filter_map(|u| u.translation);
        let translations: Vec<_> = translations.collect();
        let mut keys = keys.flat_map(|key| at_the_wire(*key, &translations));
        let seed = self.maps.config().map(|config| config.seed);
        let forgotten = seed.and_then(|seed| keys.try_for_each(|key| self.maps.fast.forget(seed, &key)));
        if let Err(e) = forgotten {
            tracing::warn!("forgetting the ways of connections that are gone: {e:#}");
            self.advance_fast();
        }
    }

    /// How packets are looked at, in the words of `status`.
    pub(super) fn attached(&self) -> String {
        if self.fast.is_on() {
            "xdp".into()
        } else {
            self.loaded.hook.to_string()
        }
    }
}
