//! What the metrics address tells, and keeping it open.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uplink_common::Family;

use super::control::{Nothing, failed, read};
use super::{Daemon, Sources};
use crate::api::{self, Error, Reply};
use crate::engine::Path;
use crate::events::Kind;
use crate::flows::Counts;
use crate::health::Verdict;
use crate::history::Totals;
use crate::metrics::{self, Snapshot};
use crate::resolve::Uplink;
use crate::status::Warning;
use crate::{repairs, status, web};

const WARNING: &str = "metrics";

/// The metrics address as it is served.
pub(super) struct Served {
    requests: mpsc::Sender<api::Request>,
    address: Option<SocketAddr>,
    /// Ends with its set.
    task: JoinSet<()>,
}

impl Served {
    /// Nothing yet. Clients' questions go to `requests`.
    pub(super) fn new(requests: mpsc::Sender<api::Request>) -> Self {
        Self {
            requests,
            address: None,
            task: JoinSet::new(),
        }
    }

    /// Serves this address and no other.
    fn follow(&mut self, wanted: Option<SocketAddr>) -> Result<()> {
        if self.address == wanted {
            return Ok(());
        }
        // The old one may stand in the new one's way.
        (self.address, self.task) = (None, JoinSet::new());
        let Some(address) = wanted else { return Ok(()) };
        let listener = web::bind(address)?;
        self.task.spawn_local(web::serve(listener, self.requests.clone()));
        self.address = Some(address);
        tracing::info!("metrics and the status page are at http://{address}/");
        Ok(())
    }
}

impl Daemon {
    /// Opens, moves or closes the metrics address. Steering does not depend on it, so what fails is
    /// told and tried again.
    pub(super) fn follow_metrics(&mut self, served: &mut Served) {
        let wanted = self.config.metrics.as_ref().map(|m| m.listen.value);
        let failed = served.follow(wanted).err().map(|e| format!("{e:#}"));
        let before = self.warnings.iter().position(|w| w.code == WARNING);
        let before = before.map(|at| self.warnings.swap_remove(at).text);
        let Some(text) = failed else { return };
        if before.as_ref() != Some(&text) {
            tracing::warn!("no metrics and no status page: {text}");
        }
        self.warnings.push(Warning {
            code: WARNING.into(),
            text: format!("no metrics and no status page: {text}"),
            remedy: "choose another `listen` in [metrics], or wait: it is tried again all the time".into(),
        });
    }

    /// A point of the last hour, every ten seconds.
    pub(super) fn remember_history(&mut self) {
        let now = self.now();
        if !self.history.is_due(now) {
            return;
        }
        let uplinks = self.engine.uplinks().iter();
        let totals = uplinks.filter_map(|u| self.totals(u).ok()).collect();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.history.observe(now, time.as_secs(), totals);
        self.tally.keep(self.engine.uplinks().iter().map(|u| &*u.name));
    }

    fn totals(&self, u: &Uplink) -> Result<Totals> {
        let carried = self.maps.carried(u.id)?;
        let both = Family::ALL.map(|family| self.tally.probes(&u.name, family));
        let sum = |of: fn(&crate::tally::Probes) -> u64| both.iter().map(of).sum();
        Ok(Totals {
            name: u.name.clone(),
            share: status::uplink(&self.engine, u).share,
            rx_bytes: carried.received.bytes,
            tx_bytes: carried.sent.bytes,
            sent: sum(|p| p.sent()),
            lost: sum(|p| p.lost),
            answered: sum(|p| p.answered),
            rtt_us: sum(|p| p.rtt_us),
        })
    }

    pub(super) fn answer_history(&self, parameters: Value, reply: Reply) {
        if let Err(e) = read::<Nothing>(parameters) {
            return reply.finish(Err(e));
        }
        let history = self.history.clone();
        beside(reply, move || Ok(serde_json::to_value(history.view())?));
    }

