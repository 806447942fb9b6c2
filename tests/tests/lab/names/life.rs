//! For how long names count, what a reload leaves of them, and what several policies make of one address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::write_config;
use uplink_lab::names::{Way, ask, resolve};
use uplink_lab::topology::{elsewhere, servers};
use uplink_lab::traffic::{Tally, flows_to};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Program, Resolver, Shape, Zone};

use super::{
    all_by, await_addresses, config, hosts, only_the_resolver, outcome, policy, populate, resolver,
    resolver_at, start,
};
use crate::support::{await_within, lab, pause, warned};

/// Names by which the clients' resolvers of this scenario differ.
const FLOOR: &str = "floor.example.org";
const CAP: &str = "cap.example.org";
const EXACT: &str = "exact.test.example.org";

const SECOND: Duration = Duration::from_secs(1);
/// Until names that do not count any more are taken out.
const FORGETS: Duration = Duration::from_millis(200);

/// However short or long an answer says that it counts, `[dns]` has limits; what policies name without a star is
/// asked for again before that. Seconds are whole ones: a name counts for up to one more.
pub fn expiry() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let [near, far] = servers(Family::V4);
    let [floor, cap, exact] = [1, 2, 3].map(|n| elsewhere(Family::V4, n));
    let (mut short, mut long) = (Zone::new("example.org", 0), Zone::new("example.org", 86_400));
    short.add(FLOOR, floor);
    long.add(CAP, cap);
    short.add(EXACT, exact);
    let _near = Resolver::start(Program::Dnsmasq, &lab.internet, &[near], &short)?;
    let _far = Resolver::start(Program::Unbound, &lab.internet, &[far], &long)?;
    let dns = format!("resolvers = [\"{near}\", \"{far}\"]\nttl_min = \"2s\"\nttl_max = \"4s\"");
    let daemon = start(&lab, &config(&format!("\"*.example.org\", \"{EXACT}\""), &dns))?;
    await_addresses(&daemon, 1)?;
    let asked = Instant::now();
    for (server, name) in [(near, FLOOR), (far, CAP)] {
        lab.client.enter(|| resolve(server, name, Family::V4))??;
    }
    await_addresses(&daemon, 3)?;
    let heard = Instant::now();
    // What is between the two is not known: when it was heard, and when the second began.
    let expected = |ttl_s: u64, before: Instant, after: Instant| {
        let ttl = Duration::from_secs(ttl_s);
        match (after < asked + ttl, before > heard + ttl + SECOND + FORGETS) {
            (true, _) => Some(Isp::Two),
            (_, true) => Some(Isp::One),
            _ => None,
        }
    };
    for at_ms in [0, 1_800, 3_300, 3_800, 5_300, 6_500] {
        std::thread::sleep((heard + Duration::from_millis(at_ms)).saturating_duration_since(Instant::now()));
        for (name, address, ttl_s) in [(FLOOR, floor, 2), (CAP, cap, 4), (EXACT, exact, 3_600)] {
            let before = Instant::now();
            let tally = flows_to(&lab.client, &[address])?;
            let what = format!("{name} after {at_ms} ms");
            match expected(ttl_s, before, Instant::now()) {
                Some(isp) => all_by(isp, &what, &tally)?,
                None => println!("    {what}: {tally:?}, which may be"),
            }
        }
    }
    daemon.stop()
}

/// A name that policies mention without a star is known at every moment, however short its answers count.
pub fn no_gap() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let address = elsewhere(Family::V4, 1);
    let mut zone = Zone::new("example.org", 1);
    zone.add(EXACT, address);
    let _resolver = resolver(&lab, Program::Dnsmasq, &zone)?;
    let dns = format!("{}\nttl_min = \"1s\"", only_the_resolver());
    let daemon = start(&lab, &config(&format!("\"{EXACT}\""), &dns))?;
    await_addresses(&daemon, 1)?;
    let mut tally = Tally::default();
    for _ in 0..500 {
        tally += flows_to(&lab.client, &[address])?;
        pause(0.02);
    }
    all_by(Isp::Two, "10 s", &tally)?;
    daemon.stop()
}

