//! The lab's faults that are matters of degree, without the daemon: what is slow, narrow, mute,
//! unsteady or busy is as much so as it was told.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uplink_lab::liar::Dns;
use uplink_lab::traffic::{Downloads, Files, Ongoing, Report, udp_flows};
use uplink_lab::{Busy, Family, Flapping, Isp, Lab, Quality, Relay, Shape};

use crate::selftest::{masquerade, refusal, route_by};
use crate::support::{Spread, lab, pause};

const MS: Duration = Duration::from_millis(1);

/// The relay takes its time, as much as it is told, in both families; the gateway stays near.
pub fn delay() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    let relays = lab.distances([10, 40])?;
    for (isp, ms) in [(Isp::One, 10.0), (Isp::Two, 40.0)] {
        route_by(&lab, isp)?;
        Family::ALL.iter().try_for_each(|f| takes(&lab, *f, ms))?;
        near(&lab, isp)?;
    }
    relays[1].set(Quality::of_ms(10));
    takes(&lab, Family::V4, 10.0)?;
    throughput(&lab)
}

/// The gateway itself answers as fast as without a relay.
fn near(lab: &Lab, isp: Isp) -> Result<()> {
    let gateway = SocketAddr::new(isp.gateways().0.parse()?, 9);
    let mut least = Duration::MAX;
    // A relay delays each of them, the machine only some.
    for _ in 0..5 {
        let begun = Instant::now();
        let answer = lab.router.enter(|| refusal(gateway))??;
        least = least.min(begun.elapsed());
        ensure!(answer == ErrorKind::ConnectionRefused, "{answer}");
    }
    println!("    the gateway of {isp:?}: {least:?}");
    ensure!(least < 5 * MS, "{least:?}");
    Ok(())
}

/// Round trips of a stream are as long as expected, but for what the machine adds.
fn takes(lab: &Lab, family: Family, ms: f64) -> Result<()> {
    let stream = Ongoing::udp_stream(lab, family)?;
    pause(1.0);
    let report = stream.stop()?;
    let times = Spread::of(&round_trips(&report));
    println!(
        "    {family:?} {ms} ms: {times}, {} lost of {}",
        report.lost(),
        report.beats.len()
    );
    ensure!(report.lost() == 0, "{} lost by the relay", report.lost());
    ensure!(
        times.min >= ms && times.p50 < ms + 5.0,
        "{times} instead of {ms} ms"
    );
    Ok(())
}

/// In milliseconds, once neighbours are known.
fn round_trips(report: &Report) -> Vec<f64> {
    let times = report
        .beats
        .iter()
        .skip(30)
        .filter_map(|b| Some(b.reply?.0 - b.sent));
    times.map(|t| t.as_secs_f64() * 1e3).collect()
}

/// Thousands of packets a second, and long frames with unfinished checksums.
fn throughput(lab: &Lab) -> Result<()> {
    let _files = Files::serve(lab)?;
    let downloads = Downloads::start(lab, 8, 4 << 20)?;
    let rates = downloads.measure(3 * 1000 * MS);
    println!("    8 downloads: {rates:.1?}");
    ensure!(
        rates.sum() > 100.0 && rates.failed == 0,
        "the relay carries {rates:?}"
    );
    Ok(())
}

/// Jitter spreads, loss loses, and both end.
pub fn jitter_and_loss() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    let quality = Quality {
        rtt: 10 * MS,
        jitter: 20 * MS,
        loss: 0,
    };
    let relay = Relay::start(&lab, Isp::One, quality)?;
    let stream = Ongoing::udp_stream(&lab, Family::V4)?;
    pause(2.0);
    let spread = Spread::of(&round_trips(&stream.report()));
    println!("    jitter of 20 ms each way: {spread}");
    // 50 at most, but for what the machine adds to some.
    let trips = round_trips(&stream.report());
    let late = trips.iter().filter(|ms| **ms > 60.0).count();
    ensure!(
        spread.min >= 10.0 && late * 10 < trips.len() && spread.max - spread.min > 15.0,
        "{spread}, {late} of {} later than 60 ms",
        trips.len()
    );
    // The wire is new: what is lost there, too, is the search for the neighbour, a second a try.
    Ongoing::udp_stream(&lab, Family::V6)?.stop()?;
    relay.set(Quality {
        loss: 20,
        ..Quality::default()
    });
    let stream = Ongoing::unanswered_udp_stream(&lab, Family::V6)?;
    pause(8.0);
    let report = stream.stop()?;
    let lost = report.lost() as f64 / report.beats.len() as f64;
    // There and back: 0.8 squared come through.
    println!(
        "    20 % loss each way: {:.0} % of {} lost",
        lost * 100.0,
        report.beats.len()
    );
    ensure!((0.26..0.46).contains(&lost), "20 % loss each way: {lost}");
    relay.set(Quality::default());
    pause(0.1);
    ensure!(udp_flows(&lab, 500, Family::V4)?.by_isp == [500, 0]);
    Ok(())
}

