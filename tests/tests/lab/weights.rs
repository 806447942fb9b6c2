//! Shares that follow what the uplinks are worth.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::find;
use uplink_lab::traffic::{Downloads, Files, Rates, Tally, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Quality, Shape};

use crate::selftest::{masquerade, route_by};
use crate::support::{await_within, expect_share, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
/// How far a share may be from the formula's.
const NEAR: f64 = 0.05;
/// How often flows are counted anew because the share took a step meanwhile.
const STEPS: usize = 5;

fn share(daemon: &Daemon<'_>) -> Result<f64> {
    Ok(daemon.uplinks()?[0].1)
}

/// A daemon whose uplinks are up, with weights 1:1 and these lines.
fn start<'a>(lab: &'a Lab, uplink_more: [&str; 2], more: &str) -> Result<Daemon<'a>> {
    let config = Config {
        weights: [1, 1],
        uplink_more: uplink_more.map(Into::into),
        more: more.into(),
        ..Config::default()
    };
    let daemon = Daemon::start(lab, &config)?;
    daemon.await_up()?;
    Ok(daemon)
}

/// 10 ms against 40 ms: four fifths, and the other way round when they change places.
pub fn latency() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let relays = lab.distances([10, 40])?;
    let daemon = start(&lab, ["", ""], "[balance]\nby = \"latency\"\n")?;
    pause(10.0);
    follows(&lab, &daemon, "10 ms and 40 ms", 0.8)?;
    relays[0].set(Quality::of_ms(40));
    relays[1].set(Quality::of_ms(10));
    pause(10.0);
    follows(&lab, &daemon, "40 ms and 10 ms", 0.2)?;
    steady(&daemon, 20 * SECOND)?;
    daemon.stop()
}

/// What status says is the formula's, weight by RTT, within 5 points: the machine's own time is in the RTT, too, and where
/// that had a moment, the next step comes two seconds later. What flows of IPv4 do is what status says, before and after:
/// a smoothed RTT that is still on its way moves the share by a step. IPv6 has a share of its own.
fn follows(lab: &Lab, daemon: &Daemon<'_>, what: &str, formula: f64) -> Result<()> {
    await_within(what, Instant::now(), 10 * SECOND, || {
        Ok((share(daemon)? - formula).abs() <= NEAR)
    })?;
    let (said, [v4, v6]) = (0..STEPS)
        .find_map(|_| unmoved(lab, daemon).transpose())
        .with_context(|| format!("{what}: the share moves while flows are counted, {STEPS} times"))??;
    let status = daemon.status()?;
    let rtt = Isp::ALL.map(|isp| find(&status, isp).and_then(|u| u["rtt_ms"].as_f64()));
    println!("    {what}: share of isp1 {said:.3}, formula {formula}, RTT {rtt:?} ms");
    expect_share(what, &v4, said * 100.0)?;
    let (flows, of_v6) = (v6.total() as f64, v6.percent(Isp::One) / 100.0);
    let within = NEAR + 5.0 * (formula * (1.0 - formula) / flows).sqrt();
    println!("    {what}, IPv6: {of_v6:.3} of {flows} flows, {formula} +- {within:.3} expected, {v6:?}");
    ensure!(
        v6.clean() == v6.total() && (of_v6 - formula).abs() <= within,
        "{what}, IPv6: {of_v6}"
    );
    Ok(())
}

/// The share, and what flows of both families did, where the share was the same before and after.
fn unmoved(lab: &Lab, daemon: &Daemon<'_>) -> Result<Option<(f64, [Tally; 2])>> {
    let said = share(daemon)?;
    let [v4, v6] = Family::ALL.map(|family| udp_flows(lab, 2_000, family));
    let tallies = [v4?, v6?];
    Ok((share(daemon)? == said).then_some((said, tallies)))
}

/// A share that rests beside its target takes a step when that moves a little further, but not one after another.
fn steady(daemon: &Daemon<'_>, time: Duration) -> Result<()> {
    let (begun, first) = (Instant::now(), share(daemon)?);
    let (mut least, mut most, mut changes, mut last) = (first, first, 0, first);
    while begun.elapsed() < time {
        let now = share(daemon)?;
        changes += usize::from((now - last).abs() > 1e-9);
        (least, most, last) = (least.min(now), most.max(now), now);
        pause(0.25);
    }
    println!("    in {time:?} the share was {least:.4} to {most:.4}, with {changes} changes");
    ensure!(
        changes <= 2 && most - least < 2.0 * NEAR,
        "not steady: {changes} changes from {least} to {most}"
    );
    Ok(())
}

const CLIENTS: usize = 60;
const FILE: u64 = 1 << 20;
/// With 1:5 among 60 the number of downloads on either link is a random walk, and each file that
/// ends is a step. It gets to a link that nobody uses now and then, whatever the shares are and
/// whoever chooses; with small files this ends soon, and over so long it is a small part.
const SMALL: u64 = FILE / 16;
const MEASURED_S: u32 = 40;

