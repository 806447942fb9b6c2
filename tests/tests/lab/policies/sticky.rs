//! Clients that keep their uplink.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use uplink_lab::topology::{CLIENTS, client, elsewhere};
use uplink_lab::traffic::{Flow, How, Tally, host_sendto, host_tcp, host_udp, udp_like};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use super::{config, reload};
use crate::host::Host;
use crate::support::{lab, pause};

const SECOND: Duration = Duration::from_secs(1);
/// So many that chance would spread them.
const DESTINATIONS: u16 = 30;

fn sticky(how: &str, weights: [u32; 2]) -> Config {
    Config {
        weights,
        ..config(&format!("[[policy]]\nname = \"sticky\"\nsticky = \"{how}\"\n"))
    }
}

/// The one ISP that these flows took.
fn one_isp(what: &str, tally: &Tally) -> Result<Isp> {
    let isp = Isp::ALL.into_iter().find(|isp| tally.by_isp[isp.index()] > 0);
    let isp = isp.with_context(|| format!("{what}: {tally:?}"))?;
    ensure!(
        tally.by_isp[isp.index()] == tally.total(),
        "{what}: not by one ISP: {tally:?}"
    );
    Ok(isp)
}

/// By client: its ISP, known from 300 flows to many destinations.
fn of_clients(lab: &Lab, family: Family) -> Result<Vec<Isp>> {
    let of = |n: u8| {
        let tally = udp_like(&lab.client, 300, |i| {
            Flow::fresh(family)
                .from_address(client(family, n))
                .to_address(elsewhere(family, i as u16))
        })?;
        one_isp(&format!("client {n}"), &tally)
    };
    (0..CLIENTS).map(of).collect()
}

/// All flows of a client by one uplink, whatever the weights become, until it dies.
pub fn source() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = Daemon::start(&lab, &sticky("source", [1, 1]))?;
    daemon.await_up()?;
    for family in Family::ALL {
        let first = of_clients(&lab, family)?;
        println!("    {family:?}: clients by {first:?}");
        reload(&lab, &sticky("source", [20, 1]))?;
        ensure!(of_clients(&lab, family)? == first, "moved by 20:1");
        reload(&lab, &sticky("source", [1, 20]))?;
        ensure!(of_clients(&lab, family)? == first, "moved by 1:20");
        let doomed = first[0];
        lab.blackhole(doomed)?;
        daemon.await_state(doomed, "down", 10 * SECOND)?;
        let moved = of_clients(&lab, family)?;
        ensure!(
            moved.iter().all(|isp| *isp == doomed.other()),
            "{doomed:?} is down: {moved:?}"
        );
        lab.heal(doomed)?;
        daemon.await_state(doomed, "up", 20 * SECOND)?;
        pause(0.3);
        let after = of_clients(&lab, family)?;
        println!("    {family:?}: {doomed:?} is back, clients by {after:?}");
        ensure!(after == moved, "{doomed:?} is back: moved to {after:?}");
        reload(&lab, &sticky("source", [1, 1]))?;
    }
    daemon.stop()
}

/// By client and destination: the ISP, known from some flows each.
fn of_pairs(lab: &Lab, family: Family) -> Result<BTreeMap<(u8, u16), Isp>> {
    let mut isps = BTreeMap::new();
    for (from, to) in [0, 1]
        .into_iter()
        .flat_map(|n| (0..DESTINATIONS).map(move |to| (n, to)))
    {
        let tally = udp_like(&lab.client, 10, |_| {
            Flow::fresh(family)
                .from_address(client(family, from))
                .to_address(elsewhere(family, to))
        })?;
        isps.insert((from, to), one_isp(&format!("client {from} to {to}"), &tally)?);
    }
    Ok(isps)
}

/// A client keeps an uplink towards each destination, and has both towards some.
pub fn both() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = Daemon::start(&lab, &sticky("source-destination", [1, 1]))?;
    daemon.await_up()?;
    for family in Family::ALL {
        let first = of_pairs(&lab, family)?;
        for from in [0, 1] {
            let ones = first
                .iter()
                .filter(|(ends, isp)| ends.0 == from && **isp == Isp::One);
            let ones = ones.count();
            println!("    {family:?}: client {from}: {ones} of {DESTINATIONS} destinations by isp1");
            ensure!(ones > 0 && ones < DESTINATIONS.into(), "all destinations by one");
        }
        reload(&lab, &sticky("source-destination", [1, 20]))?;
        ensure!(of_pairs(&lab, family)? == first, "moved by 1:20");
        lab.blackhole(Isp::Two)?;
        daemon.await_state(Isp::Two, "down", 10 * SECOND)?;
        let moved = of_pairs(&lab, family)?;
        ensure!(
            moved.values().all(|isp| *isp == Isp::One),
            "isp2 is down: {moved:?}"
        );
        lab.heal(Isp::Two)?;
        daemon.await_state(Isp::Two, "up", 20 * SECOND)?;
        reload(&lab, &sticky("source-destination", [1, 1]))?;
    }
    daemon.stop()
}

/// This host is one client.
pub fn host() -> Result<()> {
    let host = Host::build()?;
    let with = |weights| Config {
        local: Some(host.cgroup.path().to_owned()),
        ..sticky("source", weights)
    };
    let daemon = Daemon::start(&host.lab, &with([1, 1]))?;
    daemon.await_up()?;
    for family in Family::ALL {
        let mut by = Vec::new();
        for weights in [[1, 1], [20, 1], [1, 20]] {
            reload(&host.lab, &with(weights))?;
            let mut tally = host_udp(&host.lab, 200, family, How::Free)?;
            tally += host_tcp(&host.lab, 50, family, How::Free)?;
            tally += host_sendto(&host.lab, 100, family)?;
            by.push(one_isp("this host", &tally)?);
        }
        println!("    {family:?}: this host by {by:?}");
        ensure!(by.iter().all(|isp| *isp == by[0]), "moved: {by:?}");
    }
    daemon.stop()
}
