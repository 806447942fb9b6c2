//! Start, stop, crash, take-over.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uplink_lab::daemon::{binary, command, run, said, write_config};
use uplink_lab::process::{cpu_time, own_time, resident_kib};
use uplink_lab::traffic::{Flow, Ongoing, Report, ask, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape, Snapshot};

use crate::support::{await_within, daemon, expect_share, expect_unharmed, lab, pause, warned};

const SECOND: Duration = Duration::from_secs(1);
/// An idle daemon takes less of the processor than so many round trips a second; it is a third of that.
const MOST_TRIPS: f64 = 1_000.0;

pub fn clean_stop() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for shape in [Shape::OneNic, Shape::NicEach] {
            let (lab, _echo) = lab(shape)?;
            let before = Snapshot::take(&lab)?;
            let daemon = daemon(&lab, "")?;
            udp_flows(&lab, 200, Family::V4)?;
            let during = before.diff(&Snapshot::take(&lab)?).len();
            let begun = Instant::now();
            let status = daemon.end(signal, 5 * SECOND)?;
            println!(
                "    {shape:?} {signal}: ended after {:?}, {during} lines differed",
                begun.elapsed()
            );
            ensure!(status.success(), "{signal}: {status}");
            ensure!(during > 10, "it had changed nothing: {during} lines");
            unchanged(&before, &lab)?;
        }
    }
    Ok(())
}

/// A signal during the start is obeyed when that is over, however early it comes.
pub fn interrupted_start() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    write_config(&Config::default().text(&lab))?;
    let before = Snapshot::take(&lab)?;
    for (signal, after_ms) in [
        (Signal::SIGTERM, 0),
        (Signal::SIGINT, 100),
        (Signal::SIGTERM, 200),
        (Signal::SIGINT, 350),
    ] {
        let mut daemon = Daemon::spawn(&lab)?;
        // Its first trace; before that there is nothing to put back, and nobody who hears.
        let begun = || Ok(std::path::Path::new("/run/uplink").exists());
        await_within("it has begun", Instant::now(), 10 * SECOND, begun)?;
        std::thread::sleep(Duration::from_millis(after_ms));
        ensure!(daemon.ended()?.is_none(), "it ended by itself");
        let status = daemon.end(signal, 10 * SECOND)?;
        ensure!(status.success(), "{signal} after {after_ms} ms: {status}");
        unchanged(&before, &lab)?;
    }
    Ok(())
}

/// A host of many containers has more addresses than the programs have room for.
pub fn many_addresses() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let add = |verb: &str, from: u32| -> String {
        (from..from + 1_500)
            .map(|n| format!("addr {verb} 10.77.{}.{}/32 dev lo\n", n / 250, n % 250))
            .collect()
    };
    lab.router.ip(&add("add", 0))?;
    let daemon = daemon(&lab, "")?;
    expect_share("at first", &udp_flows(&lab, 800, Family::V4)?, 75.0)?;
    // All of them others.
    lab.router.ip(&(add("del", 0) + &add("add", 3_000)))?;
    pause(1.5);
    ensure!(
        !warned(&daemon, "repair-failed")?,
        "{}",
        daemon.status()?["warnings"]
    );
    expect_share("then", &udp_flows(&lab, 800, Family::V4)?, 75.0)?;
    daemon.stop()
}

/// Nobody can write what it says: a full disk, a terminal that is gone.
pub fn mute_log() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    write_config(&Config::default().text(&lab))?;
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let mut command = command(&lab, &["run"])?;
    let mut child = command.stdout(full()?).stderr(full()?).spawn()?;
    let begun = Instant::now();
    let answers = || Ok(run(&lab, &["status"])?.status.success());
    let ready = await_within("it answers", begun, 10 * SECOND, answers);
    let reloaded = run(&lab, &["reload"])?;
    let ended = child.try_wait()?;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
    let status = child.wait()?;
    ready?;
    ensure!(ended.is_none(), "it has ended: {ended:?}");
    ensure!(reloaded.status.success(), "{}", said(&reloaded));
    ensure!(status.success(), "{status}");
    Ok(())
}

