//! kill -9 at every single call that changes the kernel: whatever half-done state is left, `down`
//! removes it, and a start takes it over.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
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

/// What follows the nth death.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// `down`, or the next daemon takes over and stops.
    DownOrTakeOver,
    /// `down`, or nothing: the next attempt begins with a daemon that takes over.
    DownOrNothing,
}

pub fn nth_start() -> Result<()> {
    every("start", Then::DownOrTakeOver, |lab, call, n| {
        let mut daemon = Daemon::spawn_killed_at(lab, call, n)?;
        let socket = Path::new("/run/uplink/uplink.sock");
        // A killed daemon leaves its socket.
        let ready = |daemon: &Daemon<'_>| Ok(socket.exists() && daemon.status().is_ok());
        let died = died_before(&mut daemon, ready)?;
        daemon.end(Signal::SIGKILL, SECOND)?;
        Ok(died)
    })
}

pub fn nth_failover() -> Result<()> {
    every("failover", Then::DownOrNothing, |lab, call, n| {
        let mut daemon = taken_over(lab)?;
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
    every("stop", Then::DownOrNothing, |lab, call, n| {
        let mut daemon = taken_over(lab)?;
        let _tracer = daemon.kill_at(call, n)?;
        let status = daemon.end(Signal::SIGTERM, 5 * SECOND)?;
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        ensure!(killed || status.success(), "SIGTERM: {status}");
        Ok(killed)
    })
}

/// Waits until it is dead, or done. Asking whether it is done costs it calls, too, so that comes
/// less often.
fn died_before(daemon: &mut Daemon<'_>, mut done: impl FnMut(&Daemon<'_>) -> Result<bool>) -> Result<bool> {
    for round in 1..2_500 {
        if killed(daemon)? {
            return Ok(true);
        }
        // A status asked of a daemon that is dying is no error here.
        if round % 20 == 0 && done(daemon).unwrap_or(false) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("neither killed nor done")
}

/// Whether the injection killed it.
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
fn every(what: &str, then: Then, attempt: Attempt) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let config = Config {
        more: FAST.to_owned(),
        // In a failover the other family makes the same calls once more.
        ipv6: then == Then::DownOrTakeOver,
        ..Config::default()
    };
    write_config(&config.text(&lab))?;
    let before = Snapshot::take(&lab)?;
    let mut total = 0;
    for call in CALLS {
        let begun = Instant::now();
        let mut deaths = 0;
        for n in 1..ENOUGH {
            let died = attempt(&lab, call, n).with_context(|| format!("{what}, {call} {n}"))?;
            let recovered = recover(&lab, &before, then, died, n);
            recovered.with_context(|| format!("{what}, after death at {call} {n}"))?;
            if !died {
                break;
            }
            deaths = n;
        }
        println!(
            "    {what}: killed at each of {deaths} {call} in {:?}",
            begun.elapsed()
        );
        ensure!(deaths < ENOUGH - 1, "{deaths} deaths at {call}");
        total += deaths;
    }
    ensure!(total > 20, "{what}: killed {total} times only");
    Ok(())
}

/// Every second or third time by a new daemon, which takes longer than `down`.
fn recover(lab: &Lab, before: &Snapshot, then: Then, died: bool, n: u32) -> Result<()> {
    match then {
        // The last attempt leaves nothing for others.
        _ if !died => taken_over(lab)?.stop()?,
        Then::DownOrNothing if n.is_multiple_of(2) => return Ok(()),
        Then::DownOrTakeOver if n.is_multiple_of(3) => taken_over(lab)?.stop()?,
        _ => taken_down(lab)?,
    }
    let left = before.diff(&Snapshot::take(lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

fn taken_down(lab: &Lab) -> Result<()> {
    let output = run(lab, &["down"])?;
    ensure!(output.status.success(), "down: {}", said(&output));
    Ok(())
}

/// A start over what is there steers by both uplinks.
fn taken_over(lab: &Lab) -> Result<Daemon<'_>> {
    let daemon = Daemon::restart(lab)?;
    daemon.await_up()?;
    // That 80 flows at 3:1 all miss one uplink happens once in ten thousand million times.
    let tally = udp_flows(lab, 80, Family::V4)?;
    ensure!(
        tally.clean() == 80 && tally.by_isp.iter().all(|n| *n > 0),
        "the next daemon does not steer: {tally:?}"
    );
    Ok(daemon)
}
