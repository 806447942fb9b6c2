//! The whole desired state outside the maps, from the configuration and what the engine decided.

use uplink_common::Family;

use crate::config::{Config, OnFailback, OnFailover};
use crate::engine::{Engine, Path};
use crate::health::Verdict;
use crate::host::Host;
use crate::plan::{self, Plan, Sysctl};
use crate::resolve::{self, Uplink};
use crate::{aggregate, nat, nexthop, sysctl};

/// Rules, routes, NAT and sysctls. `host` tells what other people's rules ours must come before, `usable` tells the paths that routes can be made for now.
#[must_use]
pub fn plan(config: &Config, engine: &Engine, host: &Host, usable: impl Fn(&Uplink, Family) -> bool) -> Plan {
    let uplinks = engine.uplinks();
    let lan = resolve::lan_interfaces(config);
    let moved = |u: &Uplink, family| has_moved(engine, u, family);
    let strict = refuses(config);
    let selection = engine.selection();
    let (mut rules, routes) = plan::routing(uplinks, selection, &config.kernel, strict, usable, moved);
    let outer = aggregate::outer(config);
    if let Some(outer) = outer {
        rules.extend(aggregate::rules(outer, &rules, host, &config.kernel));
    }
    Plan {
        rules,
        routes,
        nft: nat::render(&nat::Input {
            uplinks,
            lan: &lan,
            mask: config.kernel.fwmark_mask.bits(),
            mode: config.nat.mode,
            local: config.local.enabled,
            reset: resets(config),
            aggregate: outer,
            strict,
        }),
        sysctls: sysctls(config, uplinks),
    }
}

/// Sysctls alone, of what exists now.
#[must_use]
pub fn sysctls(config: &Config, uplinks: &[Uplink]) -> Vec<Sysctl> {
    let lan = resolve::lan_interfaces(config);
    let mut wanted = sysctl::desired(uplinks, &lan, sysctl::read);
    wanted.extend(sysctl::guards(uplinks, &lan, sysctl::read));
    let outer = aggregate::outer(config).into_iter();
    let more = outer.flat_map(|outer| sysctl::of_aggregate(uplinks, outer, sysctl::read));
    for one in more {
        if wanted.iter().all(|w| w.path != one.path) {
            wanted.push(one);
        }
    }
    let passes = nexthop::is_possible(config) || config.kernel.is_fast();
    if passes && sysctl::read(sysctl::LIBERAL).is_some() {
        wanted.push(Sysctl {
            path: sysctl::LIBERAL.into(),
            value: "1".into(),
        });
    }
    if config.kernel.is_fast() && sysctl::read(sysctl::EVENTS).is_some() {
        wanted.push(Sysctl {
            path: sysctl::EVENTS.into(),
            value: "1".into(),
        });
    }
    wanted
}

/// Whether our programs look at source addresses instead of the kernel.
#[must_use]
pub fn guards(config: &Config, uplinks: &[Uplink]) -> bool {
    let lan = resolve::lan_interfaces(config);
    !sysctl::guards(uplinks, &lan, sysctl::read).is_empty()
}

/// Whether some policy has flows refused.
#[must_use]
pub fn refuses(config: &Config) -> bool {
    config.policies.iter().any(|p| p.strict)
}

/// Whether TCP connections are ever reset.
fn resets(config: &Config) -> bool {
    config.nat.on_failover == OnFailover::Reset || config.nat.on_failback == OnFailback::Reset
}

/// Whether an uplink is dead in a family while others serve there, which is when its traffic has
/// somewhere else to go.
fn has_moved(engine: &Engine, u: &Uplink, family: Family) -> bool {
    let serving = engine.selection().family(family);
    let dead = engine.verdict(Path { uplink: u.id, family }) == Verdict::Down;
    dead && serving.weight(u.id) == 0 && serving.0.iter().any(|(_, weight)| *weight > 0)
}
