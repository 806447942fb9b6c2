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

fn always(when: &str) -> String {
    format!("[[policy]]\nname = \"timed\"\nuse = \"isp2\"\nwhen = {when}\n")
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
        reload(&lab, &config(&always(when)))?;
        expect(&lab, &daemon, when, active)?;
    }
    // Noon here is midnight there.
    let hour = |n: u64| format!("{:02}:00", (minutes / 60 + n) % 24);
    for (zone, active) in [("UTC", true), ("Etc/GMT-12", false)] {
        let when = format!("{{ hours = \"{}-{}\", zone = \"{zone}\" }}", hour(0), hour(2));
        reload(&lab, &config(&always(&when)))?;
        expect(&lab, &daemon, &when, active)?;
    }
    edge(&lab, &daemon)?;
    daemon.stop()
}

/// It begins with the next full minute, and ends with the one after.
fn edge(lab: &uplink_lab::Lab, daemon: &Daemon<'_>) -> Result<()> {
    // Time to look before.
    if now()?.as_secs() % 60 > 55 {
        pause(5.0);
    }
    let next = now()?.as_secs() / 60 + 1;
    let clock = |n: u64| format!("{:02}:{:02}", n / 60 % 24, n % 60);
    let hours = format!("{}-{}", clock(next), clock(next + 1));
    let when = format!("{{ hours = \"{hours}\", zone = \"UTC\" }}");
    reload(lab, &config(&always(&when)))?;
    for (minute, active) in [(next, true), (next + 1, false)] {
        expect(lab, daemon, &when, !active)?;
        let left = Duration::from_secs(minute * 60).saturating_sub(now()?);
        pause(left.as_secs_f64() + 0.8);
        expect(lab, daemon, &when, active)?;
    }
    Ok(())
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
