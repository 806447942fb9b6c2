//! 2,000 long-lived flows, and everything that must not touch them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{binary, run, said, write_config};
use uplink_lab::traffic::{Fleet, FleetReport, udp_flows};
use uplink_lab::{Config, Daemon, Family, Lab, Shape};

use crate::support::{daemon, expect_share, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
const KILLS: u32 = 200;

pub fn survives() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let first = daemon(&lab, "")?;
    lab.bcp38()?;
    let fleet = Fleet::start(&lab, 1_500, 500)?;
    let mut last = fleet.report()?;
    let mut step = |what: &str| -> Result<()> {
        pause(1.2);
        let now = fleet.report()?;
        let harm = |r: &FleetReport| (r.lost, r.moved, r.broken);
        println!("    {what}: {now:?}");
        ensure!(harm(&now) == harm(&last), "{what}: {now:?}, before {last:?}");
        last = now;
        Ok(())
    };
    step("nothing happens")?;
    reweigh(&lab, [1, 9])?;
    step("other weights by reload")?;
    expect_share("new flows", &udp_flows(&lab, 900, Family::V4)?, 10.0)?;
    told(&lab, &["drain", "isp1"])?;
    step("drained")?;
    expect_share("new flows", &udp_flows(&lab, 200, Family::V4)?, 0.0)?;
    told(&lab, &["enable", "isp1"])?;
    step("enabled")?;
    broken_reload(&lab)?;
    step("a bad reload")?;
    ensure!(first.end(Signal::SIGUSR1, 5 * SECOND)?.success());
    let second = Daemon::restart(&lab)?;
    step("restarted")?;
    ensure!(second.end(Signal::SIGUSR1, 5 * SECOND)?.success());
    let upgraded = upgraded(&lab)?;
    upgraded.await_up()?;
    step("upgraded")?;
    fleet.stop()?.expect_unharmed("all in all")?;
    lab.expect_right_isps("all in all")?;
    upgraded.stop()
}

fn reweigh(lab: &Lab, weights: [u32; 2]) -> Result<()> {
    let config = Config {
        weights,
        ..Config::default()
    };
    write_config(&config.text(lab))?;
    told(lab, &["reload"])
}

/// A reload that fails changes nothing, and says so.
fn broken_reload(lab: &Lab) -> Result<()> {
    let good = Config::default().text(lab);
    write_config(&good.replace("weight = 3", "weight = 0"))?;
    let output = run(lab, &["reload"])?;
    println!("    {}", said(&output));
    ensure!(output.status.code() == Some(2), "a bad reload: {}", said(&output));
    write_config(&good).map(drop)
}

fn told(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let output = run(lab, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(())
}

/// The same program from another path, as a package leaves it.
fn upgraded(lab: &Lab) -> Result<Daemon<'_>> {
    let newer = "/run/lab/uplink-newer";
    fs::copy(binary()?, newer)?;
    Daemon::restart_from(lab, newer)
}

/// Killed at any time, in the middle of a start, too; the next start takes over.
pub fn kill9() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    daemon(&lab, "")?.end(Signal::SIGKILL, SECOND)?;
    lab.bcp38()?;
    let fleet = Fleet::start(&lab, 1_500, 500)?;
    // However fast the machine is: the last kills come when a start is long over.
    let start = || -> Result<Duration> {
        let first = Daemon::restart(&lab)?;
        let ready = first.ready;
        first.end(Signal::SIGKILL, SECOND)?;
        Ok(ready)
    };
    let longest = 2 * start()?.min(start()?).max(Duration::from_millis(200));
    let (begun, mut ready) = (Instant::now(), 0);
    for n in 0..KILLS {
        let mut victim = Daemon::spawn(&lab)?;
        // From the first instruction to well after the start, in an order that is no order.
        std::thread::sleep(longest * (n * 67 % KILLS) / KILLS);
        ready += u32::from(victim.status().is_ok());
        victim.signal(Signal::SIGKILL)?;
        victim.end(Signal::SIGKILL, SECOND)?;
    }
    println!(
        "    killed {KILLS} times in {:?}, {ready} times when ready",
        begun.elapsed()
    );
    ensure!(
        ready > KILLS / 10 && ready < KILLS,
        "{ready} of {KILLS} were ready"
    );
    let last = Daemon::restart(&lab)?;
    last.await_up()?;
    pause(1.0);
    fleet.stop()?.expect_unharmed("all in all")?;
    lab.expect_right_isps("all in all")?;
    last.stop()
}