/// Links of 100 and 20 Mbit, each full of downloads, by our shares and by the kernel's.
pub fn downloads() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _files = Files::serve(&lab)?;
    lab.shape(Isp::One, 100, 100)?;
    lab.shape(Isp::Two, 20, 20)?;
    masquerade(&lab)?;
    let mut sum = 0.0;
    for isp in Isp::ALL {
        route_by(&lab, isp)?;
        sum += rates(&lab, isp.name(), 4, || Ok(()))?.sum();
    }
    let kernel = by_multipath(&lab, [100, 20])?;
    route_by(&lab, Isp::One)?;
    lab.router.nft("delete table inet by_hand\n")?;
    let capacities = [
        "down = \"100mbit\"\nup = \"100mbit\"",
        "down = \"20mbit\"\nup = \"20mbit\"",
    ];
    let daemon = start(&lab, capacities, "[balance]\nby = \"bandwidth\"\n")?;
    let mut shares = Vec::new();
    let ours = rates(&lab, "by = \"bandwidth\"", MEASURED_S, || {
        shares.push(share(&daemon)?);
        Ok(())
    })?;
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    println!(
        "    sum of the links alone {sum:.1} Mbit/s; we {:.1} % of it, the kernel's multipath {:.1} %",
        100.0 * ours.sum() / sum,
        100.0 * kernel.sum() / sum
    );
    println!("    shares of isp1 under load, each second: {shares:.3?}, mean {mean:.3}");
    ensure!(
        (mean - 5.0 / 6.0).abs() < 0.05,
        "the share of isp1 is {mean:.3} in the mean, not five sixths"
    );
    ensure!(ours.sum() >= 0.9 * sum, "{:.1} of {sum:.1} Mbit/s", ours.sum());
    daemon.stop()
}

fn by_multipath(lab: &Lab, weights: [u32; 2]) -> Result<Rates> {
    lab.router.sysctl("ipv4/fib_multipath_hash_policy", "1")?;
    let hop = |isp: Isp| {
        let device = isp.interface(lab.shape);
        let (via, weight) = (isp.gateways().0, weights[isp.index()]);
        format!("nexthop via {via} dev {device} weight {weight}")
    };
    let [one, two] = Isp::ALL.map(hop);
    lab.router.ip(&format!("route replace default {one} {two}\n"))?;
    let rates = rates(lab, "the kernel's multipath", MEASURED_S / 2, || Ok(()))?;
    lab.router.run("ip route del default")?;
    Ok(rates)
}

/// `look` is called each second meanwhile.
fn rates(lab: &Lab, what: &str, seconds: u32, mut look: impl FnMut() -> Result<()>) -> Result<Rates> {
    let downloads = Downloads::start(lab, CLIENTS, SMALL)?;
    pause(2.0);
    let rates = std::thread::scope(|scope| {
        let rates = scope.spawn(|| downloads.measure(seconds * SECOND));
        (0..seconds).try_for_each(|_| {
            pause(1.0);
            look()
        })?;
        rates
            .join()
            .map_err(|_| anyhow::anyhow!("the measurement panicked"))
    })?;
    println!("    {what}: {:.1} Mbit/s, {rates:.1?}", rates.sum());
    ensure!(rates.failed == 0, "{what}: {} downloads failed", rates.failed);
    Ok(rates)
}

/// The first uplink alone, until it is half full; then the second, too; then the first again.
pub fn spillover() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _files = Files::serve(&lab)?;
    for isp in Isp::ALL {
        lab.shape(isp, 20, 20)?;
    }
    let capacity = "down = \"20mbit\"\nup = \"20mbit\"";
    let daemon = start(&lab, [capacity; 2], "[balance]\nspillover = \"50%\"\n")?;
    expect_share("idle", &udp_flows(&lab, 300, Family::V4)?, 100.0)?;
    let busy = Downloads::start(&lab, 20, FILE / 8)?;
    let loaded = Instant::now();
    let spills = || Ok(share(&daemon)? < 0.999);
    await_within("it spills over", loaded, 10 * SECOND, spills)?;
    pause(3.0);
    let rates = busy.measure(15 * SECOND);
    println!("    {rates:.1?}");
    // Either has fewer downloads than it needs now and then, as with `SMALL`.
    ensure!(
        rates.sum() > 28.0,
        "two links of 20 Mbit carry {:.1}",
        rates.sum()
    );
    drop(busy);
    let back = || Ok(share(&daemon)? > 0.999);
    await_within("all by the first again", Instant::now(), 20 * SECOND, back)?;
    expect_share("idle again", &udp_flows(&lab, 300, Family::V4)?, 100.0)?;
    daemon.stop()
}

/// An uplink that has used up its quota is the last resort, whatever happens to the daemon.
pub fn quota() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _files = Files::serve(&lab)?;
    let quota = "quota = { bytes = \"20MB\", per = \"month\", then = \"last-resort\" }";
    let daemon = start(&lab, [quota, ""], "")?;
    expect_share("unused", &udp_flows(&lab, 500, Family::V4)?, 50.0)?;
    let busy = Downloads::start(&lab, 8, FILE)?;
    let by_one = || Ok(busy.bytes()[0] > 25_000_000);
    await_within("25 MB by isp1", Instant::now(), 15 * SECOND, by_one)?;
    drop(busy);
    used_up(&lab, &daemon, "used up")?;
    daemon.end(Signal::SIGKILL, SECOND)?;
    let again = Daemon::restart(&lab)?;
    again.await_up()?;
    used_up(&lab, &again, "after kill -9")?;
    again.stop()?;
    let last = Daemon::restart(&lab)?;
    last.await_up()?;
    used_up(&lab, &last, "after a clean stop")?;
    lab.blackhole(Isp::Two)?;
    last.await_state(Isp::Two, "down", 10 * SECOND)?;
    pause(0.3);
    expect_share("the last resort", &udp_flows(&lab, 100, Family::V4)?, 100.0)?;
    last.stop()
}

fn used_up(lab: &Lab, daemon: &Daemon<'_>, what: &str) -> Result<()> {
    let none = || Ok(share(daemon)? == 0.0);
    await_within(what, Instant::now(), 8 * SECOND, none)
        .with_context(|| format!("{:?}", daemon.uplinks().unwrap_or_default()))?;
    expect_share(what, &udp_flows(lab, 200, Family::V4)?, 0.0)
}