pub fn kill9_then_down() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    daemon(&lab, "")?.end(Signal::SIGKILL, SECOND)?;
    expect_share("while dead", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    let output = run(&lab, &["down"])?;
    ensure!(output.status.success(), "down: {}", said(&output));
    unchanged(&before, &lab)?;
    let again = run(&lab, &["down"])?;
    ensure!(
        again.status.success(),
        "down with nothing to do: {}",
        said(&again)
    );
    unchanged(&before, &lab)
}

pub fn kill9_then_restart_keeps_flows() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let first = daemon(&lab, "")?;
    let streams = [Isp::One, Isp::Two].map(|isp| Ongoing::udp_stream_on(&lab, Family::V4, isp));
    let streams6 = [Isp::One, Isp::Two].map(|isp| Ongoing::udp_stream_on(&lab, Family::V6, isp));
    let pulse = Ongoing::new_flows(&lab, Family::V4, Duration::from_millis(10))?;
    pause(0.5);
    first.end(Signal::SIGKILL, SECOND)?;
    pause(1.0);
    let second = Daemon::restart(&lab)?;
    second.await_up()?;
    pause(1.0);
    for (isp, stream) in [Isp::One, Isp::Two, Isp::One, Isp::Two]
        .into_iter()
        .zip(streams.into_iter().chain(streams6))
    {
        expect_unharmed(&format!("stream on {isp:?}"), &stream?.stop()?, isp)?;
    }
    expect_none_lost("new flows", &pulse.stop()?)?;
    second.stop()
}

pub fn usr1_keeps_steering() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    let daemon = daemon(&lab, "")?;
    let pulse = Ongoing::new_flows(&lab, Family::V4, Duration::from_millis(10))?;
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    let status = daemon.end(Signal::SIGUSR1, 5 * SECOND)?;
    ensure!(status.success(), "SIGUSR1: {status}");
    expect_share("after SIGUSR1", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    let next = Daemon::restart(&lab)?;
    next.await_up()?;
    expect_none_lost("new flows across the restart", &pulse.stop()?)?;
    expect_unharmed("a stream across the restart", &stream.stop()?, Isp::Two)?;
    next.stop()?;
    unchanged(&before, &lab)
}

pub fn second_daemon_refused() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let first = daemon(&lab, "")?;
    let begun = Instant::now();
    let mut second = lab.router.command("timeout");
    let binary = uplink_lab::daemon::binary()?;
    second
        .arg("5")
        .arg(binary)
        .args(["--config", "/run/lab/uplink.toml", "--runtime-dir", "/run/uplink"]);
    let output = second.args(["--bpffs", "/sys/fs/bpf/uplink", "run"]).output()?;
    println!("    after {:?}: {}", begun.elapsed(), said(&output));
    ensure!(
        output.status.code() == Some(1),
        "a second daemon: {}",
        said(&output)
    );
    ensure!(!output.stderr.is_empty(), "it does not say why");
    expect_share("the first goes on", &udp_flows(&lab, 800, Family::V4)?, 75.0)?;
    first.await_up()?;
    first.stop()
}

