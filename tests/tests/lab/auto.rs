//! `gateway = "auto"`: what DHCP and router advertisements say, when they say it.

use std::time::Instant;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uplink_lab::autoconf::Offer;
use uplink_lab::daemon::find;
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Autoconf, Config, Daemon, Family, Isp, Shape};

use crate::support::{await_within, expect_share, lab};

const SECOND: Duration = Duration::from_secs(1);
const ISP: Isp = Isp::Two;

/// Without a lease the uplink waits; with one it serves; another lease and prefix are followed.
pub fn follows() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    lab.forget(ISP)?;
    let config = Config {
        weights: [1, 1],
        auto: [false, true],
        more:
            "[health]\nhold_down = \"0s\"\nslow_start = \"0s\"\nswitches_per_minute = 60\n[probe]\nrise = 2\n"
                .into(),
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    daemon.await_state(Isp::One, "up", 10 * SECOND)?;
    let (state, share) = daemon.uplinks()?[1].clone();
    println!("    without a lease: {state}, share {share}");
    ensure!(
        state != "up" && share == 0.0,
        "{state} with share {share} without a lease"
    );
    for family in Family::ALL {
        expect_share("without a lease", &udp_flows(&lab, 100, family)?, 100.0)?;
    }
    let first = Autoconf::start(&lab, ISP, &Offer::of(ISP, false))?;
    lab.lease(ISP)?;
    picks_up(&daemon, &lab, &Offer::of(ISP, false))?;
    drop(first);
    let _second = Autoconf::start(&lab, ISP, &Offer::of(ISP, true))?;
    lab.lease(ISP)?;
    picks_up(&daemon, &lab, &Offer::of(ISP, true))?;
    daemon.stop()
}

/// Status shows what was offered, and flows of both families take it.
fn picks_up(daemon: &Daemon<'_>, lab: &uplink_lab::Lab, offer: &Offer) -> Result<()> {
    let told = Instant::now();
    let prefix = offer.prefix.trim_end_matches(':');
    let uplink = || -> Result<Value> { Ok(find(&daemon.status()?, ISP).context("no isp2")?.clone()) };
    let right = || {
        let now = uplink()?;
        let is = |key: &str, want: &str| now[key] == want;
        let v6 = now["source6"].as_str().is_some_and(|s| s.starts_with(prefix));
        Ok(is("gateway", offer.gateway) && is("source", offer.address) && v6 && is("state", "up"))
    };
    await_within("follows", told, 15 * SECOND, right)
        .with_context(|| format!("{offer:?}: {:?}", uplink()))?;
    for family in Family::ALL {
        expect_share("with it", &udp_flows(lab, 400, family)?, 50.0)?;
    }
    Ok(())
}

/// All of it is there before the daemon is, and goes while it runs.
pub fn lease_ends() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    lab.forget(ISP)?;
    let _server = Autoconf::start(&lab, ISP, &Offer::of(ISP, false))?;
    lab.lease(ISP)?;
    let config = Config {
        weights: [1, 1],
        auto: [false, true],
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    daemon.await_up()?;
    expect_share("with a lease", &udp_flows(&lab, 400, Family::V4)?, 50.0)?;
    let gone = Instant::now();
    lab.router.run("ip -4 addr flush dev wan2")?;
    let off = || Ok(udp_flows(&lab, 50, Family::V4)?.by_isp == [50, 0]);
    await_within("IPv4 by isp1 alone", gone, 3 * SECOND, off)?;
    lab.lease(ISP)?;
    let back = Instant::now();
    let on = || Ok(udp_flows(&lab, 50, Family::V4)?.by_isp[1] > 5);
    await_within("by both again", back, 30 * SECOND, on)?;
    daemon.stop()
}
