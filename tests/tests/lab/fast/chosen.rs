//! Nobody asked for the fast path: it is there where it can be had and nothing would be missed, and nothing is said of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use uplink_lab::daemon::run;
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Config, Daemon, Family, Lab, Shape, Snapshot};

use super::{expect_attached, packets, wired};
use crate::policies::reload;
use crate::support::{self, await_within, pause};

/// Accepts all, and counts it.
const COUNTER: &str =
    "table inet acct { chain forward { type filter hook forward priority 0; counter accept; }\n}\n";

pub fn chosen() -> Result<()> {
    without_able_drivers()?;
    let (lab, _echo, _ends) = wired(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    let daemon = support::daemon(&lab, "")?;
    expect_attached(&daemon, "xdp")?;
    for family in Family::ALL {
        let tally = udp_flows(&lab, 300, family)?;
        ensure!(tally.clean() == 300, "{family:?}: {tally:?}");
    }
    let fast = packets(&daemon, "fast")?;
    ensure!(fast > 300 && at_wire(&lab)?, "{fast} packets by the fast path");
    let doctor = run(&lab, &["doctor", "--json"])?;
    let text = String::from_utf8(doctor.stdout)?;
    ensure!(
        text.contains("findings") && !text.contains("an XDP program"),
        "doctor: {text}"
    );
    // A counter would miss packets, and nobody said that it may.
    lab.router.nft(COUNTER)?;
    expect_attached(&daemon, "tcx")?;
    pause(1.0);
    silent(&daemon)?;
    lab.router.run("nft delete table inet acct")?;
    expect_attached(&daemon, "xdp")?;
    // Whoever wants the kernel to forward gets that, and back.
    reload(&lab, &config("[kernel]\nmode = \"mark\"\n"))?;
    expect_attached(&daemon, "tcx")?;
    ensure!(!at_wire(&lab)?, "the program is still at the wire");
    reload(&lab, &config(""))?;
    expect_attached(&daemon, "xdp")?;
    silent(&daemon)?;
    daemon.stop()?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// A veth whose other end has no program sends nobody's frames.
fn without_able_drivers() -> Result<()> {
    let (lab, _echo) = support::lab(Shape::OneNic)?;
    let daemon = support::daemon(&lab, "")?;
    pause(1.0);
    expect_attached(&daemon, "tcx")?;
    ensure!(!at_wire(&lab)?, "a program is at the wire");
    silent(&daemon)?;
    daemon.stop()?;
    // Asked for or not, frames would be lost there.
    let daemon = Daemon::start(&lab, &config("[kernel]\nattach = \"xdp\"\n"))?;
    daemon.await_up()?;
    let told = || {
        Ok(daemon.status()?["warnings"]
            .to_string()
            .contains("eth0 does not send"))
    };
    await_within("it is said", Instant::now(), Duration::from_secs(7), told)?;
    for family in Family::ALL {
        let tally = udp_flows(&lab, 300, family)?;
        ensure!(
            tally.clean() == 300,
            "{family:?}, without able drivers: {tally:?}"
        );
    }
    expect_attached(&daemon, "tcx")?;
    daemon.stop()
}

fn config(more: &str) -> Config {
    Config {
        more: more.into(),
        ..Config::default()
    }
}

fn silent(daemon: &Daemon<'_>) -> Result<()> {
    let warnings = &daemon.status()?["warnings"];
    ensure!(warnings.as_array().is_some_and(Vec::is_empty), "{warnings}");
    Ok(())
}

fn at_wire(lab: &Lab) -> Result<bool> {
    let links: Value = serde_json::from_str(&lab.router.run("ip -j -d link show eth0")?)?;
    Ok(links[0].get("xdp").is_some())
}
