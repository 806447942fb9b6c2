//! By which uplinks a policy sends: one after another, by weights, a group's, the nearest.

use std::time::{Duration, Instant};

use anyhow::Result;
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::{Flow, Tally, tcp_like, udp_flows, udp_like};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Quality, Shape};

use super::{config, expect_all, expect_balanced, start};
use crate::support::{await_within, expect_share, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
/// Matches [`theirs`].
const MATCH: &str = "match = { dst = [\"198.18.0.0/16\", \"2001:db8:18::/112\"] }\n";

/// Flows that the policy matches.
pub fn theirs(lab: &Lab, n: usize, family: Family) -> Result<Tally> {
    udp_like(&lab.client, n, |n| {
        Flow::fresh(family).to_address(elsewhere(family, n as u16))
    })
}

/// Its flows go by this ISP, of both families and protocols.
fn expect_by(lab: &Lab, what: &str, isp: Isp) -> Result<()> {
    for family in Family::ALL {
        expect_all(what, &theirs(lab, 200, family)?, isp)?;
        let tcp = tcp_like(&lab.client, 20, |n| {
            Flow::fresh(family).to_address(elsewhere(family, n as u16))
        })?;
        expect_all(what, &tcp, isp)?;
    }
    Ok(())
}

/// isp2, and isp1 while it is down. `"isp2"` alone falls back likewise, unless it is strict.
pub fn ordered() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, "")?;
    for uses in ["[\"isp2\", \"isp1\"]", "\"isp2\""] {
        let policy = format!("[[policy]]\nname = \"ordered\"\n{MATCH}use = {uses}\n");
        super::reload(&lab, &config(&policy))?;
        expect_by(&lab, uses, Isp::Two)?;
        expect_balanced("others", &udp_flows(&lab, 200, Family::V4)?)?;
        lab.blackhole(Isp::Two)?;
        daemon.await_state(Isp::Two, "down", 10 * SECOND)?;
        expect_by(&lab, "isp2 is down", Isp::One)?;
        lab.heal(Isp::Two)?;
        daemon.await_state(Isp::Two, "up", 20 * SECOND)?;
        pause(0.3);
        expect_by(&lab, "isp2 is back", Isp::Two)?;
        expect_balanced("others", &udp_flows(&lab, 200, Family::V4)?)?;
        lab.blackhole(Isp::One)?;
        daemon.await_state(Isp::One, "down", 10 * SECOND)?;
        expect_by(&lab, "isp1 is down", Isp::Two)?;
        lab.heal(Isp::One)?;
        daemon.await_state(Isp::One, "up", 20 * SECOND)?;
    }
    daemon.stop()
}

/// Weights of a policy's own, and of a group's; when one dies the other takes all.
pub fn weighted() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let even = |more: &str| Config {
        weights: [1, 1],
        ..config(more)
    };
    let own = format!("[[policy]]\nname = \"own\"\n{MATCH}use = {{ isp1 = 3, isp2 = 1 }}\n");
    let daemon = Daemon::start(&lab, &even(&own))?;
    daemon.await_up()?;
    shares(&lab, "3:1 by a policy", 75.0)?;
    let group = format!(
        "[[group]]\nname = \"mostly-two\"\nuse = {{ isp1 = 1, isp2 = 3 }}\n\
         [[policy]]\nname = \"by-group\"\n{MATCH}use = \"mostly-two\"\n"
    );
    super::reload(&lab, &even(&group))?;
    shares(&lab, "1:3 by a group", 25.0)?;
    lab.blackhole(Isp::Two)?;
    daemon.await_state(Isp::Two, "down", 10 * SECOND)?;
    expect_by(&lab, "isp2 is down", Isp::One)?;
    lab.heal(Isp::Two)?;
    daemon.await_state(Isp::Two, "up", 20 * SECOND)?;
    pause(0.3);
    shares(&lab, "1:3 again", 25.0)?;
    daemon.stop()
}

fn shares(lab: &Lab, what: &str, percent: f64) -> Result<()> {
    for family in Family::ALL {
        expect_share(what, &theirs(lab, 3_000, family)?, percent)?;
        expect_share("others", &udp_flows(lab, 1_500, family)?, 50.0)?;
    }
    Ok(())
}

/// The nearer one takes all of the policy's flows, and the other when they change places.
pub fn lowest_latency() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let relays = lab.distances([30, 5])?;
    let policy = format!("[[policy]]\nname = \"quick\"\n{MATCH}use = \"lowest-latency\"\n");
    let daemon = start(&lab, &policy)?;
    // Each family is judged by itself, and may change half a second later than the other.
    let all_by = |isp: Isp| -> Result<bool> {
        let tallies = [theirs(&lab, 20, Family::V4)?, theirs(&lab, 20, Family::V6)?];
        Ok(tallies.iter().all(|t| t.by_isp[isp.index()] == 20))
    };
    await_within("isp2 is nearer", Instant::now(), 10 * SECOND, || all_by(Isp::Two))?;
    expect_by(&lab, "isp2 is nearer", Isp::Two)?;
    expect_balanced("others", &udp_flows(&lab, 200, Family::V4)?)?;
    relays[0].set(Quality::of_ms(5));
    relays[1].set(Quality::of_ms(30));
    await_within("isp1 is nearer", Instant::now(), 20 * SECOND, || all_by(Isp::One))?;
    expect_by(&lab, "isp1 is nearer", Isp::One)?;
    expect_balanced("others", &udp_flows(&lab, 200, Family::V4)?)?;
    daemon.stop()
}
