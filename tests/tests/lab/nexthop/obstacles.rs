//! What known flows would pass by: `auto` goes the kernel's way while it is there.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::{Ongoing, Report};
use uplink_lab::{Config, Daemon, Family, Shape};

use super::flows::Flows;
use super::{OFF, daemon, expect_mode, packets, routed};
use crate::support::{self, await_within, pause, warned};

/// Between two looks at what sends no event, and some time for the machine.
const LOOK: Duration = Duration::from_secs(7);
/// For what nftables tells of.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Answers may pass, so that whoever gets one was not stopped.
const WALL: &str = "table inet fw { chain forward { type filter hook forward priority 0;\n\
                    ip saddr 172.16.0.0/24 drop; ip6 saddr fd00:10::/64 drop; }\n}\n";

/// A firewall stops what is under way within a second; when it goes, flows pass again.
pub fn firewall() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let streams = [
        Ongoing::udp_stream(&lab, Family::V4)?,
        Ongoing::udp_stream(&lab, Family::V6)?,
    ];
    for round in 0..2 {
        // It does not outlive a round.
        let connection = Ongoing::tcp_stream(&lab, Family::V4)?;
        let before = packets(&daemon, "forwarded")?;
        pause(1.0);
        ensure!(packets(&daemon, "forwarded")? > before, "nothing passes");
        lab.router.nft(WALL)?;
        let fault = Instant::now();
        pause(1.6);
        for stream in streams.iter().chain([&connection]) {
            let after = got_through(&stream.report(), fault);
            println!("    round {round}: the last packet got through {after:?} after the firewall came");
            ensure!(after < AT_ONCE, "{after:?}");
        }
        expect_mode(&daemon, "mark", AT_ONCE)?;
        let passed = packets(&daemon, "forwarded")?;
        pause(0.3);
        ensure!(packets(&daemon, "forwarded")? == passed, "packets still pass");
        lab.router.run("nft delete table inet fw")?;
        let healed = Instant::now();
        expect_mode(&daemon, "nexthop", AT_ONCE)?;
        let limit = Duration::from_secs(5);
        let again = || Ok(packets(&daemon, "forwarded")? > passed);
        await_within("flows pass again", healed, limit, again)?;
    }
    drop(streams);
    daemon.stop()
}

/// The same by the old iptables, of which the kernel tells nobody. Its table stays, and with it the kernel's way.
pub fn legacy_firewall() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    for (n, (family, iptables, clients)) in [
        (Family::V6, "ip6tables-legacy", "fd00:10::/64"),
        (Family::V4, "iptables-legacy", "172.16.0.0/24"),
    ]
    .into_iter()
    .enumerate()
    {
        let streams = [
            Ongoing::udp_stream(&lab, family)?,
            Ongoing::tcp_stream(&lab, family)?,
        ];
        pause(1.0);
        let passed = packets(&daemon, "forwarded")?;
        pause(0.5);
        ensure!(
            packets(&daemon, "forwarded")? > passed,
            "{family:?}: nothing passes"
        );
        lab.router
            .run(&format!("{iptables} -A FORWARD -s {clients} -j DROP"))?;
        let fault = Instant::now();
        pause(1.6);
        for stream in &streams {
            let after = got_through(&stream.report(), fault);
            println!("    {family:?}: the last packet got through {after:?} after the rule came");
            ensure!(after < AT_ONCE, "{after:?}");
        }
        // The other family's flows pass as long as nothing is in their way.
        let mode = if n == 0 { "nexthop" } else { "mark" };
        ensure!(daemon.status()?["mode"] == mode, "{}", daemon.status()?["mode"]);
    }
    daemon.stop()
}

/// How long after `fault` a request was still sent that was answered.
pub fn got_through(report: &Report, fault: Instant) -> Duration {
    let answered = report.beats.iter().filter(|b| b.reply.is_some());
    let last = answered.map(|b| b.sent).max();
    last.map_or(Duration::ZERO, |sent| sent.saturating_duration_since(fault))
}

/// Where the kernel forwards nothing any more, nobody else does. (It is switched on again where it is off for all.)
pub fn not_forwarding() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let stream = Ongoing::udp_stream(&lab, Family::V4)?;
    pause(1.0);
    let passed = packets(&daemon, "forwarded")?;
    ensure!(passed > 0, "nothing passes");
    lab.router.sysctl("ipv4/conf/lan0/forwarding", "0")?;
    let switched = Instant::now();
    pause(1.6);
    let after = got_through(&stream.report(), switched);
    println!("    the last packet got through {after:?} after forwarding was switched off");
    ensure!(after < AT_ONCE, "{after:?}");
    let passed = packets(&daemon, "forwarded")?;
    lab.router.sysctl("ipv4/conf/lan0/forwarding", "1")?;
    let again = || Ok(packets(&daemon, "forwarded")? > passed);
    await_within("it passes again", Instant::now(), Duration::from_secs(5), again)?;
    daemon.stop()
}

/// A policy that forbids stops what is under way within a second; that it has gone may be seen later.
pub fn xfrm() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let streams = [
        Ongoing::udp_stream(&lab, Family::V4)?,
        Ongoing::tcp_stream(&lab, Family::V4)?,
        Ongoing::udp_stream(&lab, Family::V6)?,
    ];
    pause(1.0);
    ensure!(packets(&daemon, "forwarded")? > 0, "nothing passes");
    lab.router.ip(
        "xfrm policy add src 172.16.0.0/24 dst 0.0.0.0/0 dir fwd action block\n\
         xfrm policy add src fd00:10::/64 dst ::/0 dir fwd action block\n",
    )?;
    let fault = Instant::now();
    pause(1.6);
    for stream in &streams {
        let after = got_through(&stream.report(), fault);
        println!("    the last packet got through {after:?} after the policy came");
        ensure!(after < AT_ONCE, "{after:?}");
    }
    expect_mode(&daemon, "mark", AT_ONCE)?;
    lab.router.ip("xfrm policy flush\n")?;
    expect_mode(&daemon, "nexthop", LOOK)?;
    drop(streams);
    daemon.stop()
}

