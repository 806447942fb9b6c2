//! Looks what stands in the way of the fast path. Reads only.

use anyhow::{Context, Result};

use uplink_common::path::FIRST_LOOK_S;

use super::rules::{self, Judged};
use super::{Found, devices, look_again_s, queues};
use crate::loader::{Attached, Port};
use crate::nexthop::Obstacle;
use crate::nexthop::look::{everybody, tables};
use crate::nexthop::xfrm;
use crate::{nat, sysctl};

const COUNT: &str = "net/netfilter/nf_conntrack_count";
/// 0: conntrack tells nobody what it destroys.
const EVENTS: &str = "net/netfilter/nf_conntrack_events";
/// Kernels before 6.0 can give connections helpers without a rule.
const HELPER: &str = "net/netfilter/nf_conntrack_helper";
/// How long the connections that may go fast live without a packet.
const TIMEOUTS: [&str; 2] = [
    "net/netfilter/nf_conntrack_udp_timeout_stream",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
];
/// How long datagrams do before they are a stream, which they are when they have been looked at twice.
const FIRST_TIMEOUT: &str = "net/netfilter/nf_conntrack_udp_timeout";

/// Looks again and again. The ruleset, which may be large, is read only after a change.
#[derive(Debug, Default)]
pub struct Looker {
    judged: Option<Judged>,
}

impl Looker {
    /// nftables changed: the next look reads the ruleset anew.
    pub fn rules_changed(&mut self) {
        self.judged = None;
    }

    /// What stands in the way of what comes in at `ports` and leaves by them, where `ours` is not in
    /// the way.
    pub async fn look(&mut self, ours: &Attached, ports: &[Port]) -> Found {
        let mut found = Found {
            obstacles: Ok(Vec::new()),
            warnings: Vec::new(),
            look_again_s: look_again_s(timeouts_s()),
        };
        match self.obstacles(ours, ports).await {
            Ok(obstacles) => found.obstacles = Ok(obstacles),
            Err(e) => found.obstacles = Err(format!("{e:#}")),
        }
        if let Some(judged) = &self.judged {
            found.warnings.clone_from(&judged.warnings);
            let shortest = look_again_s(judged.timeouts_s.iter().copied());
            found.look_again_s = found.look_again_s.min(shortest);
        }
        found
    }

    async fn obstacles(&mut self, ours: &Attached, ports: &[Port]) -> Result<Vec<Obstacle>> {
        let judged = match self.judged.take() {
            Some(judged) => judged,
            None => {
                let ruleset = nat::ruleset().await.context("asking nft for its rules")?;
                rules::judge(&ruleset).map_err(anyhow::Error::msg)?
            }
        };
        let mut found = judged.obstacles.clone();
        self.judged = Some(judged);
        found.extend(tables()?);
        if xfrm::policies()? > 0 {
            found.push(everybody("IPsec policies".into()));
        }
        found.extend(conntrack().into_iter().map(everybody));
        for device in devices::read(ours, ports).await? {
            found.extend(queues::obstacles(&device).into_iter().map(everybody));
        }
        Ok(found)
    }
}

/// The first one counts where the first look comes too late for it.
fn timeouts_s() -> impl Iterator<Item = u32> {
    let read = |path| sysctl::read(path)?.parse().ok();
    let first = read(FIRST_TIMEOUT).filter(|timeout| *timeout < 3 * FIRST_LOOK_S);
    TIMEOUTS.into_iter().filter_map(read).chain(first)
}

fn conntrack() -> Vec<String> {
    let is = |path: &str, value: &str| sysctl::read(path).is_some_and(|v| v == value);
    let mut found = Vec::new();
    let exists = sysctl::read(COUNT).is_some();
    if exists && sysctl::read(EVENTS).is_none_or(|v| v == "0") {
        found.push("conntrack tells nobody what it destroys (net.netfilter.nf_conntrack_events = 0)".into());
    }
    if is(HELPER, "1") {
        found.push("connection tracking helpers by port (net.netfilter.nf_conntrack_helper = 1)".into());
    }
    found
}
