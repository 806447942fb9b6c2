//! `uplink check`: looks, never touches.

use std::collections::BTreeMap;

use anyhow::Result;
use uplink_common::{Family, SLOTS};

use crate::config::{self, Config};
use crate::engine::{Engine, Settings};
use crate::plan::Plan;
use crate::policy::compile::{Compiled, Surroundings, compile};
use crate::policy::lint;
use crate::resolve::{self, Uplink};
use crate::{aggregate, desired, links, maps, status, sysctl};

/// Validates the configuration against this host; with `print_plan` shows what would be installed.
///
/// # Errors
/// With every problem found.
pub async fn check(config: &Config, print_plan: bool) -> Result<()> {
    let host = links::snapshot(config.kernel.protocol).await?;
    let found = resolve::resolve(config, &host, &BTreeMap::new())?;
    for unusable in &found.unusable {
        eprintln!("note: {unusable}");
    }
    let uplinks = found.uplinks;
    let warnings = resolve::warnings(config, &uplinks);
    for warning in warnings
        .into_iter()
        .chain(lint::warnings(&config.policies, usize::MAX))
    {
        eprintln!("warning: {}\nhelp: {}", warning.text, warning.remedy);
    }
    let compiled = compiled(config)?;
    if print_plan {
        let engine = Engine::new(uplinks, Settings::of(config), &[], &[]);
        let plan = desired::plan(config, &engine, &host, |_, _| true);
        print!(
            "{}",
            text(&plan, engine.uplinks(), config) + &policies_text(config, engine.uplinks(), &compiled)
        );
    } else {
        println!(
            "{}: {} uplinks, no problems",
            config.file.path.display(),
            uplinks.len()
        );
    }
    Ok(())
}

fn text(plan: &Plan, uplinks: &[Uplink], config: &Config) -> String {
    let name_of = |line: String| {
        uplinks.iter().fold(line, |l, u| {
            l.replace(&format!(" dev if{}", u.ifindex), &format!(" dev {}", u.interface))
        })
    };
    let mut out = aggregate_text(config);
    out += "# rules\n";
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

/// The tables of the policies: whether there is room for them.
fn compiled(config: &Config) -> Result<Compiled> {
    let policies = &config.policies;
    let active = vec![true; policies.len()];
    let around = Surroundings::default();
    Ok(compile(
        policies,
        &[],
        &config::groups(policies),
        &active,
        &around,
    )?)
}

fn policies_text(config: &Config, uplinks: &[Uplink], compiled: &Compiled) -> String {
    if config.policies.is_empty() {
        return String::new();
    }
    let (sets, prefixes) = (compiled.sets.as_slice().len(), compiled.prefixes.len());
    let mut out = format!("# policies ({sets} sets, {prefixes} prefixes)\n");
    let names: Vec<&str> = uplinks.iter().map(|u| &*u.name).collect();
    for (policy, choice) in config.policies.iter().zip(&compiled.choices) {
        let strict = if policy.strict { ", strict" } else { "" };
        let uses = status::uses(&policy.choice, &names).join(", ");
        let (name, line, group) = (&policy.name.value, policy.line, choice.group);
        out += &format!("{name} (line {line}): {uses}{strict}; group {group}\n");
    }
    out
}

fn aggregate_text(config: &Config) -> String {
    let text = |outer| {
        let inner = aggregate::inner(outer);
        format!("# interfaces\n{outer}: a veth pair, comes out at {inner}\n")
    };
    aggregate::outer(config).map_or_else(String::new, text)
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
