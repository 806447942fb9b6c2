//! Names that nobody can ask for beforehand: learned from the answer to the client, which is on its way to it while
//! the daemon reads it. The client may win that race, and then its first flow is balanced.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::{Contact, flows_to, named_flows};
use uplink_lab::{Cgroup, Config, Daemon, Family, Isp, Lab, Namespace, Program, Resolver, Shape, Zone};

use super::{all_by, await_addresses, config, hosts, populate, resolver, resolver_at, start};
use crate::support::lab;

/// Kinds of clients, and what percentage of each must be right. The answer wakes the client as well as the daemon, so who
/// runs first is up to the machine, and only told; whoever takes his time finds the name known.
const RACERS: [(Contact, f64); 4] = [
    (Contact::Send, 0.0),
    (Contact::SendAfter(Duration::from_millis(1)), 0.0),
    (Contact::SendAfter(Duration::from_millis(20)), 99.0),
    (Contact::Connect, 0.0),
];
/// Names for each kind.
const EACH: u16 = 1_000;
const HOSTS: u16 = EACH * RACERS.len() as u16;

/// The resolver is beyond the ISPs.
pub fn forwarded() -> Result<()> {
    race(|_| Ok((None, resolver_at(Family::V4))))
}

/// This host is the resolver: it has the answer before the client does.
pub fn here() -> Result<()> {
    let forwarder = |lab: &Lab| {
        let here = [172, 16, 0, 1].into();
        let forwarder = Resolver::forwarder(&lab.router, here, resolver_at(Family::V4))?;
        Ok((Some(forwarder), here))
    };
    race(forwarder)
}

fn race(resolve: impl Fn(&Lab) -> Result<(Option<Resolver>, IpAddr)>) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut zone = Zone::new("example.org", 300);
    populate(&mut zone, &hosts(HOSTS), 1, Family::V4);
    let _resolver = resolver(&lab, Program::Dnsmasq, &zone)?;
    let (_forwarder, server) = resolve(&lab)?;
    let daemon = start(&lab, &config("\"*.example.org\"", ""))?;
    run(&daemon, &lab.client, server)?;
    let stranger = flows_to(&lab.client, &[elsewhere(Family::V4, 9_000)])?;
    all_by(Isp::One, "an address without a name", &stranger)?;
    println!("    {}", super::names(&daemon)?);
    daemon.stop()
}

/// This host's own programs look up and connect: nothing is nearer to the answer than they are.
pub fn host() -> Result<()> {
    let cgroup = Cgroup::join()?;
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut zone = Zone::new("example.org", 300);
    populate(&mut zone, &hosts(HOSTS), 1, Family::V4);
    let _resolver = resolver(&lab, Program::Dnsmasq, &zone)?;
    let config = Config {
        local: Some(cgroup.path().to_owned()),
        ..config("\"*.example.org\"", "")
    };
    let daemon = start(&lab, &config)?;
    run(&daemon, &lab.router, resolver_at(Family::V4))?;
    let stranger = flows_to(&lab.router, &[elsewhere(Family::V4, 9_000)])?;
    all_by(Isp::One, "an address without a name", &stranger)?;
    println!("    {}", super::names(&daemon)?);
    daemon.stop()
}

/// Each kind of client has names of its own. Its second contact is always right.
fn run(daemon: &Daemon<'_>, ns: &Namespace, server: IpAddr) -> Result<()> {
    let mut known = 0;
    for (names, (contact, least)) in hosts(HOSTS).chunks(EACH.into()).zip(RACERS) {
        let (tally, addresses) = named_flows(ns, server, names, Family::V4, contact)?;
        let share = tally.percent(Isp::Two);
        println!("    {contact:?}: {share:.1} % by the policy's uplink, {tally:?}");
        ensure!(tally.clean() == names.len(), "{contact:?}: {tally:?}");
        ensure!(share >= least, "{contact:?}: {share:.1} %");
        known += names.len() as u64;
        await_addresses(daemon, known)?;
        all_by(Isp::Two, "the second time", &flows_to(ns, &addresses)?)?;
    }
    Ok(())
}
