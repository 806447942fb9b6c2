//! What must not move anything, or not often; and what watching costs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use uplink_lab::daemon::write_config;
use uplink_lab::process::cpu_time;
use uplink_lab::topology::servers;
use uplink_lab::traffic::Ongoing;
use uplink_lab::{Busy, Config, Daemon, Family, Flapping, Isp, Shape};

use crate::lifecycle::round_trip;
use crate::support::{daemon, lab, pause, warned};

const SECOND: Duration = Duration::from_secs(1);

/// An ISP comes and goes each second: new flows stay away from it, but for two switches a minute.
pub fn flapping() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "[probe]\ninterval = \"50ms\"\n")?;
    let pulse = Ongoing::new_flows(&lab, Family::V4, Duration::from_millis(20))?;
    let flapping = Flapping::start(&lab, Isp::One, SECOND)?;
    let (begun, mut serves, mut switches) = (Instant::now(), true, Vec::new());
    while begun.elapsed() < 40 * SECOND {
        let now = daemon.uplinks()?[0].1 > 0.0;
        if now != serves {
            switches.push(begun.elapsed().as_secs_f64());
        }
        serves = now;
        pause(0.03);
    }
    drop(flapping);
    let report = pulse.stop()?;
    println!(
        "    switched at {switches:.1?} s; {} of {} new flows lost",
        report.lost(),
        report.beats.len()
    );
    ensure!(!switches.is_empty(), "it was never taken out");
    ensure!(switches.len() <= 2, "{} switches in 40 s", switches.len());
    let longest = daemon.await_state(Isp::One, "up", 120 * SECOND)?;
    println!("    up {longest:?} after the flapping ended");
    daemon.stop()
}

/// One target answers nobody, and a quorum needs it: no uplink is to blame.
pub fn dead_target() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let config = Config {
        ipv6: false,
        more: "[probe]\ntargets = [\"203.0.113.10\", \"203.0.113.11\"]\nquorum = 2\n".into(),
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    daemon.await_up()?;
    pause(2.0);
    let dead = servers(Family::V4)[1];
    lab.silence(dead)?;
    let begun = Instant::now();
    while begun.elapsed() < 6 * SECOND {
        let now = daemon.uplinks()?;
        ensure!(
            now[0].1 == 0.75 && now[1].1 == 0.25,
            "switched for a dead target: {now:?}"
        );
        pause(0.1);
    }
    let status = daemon.status()?;
    let warnings = status["warnings"].as_array().context("no warnings")?;
    let named =
        |w: &serde_json::Value| w["code"] == "dead-target" && w.to_string().contains(&dead.to_string());
    ensure!(
        warnings.iter().any(named),
        "no warning names {dead}: {warnings:?}"
    );
    lab.blackhole(Isp::One)?;
    let found = daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    println!("    a dead uplink is still found, after {found:?}");
    lab.heal(Isp::One)?;
    daemon.await_state(Isp::One, "up", 30 * SECOND)?;
    ensure!(
        warned(&daemon, "dead-target")?,
        "the warning is gone, the target still dead"
    );
    daemon.stop()
}

/// How long processors are busy, in seconds; half an hour is a good evening's test.
pub const STARVED: &str = "UPLINK_LAB_STARVED_S";

/// Probes are late because we are, and that is no failover.
pub fn starved_cpu() -> Result<()> {
    let seconds: u64 = std::env::var(STARVED)
        .map_or(Ok(60), |s| s.parse())
        .context(STARVED)?;
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let log = std::fs::read_to_string(uplink_lab::daemon::log_path())?.len();
    let busy = Busy::start(8)?;
    let begun = Instant::now();
    let mut looks = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let now = daemon.uplinks()?;
        ensure!(
            now.iter().all(|(state, _)| state == "up"),
            "{now:?} after {:?}",
            begun.elapsed()
        );
        looks += 1;
        pause(1.0);
    }
    drop(busy);
    let text = std::fs::read_to_string(uplink_lab::daemon::log_path())?;
    let said: Vec<_> = text[log..].lines().filter(|line| line.contains("down")).collect();
    println!("    up all the time in {looks} looks; the log: {said:?}");
    ensure!(said.is_empty(), "between two looks: {said:?}");
    daemon.stop()
}

/// Of a second with 96 probes: a few for each.
const MOST_TRIPS: f64 = 1_500.0;

/// 16 uplinks, three targets, twice a second.
pub fn probe_cost() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut text = String::new();
    for n in 201..217 {
        lab.isp(Isp::One)
            .ip(&format!("addr add 192.168.1.{n}/24 dev eth0\n"))?;
        let _ = write!(
            text,
            "[[uplink]]\nname = \"up{n}\"\ninterface = \"eth0\"\ngateway = \"192.168.1.{n}\"\n"
        );
    }
    text += "[local]\nenabled = false\n\
             [probe]\ninterval = \"500ms\"\ntargets = [\"1.1.1.1\", \"9.9.9.9\", \"203.0.113.10\"]\n";
    write_config(&text)?;
    let mut daemon = Daemon::restart(&lab)?;
    pause(3.0);
    let status = daemon.status()?;
    let uplinks = status["uplinks"].as_array().context("no uplinks")?;
    let up = uplinks.iter().filter(|u| u["state"] == "up").count();
    ensure!(
        (uplinks.len(), up) == (16, 16),
        "{up} of {} are up: {status}",
        uplinks.len()
    );
    let pid = daemon.pid()?;
    let before = cpu_time(pid, false)?;
    pause(20.0);
    let a_second = (cpu_time(pid, false)? - before) / 20;
    let trip = round_trip(&lab)?;
    let trips = a_second.as_secs_f64() / trip.as_secs_f64();
    println!("    16 uplinks, 3 targets, 500 ms: {a_second:?} a second, {trips:.0} round trips of {trip:?}");
    // Each probe is one, and what comes of it; a machine half as fast is none of our faults.
    ensure!(
        trips < MOST_TRIPS,
        "costs as much as {trips:.0} round trips a second"
    );
    daemon.stop()
}
