//! Policies that are in force at some times only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Daemon, Family, Isp, Shape};

use super::{config, expect_all, expect_balanced, policy, reload, start};
use crate::support::{lab, pause};

const DAY: u64 = 24 * 60;
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

/// Minutes since 1970, a Thursday.
fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

fn timed(name: &str, isp: &str, when: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nuse = \"{isp}\"\nwhen = {when}\n")
}

/// On other days, at other hours; by other zones; and when its minute comes, without anybody's doing.
pub fn begins() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, "")?;
    let minutes = now()?.as_secs() / 60;
    let day = |n: u64| DAYS[((minutes / DAY + n) % 7) as usize];
    // Midnight may pass meanwhile.
    let others = format!("{{ days = [\"{}\", \"{}\"], zone = \"UTC\" }}", day(3), day(4));
    let these = format!("{{ days = [\"{}\", \"{}\"], zone = \"UTC\" }}", day(0), day(1));
    for (when, active) in [(&others, false), (&these, true)] {
        reload(&lab, &config(&timed("timed", "isp2", when)))?;
        expect(&lab, &daemon, when, active)?;
    }
    // Noon here is midnight there.
    let hour = |n: u64| format!("{:02}:00", (minutes / 60 + n) % 24);
    for (zone, active) in [("UTC", true), ("Etc/GMT-12", false)] {
        let when = format!("{{ hours = \"{}-{}\", zone = \"{zone}\" }}", hour(0), hour(2));
        reload(&lab, &config(&timed("timed", "isp2", &when)))?;
        expect(&lab, &daemon, &when, active)?;
    }
    edge(&lab, &daemon)?;
    daemon.stop()
}

/// One ends with this minute, and another one begins.
fn edge(lab: &uplink_lab::Lab, daemon: &Daemon<'_>) -> Result<()> {
    // Time to look before.
    if now()?.as_secs() % 60 > 50 {
        pause(10.0);
    }
    let next = now()?.as_secs() / 60 + 1;
    let clock = |n: u64| format!("{:02}:{:02}", n / 60 % 24, n % 60);
    let policies = [("early", "isp1", next - 60), ("late", "isp2", next)].map(|(name, isp, from)| {
        let hours = format!("{}-{}", clock(from), clock(from + 60));
        timed(name, isp, &format!("{{ hours = \"{hours}\", zone = \"UTC\" }}"))
    });
    reload(lab, &config(&policies.concat()))?;
    let expect = |when: &str, active: &str, isp: Isp| {
        for name in ["early", "late"] {
            let says = policy(daemon, name)?["active"] == (name == active);
            ensure!(says, "{when} the edge: status says {}", policy(daemon, name)?);
        }
        for family in Family::ALL {
            expect_all(when, &udp_flows(lab, 200, family)?, isp)?;
        }
        Ok(())
    };
    expect("before", "early", Isp::One)?;
    let left = Duration::from_secs(next * 60).saturating_sub(now()?);
    pause(left.as_secs_f64() + 0.8);
    expect("after", "late", Isp::Two)
}

fn expect(lab: &uplink_lab::Lab, daemon: &Daemon<'_>, when: &str, active: bool) -> Result<()> {
    let says = policy(daemon, "timed")?["active"] == active;
    ensure!(says, "{when}: status says {}", policy(daemon, "timed")?);
    for family in Family::ALL {
        let tally = udp_flows(lab, 200, family)?;
        match active {
            true => expect_all(when, &tally, Isp::Two)?,
            false => expect_balanced(when, &tally)?,
        }
    }
    Ok(())
}
