//! What of an nftables ruleset needs every packet or every byte of a flow, out of `nft -t -j list ruleset`.
//! Rules that only decide are fine: the first packets of a flow meet them, and so does one packet of it every few
//! seconds. What is not known here counts as an obstacle.
//!
//! Presumed of the programs: only TCP and UDP goes fast, only once a connection had an answer (`ct state new` is
//! over), no packet with SYN, FIN, RST or URG, no fragments, no IP options or extension headers.

mod expression;
mod reach;
mod statement;
mod unmet;
mod xt;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::nexthop::Obstacle;

/// What was found in a ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What needs every packet, or cannot be judged.
    pub obstacles: Vec<Obstacle>,
    /// What goes on with less: counters that miss packets, times of day that are noticed late.
    pub warnings: Vec<String>,
    /// How long connections live without a packet where rules say so, in seconds.
    pub timeouts_s: Vec<u32>,
}

/// What a statement, or a part of one, asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// Every packet.
    Obstacle(String),
    /// A count of all packets.
    Counter,
    /// A packet when something changed that nobody tells.
    Late(String),
}

impl Finding {
    fn obstacle(what: &str) -> Self {
        Self::Obstacle(what.to_owned())
    }

    fn unknown(what: &str) -> Self {
        Self::Obstacle(format!("`{what}`, which cannot be judged,"))
    }
}

/// A table that packets of these families meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Table {
    family: String,
    name: String,
}

impl Table {
    /// The table of an object, unless it is ours or sees nothing that is forwarded.
    fn of(object: &Value) -> Option<Self> {
        let word = |key: &str| object[key].as_str().unwrap_or("?").to_owned();
        let (family, name) = (word("family"), word("table"));
        let ours = family == "inet" && name == "uplink";
        let sees = matches!(family.as_str(), "ip" | "ip6" | "inet" | "netdev");
        (sees && !ours).then_some(Self { family, name })
    }

    fn sees(&self) -> [bool; 2] {
        match self.family.as_str() {
            "ip" => [true, false],
            "ip6" => [false, true],
            _ => [true; 2],
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {} {}", self.family, self.name)
    }
}

/// What stands in a listing of everybody's ruleset. Our own table is left out.
///
/// # Errors
/// When that is no listing.
pub fn judge(listing: &Value) -> Result<Judged, String> {
    let objects = listing["nftables"].as_array();
    let objects = objects.ok_or("nft lists no ruleset")?;
    let mut notes = Notes::default();
    for object in objects {
        if let Some((kind, object)) = object.as_object().and_then(|o| o.iter().next())
            && let Some(table) = Table::of(object)
        {
            notes.object(kind, object, &table);
        }
    }
    let reached = reach::reached(objects);
    for rule in objects.iter().filter_map(|o| o.get("rule")) {
        if let Some(table) = Table::of(rule) {
            let chain = rule["chain"].as_str().unwrap_or("?");
            let place = (table, chain.to_owned());
            let is_reached = reached.contains(&place);
            notes.rule(reach::statements(rule), &place, is_reached);
        }
    }
    Ok(notes.done())
}

/// What is found on the way.
#[derive(Default)]
struct Notes {
    obstacles: Vec<Obstacle>,
    late: BTreeSet<String>,
    counters: BTreeMap<Table, usize>,
    timeouts_s: Vec<u32>,
}

impl Notes {
    fn object(&mut self, kind: &str, object: &Value, table: &Table) {
        let name = object["name"].as_str().unwrap_or("?");
        match kind {
            "ct helper" => {
                let what = object["type"].as_str().unwrap_or("?");
                self.obstacle(
                    format!("connection tracking helper {name} ({what}) of {table}"),
                    table,
                );
            }
            "flowtable" => self.obstacle(format!("flowtable {name} of {table}"), table),
            "ct timeout" => self.timeouts(&object["policy"]),
            "set" | "map" => {
                let mut findings = Vec::new();
                let each = object["stmt"].as_array().into_iter().flatten();
                each.for_each(|s| statement::judge(s, &mut findings));
                if words(&object["flags"]).contains(&"timeout") {
                    findings.push(Finding::Late("elements with a timeout".into()));
                }
                findings
                    .into_iter()
                    .for_each(|f| self.take(f, &format!("{kind} {name}"), table));
            }
            _ => {}
        }
    }

    /// Of states in which a flow goes on.
    fn timeouts(&mut self, policy: &Value) {
        let states = ["established", "unreplied", "replied"];
        let seconds = states.iter().filter_map(|s| policy[s].as_u64());
        self.timeouts_s
            .extend(seconds.filter_map(|s| u32::try_from(s).ok()));
    }

    fn rule(&mut self, statements: &[Value], (table, chain): &(Table, String), is_reached: bool) {
        let mut findings = Vec::new();
        match is_reached {
            true => statements.iter().for_each(|s| statement::judge(s, &mut findings)),
            // What changes for others may be asked for by rules that forwarded packets meet.
            false => findings.extend(statements.iter().filter_map(statement::from_elsewhere)),
        }
        let place = format!("chain {chain}");
        findings.into_iter().for_each(|f| self.take(f, &place, table));
    }

    fn take(&mut self, finding: Finding, place: &str, table: &Table) {
        match finding {
            Finding::Obstacle(what) => self.obstacle(format!("{what} in {place} of {table}"), table),
            Finding::Counter => *self.counters.entry(table.clone()).or_default() += 1,
            Finding::Late(what) => {
                self.late.insert(format!(
                    "{what} in {place} of {table}: a running flow goes by it some seconds late"
                ));
            }
        }
    }

    /// Each is said once.
    fn obstacle(&mut self, what: String, table: &Table) {
        let sees = table.sees();
        let new = Obstacle { what, sees };
        if !self.obstacles.contains(&new) {
            self.obstacles.push(new);
        }
    }

    fn done(self) -> Judged {
        let counters = self
            .counters
            .iter()
            .map(|(table, n)| format!("counters of {table} ({n}) miss the packets of fast flows"));
        Judged {
            obstacles: self.obstacles,
            warnings: counters.chain(self.late).collect(),
            timeouts_s: self.timeouts_s,
        }
    }
}

/// A word, or a list of words.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().flat_map(words).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