/// Two policies want one address by different names: the first of them gets it, whichever was looked up.
pub fn shared() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let address = elsewhere(Family::V4, 1);
    let mut zone = Zone::new("example.org", 300);
    zone.add("a.example.org", address);
    zone.add("b.example.org", address);
    let _resolver = resolver(&lab, Program::Unbound, &zone)?;
    let a = policy("a", "\"a.example.org\"", Isp::Two);
    let b = policy("b", "\"b.example.org\"", Isp::One);
    let config = |policies: String| Config {
        uplink_more: [String::new(), "tier = 2".into()],
        more: format!("[dns]\n{}\n{policies}", only_the_resolver()),
        ..Config::default()
    };
    let mut daemon = start(&lab, &config(format!("{a}{b}")))?;
    // Both are known when it is warned of.
    let limit = Duration::from_secs(10);
    await_within("warned", Instant::now(), limit, || {
        warned(&daemon, "shared-address")
    })?;
    all_by(Isp::Two, "a before b", &flows_to(&lab.client, &[address])?)?;
    reload(&lab, &mut daemon, &config(format!("{b}{a}")))?;
    all_by(Isp::One, "b before a", &flows_to(&lab.client, &[address])?)?;
    ensure!(warned(&daemon, "shared-address")?, "no warning after the reload");
    reload(&lab, &mut daemon, &config(a))?;
    all_by(Isp::Two, "a alone", &flows_to(&lab.client, &[address])?)?;
    ensure!(!warned(&daemon, "shared-address")?, "the warning has stayed");
    daemon.stop()
}

/// What was learned stays in a reload, also where other policies want it then; this host's own questions teach as
/// those of clients do.
pub fn kept() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut zone = Zone::new("example.org", 300);
    populate(&mut zone, &hosts(200), 1, Family::V4);
    let _resolver = resolver(&lab, Program::Dnsmasq, &zone)?;
    let mut daemon = start(&lab, &config("\"*.example.org\"", ""))?;
    let addresses = look_up(&lab)?;
    await_addresses(&daemon, 200)?;
    all_by(
        Isp::Two,
        "asked by this host",
        &flows_to(&lab.client, &addresses)?,
    )?;
    let asked = outcome(&daemon, "asked")?;
    let other = Config {
        weights: [1, 1],
        more: format!(
            "{}{}",
            policy("front", "\"host-0.example.org\"", Isp::One),
            config("\"*.example.org\"", "").more
        ),
        ..config("", "")
    };
    reload(&lab, &mut daemon, &other)?;
    let (front, rest) = addresses.split_at(1);
    all_by(Isp::One, "wanted by a new policy", &flows_to(&lab.client, front)?)?;
    all_by(Isp::Two, "as before", &flows_to(&lab.client, rest)?)?;
    // The daemon itself may ask for the two names that the policies mention.
    let more = outcome(&daemon, "asked")? - asked;
    ensure!(more <= 16, "asked {more} times more");
    reload(&lab, &mut daemon, &config("\"*.elsewhere.test\"", ""))?;
    all_by(Isp::One, "wanted no more", &flows_to(&lab.client, &addresses)?)?;
    reload(&lab, &mut daemon, &config("\"*.example.org\"", ""))?;
    all_by(Isp::Two, "wanted again", &flows_to(&lab.client, &addresses)?)?;
    daemon.stop()
}

/// Of new flows, so many go where somebody was seen looking up, by a name of a policy or not.
pub fn share() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut zone = Zone::new("example.org", 300);
    populate(&mut zone, &hosts(200), 1, Family::V4);
    let _resolver = resolver(&lab, Program::Dnsmasq, &zone)?;
    let wanted: Vec<_> = hosts(100).iter().map(|name| format!("\"{name}\"")).collect();
    let daemon = start(&lab, &config(&wanted.join(", "), &only_the_resolver()))?;
    let known = look_up(&lab)?;
    await_addresses(&daemon, 200)?;
    let unknown: Vec<_> = (1_000..1_100).map(|n| elsewhere(Family::V4, n)).collect();
    for _ in 0..3 {
        flows_to(&lab.client, &known)?;
        flows_to(&lab.client, &unknown)?;
    }
    let share = super::names(&daemon)?["known_share"].as_f64().unwrap_or_default();
    println!("    600 flows of 900: known_share {share}");
    ensure!((share - 2.0 / 3.0).abs() < 0.005, "known_share is {share}");
    daemon.stop()
}

/// The router asks for all names.
fn look_up(lab: &Lab) -> Result<Vec<IpAddr>> {
    lab.router.enter(|| {
        let mut addresses = Vec::new();
        for name in hosts(200) {
            let answer = ask(resolver_at(Family::V4), &name, Family::V4, Way::Udp)?;
            addresses.extend(answer.addresses);
        }
        Ok(addresses)
    })?
}

fn reload(lab: &Lab, daemon: &mut Daemon<'_>, config: &Config) -> Result<()> {
    write_config(&config.text(lab))?;
    daemon.signal(Signal::SIGHUP)?;
    pause(0.5);
    daemon.await_up()
}
