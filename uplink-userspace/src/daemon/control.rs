//! Answers to what people ask and order over the control socket.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Daemon, Sources};
use crate::api::{self, Error, Reply};
use crate::config;
use crate::engine::{Event, Path};
use crate::events::{self, News};
use crate::flows::{self, Counts, Newest, Uplinks};
use crate::health::Verdict;
use crate::resolve::Uplink;
use crate::state::State;
use crate::status::{self, Status, Warning};
use crate::{flow_map, maps};

/// Flows in one message where the client takes several.
const FLOWS_IN_A_PART: usize = 1000;
/// Flows in an answer of one message.
const FLOWS_AT_ONCE: usize = 10_000;
/// Flows in any answer.
const FLOWS_MOST: usize = 1_000_000;
/// Listings of flows at one time: each may hold a copy of the whole table.
static LISTINGS: Semaphore = Semaphore::const_new(1);

/// Parameters of `Drain` and `Enable`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

/// Parameters of `Flows`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    uplink: Option<String>,
    policy: Option<String>,
    address: Option<String>,
    limit: Option<usize>,
}

/// Parameters of a method that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl Daemon {
    pub(super) async fn answer(&mut self, request: api::Request, from: &mut Sources) {
        let api::Request {
            method,
            parameters,
            more,
            reply,
        } = request;
        match &*method {
            api::STATUS => self.answer_status(parameters, from, reply),
            api::FLOWS => self.answer_flows(parameters, more, reply),
            api::METRICS => self.answer_metrics(parameters, from, reply),
            api::HISTORY => self.answer_history(parameters, reply),
            api::EVENTS => self.answer_events(parameters, more, reply),
            api::PLAN => match read::<Nothing>(parameters) {
                Ok(Nothing {}) => self.answer_plan(reply).await,
                Err(e) => reply.finish(Err(e)),
            },
            api::EXPLAIN => self.answer_explain(parameters, reply),
            api::DRAIN => reply.finish(self.drain(parameters).await),
            api::ENABLE => reply.finish(self.enable(parameters).await),
            api::RELOAD => reply.finish(self.answer_reload(parameters, from).await),
            _ => reply.finish(Err(Error::method_not_found(&method))),
        }
    }

    fn answer_status(&self, parameters: Value, from: &Sources, reply: Reply) {
        let status = read::<Nothing>(parameters)
            .and_then(|Nothing {}| Ok((self.status().map_err(failed)?, self.pins().map_err(failed)?)));
        let (mut status, uplinks) = match status {
            Ok(status) => status,
            Err(e) => return reply.finish(Err(e)),
        };
        let refused = from.probers.refused().into_iter();
        status.refused = refused.map(|(kind, n)| (kind.to_owned(), n)).collect();
        let ids: Vec<u8> = self.engine.uplinks().iter().map(|u| u.id).collect();
        let census = self.census.clone();
        tokio::task::spawn_local(async move {
            let counts = census.counts(uplinks).await;
            let status = counts.and_then(|counts| with_flows(status, &ids, &counts));
            reply.finish(status.map_err(|e| Error::of(&e)));
        });
    }

    fn answer_flows(&self, parameters: Value, more: bool, reply: Reply) {
        let asked = read::<Wanted>(parameters).and_then(|wanted| {
            let uplinks = self.pins().map_err(failed)?;
            let most = if more { FLOWS_MOST } else { FLOWS_AT_ONCE };
            let limit = wanted.limit.unwrap_or(most).min(most);
            let wanted = self.wanted(&wanted, &uplinks)?;
            Ok((uplinks, Newest::new(limit, wanted)))
        });
        let (uplinks, newest) = match asked {
            Ok(asked) => asked,
            Err(e) => return reply.finish(Err(e)),
        };
        let pin = self.options.bpffs.join(maps::FLOWS);
        tokio::task::spawn_local(async move {
            let Ok(_turn) = LISTINGS.acquire().await else {
                return;
            };
            let listing = tokio::task::spawn_blocking(move || list(&uplinks, newest, &pin, more, reply));
            let _ = listing.await;
        });
    }

    fn wanted(&self, asked: &Wanted, known: &Uplinks) -> Result<flows::Wanted, Error> {
        let uplink = asked.uplink.as_deref().map(|name| self.named(name)).transpose()?;
        let policy = asked.policy.as_deref().map(|name| numbered(name, known));
        let wrong = |text| Error::new(api::INVALID_PARAMETER, text);
        let address = asked.address.as_deref().map(flows::addresses);
        Ok(flows::Wanted {
            uplink: uplink.map(|u| u32::from(u.id)),
            policy: policy.transpose()?,
            address: address.transpose().map_err(wrong)?,
        })
    }

    async fn drain(&mut self, parameters: Value) -> Result<Value, Error> {
        let name = read::<Named>(parameters)?.name;
        let id = self.named(&name)?.id;
        if self.engine.is_drained(id) {
            return Ok(json!({ "changed": false, "text": format!("{name} is drained already") }));
        }
        let refused = |refusal| Error::new(api::REFUSED, refusal);
        self.engine.may_drain(id).map_err(refused)?;
        let mut drained = self.engine.drained();
        drained.push(name.clone());
        let forgotten = || format!("{name} is not drained, since a restart would forget it");
        self.remember_drained(drained)
            .with_context(forgotten)
            .map_err(failed)?;
        self.handle(Event::Drain(id)).await;
        let text = match self.engine.is_recalled(id) {
            true => format!("{name} is drained, but takes new flows until another uplink answers"),
            false => format!(
                "{name} takes no new flows; those it has finish there (`uplink status` shows how many are left)"
            ),
        };
        Ok(self.done(&name, text))
    }

    async fn enable(&mut self, parameters: Value) -> Result<Value, Error> {
        let name = read::<Named>(parameters)?.name;
        let id = self.named(&name)?.id;
        if !self.engine.is_drained(id) {
            return Ok(json!({ "changed": false, "text": format!("{name} was not drained") }));
        }
        let mut drained = self.engine.drained();
        drained.retain(|n| *n != name);
        let forgotten = || format!("{name} stays drained, since a restart would drain it again");
        self.remember_drained(drained)
            .with_context(forgotten)
            .map_err(failed)?;
        self.handle(Event::Enable(id)).await;
        let text = format!("{name} {}", self.outlook(id));
        Ok(self.done(&name, text))
    }

    /// Whoever gave the order hears when the kernel does not follow yet.
    fn done(&mut self, name: &str, mut text: String) -> Value {
        if !self.pending.is_empty() {
            text += ", once the kernel takes the new table (`uplink status` says why it does not)";
        }
        tracing::info!("by hand: {text}");
        self.tell(News::of(events::Kind::Order, &*text).about(name));
        json!({ "changed": true, "text": text })
    }

    /// What an uplink that is wanted does now, or waits for.
    fn outlook(&self, id: u8) -> &'static str {
        let paths = uplink_common::Family::ALL.map(|family| Path { uplink: id, family });
        if paths.iter().any(|p| self.engine.serves(*p)) {
            return "takes new flows again";
        }
        match paths.iter().any(|p| self.engine.verdict(*p) == Verdict::Down) {
            true => "is enabled, and takes new flows as soon as it answers",
            false => "is enabled, and stands by for a better tier",
        }
    }

    /// On disk first: what people were told must survive the daemon.
    fn remember_drained(&self, drained: Vec<String>) -> Result<()> {
        let dir = &self.options.runtime_dir;
        let mut state =
            State::read(dir)?.context("the daemon's state file is gone: reload to write it anew")?;
        state.drained = drained;
        state.write(dir)
    }

    async fn answer_reload(&mut self, parameters: Value, from: &mut Sources) -> Result<Value, Error> {
        let Nothing {} = read(parameters)?;
        let changes = self.reload_now(from).await.map_err(|e| Error::of(&e))?;
        serde_json::to_value(changes).map_err(|e| failed(e.into()))
    }

    fn named(&self, name: &str) -> Result<&Uplink, Error> {
        let uplinks = self.engine.uplinks();
        uplinks.iter().find(|u| u.name == name).ok_or_else(|| {
            let names: Vec<&str> = uplinks.iter().map(|u| &*u.name).collect();
            let there_are = format!("there are: {}", names.join(", "));
            let help = config::suggest(name, names.iter().copied(), &there_are);
            let message = format!("there is no uplink {}: {help}", config::shown(name));
            Error::new(api::NO_SUCH_UPLINK, message)
        })
    }

    /// Counts the flows when it is time, beside the loop.
    pub(super) fn count_flows(&self) {
        if !self.census.is_due(std::time::Instant::now()) {
            return;
        }
        match self.pins() {
            Ok(uplinks) => {
                let census = self.census.clone();
                tokio::task::spawn_local(async move {
                    if let Err(e) = census.count(uplinks).await {
                        tracing::debug!("counting flows: {e:#}");
                    }
                });
            }
            Err(e) => tracing::debug!("counting flows: {e:#}"),
        }
    }

    /// What tells valid pins from void ones.
    pub(super) fn pins(&self) -> Result<Uplinks> {
        let mut uplinks = Uplinks::default();
        for (id, record) in self.maps.uplinks()? {
            uplinks.insert(id, maps::name(&record), record.generation);
        }
        let live = self.maps.config()?.policy_bank;
        for (name, number) in self.maps.policies.numbers(live)? {
            uplinks.insert_policy(number, name);
        }
        Ok(uplinks)
    }

    pub(super) fn announce_recall(&self, path: Path) {
        if let Some(u) = self.engine.uplinks().iter().find(|u| u.id == path.uplink) {
            tracing::warn!(
                "{} was drained by hand and takes new flows all the same: no other uplink answers",
                u.name
            );
        }
    }

    fn status(&self) -> Result<Status> {
        let mut uplinks = Vec::new();
        for u in self.engine.uplinks() {
            let carried = self.maps.carried(u.id)?;
            let mut described = status::Uplink {
                rx_bytes: carried.received.bytes,
                tx_bytes: carried.sent.bytes,
                passive_rtt_ms: self.passive_rtt_ms(u),
                since: self.state_since(&u.name),
                ..status::uplink(&self.engine, u)
            };
            let mut configured = self.config.uplinks.iter();
            let configured = configured.find(|c| c.name.value == u.name).map(|c| c.capacity);
            let sized = configured.is_some_and(|c| c.down.is_some() && c.up.is_some());
            self.measured.describe(u, sized, &mut described);
            uplinks.push(described);
        }
        let counters = self.maps.counters()?;
        Ok(Status {
            version: status::VERSION,
            config: self.config.file.path.display().to_string(),
            since: humantime::format_rfc3339_seconds(self.since).to_string(),
            attach: self.attached(),
            mode: self.mode().to_owned(),
            uplinks,
            policies: self.describe_policies()?,
            names: self.describe_names(&counters),
            packets: counters
                .into_iter()
                .map(|(r, n)| (r.name().to_owned(), n))
                .collect(),
            refused: std::collections::BTreeMap::new(),
            repairs: self.repairs.to_status(),
            warnings: self.warnings(),
        })
    }

    /// Of the first family that has any.
    fn passive_rtt_ms(&self, u: &Uplink) -> Option<f64> {
        let paths = uplink_common::Family::ALL.map(|family| Path { uplink: u.id, family });
        let of = |p: &Path| self.measured.watch.rtt_ms(*p);
        paths.iter().find_map(of).map(status::rounded)
    }

    /// Standing conditions that need attention now.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.warnings.clone();
        // Who is out of use by the file or by its quota helps nobody.
        let alive = |u: &Uplink| {
            let state = status::health(&self.engine, u).0;
            state != status::State::Down && self.engine.out_of_use(u.id).is_none()
        };
        if !self.engine.uplinks().iter().any(alive) {
            warnings.push(Warning {
                code: "all-down".into(),
                text: "no uplink answers; traffic keeps using the last good table".into(),
                remedy: "check the links and the probe targets".into(),
            });
        }
        warnings.extend_from_slice(self.policies.warnings());
        warnings.extend(self.shared_names());
        warnings.extend(self.hooks.warning());
        for target in self.engine.dead_targets() {
            warnings.push(Warning {
                code: "dead-target".into(),
                text: format!("the probe target {target} answers through no uplink, so it is left out"),
                remedy: "replace it in `targets`; others still judge the uplinks".into(),
            });
        }
        let recalled = |u: &&Uplink| self.engine.is_recalled(u.id);
        for u in self.engine.uplinks().iter().filter(recalled) {
            warnings.push(Warning {
                code: "drained-in-use".into(),
                text: format!(
                    "{} is drained, but no other uplink answers, so it takes new flows",
                    u.name
                ),
                remedy: "bring another uplink back before you unplug this one".into(),
            });
        }
        warnings
    }
}

