//! Which addresses behind us have the most flows. The programs do not count bytes by flow.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::flows::Flow;

/// Flows that are asked for: the newest. Enough to rank talkers, and a bounded answer.
pub(super) const SAMPLE: u32 = 1000;
/// A flow talks when a packet used it this recently, in seconds.
const ACTIVE_S: u32 = 60;

/// An address and its flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talker {
    /// The address; "this host" for its own sockets.
    pub address: String,
    /// Flows that a packet used within the last minute.
    pub flows: usize,
    /// The uplinks that they use, most used first.
    pub uplinks: Vec<String>,
}

/// Talkers, those with the most flows first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talkers {
    /// The ranking.
    pub list: Vec<Talker>,
    /// Flows that were looked at.
    pub seen: usize,
    /// Flows that there are.
    pub total: u64,
}

/// The answer to `org.uplink.Flows`.
#[derive(Deserialize)]
pub(super) struct Part {
    flows: Vec<Flow>,
    total: u64,
}

impl From<Part> for Talkers {
    fn from(part: Part) -> Self {
        let mut by_address: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for flow in part.flows.iter().filter(|f| f.idle_s <= ACTIVE_S) {
            let address = if flow.host { "this host" } else { &*flow.src };
            let uplinks = by_address.entry(address).or_default();
            *uplinks.entry(&flow.uplink).or_default() += 1;
        }
        let mut list: Vec<Talker> = by_address.into_iter().map(talker).collect();
        // Stable: equal ones stay in the order of their addresses, so that rows do not dance.
        list.sort_by_key(|t| std::cmp::Reverse(t.flows));
        Self {
            list,
            seen: part.flows.len(),
            total: part.total,
        }
    }
}

fn talker((address, uplinks): (&str, BTreeMap<&str, usize>)) -> Talker {
    let mut most: Vec<_> = uplinks.iter().collect();
    most.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    Talker {
        address: address.into(),
        flows: uplinks.values().sum(),
        uplinks: most.into_iter().map(|(name, _)| (*name).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_ranked_by_flows_in_use() {
        let flow = |src: &str, uplink: &str, idle: u32| {
            json!({ "src": src, "dst": "203.0.113.7", "sport": 1, "dport": 443, "proto": "tcp",
                    "uplink": uplink, "age_s": 9, "idle_s": idle, "host": src == "-" })
        };
        let part = json!({ "total": 77, "flows": [
            flow("10.0.0.1", "isp1", 1), flow("10.0.0.2", "isp1", 0), flow("10.0.0.2", "isp2", 60),
            flow("10.0.0.2", "isp2", 2), flow("-", "isp1", 3), flow("10.0.0.1", "isp1", 61),
        ]});
        let part: Part = serde_json::from_value(part).expect("a part");
        let talkers = Talkers::from(part);
        let shown: Vec<String> = talkers
            .list
            .iter()
            .map(|t| format!("{} {} {}", t.address, t.flows, t.uplinks.join(",")))
            .collect();
        assert_eq!(
            shown,
            ["10.0.0.2 3 isp2,isp1", "10.0.0.1 1 isp1", "this host 1 isp1"]
        );
        assert_eq!((talkers.seen, talkers.total), (6, 77));
    }
}
