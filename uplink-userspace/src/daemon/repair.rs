//! The kernel's state against the plan: compute what should be, apply the difference, and say
//! what others had changed.

use anyhow::Result;
use tokio::time::Instant;
use uplink_common::{Family, FlowKey, hop};

use super::{Daemon, start};
use crate::plan::{Plan, Route, Rule};
use crate::repairs::Kind;
use crate::resolve::Uplink;
use crate::status::Warning;
use crate::{aggregate, conntrack, desired, flow_map, links, nat, shadow, stations, sysctl};

/// Who made the difference that is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// We: a new table, a new configuration.
    Ours,
    /// Somebody else, if there is one.
    Others,
    /// Somebody else, and routes may have moved: what flows were told about the kernel's own
    /// routes is void.
    Routes,
}

impl Daemon {
    /// Applies the difference; a failure is said once and shown in `status` while it lasts.
    pub(super) async fn repair(&mut self, cause: Cause) {
        let failed = match self.snapshot().await {
            Ok(()) => self.apply(cause).await.err(),
            Err(e) => Some(e),
        };
        self.report("repair-failed", failed.map(|e| format!("{e:#}")));
    }

    /// Tries again what failed, sooner than the next full comparison.
    pub(super) async fn repair_again(&mut self) {
        if self.warnings.iter().any(|w| w.code == "repair-failed") {
            self.repair(Cause::Others).await;
        }
    }

    /// Raises or ends a standing warning about our own work; said once, shown while it lasts.
    pub(super) fn report(&mut self, code: &str, failed: Option<String>) {
        let before = self.warnings.iter().position(|w| w.code == code);
        let before = before.map(|i| self.warnings.remove(i).text);
        match (failed, before) {
            (Some(text), before) => {
                if before.as_ref() != Some(&text) {
                    tracing::error!("the kernel's state is not as it should be: {text}");
                }
                self.warnings.push(Warning {
                    code: code.into(),
                    text,
                    remedy: "it is tried again all the time; `journalctl -u uplink` has the history".into(),
                });
            }
            (None, Some(_)) => tracing::info!("the kernel's state is as it should be again"),
            (None, None) => {}
        }
    }

    /// The host as it is now. A gateway whose MAC address is being asked for keeps its last one.
    pub(super) async fn snapshot(&mut self) -> Result<()> {
        let mut host = links::snapshot(self.config.kernel.protocol).await?;
        self.gateways.settle(&host);
        self.gateways
            .keep_known(&mut host, &self.host, self.engine.uplinks());
        self.host = host;
        Ok(())
    }

    fn plan(&self) -> Plan {
        let usable = |u: &Uplink, family: Family| {
            start::is_running(&self.host, u) && self.followed.is_usable(u, family)
        };
        let mut plan = desired::plan(&self.config, &self.engine, &self.host, usable);
        // What somebody has changed meanwhile counts from the next start or reload on: the programs do not look yet.
        plan.sysctls
            .retain(|s| self.settings.guards || !sysctl::is_guard(s));
        plan
    }

    /// Everything is tried, whatever fails; the first failure is told.
    async fn apply(&mut self, cause: Cause) -> Result<()> {
        let plan = self.plan();
        let routing = self.repair_routing(&plan, cause).await;
        let aggregate = self.repair_aggregate(cause).await;
        let nft = self.repair_nft_to(&plan, cause).await;
        let sysctls = self.repair_sysctls(&plan, cause);
        let addresses = self.set_addresses();
        if cause == Cause::Routes {
            self.maps.routes_changed()?;
        }
        if cause != Cause::Ours {
            self.follow_mode().await;
            self.follow_fast().await;
        }
        self.look_for_shadows();
        self.applied = plan;
        routing.and(aggregate).and(nft).and(sysctls).and(addresses)
    }

    async fn repair_routing(&mut self, plan: &Plan, cause: Cause) -> Result<()> {
        let changes = self.routes.apply(plan).await?;
        // What we change ourselves has not been there before.
        let by_others = cause != Cause::Ours;
        let taken = |rule: &&Rule| by_others || self.applied.rules.contains(rule);
        let rules = changes.rules.iter().filter(taken).count();
        let taken = |route: &&Route| by_others || self.applied.routes.contains(route);
        let routes = changes.routes.iter().filter(taken).count();
        tracing::debug!(?changes, "routing");
        if rules > 0 {
            self.note(Kind::Rules, &format!("{rules} rules were missing"));
        }
        if routes > 0 {
            self.note(Kind::Routes, &format!("{routes} routes were missing"));
        }
        Ok(())
    }

    /// Programs and sysctls follow when the new links are seen.
    async fn repair_aggregate(&mut self, cause: Cause) -> Result<()> {
        let Some(outer) = aggregate::outer(&self.config) else {
            return Ok(());
        };
        let done = aggregate::ensure(outer, self.engine.uplinks(), &self.config.kernel).await?;
        match cause {
            _ if done.is_empty() => {}
            Cause::Ours => tracing::info!("{}", done.join(", ")),
            _ => self.note(Kind::Aggregate, &done.join(", ")),
        }
        Ok(())
    }

    fn repair_sysctls(&mut self, plan: &Plan, cause: Cause) -> Result<()> {
        for change in sysctl::apply(&plan.sysctls)? {
            match cause {
                Cause::Ours => tracing::info!("sysctl {change}"),
                _ => self.note(Kind::Sysctls, &change.to_string()),
            }
        }
        Ok(())
    }

    /// Only the nftables table: after somebody changed the ruleset.
    pub(super) async fn repair_nft(&mut self) {
        let plan = self.plan();
        if let Err(e) = self.repair_nft_to(&plan, Cause::Others).await {
            self.report("repair-failed", Some(format!("{e:#}")));
        }
    }