/// Programs behind ours would not see what passes; nor would filters.
pub fn filters() -> Result<()> {
    for attach in ["tcx", "clsact"] {
        let (lab, _echo) = routed(Shape::NicEach)?;
        let config = Config {
            more: format!("{OFF}[kernel]\nattach = \"{attach}\"\n"),
            ..Config::default()
        };
        let daemon = Daemon::start(&lab, &config)?;
        expect_mode(&daemon, "nexthop", LOOK)?;
        if attach == "tcx" {
            lab.router.run("tc qdisc add dev lan0 clsact")?;
        }
        // It looks at nothing and lets everything go on.
        let place = "filter add dev lan0 ingress pref 60 protocol all bpf bytecode";
        let mut command = lab.router.command("tc");
        command.args(place.split(' ')).arg("1,6 0 0 0,");
        ensure!(command.status()?.success(), "tc {place}");
        expect_mode(&daemon, "mark", LOOK)?;
        lab.router.run("tc filter del dev lan0 ingress pref 60")?;
        expect_mode(&daemon, "nexthop", LOOK)?;
        daemon.stop()?;
    }
    Ok(())
}

/// With NAT there is mark mode; a reload changes from one to the other.
pub fn nat() -> Result<()> {
    let (lab, _echo) = routed(Shape::OneNic)?;
    let daemon = support::daemon(&lab, "")?;
    expect_mode(&daemon, "mark", AT_ONCE)?;
    let flows = Flows::open(&lab, Family::V4, 20)?;
    ensure!(flows.round() == 20 && flows.round() == 20, "with NAT");
    ensure!(packets(&daemon, "forwarded")? == 0, "packets pass NAT by");
    for (more, mode) in [
        (OFF.to_owned(), "nexthop"),
        (format!("{OFF}[kernel]\nmode = \"mark\"\n"), "mark"),
        (format!("{OFF}[kernel]\nmode = \"nexthop\"\n"), "nexthop"),
        (String::new(), "mark"),
    ] {
        let config = Config {
            more,
            ..Config::default()
        };
        write_config(&config.text(&lab))?;
        let reload = run(&lab, &["reload"])?;
        ensure!(reload.status.success(), "{}", said(&reload));
        expect_mode(&daemon, mode, AT_ONCE)?;
    }
    daemon.stop()
}

pub fn refused_with_nat() -> Result<()> {
    let (lab, _echo) = routed(Shape::OneNic)?;
    let config = Config {
        more: "[kernel]\nmode = \"nexthop\"\n".into(),
        ..Config::default()
    };
    let text = config.text(&lab);
    write_config(&text)?;
    let line = 1 + text
        .find("mode = ")
        .map_or(0, |at| text[..at].matches('\n').count());
    let refused = run(&lab, &["check"])?;
    println!("    {}", said(&refused).trim());
    ensure!(refused.status.code() == Some(2), "{}", refused.status);
    for words in [
        &*format!(":{line}:8"),
        "past the kernel's NAT",
        "[nat] mode = \"off\"",
    ] {
        ensure!(said(&refused).contains(words), "no {words}");
    }
    Ok(())
}

/// Who says "nexthop" is obeyed, and told what is passed by.
pub fn warned_of() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let config = Config {
        more: format!("{OFF}[kernel]\nmode = \"nexthop\"\n"),
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    expect_mode(&daemon, "nexthop", AT_ONCE)?;
    ensure!(!warned(&daemon, "firewall-passed-by")?, "warned of nothing");
    lab.router.nft(&WALL.replace("drop", "counter"))?;
    let warns = || warned(&daemon, "firewall-passed-by");
    await_within("a warning", Instant::now(), AT_ONCE, warns)?;
    expect_mode(&daemon, "nexthop", AT_ONCE)?;
    let shown = said(&run(&lab, &["status"])?);
    println!("    {}", shown.lines().next().unwrap_or_default());
    ensure!(
        shown.contains("next-hop mode") && shown.contains("chain forward of table inet fw"),
        "{shown}"
    );
    lab.router.run("nft delete table inet fw")?;
    await_within("no warning", Instant::now(), AT_ONCE, || Ok(!warns()?))?;
    daemon.stop()
}

/// Without a daemon nobody would notice a firewall: flows go the kernel's way.
pub fn silent_daemon() -> Result<()> {
    let (lab, _echo) = routed(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let stream = Ongoing::udp_stream(&lab, Family::V4)?;
    pause(0.5);
    ensure!(packets(&daemon, "forwarded")? > 0, "nothing passes");
    let killed = Instant::now();
    daemon.end(Signal::SIGKILL, Duration::from_secs(5))?;
    pause(5.0);
    lab.router.nft(WALL)?;
    let walled = Instant::now();
    pause(0.5);
    let after = got_through(&stream.report(), walled);
    println!(
        "    {:?} after the daemon: a packet got through {after:?} later",
        killed.elapsed()
    );
    ensure!(after < Duration::from_millis(100), "past the firewall: {after:?}");
    ensure!(stream.report().lost_since(killed) > 0, "nothing was stopped");
    lab.router.run("nft delete table inet fw")?;
    let daemon = Daemon::restart(&lab)?;
    expect_mode(&daemon, "nexthop", Duration::from_secs(2))?;
    drop(stream);
    daemon.stop()
}
