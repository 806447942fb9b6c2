//! What looking costs with 64 uplinks and a full flow table.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use uplink_common::{FlowKey, Pin};
use uplink_lab::daemon::write_config;
use uplink_lab::{Daemon, Isp, Lab, Shape};

use super::http::{SECTION, get};
use crate::support::{Spread, lab, pause};

const UPLINKS: u8 = 64;
const FLOWS: u32 = 1_000_000;

pub fn large() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    configure(&lab)?;
    let daemon = Daemon::restart(&lab)?;
    pause(2.0);
    let filled = fill()?;
    println!("    {filled} pins");
    // The first look after a large table was filled counts it; from then on that is done beside.
    let first = Instant::now();
    get(&lab, "/status.json")?;
    println!("    the first status: {:?}", first.elapsed());
    pause(1.0);
    let metrics = get(&lab, "/metrics")?;
    let has = |line: &str| metrics.body.lines().any(|l| l.starts_with(line));
    ensure!(
        (1..=UPLINKS).all(|n| has(&format!("uplink_up{{uplink=\"up{n}\"}} 1"))),
        "64 uplinks are not all up:\n{}",
        metrics.body
    );
    for path in ["/metrics", "/status.json", "/health", "/history.json"] {
        let mut took = Vec::new();
        for _ in 0..10 {
            // An answer serves others for a quarter of a second.
            pause(0.26);
            let begun = Instant::now();
            let response = get(&lab, path)?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            ensure!(response.status == 200, "{path}: {}", response.status);
        }
        let spread = Spread::of(&took);
        let size = get(&lab, path)?.body.len() / 1024;
        println!("    {path}, {size} KiB, ms: {spread}");
        ensure!(spread.p50 < 100.0, "{path} takes {spread} ms");
    }
    daemon.stop()
}

fn configure(lab: &Lab) -> Result<()> {
    let mut text = String::new();
    for n in 1..=UPLINKS {
        let host = 100 + n;
        lab.isp(Isp::One)
            .ip(&format!("addr add 192.168.1.{host}/24 dev eth0\n"))?;
        let _ = write!(
            text,
            "[[uplink]]\nname = \"up{n}\"\ninterface = \"eth0\"\ngateway = \"192.168.1.{host}\"\n"
        );
    }
    text += "[local]\nenabled = false\n[kernel]\nflows = 1048576\n\
             [probe]\ninterval = \"500ms\"\ntargets = [\"203.0.113.10\"]\n";
    write_config(&(text + SECTION))?;
    Ok(())
}

/// Pins of flows that nobody sends. Returns how many there are room for.
fn fill() -> Result<u32> {
    let path = Path::new("/sys/fs/bpf/uplink/flows");
    let map = MapData::from_pin(path).with_context(|| path.display().to_string())?;
    let mut flows: HashMap<_, FlowKey, Pin> = Map::LruHashMap(map).try_into()?;
    let begun = Instant::now();
    for n in 0..FLOWS {
        let mut key = FlowKey::default();
        key.dst.0[10..12].fill(0xff);
        key.dst.0[12..].copy_from_slice(&[203, 0, 113, 10]);
        key.src.0[10..12].fill(0xff);
        key.src.0[12..].copy_from_slice(&n.to_be_bytes());
        let pin = Pin {
            uplink: (n % u32::from(UPLINKS)) as u8 + 1,
            ..Pin::default()
        };
        flows.insert(key, pin, 0)?;
        if begun.elapsed() > Duration::from_secs(12) {
            return Ok(n);
        }
    }
    Ok(FLOWS)
}
