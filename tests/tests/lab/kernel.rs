//! Attach modes, and the maps as `bpftool` sees them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use uplink_common::{SLOTS, Uplink};
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::snapshot::attached_at;
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape, Snapshot};

use crate::support::{daemon, expect_share, lab};

const SECOND: Duration = Duration::from_secs(1);
const MAPS: &str = "/sys/fs/bpf/uplink";

pub fn clsact_attach() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    let daemon = daemon(&lab, "[kernel]\nattach = \"clsact\"\n")?;
    let attach = daemon.status()?["attach"].clone();
    ensure!(attach == "clsact", "status says attach = {attach}");
    let filters = lab.router.run("tc filter show dev eth0 ingress")?;
    ensure!(filters.contains("bpf"), "no filter on eth0: {filters}");
    expect_share("clsact", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    daemon.stop()?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// Whatever an earlier daemon was attached to, and by whatever hook: a start leaves programs only where they belong.
pub fn attach_elsewhere() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    lab.router
        .ip("link add lan9 type veth peer name lan9b\nlink set lan9 up\n")?;
    let before = Snapshot::take(&lab)?;
    let (tcx, clsact) = (["tcx"; 2], ["clsact"; 2]);
    for (attach, with_lan9, eth0, lan9) in [
        ("auto", true, tcx, &tcx[..]),
        ("auto", false, tcx, &[]),
        ("auto", true, tcx, &tcx),
        ("clsact", false, clsact, &[]),
        ("clsact", true, clsact, &clsact),
        ("clsact", false, clsact, &[]),
        ("clsact", true, clsact, &clsact),
        ("auto", false, tcx, &[]),
    ] {
        let config = Config {
            lans: with_lan9.then(|| "lan9".to_owned()).into_iter().collect(),
            more: format!("[kernel]\nattach = \"{attach}\"\n"),
            ..Config::default()
        };
        let daemon = Daemon::start(&lab, &config)?;
        daemon.await_up()?;
        for (device, wanted) in [("eth0", &eth0[..]), ("lan9", lan9)] {
            let hooks = hooks(&lab, device)?;
            ensure!(
                hooks == wanted,
                "{attach}, {with_lan9}: at {device} {hooks:?}, not {wanted:?}"
            );
        }
        expect_share(attach, &udp_flows(&lab, 800, Family::V4)?, 75.0)?;
        daemon.end(Signal::SIGKILL, SECOND)?;
    }
    Daemon::restart(&lab)?.stop()?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// The hooks by which programs of ours are at a device, one for each program.
fn hooks(lab: &Lab, device: &str) -> Result<Vec<&'static str>> {
    let mut hooks = vec!["tcx"; attached_at(lab, device)?.len()];
    for side in ["ingress", "egress"] {
        let filters = lab.router.run(&format!("tc filter show dev {device} {side}"))?;
        hooks.extend(filters.matches(" direct-action").map(|_| "clsact"));
    }
    Ok(hooks)
}

/// The ingress qdisc takes the place of clsact, and would ask our egress program about what comes in.
pub fn clsact_ingress() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let text = Config::default().text(&lab) + "[kernel]\nattach = \"clsact\"\n";
    write_config(&text)?;
    lab.router.run("tc qdisc add dev eth0 ingress")?;
    let before = Snapshot::take(&lab)?;
    let refused = run(&lab, &["run"])?;
    println!("    {}", said(&refused));
    ensure!(
        refused.status.code() == Some(1) && said(&refused).contains("eth0 has an ingress qdisc"),
        "{}",
        said(&refused)
    );
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    lab.router.run("tc qdisc del dev eth0 ingress")?;
    lab.router.run("tc qdisc add dev eth0 clsact")?;
    let daemon = Daemon::restart(&lab)?;
    daemon.await_up()?;
    expect_share("clsact", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    daemon.stop()
}