/// Rates are what they were set to, and so is their sum by the kernel's multipath.
pub fn shape() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    let _files = Files::serve(&lab)?;
    for (isp, mbit) in [(Isp::One, 100), (Isp::Two, 20)] {
        lab.shape(isp, mbit, mbit / 5)?;
        route_by(&lab, isp)?;
        let begun = Instant::now();
        let downloads = Downloads::start(&lab, 8, 1 << 20)?;
        pause(1.0);
        let rates = downloads.measure(3 * 1000 * MS);
        // What came before a gap was mended is read after it: within a window that can be more
        // than the wire carried in it, from the first byte on it cannot.
        let bits = downloads.bytes()[isp.index()] as f64 * 8.0;
        let all = bits / begun.elapsed().as_secs_f64() / 1e6;
        println!("    {mbit} mbit: {rates:.1?}, {all:.1} from the start");
        let mbit = f64::from(mbit);
        ensure!(
            rates.mbit[isp.index()] > 0.85 * mbit,
            "{mbit} mbit of {isp:?}: {rates:?}"
        );
        ensure!(all < mbit, "{mbit} mbit of {isp:?} carried {all}");
        ensure!(
            rates.mbit[isp.other().index()] == 0.0,
            "by the other one: {rates:?}"
        );
    }
    Ok(())
}

/// What is mute is not found, though its link is up; it is found when that ends.
pub fn mute() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    ensure!(udp_flows(&lab, 20, Family::V4)?.by_isp == [20, 0]);
    lab.mute_neighbours(Isp::One)?;
    for family in Family::ALL {
        let tally = udp_flows(&lab, 20, family)?;
        ensure!(tally.lost == 20, "{family:?} by a mute gateway: {tally:?}");
    }
    let link = lab.router.run("ip link show wan1")?;
    ensure!(link.contains("LOWER_UP"), "the carrier is gone: {link}");
    lab.end_mute(Isp::One)?;
    pause(1.5);
    for family in Family::ALL {
        let tally = udp_flows(&lab, 20, family)?;
        ensure!(
            tally.by_isp == [20, 0],
            "{family:?} when it speaks again: {tally:?}"
        );
    }
    Ok(())
}

/// Half of the time nothing comes through, and all is well when it ends.
pub fn flapping() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    let stream = Ongoing::udp_stream(&lab, Family::V4)?;
    let flapping = Flapping::start(&lab, Isp::One, 500 * MS)?;
    pause(4.0);
    drop(flapping);
    pause(0.3);
    let report = stream.stop()?;
    let lost = report.lost() as f64 / report.beats.len() as f64;
    let answered = report.beats.iter().map(|b| b.reply.is_some()).collect::<Vec<_>>();
    let changes = answered.windows(2).filter(|w| w[0] != w[1]).count();
    println!("    {:.0} % lost, {changes} changes", lost * 100.0);
    ensure!((0.3..0.6).contains(&lost) && (6..=10).contains(&changes));
    ensure!(udp_flows(&lab, 50, Family::V4)?.by_isp == [50, 0]);
    Ok(())
}

/// Next to nothing is left of a processor for one more thread, until it ends.
pub fn busy() -> Result<()> {
    let free = spins(500 * MS);
    let busy = Busy::start(8)?;
    let starved = spins(500 * MS);
    let begun = Instant::now();
    drop(busy);
    ensure!(begun.elapsed() < Duration::from_secs(5), "they do not end");
    let again = spins(500 * MS);
    println!("    turns of a loop in 0.5 s: {free}, among 16 busy threads {starved}, then {again}");
    ensure!(starved * 3 < free && again > starved * 2);
    Ok(())
}

fn spins(time: Duration) -> u64 {
    let (begun, mut n) = (Instant::now(), 0);
    while begun.elapsed() < time {
        n += 1;
    }
    n
}

/// New connections and queries come at their rate, also while none is answered.
pub fn paced() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _dns = Dns::start(&lab)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    for family in Family::ALL {
        let connections = Ongoing::connections(&lab, family, 25 * MS)?;
        let queries = Ongoing::queries(&lab, family, 25 * MS)?;
        pause(1.0);
        lab.blackhole(Isp::One)?;
        let fault = Instant::now();
        pause(1.0);
        lab.heal(Isp::One)?;
        pause(2.0);
        for (what, stream) in [("connections", connections), ("queries", queries)] {
            steady(&format!("{family:?} {what}"), &stream.stop()?, fault)?;
        }
    }
    Ok(())
}

fn steady(what: &str, report: &Report, fault: Instant) -> Result<()> {
    let during = |b: &&uplink_lab::traffic::Beat| b.sent > fault && b.sent < fault + 900 * MS;
    let asked = report.beats.iter().filter(during).count();
    let before = report.beats.iter().filter(|b| b.sent + 50 * MS < fault);
    let lost = before.filter(|b| b.reply.is_none()).count();
    println!(
        "    {what}: {}, {asked} in the fault, {lost} lost before it",
        report.beats.len()
    );
    ensure!((28..=37).contains(&asked), "{what}: {asked} in 0.9 s of a fault");
    ensure!(
        lost == 0 && report.isps() == [Isp::One],
        "{what}: {lost} lost, by {:?}",
        report.isps()
    );
    ensure!(
        report.recovered_after(fault).is_some(),
        "{what}: none after the fault"
    );
    Ok(())
}
