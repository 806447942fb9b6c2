//! An ISP dies, with the default configuration.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use uplink_lab::traffic::{Ongoing, udp_flows};
use uplink_lab::{Daemon, Family, Isp, Lab, Shape};

use crate::support::{daemon, expect_share, expect_unharmed, lab, pause};

/// New flows work again within this time.
const LIMIT: Duration = Duration::from_secs(3);

pub fn blackhole() -> Result<()> {
    dies(Family::V4)
}

pub fn blackhole_v6() -> Result<()> {
    dies(Family::V6)
}

fn dies(family: Family) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let healthy = Ongoing::udp_stream_on(&lab, family, Isp::Two)?;
    let doomed = Ongoing::udp_stream_on(&lab, family, Isp::One)?;
    let pulse = Ongoing::new_flows(&lab, family, Duration::from_millis(10))?;
    pause(1.0);
    let fault = Instant::now();
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", Duration::from_secs(10))?;
    println!("    status says down after {:?}", fault.elapsed());
    pause(1.5);
    let new = pulse
        .stop()?
        .recovered_after(fault)
        .context("new flows do not work again")?;
    println!("    new flows work again after {new:?}");
    let old = doomed
        .stop()?
        .recovered_after(fault)
        .context("the old flow does not work again")?;
    println!("    the flow on the dead uplink works again after {old:?}");
    expect_unharmed("the stream on the healthy uplink", &healthy.stop()?, Isp::Two)?;
    ensure!(new <= LIMIT, "new flows needed {new:?}");
    ensure!(
        old <= LIMIT + Duration::from_secs(1),
        "the old flow needed {old:?}"
    );
    expect_share("afterwards", &udp_flows(&lab, 200, family)?, 0.0)?;
    daemon.stop()
}

pub fn then_recovery() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", Duration::from_secs(10))?;
    let stream = Ongoing::udp_stream(&lab, Family::V4)?;
    lab.heal(Isp::One)?;
    let up = daemon.await_state(Isp::One, "up", Duration::from_secs(30))?;
    println!("    up again {up:?} after healing");
    // Its weight grows for five seconds.
    pause(6.0);
    expect_share("after recovery", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    expect_unharmed("the stream begun meanwhile", &stream.stop()?, Isp::Two)?;
    daemon.stop()
}

/// Nothing comes through any more; neighbours still find each other. Both ISPs are cut off in one moment: of two, the
/// second would be the better one for a while.
const DARK: &str = "table inet dark { chain arriving { type filter hook prerouting priority -300;\n\
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; drop; }\n}\n";

/// With nowhere to go the last good table stays, so that everything works when a link does.
pub fn all_dead_keeps_table() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let rules = lab.router.run("ip rule")?;
    let table = lab.router.run("ip route show table 20000")?;
    lab.internet.nft(DARK)?;
    pause(6.0);
    println!("    both dead: {:?}", daemon.uplinks()?);
    ensure!(
        daemon.uplinks()?.iter().all(|(state, _)| state != "up"),
        "an uplink is up"
    );
    ensure!(lab.router.run("ip rule")? == rules, "the rules changed");
    let catch_all = "ip route show table 20000";
    ensure!(
        lab.router.run(catch_all)? == table,
        "the last good table did not stay"
    );
    let shares: Vec<f64> = daemon.uplinks()?.iter().map(|(_, share)| *share).collect();
    ensure!(shares == [0.75, 0.25], "shares while all are dead: {shares:?}");
    lab.internet.run("nft delete table inet dark")?;
    let healed = Instant::now();
    works_at_once(&lab, &daemon, healed)?;
    Isp::ALL
        .iter()
        .try_for_each(|isp| daemon.await_state(*isp, "up", Duration::from_secs(30)).map(drop))?;
    println!("    both up {:?} after healing", healed.elapsed());
    pause(0.5);
    expect_share("recovered", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    daemon.stop()
}

/// The table still steers: flows pass before the daemon has noticed anything.
fn works_at_once(lab: &Lab, daemon: &Daemon<'_>, healed: Instant) -> Result<()> {
    let tally = udp_flows(lab, 200, Family::V4)?;
    println!(
        "    {:?} after healing: {tally:?}, {:?}",
        healed.elapsed(),
        daemon.uplinks()?
    );
    ensure!(
        tally.clean() == 200,
        "flows fail though the links work: {tally:?}"
    );
    Ok(())
}
