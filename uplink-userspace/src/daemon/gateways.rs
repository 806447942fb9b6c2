//! Gateways that fall silent: one that changed its MAC address without saying so is found again
//! by forgetting the old one. The kernel by itself takes tens of seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use uplink_common::Family;

use super::Daemon;
use crate::engine::Path;
use crate::host::{Host, Neighbour};
use crate::links::{self, NeighbourState};
use crate::probe::Probers;
use crate::repairs::Kind;
use crate::resolve::Uplink;

/// A path is silent when no answer came for the probes' interval and this much more.
const GRACE: Duration = Duration::from_millis(300);
/// The first attempts follow each other quickly; a blackhole behind the gateway lasts longer.
const AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// What is known of gateways beside their addresses.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// When each path answered last.
    silences: BTreeMap<Path, Silence>,
    /// Those that the kernel has asked for in vain, by interface index and address.
    failed: BTreeSet<(u32, IpAddr)>,
}

#[derive(Debug)]
struct Silence {
    answered: Instant,
    /// How often the neighbour was forgotten since.
    asked: usize,
    next: Instant,
}

impl Gateways {
    pub(super) fn answered(&mut self, path: Path) {
        let now = Instant::now();
        self.silences.insert(
            path,
            Silence {
                answered: now,
                asked: 0,
                next: now,
            },
        );
    }

    /// Paths that answered once and are silent now, each as often as it is worth a new question.
    fn silent(&mut self, interval: impl Fn(Path) -> Duration) -> Vec<Path> {
        let now = Instant::now();
        let mut found = Vec::new();
        for (path, silence) in &mut self.silences {
            if now.duration_since(silence.answered) > interval(*path) + GRACE && now >= silence.next {
                silence.next = now + AGAIN[silence.asked.min(AGAIN.len() - 1)];
                silence.asked += 1;
                found.push(*path);
            }
        }
        found
    }

    /// Whether the kernel has asked for this gateway in vain.
    pub(super) fn has_failed(&self, ifindex: u32, address: IpAddr) -> bool {
        self.failed.contains(&(ifindex, address))
    }

    /// Those that the kernel knows again are not lost, whether its word of that was heard or not.
    pub(super) fn settle(&mut self, host: &Host) {
        self.failed.retain(|(ifindex, address)| {
            host.neighbours
                .iter()
                .all(|n| (n.ifindex, n.address) != (*ifindex, *address))
        });
    }

    /// Gateways without an entry now keep the one they had: it is gone because we asked anew.
    pub(super) fn keep_known(&self, host: &mut Host, before: &Host, uplinks: &[Uplink]) {
        for (ifindex, address) in gateways(uplinks) {
            let is = |n: &&Neighbour| (n.ifindex, n.address) == (ifindex, address);
            if host.neighbours.iter().any(|n| is(&n)) {
                continue;
            }
            host.neighbours.extend(before.neighbours.iter().filter(is));
        }
    }
}

fn gateways(uplinks: &[Uplink]) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
    let leg = |u: &Uplink, family| u.leg(family).map(|leg| (u.ifindex, leg.gateway));
    uplinks
        .iter()
        .flat_map(move |u| Family::ALL.into_iter().filter_map(move |f| leg(u, f)))
}

impl Daemon {
    /// Has the kernel ask for the MAC address of gateways that fell silent.
    pub(super) async fn ask_silent_gateways(&mut self) {
        let intervals: BTreeMap<Path, Duration> =
            self.engine.paths().map(|p| (p, self.interval(p))).collect();
        let interval = |path: Path| intervals.get(&path).copied().unwrap_or_default();
        for path in self.gateways.silent(interval) {
            let Some(u) = self.uplink(path.uplink) else {
                continue;
            };
            let Some(leg) = u.leg(path.family) else { continue };
            let (ifindex, gateway) = (u.ifindex, leg.gateway);
            if let Err(e) = links::forget_neighbour(ifindex, gateway).await {
                tracing::warn!("asking for the MAC address of {gateway}: {e:#}");
            }
        }
    }

    /// News of a neighbour. Where it is a gateway: a new MAC address is told to the program, one
    /// that cannot be found takes its paths out, and one that was forgotten has probes ask.
    pub(super) async fn neighbour(
        &mut self,
        ifindex: u32,
        address: IpAddr,
        state: NeighbourState,
        probers: &Probers,
    ) {
        if !gateways(self.engine.uplinks()).any(|g| g == (ifindex, address)) {
            return;
        }
        match state {
            NeighbourState::At(mac) => {
                self.gateways.failed.remove(&(ifindex, address));
                self.found(ifindex, address, mac);
            }
            NeighbourState::Failed => drop(self.gateways.failed.insert((ifindex, address))),
            NeighbourState::Gone => self
                .paths_by(ifindex, address)
                .for_each(|path| probers.suspect(path)),
        }
        self.tell_outages().await;
    }

    /// Between the probes of a path.
    fn interval(&self, path: Path) -> Duration {
        let name = self.uplink(path.uplink).map(|u| &*u.name);
        let mut configured = self.config.uplinks.iter();
        let configured = configured.find(|c| Some(&*c.name.value) == name);
        configured.map_or(self.config.probe.interval, |c| c.probe.interval)
    }

    fn paths_by(&self, ifindex: u32, address: IpAddr) -> impl Iterator<Item = Path> + '_ {
        self.engine.paths().filter(move |path| {
            let u = self.uplink(path.uplink).filter(|u| u.ifindex == ifindex);
            u.and_then(|u| u.leg(path.family))
                .is_some_and(|leg| leg.gateway == address)
        })
    }

    fn found(&mut self, ifindex: u32, address: IpAddr, mac: [u8; 6]) {
        let known = self
            .host
            .neighbours
            .iter_mut()
            .find(|n| (n.ifindex, n.address) == (ifindex, address));
        let before = match known {
            Some(known) => Some(std::mem::replace(&mut known.mac, mac)),
            None => {
                let new = Neighbour {
                    ifindex,
                    address,
                    mac,
                };
                self.host.neighbours.push(new);
                None
            }
        };
        if before == Some(mac) {
            return;
        }
        if let Some(before) = before {
            let text = format!("gateway {address} moved from {} to {}", shown(before), shown(mac));
            self.note(Kind::Neighbour, &text);
        }
        if let Err(e) = self.set_addresses() {
            tracing::error!("the gateway's MAC address is not known to the program: {e:#}");
        }
        // It may be another gateway's, too.
        self.look_for_shadows();
    }
}

fn shown(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
