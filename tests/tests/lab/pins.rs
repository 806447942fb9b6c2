//! The flow table only saves work: without its pins, and without the program, conntrack decides.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::Signal;
use uplink_common::{FlowKey, Pin};
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::snapshot::attached;
use uplink_lab::traffic::{Fleet, FleetReport, udp_flows};
use uplink_lab::{Config, Family, Lab, Shape};

use crate::support::{await_within, daemon, expect_share, lab, pause};

const BPFFS: &str = "/sys/fs/bpf/uplink";
const UDP: usize = 100;
const TCP: usize = 100;

pub fn evicted() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    let fleet = Fleet::start(&lab, UDP, TCP)?;
    reweigh(&lab, [1, 3])?;
    let deleted = empty_flow_table()?;
    println!("    {deleted} pins deleted");
    ensure!(deleted >= UDP + TCP, "{deleted} pins of {} flows", UDP + TCP);
    unharmed(&fleet, "without their pins")?;
    println!("    pins that packets made anew, by uplink id: {:?}", pins()?);
    for family in Family::ALL {
        expect_share("new flows", &udp_flows(&lab, 1_500, family)?, 25.0)?;
    }
    empty_flow_table()?;
    daemon.signal(Signal::SIGSTOP)?;
    let programs = attached(&lab)?;
    detach(&lab)?;
    let tally = udp_flows(&lab, 300, Family::V4)?;
    println!("    new flows without the program: {tally:?}");
    ensure!(tally.clean() == 300, "without the program: {tally:?}");
    unharmed(&fleet, "without the program")?;
    daemon.signal(Signal::SIGCONT)?;
    await_within("attached again", Instant::now(), Duration::from_secs(2), || {
        Ok(attached(&lab)? == programs)
    })?;
    unharmed(&fleet, "with the program")?;
    fleet.stop()?.expect_unharmed("all in all")?;
    lab.expect_right_isps("all in all")?;
    daemon.stop()
}

fn reweigh(lab: &Lab, weights: [u32; 2]) -> Result<()> {
    let config = Config {
        weights,
        ..Config::default()
    };
    write_config(&config.text(lab))?;
    let output = run(lab, &["reload"])?;
    ensure!(output.status.success(), "reload: {}", said(&output));
    Ok(())
}

fn flow_table() -> Result<HashMap<MapData, FlowKey, Pin>> {
    let path = Path::new(BPFFS).join("flows");
    let map = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
    Ok(Map::LruHashMap(map).try_into()?)
}

/// Pins by uplink id.
fn pins() -> Result<BTreeMap<u32, usize>> {
    let mut count = BTreeMap::new();
    for pin in flow_table()?.iter() {
        *count.entry(u32::from(pin?.1.uplink)).or_default() += 1;
    }
    Ok(count)
}

/// Removes every pin; how many there were.
fn empty_flow_table() -> Result<usize> {
    let mut flows = flow_table()?;
    // Flows go on meanwhile, so only what is there now.
    let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
    Ok(keys.iter().filter(|key| flows.remove(key).is_ok()).count())
}

fn detach(lab: &Lab) -> Result<()> {
    for entry in std::fs::read_dir(BPFFS)? {
        let pin = entry?.path().display().to_string();
        // Only links can be detached; bpftool tells what a pin is by refusing.
        let _ = lab.router.run(&format!("bpftool link detach pinned {pin}"));
    }
    let left = attached(lab)?;
    ensure!(left.is_empty(), "still attached: {left:?}");
    Ok(())
}

/// Every flow sends some more requests, and none is harmed.
fn unharmed(fleet: &Fleet, what: &str) -> Result<FleetReport> {
    let before = fleet.report()?.requests;
    pause(2.0);
    let report = fleet.report()?;
    ensure!(
        report.requests >= before + 3 * report.flows,
        "{what}: hardly any request: {report:?}"
    );
    report.expect_unharmed(what)?;
    Ok(report)
}
