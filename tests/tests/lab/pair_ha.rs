//! Two routers, one of which dies: Debian's keepalived moves the addresses, its conntrackd copies the connections,
//! and uplink chooses alike on both.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use uplink_lab::daemon::{Config, write_config};
use uplink_lab::standby::Router;
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::{Fleet, Ongoing};
use uplink_lab::{Family, Isp, Lab, Shape};

use crate::support::{await_within, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
const UDP: usize = 60;
const TCP: usize = 60;

/// Flows survive the death of the router that carries them, and its return; both name the same uplinks.
pub fn pair() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let mut routers = Router::pair(&lab)?;
    write_config(&config(&lab))?;
    for router in &mut routers {
        router.start_uplink()?;
        router.start_conntrackd()?;
    }
    routers.iter().try_for_each(waits)?;
    routers[0].start_keepalived()?;
    takes_over("the first master", &routers[0], Instant::now())?;
    routers[1].start_keepalived()?;
    let [a, b] = &routers;
    both_up(a)?;
    chooses_alike(a, b)?;

    // These all leave by ISP1, which the hash alone would not say of them all.
    a.ask(&["drain", "isp2"])?;
    let drained = fleet(&lab)?;
    a.ask(&["enable", "isp2"])?;
    let balanced = fleet(&lab)?;
    let streams = Isp::ALL.map(|isp| Ongoing::udp_stream_on(&lab, Family::V4, isp));
    let [one, two] = streams;
    let streams = [one?, two?];
    pause(1.0);
    let begun = Instant::now();
    a.plug(false)?;
    takes_over("the other one takes over", b, begun)?;
    both_up(b)?;
    pause(1.5);
    expect_alive("a has died", &drained, &balanced)?;
    expect_gap("a has died", &streams, begun)?;

    let begun = Instant::now();
    a.plug(true)?;
    pause(3.0);
    ensure!(
        !a.is_master()? && b.is_master()?,
        "the one that came back took over"
    );
    expect_alive("a is back", &drained, &balanced)?;
    expect_no_gap("a is back", &streams, begun)?;
    // What b learned of while a was away is known to a by now.
    let begun = Instant::now();
    b.plug(false)?;
    takes_over("and back", a, begun)?;
    // The second move within a minute: `status` says down until the damping allows another verdict, and the table
    // stays as it is.
    pause(3.0);
    expect_alive("b has died", &drained, &balanced)?;
    expect_gap("b has died", &streams, begun)
}

fn config(lab: &Lab) -> String {
    let source = |isp: Isp| format!("source = \"{}\"\n", isp.sources().0);
    let config = Config {
        ipv6: false,
        uplink_more: Isp::ALL.map(source),
        more: "[kernel]\nseed = \"the same on both routers\"\n".into(),
        ..Config::default()
    };
    config.text(lab)
}

fn fleet(lab: &Lab) -> Result<Fleet> {
    Fleet::start_of(lab, &[Family::V4], UDP, TCP)
}

/// Without the virtual addresses the daemon runs, says what it waits for, and has no route to a gateway.
fn waits(router: &Router) -> Result<()> {
    let begun = Instant::now();
    await_within("the daemon answers", begun, 5 * SECOND, || {
        Ok(router.status().is_ok())
    })?;
    let waiting = || {
        let status = router.status()?;
        let warnings = status["warnings"].as_array().context("no warnings")?;
        let said = |address| {
            let of =
                |w: &&Value| w["code"] == "unusable" && w["text"].as_str().unwrap_or("").contains(address);
            warnings.iter().filter(of).count() == 1
        };
        Ok(said("192.168.1.100") && said("10.0.0.100"))
    };
    await_within("it says what it waits for", begun, 5 * SECOND, waiting)?;
    for isp in Isp::ALL {
        let routes = router
            .ns()
            .run(&format!("ip route show table {}", 20_001 + isp.index()));
        let routes = routes.unwrap_or_default();
        ensure!(!routes.contains("via"), "{} has routes: {routes}", router.name());
    }
    Ok(())
}

