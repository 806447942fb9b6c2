//! The fast path: known flows are rewritten and sent on at the wire, NAT and all, and nobody notices but the clock.

mod alike;
mod changes;
mod chosen;
mod ends;
mod explained;
mod flows;
mod kept;
mod storm;
mod transfer;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use uplink_lab::{Config, Daemon, Echo, FarEnds, Isp, Lab, Shape};

use crate::support::{await_within, lab};

pub use alike::alike;
pub use changes::{
    closed, crowd_gone, firewall, flushed, legacy_firewall, lost_neighbour, moved_gateway, restarted, silent,
};
pub use chosen::chosen;
pub use explained::explained;
pub use flows::{failed_over, full, spread};
pub use kept::{apart, counted, kept, one_way};
pub use storm::storm;
pub use transfer::{unfinished, whole};

const FAST: &str = "[kernel]\nattach = \"xdp\"\n";

/// A lab with wires like a real card's.
fn wired(shape: Shape) -> Result<(Lab, Echo, FarEnds)> {
    let (lab, echo) = lab(shape)?;
    let ends = lab.fast_wires()?;
    Ok((lab, echo, ends))
}

/// A daemon with a fast path.
fn daemon<'a>(lab: &'a Lab, more: &str) -> Result<Daemon<'a>> {
    started(lab, &plain(&format!("{FAST}{more}")))
}

fn started<'a>(lab: &'a Lab, config: &Config) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(lab, config)?;
    daemon.await_up()?;
    expect_attached(&daemon, "xdp")?;
    Ok(daemon)
}

/// The default, behind these lines.
fn plain(kernel: &str) -> Config {
    Config {
        more: kernel.into(),
        ..Config::default()
    }
}

/// IPv6 clients have a prefix of each provider outside; `kernel` is what comes before. The lab has to delegate it
/// ([`Lab::delegate_prefixes`]).
fn translated(kernel: &str) -> Config {
    let prefix = |isp: Isp| format!("prefix6 = \"{}\"", isp.prefixes()[0]);
    Config {
        uplink_more: Isp::ALL.map(prefix),
        more: format!("{kernel}[nat]\nprefix6 = \"fd00:10::/64\"\n"),
        ..Config::default()
    }
}

/// Waits until `status` says so.
fn expect_attached(daemon: &Daemon<'_>, how: &str) -> Result<Duration> {
    let is = || Ok(daemon.status()?["attach"] == how);
    await_within(
        &format!("attached by {how}"),
        Instant::now(),
        Duration::from_secs(7),
        is,
    )
}

/// Packets of this outcome.
fn packets(daemon: &Daemon<'_>, outcome: &str) -> Result<u64> {
    let status = daemon.status()?;
    status["packets"][outcome]
        .as_u64()
        .with_context(|| outcome.to_owned())
}
