//! What becomes of flows when an uplink dies: those on it, and those that must not notice.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use uplink_lab::traffic::{Ongoing, Swarm, exchange, tcp_stream_on};
use uplink_lab::{Family, Isp, Lab, Shape};

use crate::support::{daemon, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
const FLOWS: usize = 100_000;
/// After the switch.
const SOON: Duration = Duration::from_millis(500);

pub fn hundred_thousand() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    let begun = Instant::now();
    let swarm = Swarm::new(&lab, FLOWS)?;
    let before = swarm.round()?;
    let on = |isps: &[Option<Isp>], isp| isps.iter().filter(|i| **i == Some(isp)).count();
    let (one, two) = (on(&before, Isp::One), on(&before, Isp::Two));
    println!(
        "    {one} flows on isp1, {two} on isp2 after {:?}",
        begun.elapsed()
    );
    ensure!(
        one + two == FLOWS,
        "{} flows do not get through",
        FLOWS - one - two
    );
    ensure!((20_000..30_000).contains(&two), "{two} of {FLOWS} on isp2");
    let sampled = sampled(&lab)?;
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    let switched = Instant::now();
    pause(1.0);
    works_again(sampled, switched)?;
    // Between the new table and the end of the old connections some leave with the old address.
    let between = lab.violations()?;
    let after = swarm.round()?;
    let stayed = |(b, a): &(&Option<Isp>, &Option<Isp>)| **b == Some(Isp::Two) && b == a;
    let stayed = before.iter().zip(&after).filter(stayed).count();
    println!(
        "    {stayed} of {two} flows stayed on isp2; on isp2 now: {}",
        on(&after, Isp::Two)
    );
    ensure!(
        stayed == two,
        "{} flows on the healthy uplink moved",
        two - stayed
    );
    ensure!(
        on(&after, Isp::Two) == FLOWS,
        "flows of the dead uplink do not get through"
    );
    lab.expect_right_isps_since("before and after", between)?;
    daemon.stop()
}

/// UDP streams on the uplink that will die.
fn sampled(lab: &Lab) -> Result<Vec<Ongoing>> {
    let families = Family::ALL.into_iter().cycle().take(6);
    families
        .map(|family| Ongoing::udp_stream_on(lab, family, Isp::One))
        .collect()
}

fn works_again(streams: Vec<Ongoing>, switched: Instant) -> Result<()> {
    for stream in streams {
        let report = stream.stop()?;
        let lost = report.lost_since(switched);
        let back = report
            .recovered_after(switched)
            .context("a flow on the dead uplink stays dead")?;
        println!("    a flow works {back:?} after the switch was seen ({lost} lost since)");
        ensure!(back <= SOON, "{back:?} after the switch");
        ensure!(
            report.isps() == [Isp::One, Isp::Two],
            "seen from {:?}",
            report.isps()
        );
    }
    Ok(())
}

/// Clients that wait for an answer learn at once that none will come.
pub fn reset() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "[nat]\non_failover = \"reset\"\n")?;
    let on = |isp, n| -> Result<Vec<TcpStream>> {
        let families = Family::ALL.into_iter().cycle().take(n);
        families.map(|family| tcp_stream_on(&lab, family, isp)).collect()
    };
    let (doomed, mut healthy) = (on(Isp::One, 8)?, on(Isp::Two, 4)?);
    lab.blackhole(Isp::One)?;
    let reading: Vec<_> = doomed.into_iter().map(blocked).collect();
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    let switched = Instant::now();
    for reader in reading {
        let (error, at) = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        let after = at.saturating_duration_since(switched);
        println!("    read: {error:?} {after:?} after the switch was seen");
        ensure!(error == Some(ErrorKind::ConnectionReset), "read: {error:?}");
        ensure!(after < SECOND, "{after:?} after the switch");
    }
    for stream in &mut healthy {
        let reply = exchange(stream).context("a connection on the healthy uplink broke")?;
        ensure!(reply.via() == Some(Isp::Two), "moved: {reply:?}");
    }
    daemon.stop()
}

/// Waits in `read` for what never comes; how it ended and when.
fn blocked(mut stream: TcpStream) -> JoinHandle<(Option<ErrorKind>, Instant)> {
    std::thread::spawn(move || {
        let _ = stream.set_read_timeout(Some(15 * SECOND));
        let ended = stream.read(&mut [0; 8]);
        (ended.err().map(|e| e.kind()), Instant::now())
    })
}
