//! What a packet of an established connection costs: a measurement, run by hand.
//!
//! `UPLINK_BPF_BASE` may name another object. Its programs then run in turns with ours, on the same
//! maps: the machine is never quiet enough to compare anything else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use uplink_userspace::config::NatMode;

use super::{Bench, COUNT, EGRESS, FLOWS, GATEWAY_MACS, INGRESS, classifier};
use crate::frames::{V4, V6, established, sent_by, stamped};

const ROUNDS: usize = 15;
const REPEAT: u32 = 300_000;

/// The maps that say what becomes of a packet.
const SHARED: [&str; 7] = [
    "config",
    "uplinks",
    "slots",
    "flows",
    "next_hops",
    "locals",
    "stations",
];

struct Case {
    what: &'static str,
    nat: NatMode,
    program: &'static str,
    frame: Vec<u8>,
    mark: u32,
}

/// None gets a mark: the kernel repeats with the same skb.
fn cases() -> Vec<Case> {
    let one = 1 << 24;
    let case = |what, program, frame, mark| Case {
        what,
        nat: NatMode::Masquerade,
        program,
        frame,
        mark,
    };
    let plain = V4::tcp(1000, 443);
    let nat = plain.from([192, 168, 1, 100]);
    let down = stamped(9, 1, &plain.reversed().frame());
    let back = stamped(9, 1, &nat.reversed().frame());
    let v6 = V6::tcp(1000, 443);
    vec![
        case("egress, by an uplink", EGRESS, established(&nat.frame()), one),
        case(
            "the same with timestamps",
            EGRESS,
            stamped(1, 9, &nat.frame()),
            one,
        ),
        case("egress, to a client", EGRESS, down.clone(), 0),
        case(
            "the same with IPv6",
            EGRESS,
            stamped(9, 1, &v6.reversed().frame()),
            0,
        ),
        case(
            "ingress, from an uplink",
            INGRESS,
            established(&nat.reversed().frame()),
            0,
        ),
        case("the same with timestamps", INGRESS, back.clone(), 0),
        case("the same, counted only", COUNT, back, 0),
        Case {
            nat: NatMode::Off,
            ..case("ingress without NAT", INGRESS, sent_by(GATEWAY_MACS[0], &down), 0)
        },
    ]
}

#[test]
#[ignore = "a measurement"]
fn cost_of_an_established_packet() {
    let run = || measure().expect("this needs root and UPLINK_BPF_OBJECT");
    std::thread::spawn(run).join().expect("the thread");
}

fn measure() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).context("private mounts")?;
    let pins = Path::new("/mnt");
    mount(nothing, pins, Some("bpf"), MsFlags::empty(), nothing).context("a BPF file system")?;
    let mut bench = Bench::build(&mut pinning(pins), FLOWS)?;
    let mut base = base(pins)?;
    for case in cases() {
        bench.nat = case.nat;
        bench.serve_all();
        let ctx = bench.context(case.mark);
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            ours = ours.min(time(&mut bench.ebpf, &case, &ctx)?);
            if let Some(base) = &mut base {
                theirs = theirs.min(time(base, &case, &ctx)?);
            }
        }
        let theirs = base.is_some().then_some(theirs);
        println!("{}: {ours:?}, the base {theirs:?}", case.what);
    }
    Ok(())
}

fn base(pins: &Path) -> Result<Option<Ebpf>> {
    let Some(object) = std::env::var_os("UPLINK_BPF_BASE") else {
        return Ok(None);
    };
    let mut ebpf = pinning(pins).map_max_entries("flows", FLOWS).load_file(object)?;
    for name in [INGRESS, EGRESS, COUNT] {
        classifier(&mut ebpf, name)?.load()?;
    }
    Ok(Some(ebpf))
}

fn pinning(pins: &Path) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    for name in SHARED {
        loader.map_pin_path(name, pins.join(name));
    }
    loader
}

/// For one packet, on average over many.
fn time(ebpf: &mut Ebpf, case: &Case, ctx: &[u8]) -> Result<Duration> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(&case.frame);
    options.ctx_in = Some(ctx);
    options.repeat = REPEAT;
    Ok(classifier(ebpf, case.program)?.test_run(options)?.duration)
}
