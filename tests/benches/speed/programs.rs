//! Each program by itself: what the verifier looked at, the machine code, and what a packet costs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya::programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, loaded_programs};
use etherparse::PacketBuilder;
use uplink_common::load::{self, PORT};

use crate::contestants::{Case, Contestant, PINS};
use crate::report::{Fact, median};
use crate::wire::{CLIENT_MAC, GATEWAY_MAC, ROUTER_MAC, Wire};

/// `struct __sk_buff` of `linux/bpf.h`, and its fields that a test run takes.
const CONTEXT: usize = 192;
const MARK: usize = 8;
const IFINDEX: usize = 40;
/// Packets that a time is the median of.
const PACKETS: u32 = 20_000;
/// The first uplink's mark.
const FIRST: u32 = 0x0100_0000;

/// The daemon's programs with the maps that it filled, beside one that does nothing; of the fast path, which takes no
/// packet without a wire, the size alone.
pub fn measure(contestant: &Contestant, fast: &Contestant) -> Result<Vec<Fact>> {
    let mut facts = steering(contestant)?;
    let wire = Wire::build(fast.driver)?;
    let _guard = fast.set_up(&wire, Case::ALL[1], 1_000)?;
    for info in ours()? {
        let name = name(&info)?;
        if name.starts_with("uplink_fast") {
            facts.extend(size(&name, &info));
        }
    }
    Ok(facts)
}

fn steering(contestant: &Contestant) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    let mut wire = Wire::build(contestant.driver)?;
    let _guard = contestant.set_up(&wire, Case::ALL[1], 1_000)?;
    wire.warm(false, 1_000)?;
    let nothing = wire.nothing()?;
    let index = wire.router.enter(|| nix::net::if_::if_nametoindex("eth0"))??;
    for info in ours()? {
        let name = name(&info)?;
        facts.extend(size(&name, &info));
        if !name.starts_with("uplink_ingress") && !name.starts_with("uplink_egress") {
            continue;
        }
        let outward = name.starts_with("uplink_egress");
        let program = SchedClassifier::from_program_info(info, name.clone().into())?;
        for (about, flows, start) in [
            ("1 flow", 1, 0),
            ("1000 flows", 1_000, 0),
            ("new flows", PACKETS, 500_000),
        ] {
            if outward && start != 0 {
                continue;
            }
            let run = |program: &SchedClassifier| -> Result<Vec<f64>> {
                let frames = (0..PACKETS).map(|n| frame(start + n % flows, outward));
                let mark = if outward { FIRST } else { 0 };
                wire.router
                    .enter(|| frames.map(|f| time(program, &f, index, mark)).collect())?
            };
            // The same frames through both: what reading them from user space costs is in both.
            let (own, floor) = (median(&run(&program)?), median(&run(nothing)?));
            facts.push(Fact::new(&name, about, own - floor, "ns over an empty program"));
        }
    }
    Ok(facts)
}

fn name(info: &ProgramInfo) -> Result<String> {
    Ok(info.name_as_str().context("a program without a name")?.to_owned())
}

fn size(name: &str, info: &ProgramInfo) -> [Fact; 2] {
    let verified = info.verified_instruction_count().unwrap_or(0);
    [
        Fact::new(name, "verified instructions", verified.into(), ""),
        Fact::new(name, "machine code", info.size_jitted().into(), "B"),
    ]
}

/// The programs that use the maps of our daemon.
fn ours() -> Result<Vec<ProgramInfo>> {
    let config = MapData::from_pin(format!("{PINS}/config"))?.info()?.id();
    let mut ours = Vec::new();
    for info in loaded_programs() {
        let Ok(info) = info else { continue };
        let maps = info.map_ids()?.unwrap_or_default();
        if maps.contains(&config) && info.name_as_str().is_some_and(|n| n.starts_with("uplink_")) {
            ours.push(info);
        }
    }
    Ok(ours)
}

fn time(program: &SchedClassifier, frame: &[u8], index: u32, mark: u32) -> Result<f64> {
    let mut context = [0; CONTEXT];
    context[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&index.to_ne_bytes());
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.ctx_in = Some(&context);
    let took: Duration = program.test_run(options)?.duration;
    Ok(took.as_nanos() as f64)
}

/// A packet of the load before the router, or behind it and its NAT.
fn frame(flow: u32, outward: bool) -> Vec<u8> {
    let (source, destination) = load::ends(flow);
    let (from, to, source) = match outward {
        true => (ROUTER_MAC, GATEWAY_MAC, [192, 168, 1, 100]),
        false => (CLIENT_MAC, ROUTER_MAC, source.to_be_bytes()),
    };
    let packet = PacketBuilder::ethernet2(from, to)
        .ipv4(source, destination.to_be_bytes(), 64)
        .udp(load::source_port(flow), PORT);
    let payload = [0; 22];
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet
        .write(&mut frame, &payload)
        .expect("a Vec takes everything");
    frame
}