/// The virtual addresses come, and uplink's routes within a second.
fn takes_over(what: &str, router: &Router, begun: Instant) -> Result<()> {
    await_within(what, begun, 5 * SECOND, || router.is_master())?;
    let routes = || {
        let of = |isp: Isp| {
            let table = router
                .ns()
                .run(&format!("ip route show table {}", 20_001 + isp.index()));
            table.is_ok_and(|routes| routes.contains(isp.sources().0))
        };
        Ok(Isp::ALL.into_iter().all(of))
    };
    await_within("uplink has its routes", Instant::now(), SECOND, routes).map(drop)
}

fn both_up(router: &Router) -> Result<()> {
    let up = || {
        let status = router.status()?;
        let uplinks = status["uplinks"].as_array().context("no uplinks")?;
        Ok(uplinks
            .iter()
            .all(|u| u["state"] == "up" && u["share"].as_f64() > Some(0.0)))
    };
    let done = await_within("both uplinks are up", Instant::now(), 8 * SECOND, up);
    done.map(drop)
        .with_context(|| router.ask(&["status"]).unwrap_or_default())
}

/// 200 flows: the one that stands by would place them as the master does.
fn chooses_alike(a: &Router, b: &Router) -> Result<()> {
    let mut counts = [0; 2];
    for n in 0..200 {
        let (from, to) = (format!("172.16.0.2:{}", 20_000 + n), elsewhere(Family::V4, n));
        let arguments = [
            "explain",
            "--json",
            "--proto",
            "udp",
            "--iif",
            "eth0",
            &from,
            &format!("{to}:53"),
        ];
        let of = |router: &Router| -> Result<String> {
            let answer: Value = serde_json::from_str(&router.ask(&arguments)?)?;
            let name = answer["uplink"]
                .as_str()
                .with_context(|| format!("no uplink: {answer}"))?;
            Ok(name.to_owned())
        };
        let (by_a, by_b) = (of(a)?, of(b)?);
        ensure!(
            by_a == by_b,
            "{from} to {to}: {by_a} on one router, {by_b} on the other"
        );
        counts[usize::from(by_a == Isp::Two.name())] += 1;
    }
    println!("    200 flows explained alike, {counts:?} by ISP");
    ensure!(counts.iter().all(|n| *n > 0), "all by one ISP: {counts:?}");
    Ok(())
}

/// Every flow is answered, and the server sees each from where it saw it first.
fn expect_alive(what: &str, drained: &Fleet, balanced: &Fleet) -> Result<()> {
    for (name, fleet) in [("all by isp1", drained), ("balanced", balanced)] {
        let report = fleet.report()?;
        println!("    {what}, {name}: {report:?}");
        ensure!(
            (report.silent, report.moved, report.broken) == (0, 0, 0),
            "{what}, {name}: flows were harmed: {report:?}"
        );
    }
    let by_isp = drained.report()?.by_isp;
    ensure!(
        by_isp == [UDP + TCP, 0],
        "the uplink of live flows changed: {by_isp:?}"
    );
    Ok(())
}

fn expect_gap(what: &str, streams: &[Ongoing; 2], since: Instant) -> Result<()> {
    for (stream, isp) in streams.iter().zip(Isp::ALL) {
        let report = stream.report();
        let gap = report
            .recovered_after(since)
            .context("a stream did not recover")?;
        println!("    {what}: the stream by {} went on after {gap:?}", isp.name());
        ensure!(
            report.isps() == [isp],
            "{what}: {:?} instead of {isp:?}",
            report.isps()
        );
        ensure!(gap < 3 * SECOND, "{what}: a gap of {gap:?}");
    }
    Ok(())
}

fn expect_no_gap(what: &str, streams: &[Ongoing; 2], since: Instant) -> Result<()> {
    let lost: usize = streams.iter().map(|s| s.report().lost_since(since)).sum();
    println!("    {what}: {lost} packets of the streams lost");
    ensure!(lost == 0, "{what}: {lost} packets lost");
    Ok(())
}
