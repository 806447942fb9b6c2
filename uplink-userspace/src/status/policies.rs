//! Policies and the names that they go by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Choice, Prefer};

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Name.
    pub name: String,
    /// Its line in the configuration.
    pub line: u32,
    /// Names of uplinks in the order of the file, with tiers and weights left out; or how one of all is chosen.
    #[serde(rename = "use")]
    pub uses: Vec<String>,
    /// Rather refuses than uses another uplink.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub strict: bool,
    /// Its schedule has it in force now.
    pub active: bool,
    /// Packets of forwarded flows that it placed.
    pub packets: u64,
    /// Flows that it placed or refused.
    pub flows: u64,
}

/// What is known of names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Names {
    /// Addresses whose names are known.
    pub addresses: usize,
    /// Part of new flows whose destination was seen being looked up, 0 to 1; `null` before the first. What asks by
    /// TLS or HTTPS is not seen.
    pub known_share: Option<f64>,
    /// What became of the DNS packets that were heard.
    pub packets: BTreeMap<String, u64>,
    /// Addresses that there was no room for.
    pub left_out: u64,
}

/// What a choice is called.
#[must_use]
pub fn uses(choice: &Choice, all: &[&str]) -> Vec<String> {
    let written = choice.tiers.iter().flatten().map(|(name, _)| name.clone());
    let names = match (choice.tiers.is_empty(), choice.prefer) {
        (true, Prefer::Balance) => all.iter().map(|name| (*name).to_owned()).collect(),
        (true, _) => Vec::new(),
        (false, _) => written.collect::<Vec<_>>(),
    };
    match choice.prefer {
        Prefer::Balance => names,
        Prefer::LowestLatency => [vec!["lowest-latency".to_owned()], names].concat(),
        Prefer::LowestLoss => [vec!["lowest-loss".to_owned()], names].concat(),
    }
}
