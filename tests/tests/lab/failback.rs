//! The preferred uplink is back: what becomes of the flows that began on the other.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use uplink_lab::daemon::{run, said};
use uplink_lab::topology::servers;
use uplink_lab::traffic::{Ongoing, Report, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::pair::{self, tcp_server};
use crate::support::{expect_share, expect_unharmed, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 7600;
/// Down and up soon.
const PROBES: &str = "[probe]\ninterval = \"200ms\"\ntimeout = \"300ms\"\nfall = 3\nrise = 3\n";

/// They finish where they are.
pub fn pin() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = on_the_second(&lab, "on_failback = \"pin\"")?;
    let mut streams = udp(&lab)?;
    streams.extend(tcp(&lab)?);
    back(&lab, &daemon)?;
    pause(4.0);
    for stream in streams {
        expect_unharmed("begun on isp2", &stream.stop()?, Isp::Two)?;
    }
    for family in Family::ALL {
        expect_share("new flows", &udp_flows(&lab, 300, family)?, 100.0)?;
    }
    daemon.stop()
}

/// They may finish for a while.
pub fn drain() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = on_the_second(&lab, "on_failback = \"drain\"\ndrain_time = \"3s\"")?;
    let streams = udp(&lab)?;
    let connections = tcp(&lab)?;
    let served = back(&lab, &daemon)?;
    pause(1.0);
    // A reload forgets none of them.
    let reloaded = run(&lab, &["reload"])?;
    ensure!(reloaded.status.success(), "{}", said(&reloaded));
    pause(1.0);
    for stream in connections {
        expect_unharmed("meanwhile", &stream.stop()?, Isp::Two)?;
    }
    pause(3.0);
    for (stream, served) in streams.into_iter().zip(served) {
        let after = moved(&stream.stop()?, served)?;
        ensure!(after >= 2.5, "moved {after:.2} s after, though it had 3 s");
        // It is looked for twice a second.
        ensure!(after <= 4.5, "moved {after:.2} s after, though it had 3 s only");
    }
    daemon.stop()
}

/// The preferred uplink dies again before the time is over: nobody moves to it.
pub fn drain_in_vain() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = on_the_second(&lab, "on_failback = \"drain\"\ndrain_time = \"3s\"")?;
    let mut streams = udp(&lab)?;
    streams.extend(tcp(&lab)?);
    back(&lab, &daemon)?;
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    pause(4.0);
    for stream in streams {
        expect_unharmed("begun on isp2", &stream.stop()?, Isp::Two)?;
    }
    for family in Family::ALL {
        expect_share("new flows", &udp_flows(&lab, 100, family)?, 0.0)?;
    }
    daemon.stop()
}

/// They are cut off, and told so.
pub fn reset() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = on_the_second(&lab, "on_failback = \"reset\"")?;
    let streams = udp(&lab)?;
    let mut readers = Vec::new();
    for (n, family) in Family::ALL.into_iter().enumerate() {
        for _ in 0..3 {
            let (near, far, from) = connection(&lab, family)?;
            ensure!(Isp::of(from.ip()) == Some(Isp::Two), "begun from {from}");
            readers.push((n, "client", blocked(near)));
            readers.push((n, "server", blocked(far)));
        }
    }
    let served = back(&lab, &daemon)?;
    pause(1.5);
    for (stream, served) in streams.into_iter().zip(served) {
        let after = moved(&stream.stop()?, served)?;
        ensure!(after <= 1.0, "moved {after:.2} s after");
    }
    for (n, end, reader) in readers {
        let (error, at) = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        let after = at.saturating_duration_since(served[n]);
        println!("    {:?} {end}: {error:?} after {after:?}", Family::ALL[n]);
        ensure!(
            error == Some(ErrorKind::ConnectionReset),
            "{end}: read ended with {error:?}"
        );
        ensure!(after <= SECOND, "{end}: told after {after:?}");
    }
    daemon.stop()
}

