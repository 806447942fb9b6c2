//! Next-hop mode: known flows go to the gateway past the kernel's forwarding, and nobody notices but the clock.

mod flows;
mod hops;
mod obstacles;
mod transfer;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use uplink_lab::{Config, Daemon, Echo, Lab, Shape};

use crate::balance::route_back;
use crate::support::{await_within, lab};

pub use flows::{drained, failed_over, spread};
pub use hops::{by_hops, counted, too_long};
pub use obstacles::got_through;
pub use obstacles::{
    filters, firewall, legacy_firewall, nat, not_forwarding, refused_with_nat, silent_daemon, warned_of, xfrm,
};
pub use transfer::{both_ways, whole};

/// Without NAT, so that nothing needs the kernel.
const OFF: &str = "[nat]\nmode = \"off\"\n";

/// A lab whose Internet knows the way back.
fn routed(shape: Shape) -> Result<(Lab, Echo)> {
    let (lab, echo) = lab(shape)?;
    route_back(&lab)?;
    Ok((lab, echo))
}

/// A daemon that has chosen next-hop mode by itself.
fn daemon<'a>(lab: &'a Lab, uplink_more: &str) -> Result<Daemon<'a>> {
    let config = Config {
        more: OFF.into(),
        uplink_more: [uplink_more.to_owned(), uplink_more.to_owned()],
        ..Config::default()
    };
    let daemon = Daemon::start(lab, &config)?;
    daemon.await_up()?;
    expect_mode(&daemon, "nexthop", Duration::from_secs(2))?;
    Ok(daemon)
}

/// Waits until `status` says so.
fn expect_mode(daemon: &Daemon<'_>, mode: &str, limit: Duration) -> Result<Duration> {
    let is = || Ok(daemon.status()?["mode"] == mode);
    await_within(&format!("{mode} mode"), Instant::now(), limit, is)
}

/// Packets of this outcome.
fn packets(daemon: &Daemon<'_>, outcome: &str) -> Result<u64> {
    let status = daemon.status()?;
    status["packets"][outcome]
        .as_u64()
        .with_context(|| outcome.to_owned())
}
