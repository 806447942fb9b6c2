//! Somebody breaks what is ours: it is repaired within a second, and reported.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{command, run};
use uplink_lab::snapshot::attached;
use uplink_lab::traffic::{Ongoing, ask_udp, udp_flows};
use uplink_lab::{Daemon, Family, Isp, Lab, Shape};

use crate::support::{await_within, daemon, expect_unharmed, lab, pause, repairs, warned};

const SECOND: Duration = Duration::from_secs(1);
const PINS: &str = "/sys/fs/bpf/uplink";
const RULES: [&str; 2] = ["ip -4 rule", "ip -6 rule"];
const TABLES: [&str; 2] = [
    "ip -4 route show table all proto 117",
    "ip -6 route show table all proto 117",
];

/// What these commands print now is what they must print again.
struct Before(Vec<(&'static str, String)>);

impl Before {
    fn look(lab: &Lab, lines: &[&'static str]) -> Result<Self> {
        let look = |line: &&'static str| Ok((*line, lab.router.run(line)?));
        Ok(Self(lines.iter().map(look).collect::<Result<_>>()?))
    }

    fn is_back(&self, lab: &Lab) -> Result<bool> {
        for (line, before) in &self.0 {
            if lab.router.run(line)? != *before {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Breaks something under traffic and measures until `what` those commands print is back.
fn broken(
    kind: &str,
    looks: &[&'static str],
    limit: Duration,
    hurt: impl FnOnce(&Lab, &mut Daemon<'_>) -> Result<Instant>,
) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut daemon = daemon(&lab, "")?;
    let streams = [Isp::One, Isp::Two].map(|isp| Ongoing::udp_stream_on(&lab, Family::V4, isp));
    let before = Before::look(&lab, looks)?;
    ensure!(
        before.0.iter().all(|(_, text)| !text.is_empty()),
        "nothing to break"
    );
    let since = hurt(&lab, &mut daemon)?;
    await_within(&format!("{kind} repaired"), since, limit, || before.is_back(&lab))?;
    await_within("and reported", since, limit + SECOND, || {
        Ok(repairs(&daemon, kind)? > 0)
    })?;
    pause(0.3);
    for (isp, stream) in Isp::ALL.into_iter().zip(streams) {
        let report = stream?.stop()?;
        println!(
            "    a stream on {isp:?}: {} lost, seen from {:?}",
            report.lost(),
            report.isps()
        );
        ensure!(report.isps() == [isp], "{isp:?}: seen from {:?}", report.isps());
    }
    works(&lab)?;
    daemon.stop()
}

fn works(lab: &Lab) -> Result<()> {
    lab.bcp38()?;
    for family in Family::ALL {
        let tally = udp_flows(lab, 200, family)?;
        ensure!(
            tally.clean() == 200 && tally.by_isp.iter().all(|n| *n > 0),
            "{family:?} after the repair: {tally:?}"
        );
    }
    lab.expect_right_isps("after the repair")
}

pub fn rules() -> Result<()> {
    broken("rules", &RULES, SECOND, |lab, _| {
        // A flush takes the kernel's own rules along; whoever flushes adds those again.
        lab.router.run("ip -4 rule flush")?;
        lab.router.run("ip -6 rule flush")?;
        let since = Instant::now();
        for (version, name, at) in [(4, "main", 32766), (4, "default", 32767), (6, "main", 32766)] {
            let line = format!("ip -{version} rule add pref {at} lookup {name}");
            lab.router.run(&line)?;
        }
        Ok(since)
    })
}

pub fn routes() -> Result<()> {
    broken("routes", &TABLES, SECOND, |lab, _| {
        for version in [4, 6] {
            lab.router
                .run(&format!("ip -{version} route flush table 20001"))?;
        }
        Ok(Instant::now())
    })
}

pub fn nft() -> Result<()> {
    broken("nft", &["nft -t list tables"], SECOND, |lab, _| {
        lab.router.run("nft flush ruleset")?;
        Ok(Instant::now())
    })
}

/// A change of our own comes before the daemon has looked, and puts everything back: it is reported all the same.
pub fn beside_ours() -> Result<()> {
    let looks = [TABLES[0], RULES[0], "nft -t list tables"];
    for (kind, hurt) in [
        ("rules", "ip -4 rule del pref 20001"),
        ("routes", "ip -4 route flush table 20001"),
        ("nft", "nft delete table inet uplink"),
    ] {
        broken(kind, &looks, SECOND, |lab, daemon| {
            daemon.signal(Signal::SIGSTOP)?;
            lab.router.run(hurt)?;
            let mut orders = command(lab, &["drain", "isp2"])?.spawn()?;
            pause(0.3);
            daemon.signal(Signal::SIGCONT)?;
            let since = Instant::now();
            ensure!(orders.wait()?.success(), "the order was not carried out");
            ensure!(
                run(lab, &["enable", "isp2"])?.status.success(),
                "the order was not taken back"
            );
            Ok(since)
        })?;
    }
    Ok(())
}

/// Netlink events lost, and among them one that matters.
pub fn overrun() -> Result<()> {
    let looks = [TABLES[0], TABLES[1], RULES[0], RULES[1]];
    broken("overrun", &looks, 2 * SECOND, |lab, daemon| {
        daemon.signal(Signal::SIGSTOP)?;
        let change = |n: u32| format!("route add 10.99.{}.{}/32 dev lo table 99\n", n / 250, n % 250);
        // The default buffer holds 256 events; a wise daemon's holds more.
        lab.router.ip(&(0..3_000).map(change).collect::<String>())?;
        for version in [4, 6] {
            lab.router
                .run(&format!("ip -{version} route flush table 20001"))?;
        }
        lab.router.run("ip -4 rule del pref 20001")?;
        daemon.signal(Signal::SIGCONT)?;
        Ok(Instant::now())
    })
}

/// Carrier loss of the only NIC: its routes in all tables go, and nobody else brings ours back.
pub fn link() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let before = Before::look(&lab, &[RULES[0], RULES[1], TABLES[0], TABLES[1]])?;
    lab.router.ip("link set eth0 down\n")?;
    pause(0.5);
    ensure!(
        !before.is_back(&lab)?,
        "the link was down, yet all routes are there"
    );
    lab.router.ip("link set eth0 up\n")?;
    await_within("routes back after link up", Instant::now(), SECOND, || {
        before.is_back(&lab)
    })?;
    ensure!(repairs(&daemon, "routes")? > 0, "not reported");
    daemon.await_up()?;
    works(&lab)?;
    daemon.stop()
}

pub fn program() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    let before = attached(&lab)?;
    ensure!(!before.is_empty(), "no program attached");
    for (pin, _) in ids(&lab)?.into_keys().filter(|(_, kind)| *kind == "link") {
        lab.router.run(&format!("bpftool link detach pinned {pin}"))?;
    }
    // They may be back before anyone can look; that they were away is what the report tells.
    let since = Instant::now();
    await_within("programs attached", since, SECOND, || {
        Ok(attached(&lab)? == before)
    })?;
    await_within("and reported", since, 2 * SECOND, || {
        Ok(repairs(&daemon, "program")? > 0)
    })?;
    pause(0.2);
    expect_unharmed("a stream all the while", &stream.stop()?, Isp::Two)?;
    works(&lab)?;
    daemon.stop()
}

pub fn pins() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    let before = ids(&lab)?;
    println!("    {} pins", before.len());
    let victim = |kind: &str| {
        before
            .keys()
            .find(|(_, of)| *of == kind)
            .map(|(pin, _)| pin.clone())
    };
    let flows = format!("{PINS}/flows");
    for pin in [flows, victim("link").context("no link is pinned")?] {
        fs::remove_file(&pin).with_context(|| pin.clone())?;
        let since = Instant::now();
        await_within(&format!("{pin} again"), since, SECOND, || {
            Ok(Path::new(&pin).exists())
        })?;
    }
    let after = ids(&lab)?;
    // The very same maps and links, not new ones: live flows depend on them.
    ensure!(after == before, "pins changed: {before:?}\n{after:?}");
    await_within("and reported", Instant::now(), SECOND, || {
        Ok(repairs(&daemon, "pins")? > 0)
    })?;
    expect_unharmed("a stream all the while", &stream.stop()?, Isp::Two)?;
    works(&lab)?;
    daemon.stop()
}

/// Pins, what they are (map, link or prog), and the kernel's number of each.
fn ids(lab: &Lab) -> Result<BTreeMap<(String, &'static str), u64>> {
    let mut ids = BTreeMap::new();
    for entry in fs::read_dir(PINS)? {
        let pin = entry?.path().display().to_string();
        // bpftool alone can tell what a pin is, by refusing what it is not.
        let found = ["map", "link", "prog"].into_iter().find_map(|kind| {
            let text = lab
                .router
                .run(&format!("bpftool -j {kind} show pinned {pin}"))
                .ok()?;
            let json: serde_json::Value = serde_json::from_str(&text).ok()?;
            Some((kind, json["id"].as_u64()?))
        });
        let (kind, id) = found.with_context(|| format!("{pin} is no map, link or program"))?;
        ids.insert((pin, kind), id);
    }
    Ok(ids)
}

/// As after a DHCP lease with another address.
pub fn address() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.router
        .ip("addr del 192.168.1.100/24 dev eth0\naddr add 192.168.1.150/24 dev eth0\n")?;
    let since = Instant::now();
    await_within("routes with the new address", since, SECOND, || {
        let routes = lab.router.run("ip -4 route show table all proto 117")?;
        Ok(routes.contains("src 192.168.1.150") && !routes.contains("192.168.1.100"))
    })?;
    await_within("and reported", since, 2 * SECOND, || {
        Ok(repairs(&daemon, "addresses")? > 0)
    })?;
    let source = uplink_lab::daemon::find(&daemon.status()?, Isp::One).map(|u| u["source"].clone());
    ensure!(source == Some("192.168.1.150".into()), "status says {source:?}");
    daemon.await_up()?;
    works(&lab)?;
    let _server = uplink_lab::Echo::serve(&lab.router, &["0.0.0.0:7000".parse()?])?;
    let to: SocketAddr = "192.168.1.150:7000".parse()?;
    let inbound = ask_udp(&lab, to, 50)?;
    ensure!(inbound.lost == 0, "asked at the new address: {inbound:?}");
    lab.expect_right_isps("with the new address")?;
    daemon.stop()
}

/// A foreign rule in front of ours is left alone, but reported as long as it is there.
pub fn shadow() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    ensure!(!warned(&daemon, "shadowed")?, "warned before there is a rule");
    lab.router
        .ip("route add default via 192.168.1.1 table 100\nrule add pref 1 lookup 100\n")?;
    await_within("warned", Instant::now(), SECOND, || warned(&daemon, "shadowed"))?;
    ensure!(
        lab.router.run("ip rule")?.contains("lookup 100"),
        "a foreign rule was deleted"
    );
    lab.router.run("ip rule del pref 1")?;
    await_within("warning gone", Instant::now(), SECOND, || {
        Ok(!warned(&daemon, "shadowed")?)
    })?;
    works(&lab)?;
    daemon.stop()
}

pub fn gateway_mac() -> Result<()> {
    new_mac(Family::V4)
}

pub fn gateway_mac_v6() -> Result<()> {
    new_mac(Family::V6)
}

/// The first probe is lost half a second after the change at most; a second more is allowed.
fn new_mac(family: Family) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let stream = Ongoing::udp_stream_on(&lab, family, Isp::One)?;
    pause(0.2);
    lab.change_mac_silently(Isp::One)?;
    let since = Instant::now();
    pause(3.0);
    lab.end_silence(Isp::One)?;
    let report = stream.stop()?;
    let first_lost = report.beats.iter().find(|b| b.sent >= since && b.reply.is_none());
    let first_lost = first_lost.context("nothing was lost: the fault is none")?.sent;
    let back = report.recovered_after(since).context("the flow stays dead")?;
    println!(
        "    the first packet was lost {:?}, the flow works again {back:?} after the change, from {:?}",
        first_lost.duration_since(since),
        report.isps()
    );
    ensure!(back < SECOND * 3 / 2, "needed {back:?}");
    ensure!(report.isps() == [Isp::One], "moved: {:?}", report.isps());
    ensure!(repairs(&daemon, "neighbour")? > 0, "not reported");
    let states = daemon.uplinks()?.map(|(state, _)| state);
    println!("    states afterwards: {states:?}");
    works(&lab)?;
    daemon.stop()
}

/// NAT is flushed while flows begin: what they have in conntrack must not stay without NAT.
pub fn untranslated() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    let pulse = Ongoing::new_flows(&lab, Family::V4, Duration::from_millis(5))?;
    let pulse6 = Ongoing::new_flows(&lab, Family::V6, Duration::from_millis(5))?;
    pause(0.3);
    lab.router.run("nft flush ruleset")?;
    let since = Instant::now();
    let begun = begun_meanwhile(&lab)?;
    await_within("nft repaired", since, SECOND, || {
        Ok(lab.router.run("nft -t list tables")?.contains("uplink"))
    })?;
    let repaired = Instant::now();
    let leaked: u64 = lab.carried()?.iter().map(|c| c.private).sum();
    println!("    {leaked} packets left without NAT before the repair");
    ensure!(leaked > 0, "nothing leaked: the fault is none");
    for stream in begun {
        let works = || Ok(stream.report().beats.iter().any(|b| b.reply.is_some()));
        await_within("a flow begun meanwhile works", repaired, 2 * SECOND, works)?;
    }
    let then: u64 = lab.carried()?.iter().map(|c| c.private).sum();
    pause(1.0);
    let later: u64 = lab.carried()?.iter().map(|c| c.private).sum();
    ensure!(later == then, "{} more left without NAT", later - then);
    for pulse in [pulse, pulse6] {
        let report = pulse.stop()?;
        let late = report.lost_since(repaired + Duration::from_millis(100));
        println!(
            "    {} new flows, {} lost, {late} after the repair",
            report.beats.len(),
            report.lost()
        );
        ensure!(late == 0, "{late} new flows were lost after the repair");
    }
    await_within("and reported", repaired, 2 * SECOND, || {
        Ok(repairs(&daemon, "nft")? > 0 && repairs(&daemon, "untranslated")? > 0)
    })?;
    daemon.stop()
}

fn begun_meanwhile(lab: &Lab) -> Result<Vec<Ongoing>> {
    let families = Family::ALL.into_iter().cycle().take(8);
    families
        .map(|family| Ongoing::unanswered_udp_stream(lab, family))
        .collect()
}
