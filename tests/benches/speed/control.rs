//! What the daemon takes: for a new table, a failover, a start and a reload with many policies, and memory.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::EbpfLoader;
use aya::maps::MapData;
use uplink_common::Seed;
use uplink_common::mark::Mask;
use uplink_lab::process::{cpu_time, resident_kib};
use uplink_userspace::config::NatMode;
use uplink_userspace::engine::Selection;
use uplink_userspace::maps::{Maps, NAMES, Settings};
use uplink_userspace::resolve::{Leg, Uplink};
use uplink_userspace::weights::Serving;

use crate::contestants::{Case, Contestant, DIRECTORY, Guard, PINS, daemon, start, write};
use crate::report::{Fact, median};
use crate::wire::Wire;

const MASK: u32 = 0x7f00_0000;
/// New tables that a time is the median of.
const SWAPS: u32 = 100;
const POLICIES: u32 = 1_000;
const PREFIXES: u32 = 100_000;
/// Failovers that a time is the median of.
const FAILOVERS: u32 = 5;
/// Packets between two looks at a failover.
const BURST: u32 = 256;
const PATIENCE: Duration = Duration::from_secs(60);
const NAT_V4: Case = Case { v6: false, nat: true };

/// A new table of 65,537 slots in the idle bank, and the switch to it.
pub fn swap() -> Result<Vec<Fact>> {
    let object = std::env::var_os("UPLINK_BPF_OBJECT").context("UPLINK_BPF_OBJECT is not set")?;
    let ebpf = EbpfLoader::new().load_file(object)?;
    let mut maps = Maps::of(&ebpf)?;
    let uplinks = [uplink(1), uplink(2)];
    let settings = Settings {
        mask: Mask::new(MASK).context("a mask")?,
        seed: Seed::default(),
        nat: NatMode::Masquerade,
        netns: 0,
        stale_after_s: 0,
        learns: false,
        guards: true,
        next_hop: [false; 2],
    };
    let mut took = Vec::new();
    for n in 0..SWAPS {
        let serving = Serving(vec![(1, 3 + n % 2), (2, 1)]);
        let selection = Selection {
            v4: serving.clone(),
            v6: serving,
            groups: Vec::new(),
            voided: Vec::new(),
        };
        let begun = Instant::now();
        maps.publish(&uplinks, &selection, &settings)?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let most = took.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Fact::new("table", "swap of 65,537 slots, median", median(&took), "ms"),
        Fact::new("table", "swap of 65,537 slots, most", most, "ms"),
    ])
}

fn uplink(id: u8) -> Uplink {
    let leg = Leg {
        gateway: [192, 0, 2, id].into(),
        source: [192, 0, 2, 100 + id].into(),
        prefix: "192.0.2.0/24".parse().expect("a prefix"),
    };
    Uplink {
        id,
        name: format!("isp{id}"),
        interface: "lo".into(),
        ifindex: 1,
        v4: Some(leg),
        v6: None,
        weight: 1,
        tier: 1,
        mtu: None,
        table: 20_000 + u32::from(id),
        mark: u32::from(id) << 24,
        host_mark: 0,
        translation: None,
    }
}

/// What a failover takes, over [`FAILOVERS`] of them, and the memory then.
pub fn failover(contestant: &Contestant, flows: u32) -> Result<Vec<Fact>> {
    let (mut facts, mut took) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..FAILOVERS {
        let mut wire = Wire::build(contestant.driver)?;
        let guard = contestant.set_up(&wire, NAT_V4, flows)?;
        wire.warm(false, flows)?;
        facts = memory(&guard, flows)?;
        for (all, one) in took.iter_mut().zip(fail_over(&mut wire, flows)?) {
            all.push(one.as_secs_f64() * 1e3);
        }
    }
    let name = format!("{flows} flows");
    for (of, took) in ["new", "live"].iter().zip(took) {
        let most = took.iter().copied().fold(0.0, f64::max);
        for (what, ms) in [("median", median(&took)), ("most", most)] {
            facts.push(Fact::new(
                &name,
                &format!("failover of {of} flows, {what}"),
                ms,
                "ms",
            ));
        }
    }
    Ok(facts)
}

