//! What needs no probe: links without carrier, addresses that are gone, gateways that nobody
//! finds. The engine hears of it at once.

use std::collections::BTreeMap;

use super::{Daemon, start};
use crate::engine::{Event, Path};
use crate::health::{Health, Outage};

impl Daemon {
    /// Tells the engine which paths carry nothing and which can again, all in one.
    pub(super) async fn tell_outages(&mut self) {
        let told = |path: Path| self.engine.health(path).and_then(Health::outage);
        let outages: BTreeMap<Path, Option<Outage>> = self
            .engine
            .paths()
            .map(|path| (path, self.outage(path)))
            .filter(|(path, outage)| told(*path) != *outage)
            .collect();
        if !outages.is_empty() {
            self.handle(Event::Outages(outages)).await;
        }
    }

    fn outage(&self, path: Path) -> Option<Outage> {
        let u = self.uplink(path.uplink)?;
        if !start::is_running(&self.host, u) {
            return Some(Outage::Carrier);
        }
        if !self.followed.is_usable(u, path.family) {
            return Some(Outage::Address);
        }
        let gateway = u.leg(path.family)?.gateway;
        let unknown = self.gateways.has_failed(u.ifindex, gateway);
        unknown.then_some(Outage::Neighbour)
    }

    /// A link went down or came up. Down is believed at once; up waits for a new look at the
    /// host, since routes and addresses come after it.
    pub(super) async fn link(&mut self, ifindex: u32, running: bool) {
        let known = self.host.interfaces.iter_mut().find(|i| i.index == ifindex);
        let Some(interface) = known.filter(|i| i.running && !running) else {
            return;
        };
        interface.running = false;
        self.tell_outages().await;
    }
}
