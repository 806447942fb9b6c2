//! What the engine takes from the configuration.

use std::collections::BTreeMap;

use uplink_common::Family;

use crate::config::{self, Balance, Config, Group, Target, Then};
use crate::health;
use crate::weights::Rate;

/// Configuration of the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What shares follow.
    pub balance: Balance,
    /// By uplink name.
    pub uplinks: BTreeMap<String, Individual>,
    /// What policies may use, as [`config::groups`] numbers it.
    pub groups: Vec<Group>,
}

/// What concerns one uplink.
#[derive(Clone, Debug, PartialEq)]
pub struct Individual {
    /// How its paths are judged, by family.
    pub health: [health::Settings; 2],
    /// Who is asked, by family.
    pub targets: [Vec<Target>; 2],
    /// Whether it is used at all.
    pub enabled: bool,
    /// What it can carry, where both directions are known.
    pub capacity: Option<Rate>,
    /// What becomes of it when its quota is used up.
    pub then: Then,
}

impl Settings {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let uplinks = config.uplinks.iter();
        let one = |u: &crate::config::Uplink| (u.name.value.clone(), Individual::of(config, u));
        Self {
            balance: config.balance,
            uplinks: uplinks.map(one).collect(),
            groups: config::groups(&config.policies),
        }
    }
}

impl Settings {
    /// With the groups numbered so, not as they come in the file.
    #[must_use]
    pub fn with_groups(self, groups: Vec<Group>) -> Self {
        Self { groups, ..self }
    }
}

impl Individual {
    fn of(config: &Config, u: &crate::config::Uplink) -> Self {
        let targets = Family::ALL.map(|family| u.probe.targets_of(family).collect::<Vec<_>>());
        let health = Family::ALL.map(|family| health::Settings {
            fall: u.probe.fall,
            rise: u.probe.rise,
            quorum: u.probe.quorum,
            targets: targets[family as usize].len() as u32,
            health: config.health.clone(),
        });
        let rate = |down: u64, up: u64| Rate {
            down: down as f64,
            up: up as f64,
        };
        Self {
            health,
            targets,
            enabled: u.enabled,
            capacity: u
                .capacity
                .down
                .zip(u.capacity.up)
                .map(|(down, up)| rate(down, up)),
            then: u.quota.map_or(Then::LastResort, |q| q.then),
        }
    }
}
