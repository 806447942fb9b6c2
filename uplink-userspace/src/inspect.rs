//! `uplink check`: looks, never touches.

use std::collections::BTreeMap;

use anyhow::Result;
use uplink_common::{Family, SLOTS};

use crate::config::{Config, OnFailback, OnFailover};
use crate::engine::{Engine, Path};
use crate::health::Verdict;
use crate::plan::{self, Plan};
use crate::resolve::{self, Uplink};
use crate::{daemon, links, maps, nat, sysctl};

/// Validates the configuration against this host; with `print_plan` shows what would be installed.
///
/// # Errors
/// With every problem found.
pub async fn check(config: &Config, print_plan: bool) -> Result<()> {
    let host = links::snapshot(config.kernel.protocol).await?;
    let uplinks = resolve::resolve(config, &host, &BTreeMap::new())?;
    if print_plan {
        let engine = Engine::new(uplinks, daemon::engine_settings(config), &[], &[]);
        let plan = plan(config, &engine, |_, _| true);
        print!("{}", text(&plan, engine.uplinks(), config));
    } else {
        println!(
            "{}: {} uplinks, no problems",
            config.file.path.display(),
            uplinks.len()
        );
    }
    Ok(())
}

/// The whole desired state outside the maps.
#[must_use]
pub fn plan(config: &Config, engine: &Engine, usable: impl Fn(&Uplink, Family) -> bool) -> Plan {
    let uplinks = engine.uplinks();
    let lan = resolve::lan_interfaces(config);
    let moved = |u: &Uplink, family| has_moved(engine, u, family);
    let (rules, routes) = plan::routing(uplinks, engine.selection(), &config.kernel, usable, moved);
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
        }),
        sysctls: sysctl::desired(uplinks, &lan, sysctl::read),
    }
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

fn text(plan: &Plan, uplinks: &[Uplink], config: &Config) -> String {
    let name_of = |line: String| {
        uplinks.iter().fold(line, |l, u| {
            l.replace(&format!(" dev if{}", u.ifindex), &format!(" dev {}", u.interface))
        })
    };
    let mut out = String::from("# rules\n");
    for rule in &plan.rules {
        out += &format!("{rule} protocol {}\n", config.kernel.protocol);
    }
    out += "# routes\n";
    for route in &plan.routes {
        out += &name_of(format!("{route} proto {}\n", config.kernel.protocol));
    }
    out += &format!("# nftables\n{}\n# sysctls\n", plan.nft.trim_end());
    for s in &plan.sysctls {
        let now = sysctl::read(&s.path).unwrap_or_else(|| "?".into());
        let note = if now == s.value {
            "already so".into()
        } else {
            format!("now {now}")
        };
        out += &format!("{} = {} ({note})\n", s.path, s.value);
    }
    out + &maps_text(uplinks)
}

fn maps_text(uplinks: &[Uplink]) -> String {
    let mut out = format!("# maps ({})\n", maps::NAMES.join(", "));
    for family in Family::ALL {
        let total: u32 = uplinks
            .iter()
            .filter(|u| u.leg(family).is_some())
            .map(|u| u.weight)
            .sum();
        for u in uplinks.iter().filter(|u| u.leg(family).is_some()) {
            let slots = u64::from(SLOTS) * u64::from(u.weight) / u64::from(total);
            out += &format!(
                "slots {family:?} {}: id {}, about {slots} of {SLOTS} while all are up\n",
                u.name, u.id
            );
        }
    }
    out
}
