//! The table, and JSON.

use std::fmt::Write as _;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::contestants::{Case, Contestant};
use crate::machine;
use crate::wire::Sample;

/// Whom the others are compared with.
const YARDSTICK: &str = "plain";

/// A contestant in one case: nanoseconds a packet, by number of flows and round.
pub struct Row {
    pub name: &'static str,
    pub about: &'static str,
    pub case: Case,
    pub ns: Vec<Vec<f64>>,
}

/// Anything else that was measured.
#[derive(Clone)]
pub struct Fact {
    of: String,
    what: String,
    value: f64,
    unit: &'static str,
}

impl Fact {
    pub fn new(of: &str, what: &str, value: f64, unit: &'static str) -> Self {
        Self {
            of: of.to_owned(),
            what: what.to_owned(),
            value,
            unit,
        }
    }
}

pub struct Report {
    flows: Vec<u32>,
    machine: Value,
    rows: Vec<Row>,
    facts: Vec<Fact>,
}

impl Report {
    pub fn new(flows: &[u32]) -> Self {
        Self {
            flows: flows.to_vec(),
            machine: machine::describe(),
            rows: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// What is no sample of a contestant.
    pub fn tell(&mut self, facts: Vec<Fact>) {
        self.facts.extend(facts);
    }

    /// Where it was measured.
    pub fn machine(&self) -> String {
        machine::line(&self.machine)
    }

    /// A round's samples, one for each number of flows.
    pub fn add(&mut self, contestant: &Contestant, case: Case, samples: &[Sample]) {
        let same = |row: &Row| row.name == contestant.name && row.case == case;
        let at = self.rows.iter().position(same).unwrap_or_else(|| {
            self.rows.push(Row {
                name: contestant.name,
                about: contestant.about,
                case,
                ns: vec![Vec::new(); self.flows.len()],
            });
            self.rows.len() - 1
        });
        let pairs = self.rows[at].ns.iter_mut().zip(samples);
        pairs.for_each(|(ns, sample)| ns.push(sample.ns));
    }

    pub fn rows_of(&self, case: Case) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.case == case)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.machine() + "\n";
        if !self.rows.is_empty() {
            let _ = writeln!(
                text,
                "Nanoseconds a packet on one CPU: median (least to most), and the ratio to `{YARDSTICK}`."
            );
        }
        for case in Case::ALL {
            let rows: Vec<&Row> = self.rows_of(case).collect();
            if !rows.is_empty() {
                let _ = writeln!(text, "\n{}\n{}", case.name(), self.table(&rows));
            }
        }
        if !self.facts.is_empty() {
            let _ = writeln!(text, "\n{}", self.facts_table());
        }
        text
    }

    fn facts_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for fact in &self.facts {
            table.add_row([&fact.of, &fact.what, &number(fact.value), fact.unit]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn table(&self, rows: &[&Row]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let flows = self.flows.iter().map(|n| format!("{n} flows"));
        table.set_header([String::new()].into_iter().chain(flows));
        for row in rows {
            let cells = row
                .ns
                .iter()
                .enumerate()
                .map(|(n, ns)| cell(ns, yardstick(rows, n)));
            table.add_row([row.name.to_owned()].into_iter().chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// For programs.
    pub fn json(&self) -> Result<String> {
        let rows = self.rows.iter().flat_map(|row| {
            let by_flows = row.ns.iter().zip(&self.flows);
            by_flows.map(move |(ns, flows)| {
                json!({
                    "name": row.name, "about": row.about, "case": row.case.short(), "flows": flows,
                    "ns": rounded(ns), "median_ns": median(ns).round(), "packets_per_second": (1e9 / median(ns)).round(),
                })
            })
        });
        let facts = self
            .facts
            .iter()
            .map(|fact| json!({ "of": fact.of, "what": fact.what, "value": fact.value, "unit": fact.unit }));
        let all = json!({
            "machine": self.machine,
            "rows": rows.collect::<Vec<_>>(),
            "facts": facts.collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }
}

fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

fn rounded(ns: &[f64]) -> Vec<f64> {
    ns.iter().map(|ns| ns.round()).collect()
}

fn yardstick(rows: &[&Row], nth: usize) -> Option<f64> {
    let row = rows.iter().find(|row| row.name == YARDSTICK)?;
    Some(median(&row.ns[nth]))
}

fn cell(ns: &[f64], yardstick: Option<f64>) -> String {
    let (least, most) = (
        ns.iter().copied().fold(f64::MAX, f64::min),
        ns.iter().copied().fold(0.0, f64::max),
    );
    let ratio = yardstick.map_or_else(String::new, |y| format!("  {:.2}", median(ns) / y));
    format!("{:.0} ({least:.0}-{most:.0}){ratio}", median(ns))
}

/// The middle one of the samples.
pub fn median(ns: &[f64]) -> f64 {
    let mut sorted = ns.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
