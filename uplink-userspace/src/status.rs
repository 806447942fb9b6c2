//! What users and dashboards see. The names are a contract: never renamed within a version.

mod policies;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uplink_common::Family;

use crate::engine::{Engine, Path};
use crate::flows::Count;
use crate::health::Verdict;
use crate::resolve;

pub use policies::{Names, Policy, uses};
pub use table::{Look, render};

/// Version of the JSON form.
pub const VERSION: u32 = 1;

/// `uplink status --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The configuration file.
    pub config: String,
    /// When the daemon started, RFC 3339.
    pub since: String,
    /// Hook of the packet path.
    pub attach: String,
    /// Who sends the packets of known flows to the gateway: "mark", the kernel by their mark, or "nexthop",
    /// the programs, in one family at least.
    #[serde(default)]
    pub mode: String,
    /// In the order of the file.
    pub uplinks: Vec<Uplink>,
    /// In the order of the file.
    pub policies: Vec<Policy>,
    /// Where policies go by names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub names: Option<Names>,
    /// Packets by outcome of the packet path.
    pub packets: BTreeMap<String, u64>,
    /// Replies that no probe had waited for, by kind: forged, broken, or of a server that answers
    /// something else. They count as nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub refused: BTreeMap<String, u64>,
    /// What others changed and we put right, by kind, since the start.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub repairs: BTreeMap<String, Repair>,
    /// What needs attention.
    pub warnings: Vec<Warning>,
}

/// One uplink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Uplink {
    /// Name.
    pub name: String,
    /// Interface.
    pub interface: String,
    /// IPv4 next hop, or the IPv6 one where there is no other.
    pub gateway: String,
    /// Our address towards it.
    pub source: String,
    /// IPv6 next hop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gateway6: Option<String>,
    /// Our IPv6 address towards it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source6: Option<String>,
    /// State.
    pub state: State,
    /// Why, where it is not up.
    pub reason: String,
    /// Since when it answers, or does not, as it does now; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<String>,
    /// Tier.
    pub tier: u32,
    /// Configured weight.
    pub weight: u32,
    /// Part of new flows, 0 to 1; all of them sum to 1.
    pub share: f64,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Smoothed jitter.
    pub jitter_ms: Option<f64>,
    /// Lost probes among the last hundred, 0 to 1.
    pub loss: f64,
    /// Smoothed round-trip time of the users' own TCP connections.
    #[serde(default)]
    pub passive_rtt_ms: Option<f64>,
    /// Pinned flows. Those that ended stay until newer ones need the room.
    pub flows: u64,
    /// Pinned flows that a packet used within the last minute.
    #[serde(default)]
    pub active_flows: u64,
    /// Bytes that came back, at the link layer.
    pub rx_bytes: u64,
    /// Bytes that were steered to it, at the link layer.
    pub tx_bytes: u64,
    /// Bits per second towards us, over the last seconds.
    #[serde(default)]
    pub rx_bps: u64,
    /// Bits per second from us.
    #[serde(default)]
    pub tx_bps: u64,
    /// The highest rates seen, fading over weeks, where the configuration does not say what the
    /// uplink can carry: a suggestion for `down` and `up`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<Measured>,
    /// How much of its quota is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quota: Option<String>,
    /// Its mark.
    pub mark: String,
    /// Its routing table.
    pub table: u32,
}

/// What an uplink was seen to carry, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Such as "94mbit".
    pub down: String,
    /// Such as "11mbit".
    pub up: String,
}

/// The state of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Answers in every family.
    Up,
    /// Answers in one of its families only, or worse than `[health]` allows.
    Degraded,
    /// Does not answer.
    Down,
    /// Takes no new flows because somebody wants it so, whether it answers or not.
    Draining,
    /// The configuration says so, or its quota is used up and says so.
    Disabled,
    /// Not judged yet, used as if up.
    Unknown,
}

/// Repairs of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// How many.
    pub count: u64,
    /// When the last was made, RFC 3339.
    pub last: String,
    /// What it was.
    pub text: String,
}

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable name.
    pub code: String,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Unknown => "unknown",
        })
    }
}

