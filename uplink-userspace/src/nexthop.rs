//! Next-hop mode: whether the programs may send known flows to the gateway past the kernel's forwarding.
//! Whatever would not see their packets any more stands in the way. Unsure means that it does.

pub mod look;
pub(crate) mod xfrm;

use std::fmt;

use serde_json::Value;
use uplink_common::Family;

use crate::config::{Config, Mode, NatMode};
use crate::status::Warning;

/// Code of the warning about a firewall that is passed by.
pub const PASSED_BY: &str = "firewall-passed-by";

/// Chains of these hooks see what is forwarded; of `egress`, the programs' packets, too.
const HOOKS: [&str; 4] = ["ingress", "prerouting", "forward", "postrouting"];

/// What forwarded packets pass in the kernel, and would not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is, for people.
    pub what: String,
    /// The families whose packets it sees.
    pub sees: [bool; 2],
}

/// What was found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What stands in the way; or why that is not known.
    pub obstacles: Result<Vec<Obstacle>, String>,
    /// By family, whether the kernel forwards at all.
    pub forwards: [bool; 2],
}

impl Default for Found {
    fn default() -> Self {
        Self {
            obstacles: Ok(Vec::new()),
            forwards: [false; 2],
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Whether the configuration leaves the question open, so that it is worth a look.
#[must_use]
pub const fn is_possible(config: &Config) -> bool {
    !matches!(config.kernel.mode, Mode::Mark)
        && !config.kernel.is_fast()
        && matches!(config.nat.mode, NatMode::Off)
}

/// By family, whether known flows go past the kernel's forwarding.
#[must_use]
pub fn decide(config: &Config, found: &Found) -> [bool; 2] {
    if !is_possible(config) {
        return [false; 2];
    }
    let free = |family: Family| match (&found.obstacles, config.kernel.mode) {
        (_, Mode::NextHop) => true,
        (Ok(obstacles), _) => obstacles.iter().all(|o| !o.sees[family as usize]),
        (Err(_), _) => false,
    };
    Family::ALL.map(|family| found.forwards[family as usize] && free(family))
}

/// Why known flows go the kernel's way, where they might not; for people.
#[must_use]
pub fn why_not(config: &Config, found: &Found) -> Option<String> {
    if !is_possible(config) {
        return None;
    }
    let seen: Vec<String> = match &found.obstacles {
        _ if config.kernel.mode == Mode::NextHop => Vec::new(),
        Ok(obstacles) => obstacles.iter().map(Obstacle::to_string).collect(),
        Err(why) => vec![format!("it is not known what the kernel does with them ({why})")],
    };
    let still = Family::ALL.into_iter().filter(|f| !found.forwards[*f as usize]);
    let still = still.map(|f| format!("the kernel does not forward {}", name(f)));
    let all: Vec<String> = seen.into_iter().chain(still).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What is passed by because the configuration says so.
#[must_use]
pub fn warning(config: &Config, found: &Found) -> Option<Warning> {
    if !is_possible(config) || config.kernel.mode != Mode::NextHop {
        return None;
    }
    let what = match &found.obstacles {
        Ok(obstacles) if obstacles.is_empty() => return None,
        Ok(obstacles) => obstacles
            .iter()
            .map(Obstacle::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        Err(why) => format!("whatever there is ({why})"),
    };
    Some(Warning {
        code: PASSED_BY.into(),
        text: format!("[kernel] mode = \"nexthop\" sends known flows past what else would see them: {what}"),
        remedy: "mode = \"auto\", which goes the kernel's way while it is there; or take it away".into(),
    })
}

/// Foreign base chains that see forwarded packets, in what `nft -j list chains` says.
///
/// # Errors
/// When that is no list of chains.
pub fn chains(listing: &Value) -> Result<Vec<Obstacle>, String> {
    let objects = listing["nftables"].as_array();
    let objects = objects.ok_or("nft lists no chains")?;
    let chains = objects.iter().filter_map(|o| o.get("chain"));
    Ok(chains.filter_map(chain).collect())
}

fn chain(chain: &Value) -> Option<Obstacle> {
    let word = |key: &str| chain[key].as_str().unwrap_or("?");
    let sees = match word("family") {
        "ip" => [true, false],
        "ip6" => [false, true],
        "inet" | "netdev" => [true; 2],
        _ => return None,
    };
    let ours = word("family") == "inet" && word("table") == "uplink";
    if ours || !HOOKS.contains(&word("hook")) {
        return None;
    }
    let [family, table, name] = ["family", "table", "name"].map(word);
    Some(Obstacle {
        what: format!("chain {name} of table {family} {table}"),
        sees,
    })
}

/// Tables of the old iptables, as the kernel lists them.
#[must_use]
pub fn legacy(family: Family, names: &str) -> Vec<Obstacle> {
    let program = match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    };
    let table = |name: &str| Obstacle {
        what: format!("table {name} of {program}"),
        sees: Family::ALL.map(|f| f == family),
    };
    names.split_whitespace().map(table).collect()
}

/// IPv4 or IPv6, for people.
#[must_use]
pub const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests;
