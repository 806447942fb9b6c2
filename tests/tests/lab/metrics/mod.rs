//! The metrics address: what a real Prometheus makes of it, who may abuse it, and that it follows
//! the configuration.

mod abuse;
mod http;
mod large;
mod page;
mod prometheus;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::{Fleet, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Shape};

use crate::support::{await_within, daemon, lab, pause, warned};
use http::{ADDRESS, SECTION, ask, get, json};
use prometheus::Prometheus;

pub use abuse::abuse;
pub use large::large;
pub use page::page;

const DASHBOARD: &str = include_str!("../../../../packaging/grafana/uplink.json");
const RULES: &str = include_str!("../../../../packaging/prometheus/uplink.rules.yml");

/// Every expression of the dashboard answers, and an uplink that dies is seen and alerted.
pub fn scraped() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let quota = "quota = { bytes = \"1GB\" }\n".to_owned();
    let config = Config {
        uplink_more: [quota, String::new()],
        more: format!("{SECTION}[[policy]]\nname = \"dns\"\nmatch = {{ dport = 53 }}\nuse = \"isp1\"\n"),
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    daemon.await_up()?;
    ensure!(
        get(&lab, "/health")?.status == 200,
        "not healthy with both uplinks"
    );
    udp_flows(&lab, 200, Family::V4)?;
    let prometheus = Prometheus::start(&lab)?;
    let fleet = Fleet::start(&lab, 20, 20)?;
    pause(3.0);
    every_expression_answers(&prometheus)?;
    drop(fleet);
    lab.blackhole(Isp::One)?;
    let died = Instant::now();
    await_within("isp1 is down in Prometheus", died, 10 * SECOND, || {
        let down = prometheus.query("uplink_state{uplink=\"isp1\",state=\"down\"} == 1")?;
        Ok(!down.is_empty())
    })?;
    await_within("and alerted", died, 12 * SECOND, || {
        Ok(prometheus.alert("UplinkDown", "isp1")?.is_some())
    })?;
    ensure!(
        prometheus.alert("UplinkDown", "isp2")?.is_none(),
        "alerted of the uplink that lives"
    );
    let failovers = prometheus.query("sum(uplink_failovers_total{uplink=\"isp1\"}) > 0")?;
    ensure!(!failovers.is_empty(), "no failover was counted");
    let health = json(&lab, "/health")?;
    ensure!(health["serving"] == serde_json::json!(["isp2"]), "{health}");
    lab.blackhole(Isp::Two)?;
    await_within("nobody serves, says /health", Instant::now(), 10 * SECOND, || {
        Ok(get(&lab, "/health")?.status == 503)
    })?;
    let health = get(&lab, "/health")?;
    ensure!(health.body.contains("all-down"), "{health:?}");
    daemon.stop()
}

const SECOND: Duration = Duration::from_secs(1);

/// Debian's promtool takes the alerts, and they ring when they should.
pub fn rules() -> Result<()> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus");
    for arguments in [
        ["check", "rules", "uplink.rules.yml"],
        ["test", "rules", "uplink.test.yml"],
    ] {
        let mut promtool = std::process::Command::new("promtool");
        let output = promtool.current_dir(dir).args(arguments).output();
        let output = output.context("promtool")?;
        ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
    Ok(())
}

/// Conditions of alerts are mostly false, so those only have to be understood.
fn every_expression_answers(prometheus: &Prometheus<'_>) -> Result<()> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("no panels")?.iter();
    let targets = panels.filter_map(|p| p["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().context("none")?;
    let exprs = targets.chain(annotations).filter_map(|t| t["expr"].as_str());
    let mut answered = 0;
    for expr in exprs {
        let filled = filled_in(expr);
        let found = prometheus.query(&filled)?;
        // Only the annotation looks for what may not have happened.
        let may_be_empty = expr.contains("$__interval]");
        ensure!(may_be_empty || !found.is_empty(), "{filled} answers nothing");
        answered += 1;
    }
    let rules = rule_expressions();
    ensure!(answered >= 25 && rules.len() == 12, "{answered}, {rules:?}");
    rules
        .iter()
        .try_for_each(|expr| prometheus.query(expr).map(drop))?;
    println!(
        "    {answered} expressions of the dashboard and {} of alerts answer",
        rules.len()
    );
    Ok(())
}

/// As Grafana does with its variables.
fn filled_in(expr: &str) -> String {
    let values = [
        ("$__rate_interval", "20s"),
        ("$__interval", "20s"),
        ("$instance", ".*"),
        ("$uplink", ".*"),
    ];
    values
        .iter()
        .fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value))
}

/// What stands behind `expr:`, with folded lines joined.
fn rule_expressions() -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut folded = false;
    for line in RULES.lines().map(str::trim) {
        if let Some(expr) = line.strip_prefix("expr: ") {
            folded = expr == ">-";
            found.push(if folded { String::new() } else { expr.into() });
        } else if line.contains(": ") && !line.contains('{') {
            folded = false;
        } else if folded && let Some(last) = found.last_mut() {
            *last += line;
            *last += " ";
        }
    }
    found
}

/// An address that somebody else has keeps nobody from steering; a reload moves and removes it.
pub fn reloaded() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let other = lab.router.enter(|| TcpListener::bind(ADDRESS))??;
    let daemon = daemon(&lab, SECTION)?;
    ensure!(warned(&daemon, "metrics")?, "no warning of a taken address");
    let tally = udp_flows(&lab, 200, Family::V4)?;
    ensure!(tally.clean() == 200, "not steered meanwhile: {tally:?}");
    drop(other);
    let begun = Instant::now();
    await_within("served once it is free", begun, 2 * SECOND, || {
        Ok(get(&lab, "/metrics").is_ok())
    })?;
    ensure!(!warned(&daemon, "metrics")?, "the warning has stayed");
    let moved = "[::1]:9478";
    reload(&lab, &format!("[metrics]\nlisten = \"{moved}\"\n"))?;
    ensure!(
        ask(&lab, moved, "GET", "/metrics")?.status == 200,
        "not at its new address"
    );
    ensure!(get(&lab, "/metrics").is_err(), "still at its old address");
    reload(&lab, "")?;
    ensure!(
        ask(&lab, moved, "GET", "/metrics").is_err(),
        "served without [metrics]"
    );
    daemon.stop()
}

fn reload(lab: &uplink_lab::Lab, more: &str) -> Result<()> {
    let config = Config {
        more: more.into(),
        ..Config::default()
    };
    write_config(&config.text(lab))?;
    let output = run(lab, &["reload"])?;
    ensure!(output.status.success(), "reload: {}", said(&output));
    Ok(())
}
