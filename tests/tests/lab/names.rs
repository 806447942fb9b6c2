//! Policies by domain name, with real resolvers on the Internet's side.
//!
//! The second uplink is of a higher tier: nothing goes there but what a policy sends. So every flow tells whether
//! its destination was known by name.

pub mod learned;
pub mod life;
pub mod resolvers;
pub mod tricks;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uplink_lab::names::resolve;
use uplink_lab::topology::{elsewhere, servers};
use uplink_lab::traffic::{Contact, Tally, flows_to, named_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Program, Resolver, Shape, Zone};

use crate::support::{await_within, lab};

/// Where the resolver is.
pub fn resolver_at(family: Family) -> IpAddr {
    servers(family)[0]
}

/// Starts the resolver on the Internet, at both families' addresses.
pub fn resolver(lab: &Lab, program: Program, zone: &Zone) -> Result<Resolver> {
    Resolver::start(program, &lab.internet, &Family::ALL.map(resolver_at), zone)
}

/// A configuration whose second uplink has only what policies give it. `domains` is TOML, such as
/// `"\"*.example.org\""`; `dns` are lines of `[dns]`.
pub fn config(domains: &str, dns: &str) -> Config {
    Config {
        uplink_more: [String::new(), "tier = 2".into()],
        more: format!("[dns]\n{dns}\n{}", policy("named", domains, Isp::Two)),
        ..Config::default()
    }
}

/// A policy by names.
pub fn policy(name: &str, domains: &str, isp: Isp) -> String {
    let isp = isp.name();
    format!("[[policy]]\nname = \"{name}\"\nmatch = {{ domain = [{domains}] }}\nuse = \"{isp}\"\n")
}

/// Only this resolver's answers count, of either family.
pub fn only_the_resolver() -> String {
    let [v4, v6] = Family::ALL.map(resolver_at);
    format!("resolvers = [\"{v4}\", \"{v6}\"]")
}

/// A daemon whose uplinks are up.
pub fn start<'a>(lab: &'a Lab, config: &Config) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(lab, config)?;
    daemon.await_up()?;
    Ok(daemon)
}

/// `names` in the status.
pub fn names(daemon: &Daemon<'_>) -> Result<Value> {
    let names = daemon.status()?["names"].clone();
    ensure!(names.is_object(), "status has no names: {names}");
    Ok(names)
}

/// So many packets or addresses had this outcome.
pub fn outcome(daemon: &Daemon<'_>, what: &str) -> Result<u64> {
    let names = names(daemon)?;
    let count = names["packets"][what].as_u64();
    count.with_context(|| format!("no count of {what}: {names}"))
}

/// Waits until so many addresses are known.
pub fn await_addresses(daemon: &Daemon<'_>, n: u64) -> Result<()> {
    let known = || Ok(names(daemon)?["addresses"].as_u64() >= Some(n));
    let limit = Duration::from_secs(10);
    await_within(&format!("{n} addresses known"), Instant::now(), limit, known).map(drop)
}

/// All flows went by this ISP.
pub fn all_by(isp: Isp, what: &str, tally: &Tally) -> Result<()> {
    println!("    {what}: {tally:?}");
    ensure!(
        tally.total() > 0 && tally.by_isp[isp.index()] == tally.total(),
        "{what}: not all by {}: {tally:?}",
        isp.name()
    );
    Ok(())
}

/// `host-0` and so on, below example.org.
pub fn hosts(n: u16) -> Vec<String> {
    (0..n).map(|n| format!("host-{n}.example.org")).collect()
}

/// Each of the names has `each` addresses of this family.
pub fn populate(zone: &mut Zone, names: &[String], each: u16, family: Family) {
    let mut next = 0;
    for name in names {
        for _ in 0..each {
            zone.add(name, elsewhere(family, next));
            next += 1;
        }
    }
}

/// The daemon has asked for the names of the policy before anybody else did: not one flow goes elsewhere.
pub fn known() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let names = hosts(40);
    let mut zone = Zone::new("example.org", 300);
    for family in Family::ALL {
        populate(
            &mut zone,
            &names,
            if family == Family::V4 { 25 } else { 10 },
            family,
        );
    }
    zone.add("other.example.org", elsewhere(Family::V4, 5_000));
    let _resolver = resolver(&lab, Program::Dnsmasq, &zone)?;
    let domains = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
    let daemon = start(&lab, &config(&domains.join(", "), &only_the_resolver()))?;
    await_addresses(&daemon, 40 * 35)?;
    for (family, times, contact) in [
        (Family::V4, 25, Contact::Send),
        (Family::V6, 5, Contact::Send),
        (Family::V4, 5, Contact::Connect),
    ] {
        let names: Vec<_> = std::iter::repeat_n(&names, times).flatten().cloned().collect();
        let (tally, _) = named_flows(&lab.client, resolver_at(family), &names, family, contact)?;
        all_by(Isp::Two, &format!("{family:?} {contact:?}"), &tally)?;
    }
    let other = lab
        .client
        .enter(|| resolve(resolver_at(Family::V4), "other.example.org", Family::V4))??;
    all_by(Isp::One, "a name of no policy", &flows_to(&lab.client, &other)?)?;
    println!("    {}", self::names(&daemon)?);
    daemon.stop()
}
