//! Policies in the maps: written when the file, an interface or a cgroup that they name changes, and put in and out
//! of force by their schedules.

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::Daemon;
use super::names::Names;
use crate::config::{Config, Group, Policy};
use crate::host::Host;
use crate::loader;
use crate::maps::Maps;
use crate::policy::Numbers;
use crate::policy::compile::{Surroundings, compile, in_force};
use crate::policy::{lint, schedule};
use crate::status::{self, Warning};

/// Faults of each kind that are told one by one.
const LINTS: usize = 10;

/// What the maps hold.
#[derive(Default)]
pub(super) struct Policies {
    numbers: Numbers,
    /// `None` until this daemon has written any.
    written: Option<Written>,
    /// What is odd about them.
    warnings: Vec<Warning>,
}

#[derive(Clone, PartialEq)]
struct Written {
    policies: Vec<Policy>,
    groups: Vec<Group>,
    surroundings: Surroundings,
    active: Vec<bool>,
}

impl Policies {
    /// Goes on with the numbers that an earlier daemon gave.
    pub(super) fn adopt(maps: &Maps) -> Result<Self> {
        let live = maps.config()?.policy_bank;
        Ok(Self {
            numbers: Numbers::known(maps.policies.numbers(live)?),
            written: None,
            warnings: Vec::new(),
        })
    }

    /// Makes the maps hold these policies, all at once; `groups` are those of the table that is live. Nothing is
    /// done where they are there already.
    ///
    /// # Errors
    /// When there is no room for so many, or the kernel refuses; then those that were in force stay so.
    pub(super) fn write(
        &mut self,
        maps: &mut Maps,
        names: &mut Names,
        config: &Config,
        groups: &[Group],
        host: &Host,
    ) -> Result<()> {
        let wanted = Written {
            policies: config.policies.clone(),
            groups: groups.to_vec(),
            surroundings: surroundings(config, host),
            active: active(config),
        };
        if self.written.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let fresh = self
            .written
            .as_ref()
            .is_none_or(|w| w.policies != wanted.policies);
        let mut numbers = self.numbers.clone();
        let assigned = numbers.assign(wanted.policies.iter().map(|p| &*p.name.value));
        let compiled = compile(
            &wanted.policies,
            &assigned.numbers,
            &wanted.groups,
            &wanted.active,
            &wanted.surroundings,
        )?;
        let bank = maps.idle_policies()?;
        let left_out = names.write(|table, learned| maps.policies.write(bank, &compiled, table, learned))?;
        if left_out > 0 {
            tracing::warn!("no room for the names of {left_out} addresses: policies by name miss them");
        }
        for number in assigned.fresh {
            maps.policies.clear_counter(number)?;
        }
        maps.switch_policies()?;
        if fresh {
            self.judge(&wanted.policies);
        }
        (self.numbers, self.written) = (numbers, Some(wanted));
        Ok(())
    }

    fn judge(&mut self, policies: &[Policy]) {
        self.warnings = lint::warnings(policies, LINTS);
        for warning in &self.warnings {
            tracing::warn!("{}: {}", warning.code, warning.text);
        }
    }

    /// Policies that never match, or get in each other's way.
    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Puts policies in and out of force.
    fn keep_schedules(&mut self, maps: &mut Maps, config: &Config) -> Result<()> {
        let Some(written) = &mut self.written else {
            return Ok(());
        };
        if written.policies.iter().all(|p| p.when.is_empty()) {
            return Ok(());
        }
        let active = active(config);
        if active == written.active {
            return Ok(());
        }
        let live = maps.config()?.policy_bank;
        maps.policies.set_active(live, &in_force(&active))?;
        for (policy, now) in written.policies.iter().zip(&active) {
            tracing::debug!("policy {}: in force: {now}", policy.name.value);
        }
        written.active = active;
        Ok(())
    }

    /// The number of a policy, and whether its schedule has it in force.
    pub(super) fn state(&self, place: usize) -> Option<(u32, bool)> {
        let written = self.written.as_ref()?;
        let number = self.numbers.of(&written.policies.get(place)?.name.value)?;
        Some((number, written.active.get(place).copied().unwrap_or(true)))
    }
}

impl Daemon {
    /// Twice a second: schedules begin and end, cgroups come and go.
    pub(super) fn follow_policies(&mut self) {
        let done = self
            .policies
            .keep_schedules(&mut self.maps, &self.config)
            .context("putting policies in force by their schedules")
            .and_then(|()| self.write_policies());
        if let Err(e) = done {
            tracing::error!("{e:#}");
        }
    }

    /// Makes the maps hold the policies of the configuration as this host is now.
    pub(super) fn write_policies(&mut self) -> Result<()> {
        self.policies
            .write(
                &mut self.maps,
                &mut self.names,
                &self.config,
                self.engine.groups(),
                &self.host,
            )
            .context("writing the policies")
    }
}

impl Daemon {
    /// The policies, for people.
    pub(super) fn describe_policies(&self) -> Result<Vec<status::Policy>> {
        let all: Vec<&str> = self.engine.uplinks().iter().map(|u| &*u.name).collect();
        let describe = |(place, policy): (usize, &Policy)| {
            let (number, active) = self.policies.state(place).unwrap_or((0, true));
            let counted = match number {
                0 => uplink_common::record::Policy::default(),
                number => self.maps.policies.counter(number)?,
            };
            Ok(status::Policy {
                name: policy.name.value.clone(),
                line: policy.line,
                uses: status::uses(&policy.choice, &all),
                strict: policy.strict,
                active,
                packets: counted.packets,
                flows: counted.flows,
            })
        };
        self.config.policies.iter().enumerate().map(describe).collect()
    }
}

fn active(config: &Config) -> Vec<bool> {
    let now = Timestamp::now();
    let policies = config.policies.iter();
    policies.map(|p| schedule::in_force(p, now)).collect()
}

/// What the interfaces and cgroups that policies name are here and now.
fn surroundings(config: &Config, host: &Host) -> Surroundings {
    let mut found = Surroundings::default();
    for policy in &config.policies {
        let interfaces = &policy.matches.iif;
        for name in interfaces.any.iter().flatten().chain(&interfaces.not) {
            if let Some(interface) = host.interface(name) {
                found.ifindex.insert(name.clone(), interface.index);
            }
        }
        let cgroups = &policy.matches.cgroup;
        for path in cgroups.any.iter().flatten().chain(&cgroups.not) {
            if let Some(id) = loader::cgroup_id(path) {
                found.cgroups.insert(path.clone(), id);
            }
        }
    }
    found
}
