//! Policies: whose flows go where.

pub mod choice;
pub mod host;
pub mod matchers;
pub mod reload;
pub mod schedule;
pub mod sticky;
pub mod strict;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::Tally;
use uplink_lab::{Config, Daemon, Isp, Lab};

use crate::support::expect_share;

/// Down and up soon.
const QUICK: &str = "[probe]\ninterval = \"100ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 2\n\
                     [health]\nhold_down = \"0s\"\nslow_start = \"0s\"\nswitches_per_minute = 60\n";

/// Weights 3:1, as [`expect_balanced`] wants them.
pub fn config(sections: &str) -> Config {
    Config {
        more: format!("{QUICK}{sections}"),
        ..Config::default()
    }
}

/// A daemon whose uplinks are up, with these sections.
pub fn start<'a>(lab: &'a Lab, sections: &str) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(lab, &config(sections))?;
    daemon.await_up()?;
    Ok(daemon)
}

/// Another configuration from now on.
pub fn reload(lab: &Lab, config: &Config) -> Result<()> {
    write_config(&config.text(lab))?;
    let output = run(lab, &["reload"])?;
    ensure!(output.status.success(), "reload: {}", said(&output));
    Ok(())
}

/// Every flow was answered, by this ISP.
fn expect_all(what: &str, tally: &Tally, isp: Isp) -> Result<()> {
    let percent = if isp == Isp::One { 100.0 } else { 0.0 };
    expect_share(what, tally, percent)
}

/// The flows are nobody's but the balance's, of 3:1.
fn expect_balanced(what: &str, tally: &Tally) -> Result<()> {
    expect_share(what, tally, 75.0)
}

/// What status says of a policy.
fn policy(daemon: &Daemon<'_>, name: &str) -> Result<Value> {
    let status = daemon.status()?;
    let policies = status["policies"].as_array().context("no policies in status")?;
    let found = policies.iter().find(|p| p["name"] == name);
    found
        .cloned()
        .with_context(|| format!("no policy {name} in {policies:?}"))
}

/// Flows and packets that a policy placed.
fn placed(daemon: &Daemon<'_>, name: &str) -> Result<(u64, u64)> {
    let policy = policy(daemon, name)?;
    let number = |key: &str| policy[key].as_u64().with_context(|| format!("no {key}"));
    Ok((number("flows")?, number("packets")?))
}
