//! Which chains packets of fast flows may come to, and how far they get in a rule.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Table, unmet};

/// Forwarded packets pass these hooks.
const HOOKS: [&str; 5] = ["ingress", "prerouting", "forward", "postrouting", "egress"];

type Place = (Table, String);

/// All chains that may be come to, by jumps, gotos and verdict maps. Base chains of type `nat` see the first packet
/// of a connection only.
pub(super) fn reached(objects: &[Value]) -> BTreeSet<Place> {
    let chains: Vec<&Value> = objects.iter().filter_map(|o| o.get("chain")).collect();
    let mut rules: BTreeMap<Place, Vec<&Value>> = BTreeMap::new();
    for rule in objects.iter().filter_map(|o| o.get("rule")) {
        if let Some(place) = place(rule, "chain") {
            rules.entry(place).or_default().push(rule);
        }
    }
    let enters = |chain: &&&Value| {
        let hook = chain["hook"].as_str();
        hook.is_some_and(|h| HOOKS.contains(&h)) && chain["type"] != "nat"
    };
    let mut open: Vec<Place> = chains
        .iter()
        .filter(enters)
        .filter_map(|c| place(c, "name"))
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(from) = open.pop() {
        if !reached.insert(from.clone()) {
            continue;
        }
        let its = rules.get(&from).into_iter().flatten();
        for target in its.flat_map(|rule| statements(rule)).flat_map(targets) {
            match target {
                Target::Chain(name) => open.push((from.0.clone(), name.to_owned())),
                Target::Any => open.extend(inner(&chains, &from.0)),
            }
        }
    }
    reached
}

/// The statements of a rule that such packets come to. At the end, what only those see that are dropped is left out.
pub(super) fn statements(rule: &Value) -> &[Value] {
    let all = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let end = all.iter().position(unmet::by).unwrap_or(all.len());
    let met = &all[..end];
    let drops =
        |s: &Value| s.get("drop").is_some() || s.get("reject").is_some() || s["xt"]["name"] == "REJECT";
    if end < all.len() || !met.last().is_some_and(drops) {
        return met;
    }
    let aside = |s: &&Value| drops(s) || s.get("log").is_some() || s.get("counter").is_some();
    let dropped = met.iter().rev().take_while(aside).count();
    &met[..met.len() - dropped]
}

enum Target<'a> {
    Chain(&'a str),
    /// The elements of a named map are not listed: any chain of the table.
    Any,
}

fn targets(statement: &Value) -> Vec<Target<'_>> {
    let Some(vmap) = statement.get("vmap") else {
        return target(statement).into_iter().collect();
    };
    let Some(entries) = vmap["data"]["set"].as_array() else {
        return vec![Target::Any];
    };
    let met = |entry: &&Value| !unmet::is_value(&vmap["key"], &entry[0]);
    let met = entries.iter().filter(met);
    met.filter_map(|entry| target(&entry[1])).collect()
}

fn target(verdict: &Value) -> Option<Target<'_>> {
    let to = verdict.get("jump").or_else(|| verdict.get("goto"))?;
    Some(to["target"].as_str().map_or(Target::Any, Target::Chain))
}

/// Chains of a table that nothing enters by itself.
fn inner(chains: &[&Value], table: &Table) -> Vec<Place> {
    let all = chains.iter().filter(|c| c.get("hook").is_none());
    all.filter_map(|c| place(c, "name"))
        .filter(|(t, _)| t == table)
        .collect()
}

fn place(object: &Value, key: &str) -> Option<Place> {
    let name = object[key].as_str()?;
    Some((Table::of(object)?, name.to_owned()))
}