    pub(super) fn answer_metrics(&self, parameters: Value, from: &Sources, reply: Reply) {
        let asked = read::<Nothing>(parameters).and_then(|Nothing {}| {
            Ok((
                self.snapshot_metrics().map_err(failed)?,
                self.pins().map_err(failed)?,
            ))
        });
        let (mut snapshot, pins) = match asked {
            Ok(asked) => asked,
            Err(e) => return reply.finish(Err(e)),
        };
        snapshot.refused = from.probers.refused().into_iter().collect();
        let ids: Vec<u8> = self.engine.uplinks().iter().map(|u| u.id).collect();
        let census = self.census.clone();
        tokio::task::spawn_local(async move {
            match census.counts(pins).await {
                Ok(counts) => beside(reply, move || {
                    fill_in(&mut snapshot, &ids, &counts);
                    Ok(json!({ "text": snapshot.text() }))
                }),
                Err(e) => reply.finish(Err(Error::of(&e))),
            }
        });
    }

    fn snapshot_metrics(&self) -> Result<Snapshot> {
        let mut warnings = std::collections::BTreeMap::new();
        for warning in self.warnings() {
            *warnings.entry(warning.code).or_default() += 1;
        }
        let repairs = self.repairs.to_status();
        let count = |kind: repairs::Kind| repairs.get(kind.name()).map_or(0, |r| r.count);
        let uplinks = self.engine.uplinks().iter().map(|u| self.metrics_of(u));
        let policies = self.describe_policies()?.into_iter();
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Snapshot {
            attach: self.loaded.hook.to_string(),
            started_s: since.as_secs_f64(),
            flow_table: [0, self.config.kernel.flows.into()],
            uplinks: uplinks.collect::<Result<_>>()?,
            policies: policies.map(|p| (p.name, p.packets, p.flows)).collect(),
            packets: (self.maps.counters()?.into_iter())
                .map(|(r, n)| (r.name(), n))
                .collect(),
            repairs: repairs::Kind::ALL.map(|k| (k.name(), count(k))).into(),
            refused: Vec::new(),
            warnings,
            hook_failures: self.hooks.failures(),
        })
    }

    /// The flows are filled in later.
    fn metrics_of(&self, u: &Uplink) -> Result<metrics::Uplink> {
        let carried = self.maps.carried(u.id)?;
        let families = Family::ALL.into_iter().filter(|f| u.leg(*f).is_some());
        let paths = families.map(|family| self.metrics_of_path(u, family));
        Ok(metrics::Uplink {
            name: u.name.clone(),
            state: status::uplink(&self.engine, u).state,
            tier: u.tier,
            weight: u.weight,
            received: [carried.received.bytes, carried.received.packets],
            sent: [carried.sent.bytes, carried.sent.packets],
            flows: [0; 2],
            failovers: self.tally.about(&u.name, Kind::Failover),
            state_changes: self.tally.about(&u.name, Kind::State),
            quota: self.quota_of(u),
            paths: paths.collect::<Result<_>>()?,
        })
    }

    fn metrics_of_path(&self, u: &Uplink, family: Family) -> Result<metrics::Path> {
        let path = Path { uplink: u.id, family };
        Ok(metrics::Path {
            family: match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            },
            up: self.engine.verdict(path) != Verdict::Down,
            share: self.engine.selection().family(family).share(u.id),
            loss: self.engine.health(path).map_or(0.0, |h| h.loss()),
            probes: self.tally.probes(&u.name, family),
            passive: self.maps.passive(path)?,
        })
    }

    /// Used and allowed bytes.
    fn quota_of(&self, u: &Uplink) -> Option<[u64; 2]> {
        let mut configured = self.config.uplinks.iter();
        let quota = configured.find(|c| c.name.value == u.name)?.quota?;
        Some([self.measured.quota_used(&u.name).unwrap_or(0), quota.bytes])
    }
}

fn fill_in(snapshot: &mut Snapshot, ids: &[u8], counts: &Counts) {
    snapshot.flow_table[0] = counts.entries();
    for (u, id) in snapshot.uplinks.iter_mut().zip(ids) {
        let count = counts.of(*id);
        u.flows = [count.flows, count.active];
    }
}

/// Answers from a thread that does not steer.
fn beside(reply: Reply, make: impl FnOnce() -> Result<Value> + Send + 'static) {
    tokio::task::spawn_blocking(move || reply.finish(make().map_err(|e| Error::of(&e))));
}
