//! What the kernel has of a flow stays true while its packets pass the kernel.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use uplink_common::path::{FIRST_LOOK_S, OUTWARD};
use uplink_lab::{Family, Isp, Lab, Shape};

use super::flows::Flows;
use super::{daemon, packets, wired};
use crate::kernel::bytes;
use crate::nexthop::by_hops;
use crate::support::pause;

/// As traceroute sees it: this router is the first hop, the provider's gateway the second.
pub fn counted() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        let (lab, _echo, _ends) = wired(shape)?;
        // Behind NAT all errors are for the same few addresses.
        for isp in Isp::ALL {
            lab.isp(isp).sysctl("ipv4/icmp_ratelimit", "0")?;
            lab.isp(isp).sysctl("ipv6/icmp/ratelimit", "0")?;
        }
        let daemon = daemon(&lab, "")?;
        for family in Family::ALL {
            let mut seen = [0; 2];
            for n in 0..12 {
                let before = packets(&daemon, "fast")?;
                seen[by_hops(&lab, family, n)?.index()] += 1;
                // Of four packets outward the first and the second are the kernel's, which learns by them, and so is the one
                // with the last hop. Of two answers, the second is fast.
                let fast = packets(&daemon, "fast")? - before;
                ensure!((1..=2).contains(&fast), "{family:?}, flow {n}: {fast} packets");
            }
            println!("    {shape:?} {family:?}: the second hop is a gateway {seen:?}");
        }
        daemon.stop()?;
    }
    Ok(())
}

/// Conntrack keeps a flow of datagrams for longer than its timeouts, since it sees one now and then; so the flow keeps its
/// port. A stream's timeout counts as soon as conntrack takes it for one.
pub fn kept() -> Result<()> {
    keep([6, 6], 18)?;
    // Looks are 12 s apart.
    keep([9, 36], 30)
}

/// Conntrack takes datagrams for a stream when they have gone on for two seconds. The kernel looks at a flow seldom only when two looks
/// were that far apart, wherever the clock's seconds began between them.
pub fn apart() -> Result<()> {
    const FLOWS: usize = 20;
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    // The first ones are in the next second but one when it begins.
    for (apart, fast) in [(1.1, 0), (3.1, 2 * FLOWS as u64)] {
        let mut flows = Flows::open(&lab, Family::V4, FLOWS)?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let fraction = now.tv_nsec() as f64 / 1e9;
        pause((1.93 - fraction) % 1.0);
        let begun = Instant::now();
        flows.expect_whole("learned", 3)?;
        let before = packets(&daemon, "fast")?;
        pause((apart - begun.elapsed().as_secs_f64()).max(0.0));
        // A longer packet than any before is the kernel's.
        let longer = flows.padded_round(100);
        ensure!(longer.lost == 0 && longer.moved == 0, "{longer:?}");
        let passed = packets(&daemon, "fast")? - before;
        ensure!(passed == 0, "{passed} long packets by the fast path");
        pause(f64::from(FIRST_LOOK_S) + 0.3);
        flows.expect_whole("looked at twice", 1)?;
        let passed = packets(&daemon, "fast")? - before;
        ensure!(
            passed == fast,
            "looks {apart} s apart: {passed} packets by the fast path, not {fast}"
        );
    }
    daemon.stop()
}

/// A flow that was answered once may go on without answers: their line is another flow's by then, but for conntrack it stays a
/// connection.
pub fn one_way() -> Result<()> {
    const FLOWS: usize = 20;
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    // Looks are two seconds apart.
    for timeout in ["udp_timeout", "udp_timeout_stream"] {
        let key = format!("netfilter/nf_conntrack_{timeout}");
        lab.router.sysctl(&key, "6")?;
    }
    let daemon = daemon(&lab, "flows = 1024\n")?;
    for (family, map) in [(Family::V4, "paths_v4"), (Family::V6, "paths_v6")] {
        let mut flows = Flows::open(&lab, family, FLOWS)?;
        flows.expect_whole("answered", 3)?;
        let lines = take_lines_of_answers(&lab, map)?;
        ensure!(lines == FLOWS, "{family:?}: lines of {lines} answers");
        pause(f64::from(FIRST_LOOK_S) + 0.3);
        let looked_at = flows.outward();
        let before = packets(&daemon, "fast")?;
        let arrived = flows.outward();
        let fast = packets(&daemon, "fast")? - before;
        ensure!(
            [looked_at, arrived, fast as usize] == [FLOWS; 3],
            "{family:?}: {looked_at} looked at, {arrived} arrived after it, {fast} of them by the fast path"
        );
    }
    daemon.stop()
}

/// Empties the lines of all that comes in by uplinks, and says how many.
fn take_lines_of_answers(lab: &Lab, map: &str) -> Result<usize> {
    let map = format!("/sys/fs/bpf/uplink/{map}");
    let dump = lab.router.run(&format!("bpftool -j map dump pinned {map}"))?;
    let dump: Vec<Value> = serde_json::from_str(&dump)?;
    let mut taken = 0;
    for line in dump {
        let (key, path) = (&line["formatted"]["key"], &line["formatted"]["value"]);
        let flags = path["flags"].as_u64().context("a path has no flags")?;
        if path["generation"] == 0 || flags & u64::from(OUTWARD) != 0 {
            continue;
        }
        let key = key.as_u64().context("a line has no number")? as u32;
        let length = line["value"].as_array().context("a line has no bytes")?.len();
        let [key, nothing] = [&key.to_ne_bytes()[..], &vec![0; length]].map(bytes);
        lab.router.run(&format!(
            "bpftool map update pinned {map} key {key} value {nothing}"
        ))?;
        taken += 1;
    }
    Ok(taken)
}

fn keep(timeouts_s: [u32; 2], seconds: u64) -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    for (name, timeout) in ["udp_timeout", "udp_timeout_stream"].iter().zip(timeouts_s) {
        let key = format!("netfilter/nf_conntrack_{name}");
        lab.router.sysctl(&key, &timeout.to_string())?;
    }
    let daemon = daemon(&lab, "")?;
    let mut flows = [
        Flows::open(&lab, Family::V4, 20)?,
        Flows::open(&lab, Family::V6, 20)?,
    ];
    let (begun, mut rounds) = (Instant::now(), 0);
    let before = packets(&daemon, "fast")?;
    while begun.elapsed() < Duration::from_secs(seconds) {
        for flows in &mut flows {
            flows.expect_whole("kept", 1)?;
        }
        rounds += 1;
        for family in ["ipv4", "ipv6"] {
            let list = lab
                .router
                .run(&format!("conntrack -f {family} -L -p udp --dport 7640"))?;
            let known = list.lines().count();
            ensure!(known == 20, "{family}, round {rounds}: {known} connections");
        }
        pause(0.1);
    }
    let (fast, all) = (packets(&daemon, "fast")? - before, rounds * 80);
    println!("    {fast} of {all} packets by the fast path in {rounds} rounds");
    ensure!(fast > all * 8 / 10 && fast < all, "{fast} of {all}");
    daemon.stop()
}
