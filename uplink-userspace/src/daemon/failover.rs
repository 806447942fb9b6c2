//! The engine's commands, carried out: the new table first, then what has to leave the old one.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::time::Instant;
use uplink_common::Family;

use super::Daemon;
use super::repair::Cause;
use crate::config::{OnFailback, OnFailover};
use crate::engine::{Change, Command, Event, Path, Selection};
use crate::events::{self, News};
use crate::health::Verdict;
use crate::resolve::Uplink;
use crate::{conntrack, desired, nat, reset};

/// Flows that may stay on a path that is no longer preferred, until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retiring {
    pub(super) path: Path,
    until: Instant,
}

impl Daemon {
    pub(super) async fn handle(&mut self, event: Event) {
        if let Event::Answered { path, .. } = event {
            self.gateways.answered(path);
        }
        if let Event::Answered { path, .. } | Event::Lost { path, .. } = event
            && let Some(u) = self.engine.uplinks().iter().find(|u| u.id == path.uplink)
        {
            self.tally.observe(&u.name, &event);
        }
        let commands = self.engine.handle(self.now(), event);
        self.carry_out(commands).await;
    }

    /// In order. When a table cannot be published nothing that relies on it is done; all of it is
    /// tried again by [`Self::retry`].
    pub(super) async fn carry_out(&mut self, commands: Vec<Command>) {
        self.pending.extend(commands);
        self.retry().await;
    }

    pub(super) async fn retry(&mut self) {
        while let Some(command) = self.pending.pop_front() {
            if let Command::Publish(selection) = &command {
                let failed = self.publish(selection).await.err();
                let failed = failed.map(|e| format!("the new table is not live: {e:#}"));
                self.report("not-published", failed.clone());
                if failed.is_some() {
                    self.pending.push_front(command);
                    return;
                }
            }
            match command {
                Command::Publish(_) => {}
                Command::Abandon(path) => {
                    self.tell_failover(path);
                    let reset = self.config.nat.on_failover == OnFailover::Reset;
                    self.forget(path, reset).await;
                }
                Command::Retire(path) => self.retire(path).await,
                Command::Recall(path) => self.announce_recall(path),
                Command::Announce(change) => self.announce(&change),
            }
        }
    }

    /// Maps first: they decide about every packet that our program sees.
    async fn publish(&mut self, selection: &Selection) -> Result<()> {
        self.maps
            .publish(self.engine.uplinks(), selection, &self.settings)?;
        self.repair(Cause::Ours).await;
        Ok(())
    }

    /// Forgets the connections of a path, so that their next packets choose anew. Also without
    /// NAT: a connection's mark has the last word. With many connections a reset takes seconds, so
    /// it goes on beside the loop.
    async fn forget(&mut self, path: Path, reset: bool) {
        let Some(u) = self.uplink(path.uplink) else {
            return;
        };
        let mask = self.config.kernel.fwmark_mask.bits();
        let dead = Dead {
            name: u.name.clone(),
            mark: u.mark,
            mask,
            family: path.family,
        };
        let strict = desired::refuses(&self.config);
        match nat::reset_mark(mask, self.engine.uplinks(), strict).filter(|_| reset) {
            None => dead.forget().await,
            Some(mark) => drop(tokio::task::spawn_local(async move { dead.reset(mark).await })),
        }
    }

    fn tell_failover(&mut self, path: Path) {
        if let Some(name) = self.uplink(path.uplink).map(|u| u.name.clone()) {
            let family = family_name(path.family);
            let text = format!("{name} is dead ({family}): its flows start anew elsewhere");
            self.tell(News::of(events::Kind::Failover, text).about(&name));
        }
    }

    async fn retire(&mut self, path: Path) {
        match self.config.nat.on_failback {
            OnFailback::Pin => {}
            OnFailback::Reset => self.move_away(path).await,
            OnFailback::Drain => {
                let until = Instant::now() + self.config.nat.drain_time;
                self.retiring.retain(|r| r.path != path);
                self.retiring.push(Retiring { path, until });
            }
        }
    }

    /// Moves the flows whose time on a path that is no longer preferred is over.
    pub(super) async fn retire_due(&mut self) {
        let now = Instant::now();
        let due: Vec<Path> = self
            .retiring
            .iter()
            .filter(|r| r.until <= now)
            .map(|r| r.path)
            .collect();
        self.retiring.retain(|r| r.until > now);
        for path in due {
            self.move_away(path).await;
        }
    }

    async fn move_away(&mut self, path: Path) {
        let nat = &self.config.nat;
        let reset = nat.on_failback == OnFailback::Reset || nat.on_failover == OnFailover::Reset;
        for command in self.engine.void(path) {
            match command {
                Command::Publish(selection) => {
                    if let Err(e) = self.publish(&selection).await {
                        tracing::error!("flows stay where they are: {e:#}");
                        return;
                    }
                }
                _ => Box::pin(self.forget(path, reset)).await,
            }
        }
    }

    fn announce(&mut self, change: &Change) {
        self.measured.watch.excuse(change.path);
        let Some(u) = self.uplink(change.path.uplink) else {
            return;
        };
        let (name, family) = (&u.name, family_name(change.path.family));
        match change.to {
            Verdict::Up => tracing::info!("{name} is up ({family})"),
            Verdict::Unknown => {}
            Verdict::Degraded => tracing::warn!(
                "{name} is degraded ({family}): {}",
                self.engine.reason(change.path)
            ),
            Verdict::Down if change.kept => tracing::error!(
                "{name} is down ({family}), but nobody else answers either: the last good table stays"
            ),
            Verdict::Down => tracing::warn!("{name} is down ({family}): new flows avoid it"),
        }
    }

    /// Time since the start, as the engine counts.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn uplink(&self, id: u8) -> Option<&Uplink> {
        self.engine.uplinks().iter().find(|u| u.id == id)
    }

    pub(super) fn note(&mut self, kind: crate::repairs::Kind, text: &str) {
        tracing::warn!("repaired {}: {text}", kind.name());
        self.repairs.note(kind, SystemTime::now(), text);
        self.tell(News::of(events::Kind::Repair, format!("{}: {text}", kind.name())));
    }
}

/// What connections have in common that have to go.
struct Dead {
    name: String,
    mark: u32,
    mask: u32,
    family: Family,
}

impl Dead {
    async fn forget(&self) {
        let name = &self.name;
        match conntrack::delete_by_mark(self.mark, self.mask, self.family).await {
            Ok(n) => tracing::info!("{name}: {n} connections start anew elsewhere"),
            Err(e) => tracing::error!("{name}: its connections could not be forgotten: {e:#}"),
        }
    }

    /// A connection that cannot be reset still has to start anew.
    async fn reset(&self, reset_mark: u32) {
        let prepared = self.prepare().await;
        self.forget().await;
        let done = match prepared {
            Ok(connections) => reset::provoke(&connections, reset_mark).await,
            Err(e) => Err(e),
        };
        match done {
            Ok(sent) => tracing::info!("{}: TCP connections get resets ({sent} probes)", self.name),
            Err(e) => tracing::warn!("{}: TCP connections get no resets: {e:#}", self.name),
        }
    }

    async fn prepare(&self) -> Result<Vec<conntrack::Connection>> {
        let connections = conntrack::tcp_by_mark(self.mark, self.mask, self.family).await?;
        reset::prepare(&connections).await?;
        Ok(connections)
    }
}

pub(super) const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
