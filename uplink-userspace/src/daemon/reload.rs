//! A new configuration without a gap: judged whole, then applied like any other difference.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use uplink_common::Family;

use super::{Daemon, start};
use crate::api::{Error, Reply};
use crate::config::{self, Config, OnFailback};
use crate::engine::{Command, Engine, Path, Selection};
use crate::health::Verdict;
use crate::host::Host;
use crate::inspect::{self, Running, Wanted};
use crate::loader::Port;
use crate::maps::Settings;
use crate::plan::Plan;
use crate::policy::groups;
use crate::resolve::{self, Followed, Missing, Uplink};
use crate::state::State;
use crate::{aggregate, conntrack, desired, engine, flow_map, links, nat, sysctl};

impl Daemon {
    /// Reads the file again and steers by it. When anything is wrong with it, nothing changes.
    pub(super) async fn reload(&mut self) -> Result<()> {
        let config = self.read_file()?;
        self.refuse_what_needs_a_restart(&config)?;
        let (engine, host, found) = self.judge(&config).await?;
        let ports = start::ports(&config, &host, engine.uplinks());
        self.loaded.verify(&start::programs(&config, &ports))?;
        let taken = self.take_over(config, engine, host, &found).await;
        if taken.is_err() {
            self.take_back(&ports);
        }
        taken
    }

    /// What the old configuration, which stays, has not. The rest of it comes back as it is published again.
    fn take_back(&mut self, ports: &[Port]) {
        let ours = |port: &&Port| self.ports.iter().any(|old| old.ifindex == port.ifindex);
        for port in ports.iter().filter(|port| !ours(port)) {
            if let Err(e) = self.loaded.detach(port) {
                tracing::error!("taking the programs off {}: {e:#}", port.name);
            }
        }
        if let Err(e) = self.follow_names() {
            tracing::error!("going on with the old names: {e:#}");
        }
    }

    /// What this configuration would be on this host as it is now. Nothing is touched.
    async fn judge(&self, config: &Config) -> Result<(Engine, Host, Followed)> {
        let host = links::snapshot(self.config.kernel.protocol).await?;
        let ids: BTreeMap<String, u8> = self
            .engine
            .uplinks()
            .iter()
            .map(|u| (u.name.clone(), u.id))
            .collect();
        let found = resolve::resolve_but(Missing::Of(&self.config), config, &host, &ids)?;
        inspect::compiled(config)?;
        let uplinks = resolve::keep(config, found.uplinks.clone(), self.engine.uplinks());
        let used = config::groups(&self.config.policies);
        let groups = groups::arrange(self.engine.groups(), &used, &config::groups(&config.policies));
        let mut engine = Engine::new(
            uplinks,
            engine::Settings::of(config).with_groups(groups),
            &self.down(),
            &self.engine.drained(),
        );
        engine.inherit(&self.engine);
        Ok((engine, host, found))
    }

    /// What a reload would do now, told beside the loop.
    pub(super) async fn answer_plan(&self, reply: Reply) {
        match self.wanted_by_a_reload().await {
            Err(e) => reply.finish(Err(Error::of(&e))),
            Ok(wanted) => {
                let options = self.options.clone();
                tokio::task::spawn_local(async move {
                    let report = serde_json::to_value(wanted.report(&options).await);
                    reply.finish(report.map_err(|e| Error::of(&e.into())));
                });
            }
        }
    }

    async fn wanted_by_a_reload(&self) -> Result<Wanted> {
        let config = self.read_file()?;
        let refused = self.refuse_what_needs_a_restart(&config).err();
        let (engine, host, _) = self.judge(&config).await?;
        let usable = &self.followed;
        let running = |u: &Uplink, family| start::is_running(&self.host, u) && usable.is_usable(u, family);
        let now = desired::plan(&self.config, &self.engine, &self.host, running);
        Ok(Wanted {
            config,
            engine,
            host,
            running: Some(Running {
                file: self.config.file.text.clone(),
                nft: now.nft,
                refused: refused.map(|e| format!("{e:#}")),
            }),
        })
    }

    /// The file as it is now. What a start chose stays.
    fn read_file(&self) -> Result<Config> {
        let mut config = config::load(&self.options.config)?;
        config.kernel.suits_fast = self.config.kernel.suits_fast;
        Ok(config)
    }

    /// What the running programs, rules and maps are tied to.
    fn refuse_what_needs_a_restart(&self, config: &Config) -> Result<()> {
        // They are written into a map only.
        let config::Kernel {
            stale_after, mode, ..
        } = config.kernel;
        let running = config::Kernel {
            stale_after,
            mode,
            ..self.config.kernel
        };
        ensure!(
            config.kernel == running,
            "[kernel] has changed, which needs a restart (`systemctl restart uplink` keeps live flows)"
        );
        Ok(())
    }

