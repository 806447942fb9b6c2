//! Shares, and flows that stay where they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::write_config;
use uplink_lab::traffic::{Ongoing, Tally, tcp_connects, udp_flows};
use uplink_lab::{Config, Family, Isp, Lab, Shape};

use crate::support::{daemon, expect_share, expect_unharmed, lab, pause};

pub fn v4() -> Result<()> {
    shares(Shape::OneNic, Family::V4)
}

pub fn v6() -> Result<()> {
    shares(Shape::OneNic, Family::V6)
}

pub fn nic_each() -> Result<()> {
    shares(Shape::NicEach, Family::V4)?;
    Ok(())
}

fn shares(shape: Shape, family: Family) -> Result<()> {
    let (lab, _echo) = lab(shape)?;
    let daemon = daemon(&lab, "")?;
    expect_share("UDP", &udp_flows(&lab, 21_000, family)?, 75.0)?;
    expect_share("TCP", &tcp_connects(&lab, 2_000, family)?, 75.0)?;
    daemon.stop()
}

/// A reload with other weights moves new flows and no old one.
pub fn flow_keeps_uplink() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut daemon = daemon(&lab, "")?;
    let streams = streams(&lab)?;
    pause(1.0);
    let weights = [1, 3];
    write_config(
        &Config {
            weights,
            ..Config::default()
        }
        .text(&lab),
    )?;
    daemon.signal(Signal::SIGHUP)?;
    pause(1.0);
    daemon.await_up().context("after SIGHUP")?;
    expect_share("after the reload", &udp_flows(&lab, 3_000, Family::V4)?, 25.0)?;
    for (n, stream) in streams.into_iter().enumerate() {
        let report = stream.stop()?;
        let isp = report.isps().first().copied().unwrap_or(Isp::One);
        expect_unharmed(&format!("stream {n}"), &report, isp)?;
    }
    daemon.stop()
}

fn streams(lab: &Lab) -> Result<Vec<Ongoing>> {
    let mut streams = Vec::new();
    for family in [Family::V4, Family::V6] {
        for _ in 0..4 {
            streams.push(Ongoing::udp_stream(lab, family)?);
            streams.push(Ongoing::tcp_stream(lab, family)?);
        }
    }
    Ok(streams)
}

/// Without NAT the client's address arrives, and both ISPs carry flows.
pub fn nat_off() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    route_back(&lab)?;
    for isp in Isp::ALL {
        lab.isp(isp).nft(
            "table ip count { chain forward { type filter hook forward priority 0;\n\
             ip saddr 172.16.0.0/24 counter; }\n}\n",
        )?;
    }
    let daemon = daemon(&lab, "[nat]\nmode = \"off\"\n")?;
    let tally = udp_flows(&lab, 3_000, Family::V4)?;
    ensure!(tally.elsewhere == 3_000, "the source did not stay: {tally:?}");
    let carried = [forwarded(&lab, Isp::One)?, forwarded(&lab, Isp::Two)?];
    println!("    packets carried {carried:?}");
    // Each flow has three.
    let by_isp = carried.map(|packets| packets as usize / 3);
    let tally = Tally {
        by_isp,
        ..Tally::default()
    };
    expect_share("carried", &tally, 75.0)?;
    std::thread::sleep(Duration::from_millis(100));
    daemon.stop()
}

/// The Internet knows the way to the LAN, by the first ISP.
pub fn route_back(lab: &Lab) -> Result<()> {
    for isp in Isp::ALL {
        let (v4, v6) = isp.sources();
        lab.isp(isp).ip(&format!(
            "route add 172.16.0.0/24 via {v4}\nroute add fd00:10::/64 via {v6}\n"
        ))?;
    }
    let [_, v4, _, v6] = Isp::One.addresses();
    lab.internet.ip(&format!(
        "route add 172.16.0.0/24 via {v4}\nroute add fd00:10::/64 via {v6}\n"
    ))
}

fn forwarded(lab: &Lab, isp: Isp) -> Result<u64> {
    let rules = lab.isp(isp).run("nft list table ip count")?;
    let mut words = rules
        .split_whitespace()
        .skip_while(|word| *word != "packets")
        .skip(1);
    Ok(words.next().unwrap_or("0").parse()?)
}