impl Uplink {
    /// Fills in the flows, of which people wait for the last one while an uplink is drained.
    pub fn set_flows(&mut self, count: Count) {
        (self.flows, self.active_flows) = (count.flows, count.active);
        if self.state == State::Draining {
            let left = format!(
                "drained by hand, {} flows left, {} of them used within the last minute",
                count.flows, count.active
            );
            let also = self.reason.strip_prefix(DRAINED).unwrap_or("");
            self.reason = format!("{left}{also}");
        }
    }
}

const DRAINED: &str = "drained by hand";

/// State and reason of an uplink: what somebody wants, else the verdicts on its families.
fn state(engine: &Engine, u: &resolve::Uplink) -> (State, String) {
    let (health, mut reason) = health(engine, u);
    if let Some(why) = engine.out_of_use(u.id) {
        return (State::Disabled, why.to_string());
    }
    if !engine.is_drained(u.id) {
        return (health, reason);
    }
    if engine.is_recalled(u.id) {
        reason = "takes new flows all the same, since no other uplink answers".into();
    }
    let also = if reason.is_empty() { "" } else { "; " };
    (State::Draining, format!("{DRAINED}{also}{reason}"))
}

/// State and reason from the verdicts on its families alone.
#[must_use]
pub fn health(engine: &Engine, u: &resolve::Uplink) -> (State, String) {
    let families: Vec<Family> = Family::ALL.into_iter().filter(|f| u.leg(*f).is_some()).collect();
    let path = |family: &Family| Path {
        uplink: u.id,
        family: *family,
    };
    let is = |verdict| move |f: &&Family| engine.verdict(path(f)) == verdict;
    let dead: Vec<&Family> = families.iter().filter(is(Verdict::Down)).collect();
    let worse = || families.iter().find(is(Verdict::Degraded));
    if families.is_empty() {
        return (State::Down, "waits for an address and a route".into());
    }
    if dead.len() == families.len() {
        return (State::Down, engine.reason(path(dead[0])));
    }
    if let Some(family) = dead.first().copied().or_else(worse) {
        let name = if *family == Family::V4 { "IPv4" } else { "IPv6" };
        return (
            State::Degraded,
            format!("{name}: {}", engine.reason(path(family))),
        );
    }
    if families
        .iter()
        .all(|f| engine.verdict(path(f)) == Verdict::Unknown)
    {
        return (State::Unknown, "not judged yet".into());
    }
    let also = if engine.is_last_resort(u.id) {
        "last resort: its quota is used up"
    } else {
        ""
    };
    (State::Up, also.into())
}

/// Describes an uplink; counters and flows are filled in by the caller.
#[must_use]
pub fn uplink(engine: &Engine, u: &resolve::Uplink) -> Uplink {
    let (state, reason) = state(engine, u);
    let family = if u.v4.is_some() { Family::V4 } else { Family::V6 };
    let health = engine.health(Path { uplink: u.id, family });
    let address = |leg: Option<&resolve::Leg>, of: fn(&resolve::Leg) -> std::net::IpAddr| {
        leg.map(|l| of(l).to_string())
    };
    let main = u.leg(family);
    Uplink {
        name: u.name.clone(),
        interface: u.interface.clone(),
        gateway: address(main, |l| l.gateway).unwrap_or_default(),
        source: address(main, |l| l.source).unwrap_or_default(),
        gateway6: address(u.v6.as_ref(), |l| l.gateway),
        source6: address(u.v6.as_ref(), |l| l.source),
        state,
        reason,
        since: None,
        tier: u.tier,
        weight: u.weight,
        share: share(engine, u.id),
        rtt_ms: health.and_then(|h| h.rtt_ms()).map(rounded),
        jitter_ms: health.and_then(|h| h.jitter_ms()).map(rounded),
        loss: health.map_or(0.0, |h| h.loss()),
        passive_rtt_ms: None,
        flows: 0,
        active_flows: 0,
        rx_bytes: 0,
        tx_bytes: 0,
        rx_bps: 0,
        tx_bps: 0,
        measured: None,
        quota: None,
        mark: format!("{:#x}", u.mark),
        table: u.table,
    }
}

/// The part of new IPv4 flows; of IPv6 flows where nobody carries IPv4.
#[must_use]
pub fn share(engine: &Engine, id: u8) -> f64 {
    let selection = engine.selection();
    let serving = if selection.v4.0.is_empty() {
        &selection.v6
    } else {
        &selection.v4
    };
    serving.share(id)
}

/// To a microsecond.
pub(crate) fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
