//! What Prometheus scrapes: a look at everything that is counted, as OpenMetrics text. Base
//! units, no label by address. Rates and averages are left to whoever reads it.

mod encode;

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;

use crate::status::State;
use crate::tally::Probes;
use uplink_common::record::Passive;

/// The form of the text, as HTTP names it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Hook of the packet path.
    pub attach: String,
    /// When the daemon started, Unix time in seconds.
    pub started_s: f64,
    /// Entries and room of the flow table.
    pub flow_table: [u64; 2],
    /// In the order of the file.
    pub uplinks: Vec<Uplink>,
    /// In the order of the file: name, packets, flows.
    pub policies: Vec<(String, u64, u64)>,
    /// Packets by outcome of the packet path.
    pub packets: Vec<(&'static str, u64)>,
    /// Repairs by kind.
    pub repairs: Vec<(&'static str, u64)>,
    /// Replies that no probe had waited for, by kind.
    pub refused: Vec<(&'static str, u64)>,
    /// Standing warnings by code.
    pub warnings: BTreeMap<String, u64>,
    /// Hooks that failed or took too long.
    pub hook_failures: u64,
}

/// One uplink.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Name.
    pub name: String,
    /// State.
    pub state: State,
    /// Tier.
    pub tier: u32,
    /// Configured weight.
    pub weight: u32,
    /// Bytes and packets towards us.
    pub received: [u64; 2],
    /// Bytes and packets from us.
    pub sent: [u64; 2],
    /// Pinned flows, and those of them that a packet used within the last minute.
    pub flows: [u64; 2],
    /// Times that its flows had to start anew elsewhere.
    pub failovers: u64,
    /// Changes of its state.
    pub state_changes: u64,
    /// Bytes used of its quota, and the quota.
    pub quota: Option<[u64; 2]>,
    /// Its families.
    pub paths: Vec<Path>,
}

/// One family of one uplink.
#[derive(Clone, Debug)]
pub struct Path {
    /// "ipv4" or "ipv6".
    pub family: &'static str,
    /// Whether it is believed to carry anything.
    pub up: bool,
    /// Part of new flows, 0 to 1.
    pub share: f64,
    /// Lost probes among the last hundred, 0 to 1.
    pub loss: f64,
    /// What became of its probes.
    pub probes: Probes,
    /// What the users' packets told of it.
    pub passive: Passive,
}

impl Snapshot {
    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests;