/// The number of a policy.
fn numbered(name: &str, known: &Uplinks) -> Result<u32, Error> {
    known.policy(name).ok_or_else(|| {
        let names: Vec<&str> = known.policies().collect();
        let there_are = match names.is_empty() {
            true => "the configuration has none".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        let help = config::suggest(name, names.iter().copied(), &there_are);
        let message = format!("there is no policy {}: {help}", config::shown(name));
        Error::new(api::NO_SUCH_POLICY, message)
    })
}

pub(super) fn failed(error: anyhow::Error) -> Error {
    Error::of(&error)
}

pub(super) fn read<T: DeserializeOwned>(parameters: Value) -> Result<T, Error> {
    serde_json::from_value(parameters).map_err(|e| Error::new(api::INVALID_PARAMETER, e))
}

fn with_flows(mut status: Status, ids: &[u8], counts: &Counts) -> Result<Value> {
    for (u, id) in status.uplinks.iter_mut().zip(ids) {
        u.set_flows(counts.of(*id));
    }
    Ok(serde_json::to_value(status)?)
}

/// Answers with the newest flows, in as many messages as it takes.
fn list(uplinks: &Uplinks, mut newest: Newest, pin: &std::path::Path, more: bool, reply: Reply) {
    let now_s = flow_map::now_s();
    if let Err(e) = flow_map::read(pin, |key, pin| newest.add(uplinks, key, pin)) {
        return reply.finish(Err(Error::of(&e)));
    }
    let total = newest.total();
    let pins = newest.finish();
    let size = if more { FLOWS_IN_A_PART } else { FLOWS_AT_ONCE };
    let parts = pins.len().div_ceil(size).max(1);
    let mut chunks = pins.chunks(size);
    for part in 1..=parts {
        let chunk = chunks.next().unwrap_or_default().iter();
        let flows: Vec<_> = chunk
            .filter_map(|(key, pin)| flows::flow(uplinks, key, pin, now_s))
            .collect();
        if !reply.part(json!({ "flows": flows, "total": total }), part < parts) {
            return;
        }
    }
}