pub fn bad_config_exit_2() -> Result<()> {
    let lab = Lab::build(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    let good = Config::default().text(&lab);
    let bad = [
        (
            "an unknown key",
            good.replace("weight = 3", "wieght = 3"),
            "wieght",
        ),
        (
            "a weight too high",
            good.replace("weight = 3", "weight = 4000"),
            "4000",
        ),
        (
            "a gateway that is none",
            good.replace("10.0.0.1\"", "10.0.0.300\""),
            "10.0.0.300",
        ),
        ("a name twice", good.replace("isp2", "isp1"), "isp1"),
        (
            "broken TOML",
            good.replace("weight = 3", "weight = = 3"),
            "weight",
        ),
    ];
    for (what, text, names) in &bad {
        write_config(text)?;
        for command in [&["check"][..], &["run"]] {
            let output = run(&lab, command)?;
            let message = said(&output);
            ensure!(
                output.status.code() == Some(2),
                "{what}: `{command:?}`: {message}"
            );
            ensure!(
                message.contains(names),
                "{what}: the message does not name it: {message}"
            );
            ensure!(
                message.contains("uplink.toml:"),
                "{what}: no line and column: {message}"
            );
        }
    }
    write_config(&good)?;
    let plan = run(&lab, &["check", "--plan"])?;
    ensure!(
        plan.status.success() && !plan.stdout.is_empty(),
        "check --plan: {}",
        said(&plan)
    );
    unchanged(&before, &lab)
}

/// `uplink check` tells the mistakes of users as the snapshots have them, which are read by people.
pub fn mistakes() -> Result<()> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../uplink-userspace/src/config/tests/mistakes"
    );
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let snapshot = std::fs::read_to_string(path.with_extension("snap"))?;
        let expected = snapshot.splitn(3, "---\n").last().unwrap_or("").trim();
        let mut check = Command::new(binary()?);
        check.current_dir(folder).arg("--config");
        let output = check
            .arg(path.file_name().context("a name")?)
            .arg("check")
            .output()?;
        let name = path.display();
        ensure!(output.status.code() == Some(2), "{name}: {}", output.status);
        let told = String::from_utf8(output.stderr)?;
        ensure!(told.trim() == expected, "{name}: told:\n{told}\nnot:\n{expected}");
        ensure!(output.stdout.is_empty(), "{name}: a result in spite of mistakes");
        count += 1;
    }
    println!("    {count} files");
    ensure!(count > 50, "{count} files");
    Ok(())
}

/// What is bounded does not depend on the machine: benchmarks tell seconds and percent.
pub fn idle_cost() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let waited = waits_at_start(&lab)?.min(waits_at_start(&lab)?);
    ensure!(waited < SECOND / 2, "waits for {waited:?} before it is ready");
    let mut daemon = daemon(&lab, "")?;
    let pid = daemon.pid()?;
    pause(1.0);
    let before = cpu_time(pid, true)?;
    pause(5.0);
    let a_second = (cpu_time(pid, true)? - before) / 5;
    let rss = resident_kib(pid)? as f64 / 1024.0;
    let trip = round_trip(&lab)?;
    let trips = a_second.as_secs_f64() / trip.as_secs_f64();
    println!("    RSS {rss:.1} MiB; idle {a_second:?} a second, {trips:.0} round trips of {trip:?}");
    ensure!(rss < 20.0, "{rss:.1} MiB resident");
    ensure!(
        trips < MOST_TRIPS,
        "costs as much as {trips:.0} round trips a second when idle"
    );
    daemon.stop()
}

/// For how long a start does nothing. Most of the rest is the kernel's verifier.
fn waits_at_start(lab: &Lab) -> Result<Duration> {
    let mut daemon = Daemon::start(lab, &Config::default())?;
    let (ready, busy) = (daemon.ready, cpu_time(daemon.pid()?, true)?);
    println!("    ready in {ready:?}, of which busy {busy:?}");
    daemon.stop()?;
    Ok(ready.saturating_sub(busy))
}

/// What this machine takes for a datagram to a server and its answer.
pub fn round_trip(lab: &Lab) -> Result<Duration> {
    const TRIPS: u32 = 1_000;
    lab.client.enter(|| {
        let socket = Flow::fresh(Family::V4).udp()?;
        let before = own_time()?;
        for _ in 0..TRIPS {
            ensure!(ask(&socket).is_some(), "no answer");
        }
        Ok((own_time()? - before) / TRIPS)
    })?
}

fn expect_none_lost(what: &str, report: &Report) -> Result<()> {
    println!("    {what}: {} flows, {} lost", report.beats.len(), report.lost());
    ensure!(
        report.lost() == 0,
        "{what}: {} of {} lost",
        report.lost(),
        report.beats.len()
    );
    Ok(())
}

fn unchanged(before: &Snapshot, lab: &Lab) -> Result<()> {
    let differences = before.diff(&Snapshot::take(lab)?);
    ensure!(
        differences.is_empty(),
        "left behind or not put back:\n{}",
        differences.join("\n")
    );
    Ok(())
}
