//! `doctor`: it sees what is really in the way, and changes nothing.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::{Config, Lab, Shape, Snapshot};

use crate::support::{daemon, lab, pause};

/// Its exit status and its answer. It must leave everything as it is.
fn doctor(lab: &Lab) -> Result<(Option<i32>, Value)> {
    let before = Snapshot::take(lab)?;
    let output = run(lab, &["doctor", "--json"])?;
    let differences = before.diff(&Snapshot::take(lab)?);
    ensure!(differences.is_empty(), "doctor changed {differences:#?}");
    let answer = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    Ok((output.status.code(), answer))
}

fn codes(answer: &Value) -> Vec<&str> {
    let found = answer["findings"].as_array().into_iter().flatten();
    found.filter_map(|f| f["code"].as_str()).collect()
}

/// Nothing blocks on a router that works, before the start and with a daemon, whose own things are
/// not taken for somebody else's.
pub fn healthy() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    write_config(&Config::default().text(&lab))?;
    pause(2.0);
    let (status, before) = doctor(&lab)?;
    println!("    before: {:?}", codes(&before));
    ensure!(
        status == Some(0) && before["blocks"] == 0,
        "{status:?} {before:#}"
    );
    let daemon = daemon(&lab, "")?;
    let (status, running) = doctor(&lab)?;
    ensure!(status == Some(0), "{status:?} {running:#}");
    ensure!(codes(&running) == codes(&before), "{running:#}");
    daemon.stop()
}

/// Each thing that somebody put there is found.
pub fn findings() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    write_config(&Config::default().text(&lab))?;
    pause(2.0);
    let before = doctor(&lab)?.1;
    let conditions = [
        (
            "rule-in-block",
            "ip rule add priority 20100 to 192.0.2.0/24 lookup 100",
        ),
        (
            "mark-overlap",
            "ip rule add priority 100 fwmark 0x3000000/0xf000000 lookup 100",
        ),
        ("table-in-use", "ip route add 192.0.2.0/24 dev lo table 20001"),
        ("flowtable", "nft add table inet fw"),
    ];
    for (code, command) in conditions {
        ensure!(!codes(&before).contains(&code), "{code} before: {before:#}");
        lab.router.run(command)?;
    }
    lab.router
        .run("nft add flowtable inet fw ft { hook ingress priority 0; devices = { eth0 }; }")?;
    let (status, after) = doctor(&lab)?;
    let found = codes(&after);
    println!("    {found:?}");
    for (code, _) in conditions {
        ensure!(found.contains(&code), "no {code}: {after:#}");
    }
    ensure!(status == Some(0) && after["blocks"] == 0, "{status:?} {after:#}");
    Ok(())
}

/// What blocks, and a wrong configuration, are in the exit status.
pub fn blocked() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let text = Config::default().text(&lab);
    write_config(&text)?;
    pause(2.0);
    let elsewhere = run(&lab, &["doctor", "--json", "--bpffs", "/tmp/uplink-is-not-here"])?;
    let answer: Value = serde_json::from_slice(&elsewhere.stdout).with_context(|| said(&elsewhere))?;
    ensure!(elsewhere.status.code() == Some(1), "{}", said(&elsewhere));
    ensure!(
        answer["blocks"] == 1 && codes(&answer).contains(&"bpffs-missing"),
        "{answer:#}"
    );
    write_config(&text.replace("gateway", "gatewy"))?;
    let (status, answer) = doctor(&lab)?;
    ensure!(status == Some(2), "{status:?} {answer:#}");
    ensure!(codes(&answer).contains(&"configuration"), "{answer:#}");
    Ok(())
}
