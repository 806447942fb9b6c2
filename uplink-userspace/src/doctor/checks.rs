//! What the facts mean.

mod filters;
mod links;
mod machine;
mod marks;
mod ours;
mod routing;
mod services;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::facts::{Asked, Facts, Seen};
use super::{Finding, Severity};
use crate::config::Kernel;
use crate::host::Host;
use crate::resolve::Uplink;

/// What the configuration means on this host.
pub(super) struct Setting<'a> {
    pub kernel: &'a Kernel,
    /// Where clients are.
    pub lan: &'a [String],
    pub host: &'a Host,
    pub uplinks: &'a [Uplink],
    /// Source addresses are made to fit the uplink.
    pub nat: bool,
    pub asked: &'a Asked,
}

/// What holds without a configuration.
pub(super) fn host(facts: &Facts) -> Vec<Finding> {
    let mut found = machine::all(facts);
    found.extend(ours::daemon(facts));
    found.extend(filters::all(facts));
    found.extend(services::networkd(facts));
    found.extend(links::duplicates(facts));
    found.extend(unseen(facts));
    found
}

/// What depends on the configuration.
pub(super) fn configured(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    let mut found = ours::attach(setting.asked);
    found.extend(ours::tagged(facts, setting));
    found.extend(routing::all(facts, setting));
    found.extend(marks::all(facts, setting.kernel.fwmark_mask.bits()));
    found.extend(filters::reverse_path(facts, setting));
    found.extend(filters::passed_by(facts, setting));
    found.extend(links::all(facts, setting));
    found.extend(services::all(facts, setting));
    found
}

fn finding(code: &str, severity: Severity, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        code: code.into(),
        severity,
        text: text.into(),
        remedy: remedy.into(),
    }
}

/// The members of a list; none where it was not seen.
fn items(seen: &Seen) -> impl Iterator<Item = &Value> {
    seen.as_ref().ok().and_then(Value::as_array).into_iter().flatten()
}

/// The objects of one kind in nft's answer, those in our table left out.
fn objects<'a>(facts: &'a Facts, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    let all = facts.ruleset.as_ref().ok().and_then(|r| r["nftables"].as_array());
    let all = all.into_iter().flatten().filter_map(move |o| o.get(kind));
    all.filter(|o| !(o["family"] == "inet" && o["table"] == "uplink"))
}

/// All that could not be seen, in one finding.
fn unseen(facts: &Facts) -> Option<Finding> {
    let lists = [
        &facts.ruleset,
        &facts.links,
        &facts.addresses,
        &facts.neighbours,
        &facts.qdiscs,
    ];
    let mut why: Vec<&str> = lists
        .into_iter()
        .filter_map(|l| l.as_ref().err())
        .map(String::as_str)
        .collect();
    why.extend(ours::unseen(facts));
    if !facts.user.root && machine::lacks(facts.user.effective) {
        why.push("whether the daemon may do what it needs");
    }
    why.dedup();
    let remedy = match facts.user.root {
        true => "see what it says there",
        false => "sudo uplink doctor",
    };
    let text = || format!("not everything could be seen: {}", why.join("; "));
    (!why.is_empty()).then(|| finding("unseen", Severity::Fine, text(), remedy))
}
