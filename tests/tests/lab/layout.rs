//! Maps of another version: refused, not reinterpreted.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use uplink_common::ABI;
use uplink_lab::daemon::{log_tail, run, said};
use uplink_lab::traffic::{Ongoing, udp_flows};
use uplink_lab::{Daemon, Family, Isp, Lab, Shape, Snapshot};

use crate::support::{await_packets, await_within, daemon, expect_share, expect_unharmed, lab};

const SECOND: Duration = Duration::from_secs(1);
const CONFIG: &str = "/sys/fs/bpf/uplink/config";
const OTHER: u8 = 99;

pub fn other_abi_refused() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    daemon(&lab, "")?.end(Signal::SIGKILL, SECOND)?;
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    change_abi(&lab)?;
    expect_refused(&lab)?;
    for family in Family::ALL {
        let tally = udp_flows(&lab, 200, family)?;
        println!("    meanwhile: {tally:?}");
        ensure!(tally.clean() == 200, "{family:?}: flows fail: {tally:?}");
    }
    await_packets(&stream, 50)?;
    expect_unharmed("a stream all the while", &stream.stop()?, Isp::Two)?;
    let output = run(&lab, &["down"])?;
    ensure!(output.status.success(), "down: {}", said(&output));
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    let daemon = Daemon::restart(&lab)?;
    daemon.await_up()?;
    expect_share("afterwards", &udp_flows(&lab, 1_500, Family::V4)?, 75.0)?;
    daemon.stop()
}

/// As if another version had left the maps.
fn change_abi(lab: &Lab) -> Result<()> {
    let key = "key 0 0 0 0";
    let text = lab
        .router
        .run(&format!("bpftool -j map lookup pinned {CONFIG} {key}"))?;
    let record: serde_json::Value = serde_json::from_str(&text)?;
    let bytes = record["value"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut bytes: Vec<&str> = bytes.iter().filter_map(|byte| byte.as_str()).collect();
    let abi = format!("{ABI:#04x}");
    ensure!(
        bytes.len() == size_of::<uplink_common::Config>() && bytes[0] == abi,
        "the record does not begin with {abi}: {text}"
    );
    let other = OTHER.to_string();
    bytes[0] = &other;
    let value = bytes.join(" ");
    let line = format!("bpftool map update pinned {CONFIG} {key} value {value}");
    lab.router.run(&line).map(drop)
}

/// A start fails with the words that help.
fn expect_refused(lab: &Lab) -> Result<()> {
    let mut daemon = Daemon::spawn(lab)?;
    let mut status = None;
    await_within("ended", std::time::Instant::now(), 5 * SECOND, || {
        status = daemon.ended()?;
        Ok(status.is_some())
    })?;
    let log = log_tail();
    let last = log.lines().last().unwrap_or_default();
    println!("    {status:?}: {last}");
    ensure!(status.and_then(|s| s.code()) == Some(1), "{status:?}: {log}");
    for word in ["layout", "99", "uplink down"] {
        ensure!(last.contains(word), "the last line does not say `{word}`: {log}");
    }
    Ok(())
}