/// From a gateway that falls silent to the first batch that goes by the other as a whole: of new flows, and of those
/// that were there.
fn fail_over(wire: &mut Wire, flows: u32) -> Result<[Duration; 2]> {
    wire.silence("gw1")?;
    let fault = Instant::now();
    let mut took = [None; 2];
    let mut turn = 0;
    loop {
        for (start, took) in [flows, turn * BURST % flows].into_iter().zip(&mut took) {
            let by_gateway = wire.burst(start, BURST)?;
            if by_gateway[1] == 0 && by_gateway[2] > 0 {
                took.get_or_insert(fault.elapsed());
            }
        }
        if let [Some(new), Some(live)] = took {
            return Ok([new, live]);
        }
        ensure!(
            fault.elapsed() < PATIENCE,
            "no failover within {PATIENCE:?}: {took:?}"
        );
        turn += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Of the kernel for all maps, by entry of the flow table, and of the daemon.
fn memory(guard: &Guard, flows: u32) -> Result<Vec<Fact>> {
    let mut all = 0;
    let mut table = 0;
    for name in NAMES {
        let bytes = locked(&format!("{PINS}/{name}"))?;
        all += bytes;
        if ["flows", "recent"].contains(name) {
            table += bytes;
        }
    }
    let entries = MapData::from_pin(format!("{PINS}/flows"))?.info()?.max_entries();
    let name = format!("{flows} flows");
    Ok(vec![
        Fact::new(&name, "all maps", all as f64 / 1e6, "MB"),
        Fact::new(
            &name,
            "the flow table, each entry",
            table as f64 / f64::from(entries),
            "B",
        ),
        Fact::new(
            &name,
            "the daemon",
            resident_kib(guard.pid()?)? as f64 * 1.024e-3,
            "MB",
        ),
    ])
}

/// As the kernel accounts for it.
fn locked(pin: &str) -> Result<u64> {
    let map = MapData::from_pin(pin)?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .with_context(|| format!("{pin}: no memlock"))
}

/// A daemon with nothing to do.
pub fn idle(contestant: &Contestant) -> Result<Vec<Fact>> {
    const SPAN: Duration = Duration::from_secs(10);
    let wire = Wire::build(contestant.driver)?;
    let begun = Instant::now();
    let guard = start(&wire, NAT_V4, 1, "")?;
    let started = begun.elapsed().as_secs_f64();
    let before = cpu_time(guard.pid()?, true)?;
    std::thread::sleep(SPAN);
    let busy = cpu_time(guard.pid()?, true)? - before;
    let percent = 100.0 * busy.as_secs_f64() / SPAN.as_secs_f64();
    Ok(vec![
        Fact::new("no flows", "start, until both uplinks are up", started, "s"),
        Fact::new("no flows", "the daemon", percent, "% of a CPU"),
    ])
}

/// Start and reload with many policies.
pub fn policies(contestant: &Contestant) -> Result<Vec<Fact>> {
    let wire = Wire::build(contestant.driver)?;
    let mut text = String::new();
    for n in 0..POLICIES {
        let prefixes = (n..PREFIXES).step_by(POLICIES as usize).map(prefix);
        std::fs::write(format!("{DIRECTORY}/p{n}.txt"), prefixes.collect::<String>())?;
        let by = if n % 2 == 0 { "isp1" } else { "isp2" };
        let _ = writeln!(
            text,
            "[[policy]]\nname = \"p{n}\"\nmatch = {{ dst_file = \"p{n}.txt\" }}\nuse = [\"{by}\"]"
        );
    }
    let begun = Instant::now();
    let _guard = start(&wire, NAT_V4, 1, &text)?;
    let started = begun.elapsed();
    write(
        NAT_V4,
        1,
        &text.replace("use = [\"isp1\"]", "use = [\"isp2\", \"isp1\"]"),
    )?;
    let begun = Instant::now();
    let output = daemon(&wire, &["reload"])?.output()?;
    if !output.status.success() {
        bail!("reload: {}", String::from_utf8_lossy(&output.stderr));
    }
    let name = format!("{POLICIES} policies, {PREFIXES} prefixes");
    Ok(vec![
        Fact::new(
            &name,
            "start, until both uplinks are up",
            started.as_secs_f64(),
            "s",
        ),
        Fact::new(&name, "reload", begun.elapsed().as_secs_f64(), "s"),
    ])
}

/// Disjoint ones of 20.0.0.0/8 and above.
fn prefix(n: u32) -> String {
    let [a, b, c, _] = (0x1400_0000 + (n << 8)).to_be_bytes();
    format!("{a}.{b}.{c}.0/24\n")
}