pub fn bpftool_shows_fields() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    udp_flows(&lab, 100, Family::V4)?;
    for (map, fields) in [
        ("uplinks", &["weight", "mark", "ifindex", "name"][..]),
        ("slots", &["v4", "v6"]),
        ("flows", &["uplink", "generation", "last_used_s"]),
        ("counters", &["packets"]),
        ("config", &["abi", "mask", "seed"]),
        ("policies", &["flows"]),
    ] {
        let dump = lab.router.run(&format!("bpftool map dump pinned {MAPS}/{map}"))?;
        for field in fields {
            ensure!(
                dump.contains(&format!("\"{field}\"")),
                "{map} shows no {field}: {dump:.500}"
            );
        }
        println!("    {map}: {} bytes with {fields:?}", dump.len());
    }
    // The filter of this host's addresses is one from the start on: with every bit set each packet would be looked up.
    let dump = lab
        .router
        .run(&format!("bpftool -j map dump pinned {MAPS}/config"))?;
    let json: serde_json::Value = serde_json::from_str(&dump)?;
    let filter = json[0]["formatted"]["value"]["locals"].to_string();
    println!("    the filter: {filter}");
    let is_full = filter.contains(&u64::MAX.to_string());
    ensure!(!is_full && filter.len() > 20, "no filter: {filter}");
    daemon.stop()
}

pub fn bpftool_edits_take_effect() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let one = id(&lab, Isp::One)?;
    let record = lookup(&lab, one)?;
    update(&lab, one, &with_weight(&record, 0))?;
    expect_share("weight of isp1 is 0", &udp_flows(&lab, 300, Family::V4)?, 0.0)?;
    update(&lab, one, &record)?;
    expect_share("weight is back", &udp_flows(&lab, 1_500, Family::V4)?, 75.0)?;
    all_slots(&lab, one)?;
    expect_share("all slots are isp1's", &udp_flows(&lab, 300, Family::V4)?, 100.0)?;
    all_slots(&lab, 63)?;
    let tally = udp_flows(&lab, 50, Family::V4)?;
    println!("    slots of an uplink that is not there: {tally:?}");
    ensure!(
        tally.clean() == 50,
        "flows of an uplink that is not there: {tally:?}"
    );
    daemon.stop()
}

/// The uplink's id in the map, looked up by its name.
fn id(lab: &Lab, isp: Isp) -> Result<u32> {
    let mut name = isp.name().as_bytes().to_vec();
    name.resize(16, 0);
    for id in 1..8 {
        if lookup(lab, id)?.ends_with(&name) {
            return Ok(id);
        }
    }
    anyhow::bail!("no record of {} in the map `uplinks`", isp.name())
}

fn lookup(lab: &Lab, id: u32) -> Result<Vec<u8>> {
    let key = bytes(&id.to_ne_bytes());
    let text = lab
        .router
        .run(&format!("bpftool -j map lookup pinned {MAPS}/uplinks key {key}"))?;
    let json: Value = serde_json::from_str(&text)?;
    let value = json["value"].as_array().with_context(|| text.clone())?;
    let byte = |v: &Value| {
        let digits = v.as_str()?.strip_prefix("0x")?;
        u8::from_str_radix(digits, 16).ok()
    };
    value
        .iter()
        .map(byte)
        .collect::<Option<_>>()
        .with_context(|| text.clone())
}

fn update(lab: &Lab, id: u32, record: &[u8]) -> Result<()> {
    let (key, value) = (bytes(&id.to_ne_bytes()), bytes(record));
    let line = format!("bpftool map update pinned {MAPS}/uplinks key {key} value {value}");
    lab.router.run(&line).map(drop)
}

fn with_weight(record: &[u8], weight: u32) -> Vec<u8> {
    const AT: usize = std::mem::offset_of!(Uplink, weight);
    let mut record = record.to_vec();
    record[AT..AT + 4].copy_from_slice(&weight.to_ne_bytes());
    record
}

/// Writes every slot: both families, both banks.
fn all_slots(lab: &Lab, uplink: u32) -> Result<()> {
    let mut batch = String::new();
    for slot in 0..SLOTS {
        let (key, value) = (bytes(&slot.to_ne_bytes()), bytes(&[uplink as u8; 4]));
        let _ = writeln!(batch, "map update pinned {MAPS}/slots key {key} value {value}");
    }
    std::fs::write("/run/lab/batch", batch)?;
    lab.router.run("bpftool batch file /run/lab/batch").map(drop)
}

/// As bpftool takes them.
pub fn bytes(of: &[u8]) -> String {
    of.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}
