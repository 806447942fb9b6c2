//! A daemon that is gone for longer than `stale_after`: new flows by the kernel's own routes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::{Ongoing, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::support::{await_packets, daemon, expect_share, expect_unharmed, lab, pause};

const SHORTEST: &str = "[kernel]\nstale_after = \"5s\"\n";
/// Longer than that, by more than the clock's second.
const LONGER: f64 = 6.5;

pub fn stale_after() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    // Nobody has to hear from this daemon yet; asking for it must not find it silent.
    pause(LONGER);
    let config = Config {
        more: SHORTEST.into(),
        ..Config::default()
    };
    write_config(&config.text(&lab))?;
    let output = run(&lab, &["reload"])?;
    ensure!(output.status.success(), "reload: {}", said(&output));
    flows(&lab)?;
    pause(LONGER);
    flows(&lab)?;
    ensure!(stale(&daemon)? == 0, "a living daemon was taken for a silent one");
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    daemon.end(Signal::SIGKILL, Duration::from_secs(1))?;
    pause(LONGER);
    flows(&lab)?;
    let next = Daemon::restart(&lab)?;
    let left_alone = stale(&next)?;
    println!("    while nobody was there {left_alone} packets were left to the kernel");
    ensure!(
        left_alone >= 200,
        "new flows were steered by an old table: {left_alone}"
    );
    await_packets(&stream, 50)?;
    expect_unharmed("a stream all the while", &stream.stop()?, Isp::Two)?;
    next.await_up()?;
    expect_share("steered again", &udp_flows(&lab, 1_500, Family::V4)?, 75.0)?;
    ensure!(stale(&next)? == left_alone, "the next daemon is taken for silent");
    next.stop()
}

/// Works in any case: the kernel's multipath route and NAT are there.
fn flows(lab: &Lab) -> Result<()> {
    let tally = udp_flows(lab, 200, Family::V4)?;
    ensure!(tally.clean() == 200, "flows fail: {tally:?}");
    Ok(())
}

fn stale(daemon: &Daemon<'_>) -> Result<u64> {
    let status = daemon.status()?;
    status["packets"]["stale"]
        .as_u64()
        .context("no count of stale packets")
}