/// The first uplink is preferred, and dead.
fn on_the_second<'a>(lab: &'a Lab, failback: &str) -> Result<Daemon<'a>> {
    let config = Config {
        uplink_more: ["tier = 1".into(), "tier = 2".into()],
        more: format!("[nat]\n{failback}\n{PROBES}"),
        ..Config::default()
    };
    let daemon = Daemon::start(lab, &config)?;
    daemon.await_up()?;
    for family in Family::ALL {
        expect_share("at first", &udp_flows(lab, 100, family)?, 100.0)?;
    }
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    for family in Family::ALL {
        expect_share("then", &udp_flows(lab, 100, family)?, 0.0)?;
    }
    Ok(daemon)
}

/// One stream for each family.
fn udp(lab: &Lab) -> Result<Vec<Ongoing>> {
    let streams = Family::ALL.map(|family| Ongoing::udp_stream_on(lab, family, Isp::Two));
    streams.into_iter().collect()
}

fn tcp(lab: &Lab) -> Result<Vec<Ongoing>> {
    let streams = Family::ALL.map(|family| Ongoing::tcp_stream(lab, family));
    streams.into_iter().collect()
}

/// Heals the first uplink; when it got its first new flow, by family.
fn back(lab: &Lab, daemon: &Daemon<'_>) -> Result<[Instant; 2]> {
    let pulse = |family| Ongoing::new_flows(lab, family, Duration::from_millis(10));
    let pulses = [pulse(Family::V4)?, pulse(Family::V6)?];
    lab.heal(Isp::One)?;
    let healed = Instant::now();
    daemon.await_state(Isp::One, "up", 20 * SECOND)?;
    let serves = |pulse: &Ongoing| first_on(&pulse.report(), Isp::One);
    while pulses.iter().any(|pulse| serves(pulse).is_none()) {
        ensure!(healed.elapsed() < 20 * SECOND, "up, but without new flows");
        pause(0.01);
    }
    let [v4, v6] = pulses.each_ref().map(serves);
    let served = [v4.context("no flow")?, v6.context("no flow")?];
    println!(
        "    isp1 serves {:?} after healing",
        served.map(|at| at.saturating_duration_since(healed))
    );
    Ok(served)
}

/// When the first request was sent whose reply came by `isp`.
fn first_on(report: &Report, isp: Isp) -> Option<Instant> {
    let on = |reply: Option<(_, uplink_lab::traffic::Reply)>| reply?.1.via();
    let mut beats = report.beats.iter();
    Some(beats.find(|beat| on(beat.reply) == Some(isp))?.sent)
}

/// Seconds from `served` until the stream's packets took the first uplink. All of them are
/// answered but for those that are under way at that moment.
fn moved(report: &Report, served: Instant) -> Result<f64> {
    let at = first_on(report, Isp::One).context("the stream did not move")?;
    let after = at.saturating_duration_since(served).as_secs_f64();
    println!(
        "    a stream moved {after:.2} s after the uplink served, {} of {} packets lost",
        report.lost(),
        report.beats.len()
    );
    ensure!(report.lost() <= 10, "{} packets lost", report.lost());
    ensure!(
        report.isps() == [Isp::Two, Isp::One],
        "seen from {:?}",
        report.isps()
    );
    Ok(after)
}

fn connection(lab: &Lab, family: Family) -> Result<(TcpStream, TcpStream, SocketAddr)> {
    let server = tcp_server(lab, SocketAddr::new(servers(family)[0], PORT))?;
    pair::tcp(lab, family, 0, &server)
}

/// Waits in `read` for what never comes; how it ended and when.
fn blocked(mut stream: TcpStream) -> JoinHandle<(Option<ErrorKind>, Instant)> {
    std::thread::spawn(move || {
        let _ = stream.set_read_timeout(Some(20 * SECOND));
        let ended = stream.read(&mut [0; 8]);
        (ended.err().map(|e| e.kind()), Instant::now())
    })
}
