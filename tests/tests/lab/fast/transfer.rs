//! Long TCP transfers arrive whole, whether or not senders leave their checksums to the card.

use anyhow::{Context as _, Result, ensure};
use uplink_lab::{Family, Isp, Shape};

use super::{daemon, packets, wired};
use crate::nexthop::both_ways;

/// Every byte arrives where it belongs, both ways at once, by the fast path.
pub fn whole() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        let (lab, _echo, _ends) = wired(shape)?;
        let daemon = daemon(&lab, "")?;
        for family in Family::ALL {
            let done = both_ways(&lab, &daemon, family, "fast");
            let [fast, kernel] = done.with_context(|| format!("{shape:?} {family:?}"))?;
            // Those before the path is known both ways, and one now and then.
            ensure!(
                fast > 100 * kernel,
                "{fast} by the fast path, {kernel} by the kernel"
            );
        }
        daemon.stop()?;
    }
    Ok(())
}

/// A veth's sender leaves its checksum to a card that is not there. The kernel knows and completes it; the fast path would not,
/// and lets the kernel have such packets.
pub fn unfinished() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    lab.client.run("ethtool -K eth0 tx on")?;
    for isp in Isp::ALL {
        lab.isp(isp).run("ethtool -K eth0 tx on")?;
        lab.internet.run(&format!("ethtool -K {} tx on", isp.name()))?;
    }
    let daemon = daemon(&lab, "")?;
    for family in Family::ALL {
        let before = packets(&daemon, "fast")?;
        both_ways(&lab, &daemon, family, "fast")?;
        let fast = packets(&daemon, "fast")? - before;
        ensure!(
            fast < 10,
            "{family:?}: {fast} packets with unfinished checksums by the fast path"
        );
    }
    daemon.stop()
}
