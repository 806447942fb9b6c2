//! kill -9 at every single call that changes the kernel: whatever half-done state is left, `down`
//! removes it, and a start takes it over.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::strace::CALLS;
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape, Snapshot};

use crate::support::lab;

const SECOND: Duration = Duration::from_secs(1);
/// Quick to notice a dead uplink.
const FAST: &str = "[probe]\ninterval = \"50ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 1\n";
/// More calls than any of start, failover and stop makes.
const ENOUGH: u32 = 2_000;

/// Kills at the given call; whether the daemon died of it.
type Attempt = fn(&Lab, &str, u32) -> Result<bool>;

pub fn nth_start() -> Result<()> {
    every("start", |lab, call, n| {
        let mut daemon = Daemon::spawn_killed_at(lab, call, n)?;
        let begun = Instant::now();
        while begun.elapsed() < 5 * SECOND {
            if killed(&mut daemon)? {
                return Ok(true);
            }
            if daemon.status().is_ok() {
                daemon.end(Signal::SIGKILL, SECOND)?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("neither killed nor ready")
    })
}

pub fn nth_failover() -> Result<()> {
    every("failover", |lab, call, n| {
        let mut daemon = Daemon::restart(lab)?;
        daemon.await_up()?;
        let tracer = daemon.kill_at(call, n)?;
        lab.blackhole(Isp::One)?;
        let died = died_before(&mut daemon, |daemon| {
            Ok(daemon.uplinks()?[Isp::One.index()].0 == "down")
        });
        drop(tracer);
        lab.heal(Isp::One)?;
        let died = died?;
        daemon.end(Signal::SIGKILL, SECOND)?;
        Ok(died)
    })
}

pub fn nth_stop() -> Result<()> {
    every("stop", |lab, call, n| {
        let mut daemon = Daemon::restart(lab)?;
        let _tracer = daemon.kill_at(call, n)?;
        let status = daemon.end(Signal::SIGTERM, 5 * SECOND)?;
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        ensure!(killed || status.success(), "SIGTERM: {status}");
        Ok(killed)
    })
}

/// Waits until it is dead, or done.
fn died_before(daemon: &mut Daemon<'_>, mut done: impl FnMut(&Daemon<'_>) -> Result<bool>) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < 5 * SECOND {
        if killed(daemon)? {
            return Ok(true);
        }
        // A status asked of a daemon that is dying is no error here.
        if done(daemon).unwrap_or(false) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("neither killed nor done")
}

fn killed(daemon: &mut Daemon<'_>) -> Result<bool> {
    let Some(status) = daemon.ended()? else {
        return Ok(false);
    };
    ensure!(
        status.signal() == Some(Signal::SIGKILL as i32),
        "ended by itself: {status}"
    );
    Ok(true)
}

/// Every call of every kind, until an attempt survives because there is no such call any more.
fn every(what: &str, attempt: Attempt) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let config = Config {
        more: FAST.to_owned(),
        ..Config::default()
    };
    write_config(&config.text(&lab))?;
    let before = Snapshot::take(&lab)?;
    for call in CALLS {
        let begun = Instant::now();
        let mut deaths = 0;
        for n in 1..ENOUGH {
            let died = attempt(&lab, call, n).with_context(|| format!("{what}, {call} {n}"))?;
            let recovered = if n % 2 == 0 {
                taken_over(&lab)
            } else {
                taken_down(&lab)
            };
            recovered.with_context(|| format!("{what}, after death at {call} {n}"))?;
            let left = before.diff(&Snapshot::take(&lab)?);
            ensure!(
                left.is_empty(),
                "{what}, {call} {n}: left behind:\n{}",
                left.join("\n")
            );
            if !died {
                break;
            }
            deaths = n;
        }
        println!(
            "    {what}: killed at each of {deaths} {call} in {:?}",
            begun.elapsed()
        );
        ensure!(deaths > 0 && deaths < ENOUGH - 1, "{deaths} deaths at {call}");
    }
    Ok(())
}

fn taken_down(lab: &Lab) -> Result<()> {
    let output = run(lab, &["down"])?;
    ensure!(output.status.success(), "down: {}", said(&output));
    Ok(())
}

/// A start over what is there steers by both uplinks, and stops without a trace.
fn taken_over(lab: &Lab) -> Result<()> {
    let daemon = Daemon::restart(lab)?;
    daemon.await_up()?;
    // That 40 flows at 3:1 all miss one uplink happens once in 100,000 times.
    let tally = udp_flows(lab, 40, Family::V4)?;
    ensure!(
        tally.clean() == 40 && tally.by_isp.iter().all(|n| *n > 0),
        "the next daemon does not steer: {tally:?}"
    );
    daemon.stop()
}
