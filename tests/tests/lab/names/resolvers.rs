//! Every form in which resolvers answer teaches: to clients, and to our own questions.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uplink_lab::names::{Answer, Way, ask, lookup};
use uplink_lab::topology::{elsewhere, servers};
use uplink_lab::traffic::flows_to;
use uplink_lab::{Daemon, Family, Isp, Lab, Program, Resolver, Shape, Zone};

use super::{all_by, await_addresses, config, resolver, resolver_at, start};
use crate::support::{await_within, lab};

/// A question, and what is to come.
struct Form {
    what: &'static str,
    name: &'static str,
    family: Family,
    way: Way,
    addresses: usize,
    aliases: usize,
    truncated: bool,
}

const FORM: Form = Form {
    what: "A",
    name: "a.x.example.org",
    family: Family::V4,
    way: Way::Udp,
    addresses: 2,
    aliases: 0,
    truncated: false,
};

/// A name of its own for each, as an answer that taught nothing would go unnoticed else.
const FORMS: [Form; 8] = [
    FORM,
    Form {
        what: "AAAA",
        name: "aaaa.x.example.org",
        family: Family::V6,
        ..FORM
    },
    Form {
        what: "an alias of an alias, of which policies want the second name alone",
        name: "www.y.example.org",
        aliases: 2,
        ..FORM
    },
    Form {
        what: "EDNS",
        name: "edns.x.example.org",
        way: Way::Edns(1232),
        addresses: 60,
        ..FORM
    },
    Form {
        what: "truncated",
        name: "truncated.x.example.org",
        addresses: 60,
        truncated: true,
        ..FORM
    },
    Form {
        what: "truncated in spite of EDNS",
        name: "huge.x.example.org",
        way: Way::Edns(4096),
        addresses: 120,
        truncated: true,
        ..FORM
    },
    Form {
        what: "TCP",
        name: "tcp.x.example.org",
        way: Way::Tcp,
        ..FORM
    },
    Form {
        what: "TCP, AAAA",
        name: "tcp6.x.example.org",
        family: Family::V6,
        way: Way::Tcp,
        addresses: 120,
        ..FORM
    },
];

const FORMS_ADDRESSES: u16 = 1_000;

/// What a form's name has, by which program; nothing is known by two names.
fn addresses(program: Program, form: &Form) -> Vec<IpAddr> {
    let at = FORMS.iter().position(|f| f.name == form.name).unwrap_or(0) as u16;
    let first = program as u16 * 10_000 + at * FORMS_ADDRESSES;
    (first..first + form.addresses as u16)
        .map(|n| elsewhere(form.family, n))
        .collect()
}

fn zone(program: Program) -> Zone {
    let mut zone = Zone::new("example.org", 300);
    for form in &FORMS {
        let owner = if form.aliases > 0 {
            "host.y.example.org"
        } else {
            form.name
        };
        for address in addresses(program, form) {
            zone.add(owner, address);
        }
    }
    zone.alias("www.y.example.org", "middle.x.example.org");
    zone.alias("middle.x.example.org", "host.y.example.org");
    zone
}

/// Clients ask dnsmasq and unbound, each by an address of both families.
pub fn teach() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let daemon = start(&lab, &config("\"*.x.example.org\"", ""))?;
    for program in Program::ALL {
        let _resolver = resolver(&lab, program, &zone(program))?;
        for (n, form) in FORMS.iter().enumerate() {
            let server = resolver_at(Family::ALL[n % 2]);
            teaches(&lab, &daemon, program, server, form)?;
        }
    }
    println!("    {}", super::names(&daemon)?);
    daemon.stop()
}

fn teaches(lab: &Lab, daemon: &Daemon<'_>, program: Program, server: IpAddr, form: &Form) -> Result<()> {
    let what = format!("{program:?}: {}", form.what);
    let to = addresses(program, form);
    all_by(
        Isp::One,
        &format!("{what}, before"),
        &flows_to(&lab.client, &to[..1])?,
    )?;
    let known = super::names(daemon)?["addresses"].as_u64().unwrap_or(0);
    let question = || ask(server, form.name, form.family, form.way);
    let Answer {
        truncated, length, ..
    } = lab.client.enter(question)??;
    println!("    {what}: {length} bytes, truncated: {truncated}");
    ensure!(truncated == form.truncated, "{what}: truncated: {truncated}");
    let whole = lab
        .client
        .enter(|| lookup(server, form.name, form.family, form.way))??;
    ensure!(whole.addresses.len() == form.addresses, "{what}: {whole:?}");
    ensure!(whole.aliases == form.aliases, "{what}: {whole:?}");
    await_addresses(daemon, known + form.addresses as u64)?;
    all_by(Isp::Two, &format!("{what}, after"), &flows_to(&lab.client, &to)?)
}

/// The daemon asks for the names itself, each program by its own address, and no client does.
pub fn asked() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let names: Vec<_> = FORMS.iter().map(|form| format!("\"{}\"", form.name)).collect();
    for (program, family) in Program::ALL.into_iter().zip(Family::ALL) {
        let at = servers(family)[1];
        let _resolver = Resolver::start(program, &lab.internet, &[at], &zone(program))?;
        let dns = format!("resolvers = [\"{at}\"]");
        let daemon = start(&lab, &config(&names.join(", "), &dns))?;
        let limit = Duration::from_secs(10);
        let all = || Ok(super::names(&daemon)?["addresses"].as_u64() == Some(known()));
        await_within(&format!("{program:?}: all known"), Instant::now(), limit, all)?;
        for form in &FORMS {
            let tally = flows_to(&lab.client, &addresses(program, form))?;
            all_by(Isp::Two, &format!("{program:?}: {}", form.what), &tally)?;
        }
        stop(daemon)?;
    }
    Ok(())
}

fn known() -> u64 {
    FORMS.iter().map(|form| form.addresses as u64).sum()
}

fn stop(daemon: Daemon<'_>) -> Result<()> {
    println!("    {}", super::names(&daemon)?);
    daemon.stop()
}
