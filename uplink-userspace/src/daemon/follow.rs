//! The host changes under a running daemon: addresses, interfaces, routes.

use anyhow::Result;

use super::repair::Cause;
use super::{Daemon, Sources, start};
use crate::repairs::Kind;
use crate::resolve;
use crate::status::Warning;

impl Daemon {
    /// Looks at the host anew: uplinks get the addresses and interfaces of now, and everything
    /// that hangs on them follows.
    /// Returns whether that worked: what did not has to be tried again.
    pub(super) async fn look_again(&mut self, from: &mut Sources) -> bool {
        let failed = self.follow(from).await.err();
        let followed = failed.is_none();
        self.report(
            "not-followed",
            failed.map(|e| format!("following the host's changes: {e:#}")),
        );
        self.repair(Cause::Routes).await;
        followed
    }

    async fn follow(&mut self, from: &mut Sources) -> Result<()> {
        self.snapshot().await?;
        let followed = resolve::follow(&self.config, &self.host, self.engine.uplinks());
        let unusable = followed.unusable.iter().map(|u| Warning {
            code: "unusable".into(),
            text: u.to_string(),
            remedy: "give the interface its address or default route; uplink follows by itself".into(),
        });
        self.replace_warnings(&["unusable"], unusable);
        let blind = resolve::warnings(&self.config, &followed.uplinks);
        self.replace_warnings(&["gateway-only-probe"], blind.into_iter());
        let uplinks = followed.uplinks.clone();
        self.followed = followed;
        if uplinks != self.engine.uplinks() {
            let ports = start::ports(&self.config, &self.host, &uplinks);
            let commands = self.engine.readdress(uplinks);
            // A family that joins may change sysctls.
            let (options, hook) = (&self.options, self.loaded.hook);
            let remembered = start::remember(options, &self.config, &self.engine, &ports, hook);
            // Whoever comes next may know less; users come first.
            self.report(
                "not-remembered",
                remembered
                    .err()
                    .map(|e| format!("what the next start needs was not written: {e:#}")),
            );
            self.carry_out(commands).await;
            let uplinks: Vec<String> = self.engine.uplinks().iter().map(described).collect();
            self.note(Kind::Addresses, &uplinks.join("; "));
            from.probers_are_due = true;
        }
        let probed = self.renew_probers(from);
        self.follow_names()?;
        self.tell_outages().await;
        self.follow_ports()?;
        probed
    }

    fn renew_probers(&self, from: &mut Sources) -> Result<()> {
        if from.probers_are_due {
            (from.probers, from.probes) = self.probers()?;
            from.probers_are_due = false;
        }
        Ok(())
    }

    /// An interface that was made anew has another index, and no programs. What fails here is tried
    /// again when the host changes next.
    fn follow_ports(&mut self) -> Result<()> {
        let ports = start::ports(&self.config, &self.host, self.engine.uplinks());
        if ports == self.ports {
            return Ok(());
        }
        let gone: Vec<_> = self
            .ports
            .iter()
            .filter(|p| !ports.contains(p))
            .cloned()
            .collect();
        for port in &ports {
            self.loaded.attach(port)?;
        }
        for port in gone {
            if ports.iter().all(|p| p.ifindex != port.ifindex) {
                self.loaded.detach(&port)?;
            }
        }
        self.ports = ports;
        Ok(())
    }
}

fn described(u: &resolve::Uplink) -> String {
    let legs = [u.v4, u.v6].into_iter().flatten();
    let sources: Vec<String> = legs.map(|leg| leg.source.to_string()).collect();
    format!("{} uses {} on {}", u.name, sources.join(" and "), u.interface)
}
