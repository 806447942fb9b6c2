//! `[hooks]`: what a program hears of a failover, and that none of them is in the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::isolate::LAB_DIR;
use uplink_lab::traffic::Ongoing;
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::support::{await_within, daemon, lab, pause, warned};

const SECOND: Duration = Duration::from_secs(1);

fn script(name: &str, mode: u32, lines: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = Path::new(LAB_DIR).join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(path)
}

/// An uplink that flips as often as these scenarios want it to would be kept out.
const UNDAMPED: &str = "[health]\nhold_down = \"0s\"\nslow_start = \"0s\"\nswitches_per_minute = 60\n";

fn section(hook: &Path, timeout: &str) -> String {
    format!("[hooks]\non_change = {hook:?}\ntimeout = \"{timeout}\"\n")
}

/// Writes its environment down, in a file of its own: those of two uplinks run side by side.
fn recorder() -> Result<PathBuf> {
    let lines = format!(
        "env > {LAB_DIR}/part.$UPLINK_SEQ\nmv {LAB_DIR}/part.$UPLINK_SEQ {LAB_DIR}/heard.$UPLINK_SEQ"
    );
    script("hook", 0o755, &lines)
}

/// The environments that it wrote down.
fn recorded() -> Result<Vec<BTreeMap<String, String>>> {
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').context("a line of env")?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let mut runs = Vec::new();
    for file in std::fs::read_dir(LAB_DIR)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("heard.") {
            let text = std::fs::read_to_string(file.path())?;
            runs.push(text.lines().map(pair).collect::<Result<_>>()?);
        }
    }
    Ok(runs)
}

/// What a hook hears of a real failover.
pub fn environment() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let hook = recorder()?;
    let daemon = daemon(&lab, &section(&hook, "10s"))?;
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    // One family may die some time before the other: then it was degraded in between.
    let died = |e: &BTreeMap<_, _>| is(e, "isp1", "up", "down") || is(e, "isp1", "degraded", "down");
    let dead = || Ok(recorded()?.iter().any(died));
    await_within("the hook heard of it", Instant::now(), 3 * SECOND, dead)?;
    let heard = recorded()?;
    for name in ["isp1", "isp2"] {
        ensure!(
            heard.iter().any(|e| is(e, name, "unknown", "up")),
            "{name} came up: {heard:?}"
        );
    }
    let down = heard.iter().find(|e| died(e)).context("down")?;
    println!("    {down:?}");
    ensure!(
        down["UPLINK_INTERFACE"] == Isp::One.interface(Shape::OneNic),
        "{down:?}"
    );
    ensure!(down["UPLINK_GATEWAY"] == Isp::One.gateways().0, "{down:?}");
    ensure!(down["UPLINK_SHARE"] == "0", "{down:?}");
    ensure!(!down["UPLINK_REASON"].is_empty(), "{down:?}");
    ensure!(
        down["UPLINK_TIME"].ends_with('Z') && down["UPLINK_SEQ"].parse::<u64>().is_ok(),
        "{down:?}"
    );
    // A shell adds PWD, SHLVL and _.
    let strange = |key: &&String| {
        !key.starts_with("UPLINK_") && !["PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(&key.as_str())
    };
    let strange: Vec<_> = down.keys().filter(strange).collect();
    ensure!(strange.is_empty(), "of somebody else's environment: {strange:?}");
    daemon.stop()
}

fn is(heard: &BTreeMap<String, String>, name: &str, old: &str, new: &str) -> bool {
    let has = |key: &str, value: &str| heard.get(key).is_some_and(|v| v == value);
    has("UPLINK_NAME", name) && has("UPLINK_OLD_STATE", old) && has("UPLINK_STATE", new)
}

/// Hooks that hang, fail, or cannot be run leave failover as quick as without.
pub fn in_nobodys_way() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let hanging = script("hanging", 0o755, "trap '' TERM; sleep 1000 & sleep 1000")?;
    let daemon = daemon(&lab, UNDAMPED)?;
    let without = failover(&lab, &daemon)?;
    reload(&lab, &section(&hanging, "300s"))?;
    let with = failover(&lab, &daemon)?;
    println!("    new flows work again after {without:?} without, {with:?} with a hook that hangs");
    ensure!(with < without + SECOND, "{with:?}, not {without:?}");
    for (what, hook) in [
        ("failed with exit status 3", script("failing", 0o755, "exit 3")?),
        ("is not executable", script("plain", 0o644, "exit 0")?),
        ("is writable by others", script("open", 0o777, "exit 0")?),
        ("No such file", PathBuf::from(LAB_DIR).join("missing")),
        ("left others running", script("forking", 0o755, "sleep 1000 &")?),
    ] {
        reload(&lab, &section(&hook, "5s"))?;
        warns_of(&lab, &daemon, what)?;
    }
    let good = script("good", 0o755, "exit 0")?;
    reload(&lab, &section(&good, "5s"))?;
    ensure!(!warned(&daemon, "hook")?, "the new hook has not failed");
    let begun = Instant::now();
    daemon.stop()?;
    println!("    stopped within {:?}", begun.elapsed());
    Ok(())
}

fn reload(lab: &Lab, more: &str) -> Result<()> {
    let config = Config {
        more: format!("{UNDAMPED}{more}"),
        ..Config::default()
    };
    write_config(&config.text(lab))?;
    let output = run(lab, &["reload"])?;
    ensure!(output.status.success(), "reload: {}", said(&output));
    Ok(())
}

/// How long it takes until new flows work again; ends with both uplinks up.
fn failover(lab: &Lab, daemon: &Daemon<'_>) -> Result<Duration> {
    let pulse = Ongoing::new_flows(lab, Family::V4, Duration::from_millis(10))?;
    pause(0.5);
    let fault = Instant::now();
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    pause(1.0);
    let back = pulse.stop()?.recovered_after(fault);
    lab.heal(Isp::One)?;
    daemon.await_state(Isp::One, "up", 30 * SECOND)?;
    back.context("new flows do not work again")
}

/// A change of isp2 has the hook run, and its failure is told.
fn warns_of(lab: &Lab, daemon: &Daemon<'_>, what: &str) -> Result<()> {
    let dead = daemon.uplinks()?[Isp::Two.index()].0 == "down";
    match dead {
        true => lab.heal(Isp::Two)?,
        false => lab.blackhole(Isp::Two)?,
    }
    await_within(what, Instant::now(), 20 * SECOND, || {
        let status = daemon.status()?;
        let mut warnings = status["warnings"].as_array().context("no warnings")?.iter();
        Ok(warnings.any(|w| w["code"] == "hook" && w["text"].as_str().is_some_and(|t| t.contains(what))))
    })?;
    let events = String::from_utf8(run(lab, &["events", "--json"])?.stdout)?;
    ensure!(
        events
            .lines()
            .any(|l| l.contains("\"kind\":\"hook\"") && l.contains(what)),
        "no event of a hook that {what}: {events}"
    );
    Ok(())
}