    async fn repair_nft_to(&mut self, plan: &Plan, cause: Cause) -> Result<()> {
        if nat::present().await?.as_deref() == nat::hash(&plan.nft) {
            self.changed_nft = None;
            return Ok(());
        }
        nat::apply(&plan.nft).await?;
        if cause != Cause::Ours || self.applied.nft == plan.nft {
            let who = self.changed_nft.take();
            let who = who.map_or_else(String::new, |p| format!(" by {} (process {})", p.name, p.pid));
            self.note(Kind::Nft, &format!("the table inet uplink was changed{who}"));
        }
        Ok(())
    }

    pub(super) fn set_addresses(&mut self) -> Result<()> {
        let addresses = start::addresses(&self.host, self.engine.uplinks(), &self.config.kernel);
        self.maps.set_addresses(&addresses)
    }

    /// Programs and pins, which nobody tells us about.
    pub(super) async fn repair_programs(&mut self) {
        let mut failed = None;
        match self.loaded.ensure_pins() {
            Ok(names) if names.is_empty() => {}
            Ok(names) => self.note(Kind::Pins, &names.join(", ")),
            Err(e) => failed = Some(format!("{e:#}")),
        }
        for port in self.ports.clone() {
            if self.host.interface(&port.name).map(|i| i.index) != Some(port.ifindex) {
                continue;
            }
            match self.loaded.ensure(&port).await {
                Ok(names) if names.is_empty() => {}
                Ok(names) => self.note(Kind::Program, &names.join(", ")),
                Err(e) => failed = Some(format!("{e:#}")),
            }
        }
        match self.attach_host() {
            names if names.is_empty() => {}
            names => self.note(Kind::Program, &names.join(", ")),
        }
        self.report("programs", failed);
    }

    /// Attaches the programs of this host's sockets where that is wanted and possible; where not,
    /// `status` says so, and the kernel's multipath route spreads them.
    pub(super) fn attach_host(&mut self) -> Vec<String> {
        let attached = start::attach_host(&mut self.loaded, &self.config.local);
        let (names, failed) = match attached {
            Ok(names) => (names, None),
            Err(e) => (Vec::new(), Some(format!("{e:#}"))),
        };
        let code = "local-steering-off";
        let known = self.warnings.iter().any(|w| w.code == code);
        match failed {
            Some(text) if !known => {
                tracing::warn!("this host's own connections are not steered: {text}");
                self.warnings.push(Warning {
                    code: code.into(),
                    text,
                    remedy: "correct [local] cgroup, or say enabled = false".into(),
                });
            }
            Some(_) => {}
            None => self.warnings.retain(|w| w.code != code),
        }
        names
    }

    /// Connections that left without NAT start anew, now that it is there.
    pub(super) async fn repair_leaks(&mut self) {
        let leaked = match self.maps.take_leaks() {
            Ok(leaked) => leaked,
            Err(e) => return tracing::warn!("reading what left without NAT: {e:#}"),
        };
        if leaked.is_empty() {
            return;
        }
        self.repair_nft().await;
        self.restart(&leaked).await;
    }

    async fn restart(&mut self, leaked: &[FlowKey]) {
        match conntrack::delete_flows(leaked).await {
            // Of a connection that conntrack has forgotten, such as the last FIN of one that the other end closed long ago: no
            // router translates that.
            Ok(0) => tracing::debug!("{} packets of no connection left without NAT", leaked.len()),
            Ok(n) => {
                let text = format!(
                    "{} flows left without NAT, {n} connections start anew",
                    leaked.len()
                );
                self.note(Kind::Untranslated, &text);
            }
            Err(e) => tracing::error!("{} flows left without NAT and stay so: {e:#}", leaked.len()),
        }
    }

    /// Tells the programs that we live.
    pub(super) fn heartbeat(&mut self) {
        if let Err(e) = self.maps.heartbeat(flow_map::now_s()) {
            tracing::warn!("the heartbeat is not written: {e:#}");
        }
    }

    /// Where the machine kept us from running for long, people shall know why packets were slow.
    pub(super) fn notice_silence(&mut self) {
        let is_minded = self.settings.next_hop != [false; 2] || self.fast.is_on();
        let before = std::mem::replace(&mut self.beat, is_minded.then(Instant::now));
        let silent_s = before.map_or(0, |beat| beat.elapsed().as_secs());
        if silent_s >= u64::from(hop::ALIVE_S) {
            tracing::warn!(
                "the daemon did not run for {silent_s} s: known flows may have gone the kernel's way"
            );
        }
    }

    /// What stands in front of our rules, and gateways that cannot be told apart.
    pub(super) fn look_for_shadows(&mut self) {
        let found = shadow::shadowing(&self.host, self.engine.uplinks(), &self.config.kernel);
        let shared = stations::stations(&self.host, self.engine.uplinks()).shared;
        let shared = shared.into_iter().map(|(a, b)| stations::warning(&a, &b));
        self.replace_warnings(
            &["shadowed", "mark-overlap", "shared-mac", "mpath-iif"],
            found
                .into_iter()
                .chain(shared)
                .chain(aggregate::warnings(&self.host)),
        );
    }

    /// Makes the standing warnings of these codes the ones that are found now.
    pub(super) fn replace_warnings(&mut self, codes: &[&str], found: impl Iterator<Item = Warning>) {
        let (before, mut now): (Vec<Warning>, Vec<Warning>) = std::mem::take(&mut self.warnings)
            .into_iter()
            .partition(|w| codes.contains(&&*w.code));
        for warning in found {
            if !before.contains(&warning) {
                tracing::warn!("{}: {}", warning.code, warning.text);
            }
            now.push(warning);
        }
        self.warnings = now;
    }
}