    /// Paths known to be dead stay so: a reload is no reason to try them on users.
    fn down(&self) -> Vec<Path> {
        let paths = self.engine.uplinks().iter().flat_map(|u| {
            Family::ALL
                .into_iter()
                .map(|family| Path { uplink: u.id, family })
        });
        paths
            .filter(|p| self.engine.verdict(*p) == Verdict::Down)
            .collect()
    }

    /// Routes of the new file first, then its table; what is gone leaves last.
    async fn take_over(
        &mut self,
        config: Config,
        engine: Engine,
        host: Host,
        found: &Followed,
    ) -> Result<()> {
        // From here on we are it who changes things.
        self.applied = Plan::default();
        let before = start::ports(&config, &host, engine.uplinks());
        start::remember(&self.options, &config, &engine, &before, self.loaded.hook)?;
        let running = |u: &Uplink, family| start::is_running(&host, u) && found.is_usable(u, family);
        let plan = desired::plan(&config, &engine, &host, running);
        // One that has another name now would lead back to itself without its rules.
        aggregate::remove_others(aggregate::outer(&config)).await?;
        let (guards, others) = sysctl::apart(plan.sysctls.clone());
        for change in sysctl::apply(&others)? {
            tracing::info!("sysctl {change}");
        }
        nat::apply(&plan.nft).await?;
        self.routes.apply(&plan).await?;
        let host = start::make_aggregate(&config, engine.uplinks(), host).await?;
        let ports = start::ports(&config, &host, engine.uplinks());
        self.maps
            .set_addresses(&start::addresses(&host, engine.uplinks(), &config.kernel))?;
        let settings = Settings {
            nat: config.nat.mode,
            stale_after_s: start::stale_after_s(&config),
            learns: start::learns(&config),
            guards: !guards.is_empty(),
            // Until somebody has looked with the new file.
            next_hop: [false; 2],
            ..self.settings
        };
        let saved = State::read(&self.options.runtime_dir)?.map(|s| s.sysctls);
        for change in sysctl::release(&saved.unwrap_or_default(), &guards)? {
            tracing::info!("sysctl {change}");
        }
        // Without `stale_after` so far nobody had to hear that we live.
        self.maps.heartbeat(flow_map::now_s())?;
        let selection = Selection {
            voided: self.voided_by(&engine),
            ..engine.selection().clone()
        };
        self.maps.publish(engine.uplinks(), &selection, &settings)?;
        // A prefix may be translated otherwise now.
        self.advance_fast();
        self.names.follow(&config, &host, engine.uplinks())?;
        self.policies
            .write(&mut self.maps, &mut self.names, &config, engine.groups(), &host)?;
        for port in &ports {
            self.loaded.attach(port)?;
        }
        for change in sysctl::apply(&guards)? {
            tracing::info!("sysctl {change}");
        }
        for port in self
            .ports
            .iter()
            .filter(|p| ports.iter().all(|new| new.ifindex != p.ifindex))
        {
            self.loaded.detach(port)?;
        }
        let (gone, mask) = (self.gone(&engine), config.kernel.fwmark_mask.bits());
        self.maps.forget_others(engine.uplinks())?;
        for (id, mark) in gone {
            for family in Family::ALL {
                conntrack::delete_by_mark(mark, mask, family).await?;
                self.measured.forget(Path { uplink: id, family });
            }
        }
        for Path { uplink, family } in selection.voided {
            if let Some(u) = engine.uplinks().iter().find(|u| u.id == uplink) {
                conntrack::delete_by_mark(u.mark, mask, family).await?;
            }
        }
        (self.config, self.engine, self.ports, self.settings) = (config, engine, ports, settings);
        self.measured.follow(&self.config);
        self.hooks.follow(self.config.hooks.as_ref());
        self.followed = Followed::default();
        self.keep_promises();
        self.attach_host();
        Ok(())
    }

    /// What the engine before has decided and nobody has done yet, or not all of it: the new one does not say it again.
    fn keep_promises(&mut self) {
        self.pending
            .retain(|command| matches!(command, Command::Abandon(_)));
        let drains = self.config.nat.on_failback == OnFailback::Drain;
        let paths: Vec<Path> = self.engine.paths().collect();
        self.retiring.retain(|r| drains && paths.contains(&r.path));
    }

    /// Paths whose flows start anew: nothing answers to the address that they have, or an earlier table that would have said
    /// so was never published.
    fn voided_by(&self, engine: &Engine) -> Vec<Path> {
        let mut voided = self.engine.moved(engine.uplinks());
        for command in &self.pending {
            if let Command::Publish(selection) = command {
                voided.extend(&selection.voided);
            }
        }
        voided
    }

    /// Uplinks that the new file does not have, and their marks: their flows start anew elsewhere.
    fn gone(&self, engine: &Engine) -> Vec<(u8, u32)> {
        let stays = |u: &Uplink| engine.uplinks().iter().any(|new| new.id == u.id);
        self.engine
            .uplinks()
            .iter()
            .filter(|u| !stays(u))
            .map(|u| (u.id, u.mark))
            .collect()
    }
}
