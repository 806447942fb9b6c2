//! The status page in headless Chromium, from a real daemon.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use uplink_lab::isolate::LAB_DIR;
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Family, Isp, Lab, Shape};

use super::http::{ADDRESS, SECTION};
use crate::support::{daemon, lab, pause};

/// A directory where screenshots go, for people to look at.
pub const SCREENSHOTS: &str = "UPLINK_LAB_SCREENSHOTS";

pub fn page() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, SECTION)?;
    udp_flows(&lab, 300, Family::V4)?;
    lab.blackhole(Isp::Two)?;
    daemon.await_state(Isp::Two, "down", std::time::Duration::from_secs(10))?;
    pause(10.0);
    let seen = chromium(&lab, &["--dump-dom"])?;
    let said = String::from_utf8_lossy(&seen.stderr);
    let complaints: Vec<_> = said.lines().filter(|l| l.contains("CONSOLE")).collect();
    ensure!(complaints.is_empty(), "the browser complains: {complaints:?}");
    let dom = String::from_utf8_lossy(&seen.stdout);
    for expected in [
        "1 of 2 up",
        "<h3 class=\"grow\">isp2</h3>",
        "isp2 is down",
        "class=\"curve ",
        "class=\"area c1\"",
        "its flows start anew elsewhere",
    ] {
        ensure!(dom.contains(expected), "no {expected} on the page:\n{dom}");
    }
    if let Some(dir) = std::env::var_os(SCREENSHOTS).map(PathBuf::from) {
        for (name, size) in [("wide", "1280,1500"), ("phone", "400,3200")] {
            let file = format!("--screenshot={}", dir.join(format!("{name}.png")).display());
            chromium(&lab, &[&file, &format!("--window-size={size}")])?;
        }
    }
    daemon.stop()
}

/// Eight seconds of the page, as its clock sees it.
fn chromium(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let profile = format!("--user-data-dir={LAB_DIR}/chromium");
    let mut command = lab.router.command("chromium");
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            &profile,
        ])
        .args([
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ])
        .args(["--enable-logging=stderr", "--virtual-time-budget=8000"])
        .args(arguments)
        .arg(format!("http://{ADDRESS}/"));
    let output = command.output().context("chromium")?;
    ensure!(output.status.success(), "chromium: {output:?}");
    Ok(output)
}
