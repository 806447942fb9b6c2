//! What is not ours, and why.

use anyhow::Result;
use uplink_common::{Addr, Reason};

use super::decide::{Alone, Case, Held};
use super::world::{Routed, Way};
use super::{Source, World};

/// Packets that come in elsewhere than where clients enter are counted, not steered.
const NOT_LAN: &str = "not-lan";
/// `[local] enabled` is off.
const HOST_OFF: &str = "host-off";
/// A socket of another protocol than TCP and UDP.
const HOST_PROTOCOL: &str = "host-protocol";

impl<W: World> Case<'_, W> {
    /// What is none of ours whatever the flow table says.
    pub(super) fn never_ours(&self) -> Result<Option<Alone>> {
        match self.flow.src {
            Source::Socket => self.never_ours_here(),
            Source::Address(src) => self.never_ours_between(src.into()),
        }
    }

    fn never_ours_between(&self, src: Addr) -> Result<Option<Alone>> {
        let (flow, scene, family) = (self.flow, self.scene, self.flow.family());
        if self.world.is_local(src)? {
            let text = format!("{src:?} is an address of this host: a socket that chose it is left alone");
            return alone(Reason::HostOwn, text);
        }
        if !scene.lan.contains(&scene.iif.0) {
            return Ok(Some(Alone {
                reason: NOT_LAN,
                text: format!(
                    "what comes in at {} is not steered: clients enter at {}",
                    scene.iif.0,
                    scene.lan.join(", ")
                ),
                route: None,
            }));
        }
        if let Some(alone) = self.nowhere()? {
            return Ok(Some(alone));
        }
        if !src.is_routable(family) {
            let text = format!("the source {src:?} is no address of one host beyond its link");
            return alone(Reason::BadSource, text);
        }
        self.to_this_host(flow.dst.into())
    }

    fn never_ours_here(&self) -> Result<Option<Alone>> {
        let own = |reason, text: &str| {
            Ok(Some(Alone {
                reason,
                text: text.into(),
                route: None,
            }))
        };
        if !self.scene.local {
            return own(
                HOST_OFF,
                "this host's own sockets are not steered: [local] enabled is false",
            );
        }
        if !self.flow.is_tcp_or_udp() {
            return own(
                HOST_PROTOCOL,
                "of this host's sockets only those of TCP and UDP are steered",
            );
        }
        if let Some(found) = self.nowhere()? {
            return Ok(Some(found));
        }
        let dst = Addr::from(self.flow.dst);
        if let Some(found) = self.to_this_host(dst)? {
            return Ok(Some(found));
        }
        if self.world.is_bypassed(dst)? {
            let text = format!(
                "a route or rule that is not an uplink's may claim {dst:?}, so sockets are left alone"
            );
            return alone(Reason::HostBypass, text);
        }
        Ok(self.stale())
    }

    /// A destination that no uplink leads to.
    fn nowhere(&self) -> Result<Option<Alone>> {
        let dst = Addr::from(self.flow.dst);
        if dst.is_routable(self.flow.family()) {
            return Ok(None);
        }
        let text = format!("{dst:?} is multicast, broadcast, loopback or link-local: no uplink leads there");
        alone(Reason::NotRoutable, text)
    }

    fn to_this_host(&self, dst: Addr) -> Result<Option<Alone>> {
        match self.world.is_local(dst)? {
            true => alone(Reason::Local, format!("{dst:?} is an address of this host")),
            false => Ok(None),
        }
    }

    /// What is none of ours unless the flow has an uplink already.
    pub(super) fn not_ours(&self, held: Option<Held>) -> Result<Option<Alone>> {
        if self.flow.src == Source::Socket {
            return Ok(None);
        }
        if let Some(found) = self.stale() {
            return Ok(Some(found));
        }
        let routed = self.unmarked()?;
        let (reason, text) = match &routed {
            Routed::Local => (
                Reason::Local,
                "the kernel takes it for this host itself".to_owned(),
            ),
            Routed::Nowhere(why) => (Reason::NoRoute, format!("the kernel knows no way to it: {why}")),
            Routed::By(way) if !self.is_ours(way)? => (Reason::NotDefault, elsewhere(way)),
            Routed::By(_) if held.is_some_and(|h| h.valid) => (
                Reason::KernelPinned,
                "it was left to the kernel a moment ago, and is asked again within a second".to_owned(),
            ),
            Routed::By(_) => return Ok(None),
        };
        Ok(Some(Alone {
            reason: reason.name(),
            text,
            route: Some(routed),
        }))
    }

    fn stale(&self) -> Option<Alone> {
        let silent_s = self.world.now_s().saturating_sub(self.config.heartbeat_s);
        let limit_s = self.config.stale_after_s;
        (limit_s != 0 && silent_s > limit_s).then(|| Alone {
            reason: Reason::Stale.name(),
            text: format!(
                "the daemon has been silent for {silent_s} s, longer than stale_after ({limit_s} s): new flows take the \
                 kernel's routes"
            ),
            route: None,
        })
    }
}

fn alone(reason: Reason, text: String) -> Result<Option<Alone>> {
    Ok(Some(Alone {
        reason: reason.name(),
        text,
        route: None,
    }))
}

/// A route that is no uplink's.
fn elsewhere(way: &Way) -> String {
    let dev = &way.interface;
    match way.gateway {
        None => format!(
            "the kernel's own route leads out by {dev} without a gateway: a connected network or a VPN"
        ),
        Some(gateway) => format!("the kernel's own route, via {gateway} dev {dev}, is not an uplink's"),
    }
}
