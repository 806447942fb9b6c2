//! `[health]` and `[balance]`, read over their defaults.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::{Balance, By, Health, Limits};
use crate::config::reader::{Reader, time_span};
use crate::config::{At, Uplink, units};

const PERCENT: &str = "a percentage such as \"15%\"";
/// Shorter than a timer's grain means nothing; no probe waits longer.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

pub(in crate::config) fn health(top: &mut Reader<'_, '_>) -> Health {
    let mut health = Health::default();
    if let Some(mut table) = top.table("health", "[health]") {
        fill(&mut table, &mut health);
        table.finish();
    }
    health
}

fn fill(table: &mut Reader<'_, '_>, health: &mut Health) {
    health.loss = loss(table, health.loss);
    health.rtt = time(table, ["rtt", "rtt_recovery"]);
    health.jitter = time(table, ["jitter", "jitter_recovery"]);
    let range = Duration::ZERO..=Duration::from_secs(3600);
    let hold_down = table.duration("hold_down", range.clone(), "0s to 1h, such as \"3s\"");
    health.hold_down = hold_down.unwrap_or(health.hold_down);
    let slow_start = table.duration("slow_start", range, "0s to 1h, such as \"5s\"");
    health.slow_start = slow_start.unwrap_or(health.slow_start);
    let switches = table.integer("switches_per_minute", 2..=60, "an integer from 2 to 60");
    health.switches_per_minute = switches.map_or(health.switches_per_minute, |n| n.value);
}

fn loss(table: &mut Reader<'_, '_>, default: Limits<f64>) -> Limits<f64> {
    let worse = table.parsed("loss", PERCENT, |text| units::percent(text, &(0.1..=100.0)));
    let better = table.parsed("loss_recovery", PERCENT, |text| {
        units::percent(text, &(0.0..=100.0))
    });
    let limit = worse.map_or(default.worse, |at| at.value);
    match better {
        Some(better) => {
            below(
                table,
                ["loss_recovery", "loss"],
                better.value < limit,
                better.span,
            );
            Limits {
                worse: limit,
                better: better.value,
            }
        }
        // A third keeps the proportion of the defaults.
        None => Limits {
            worse: limit,
            better: if default.better < limit {
                default.better
            } else {
                limit / 3.0
            },
        },
    }
}

fn time(table: &mut Reader<'_, '_>, keys: [&'static str; 2]) -> Option<Limits<Duration>> {
    let [key, recovery] = keys;
    let allowed = "1ms to 1min, such as \"150ms\"";
    let [worse, better] = keys.map(|key| table.parsed(key, allowed, |text| time_span(text, &TIMES)));
    if let Some(better) = better.as_ref().filter(|_| !table.has(key)) {
        let message = format!("{recovery} without {key}");
        table.complain(better.span.clone(), message, format!("add {key} or remove this"));
    }
    let worse = worse?.value;
    if let Some(better) = &better {
        below(table, [recovery, key], better.value < worse, better.span.clone());
    }
    let better = better.map_or(worse.mul_f64(0.8), |at| at.value);
    Some(Limits { worse, better })
}

fn below(table: &mut Reader<'_, '_>, [recovery, limit]: [&str; 2], is_below: bool, at: Range<usize>) {
    if !is_below {
        let message = format!("{recovery} is not below {limit}");
        table.complain(
            at,
            message,
            "less, so that what lies about the limit does not flap",
        );
    }
}

pub(in crate::config) fn balance(top: &mut Reader<'_, '_>, uplinks: &[Uplink]) -> Balance {
    let mut balance = Balance::default();
    if let Some(mut table) = top.table("balance", "[balance]") {
        fill_balance(&mut table, &mut balance, uplinks);
        table.finish();
    }
    balance
}

fn fill_balance(table: &mut Reader<'_, '_>, balance: &mut Balance, uplinks: &[Uplink]) {
    let words = [
        ("weight", Some(By::Weight)),
        ("latency", Some(By::Latency)),
        ("loss", Some(By::Loss)),
        ("bandwidth", Some(By::Bandwidth)),
        ("quality", Some(By::Quality)),
    ];
    let by = table.one_of("by", &words);
    let allowed = "1% to 100%, such as \"80%\"";
    let spillover = table.parsed("spillover", allowed, |text| units::percent(text, &(1.0..=100.0)));
    balance.by = by.as_ref().map_or(balance.by, |at| at.value);
    balance.spillover = spillover.as_ref().map(|at| at.value);
    if let Some(at) = &spillover {
        if balance.by == By::Weight {
            known(table, uplinks, "spillover");
        } else {
            let percent = at.value * 100.0;
            let message =
                format!("spillover {percent}% fills one uplink after the other, and `by` shares among all");
            table.complain(
                at.span.clone(),
                message,
                "remove one of the two, `spillover` or `by`",
            );
        }
    } else if balance.by == By::Bandwidth {
        known(table, uplinks, "by = \"bandwidth\"");
    }
}

/// Whether every uplink has both capacities, which `user` needs.
fn known(table: &mut Reader<'_, '_>, uplinks: &[Uplink], user: &str) {
    // One that was refused is not missing.
    if !table.problems.is_empty() {
        return;
    }
    for uplink in uplinks {
        let capacity = &uplink.capacity;
        let missing: Vec<&str> = [("down", capacity.down), ("up", capacity.up)]
            .into_iter()
            .filter_map(|(key, value)| value.is_none().then_some(key))
            .collect();
        if !missing.is_empty() {
            let At { value: name, span } = &uplink.name;
            let message = format!("{user} needs `{}` of uplink {name}", missing.join("` and `"));
            let help = "add it, such as down = \"500mbit\"; `uplink status` suggests what it has measured";
            table.complain(span.clone(), message, help);
        }
    }
}
