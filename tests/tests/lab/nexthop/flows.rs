//! Flows are spread, keep their uplinks, and leave dead ones, as in mark mode.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use uplink_lab::daemon::{run, said};
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::Tally;
use uplink_lab::{Family, Isp, Lab, Shape};

use super::{daemon, packets, routed};
use crate::pair::{udp_client, udp_server};
use crate::support::expect_share;

const PORT: u16 = 7600;
const FLOWS: usize = 240;

/// Both ends of flows, each to a destination of its own.
pub(super) struct Flows {
    family: Family,
    both: Vec<[UdpSocket; 2]>,
}

impl Flows {
    pub(super) fn open(lab: &Lab, family: Family, n: usize) -> Result<Self> {
        let open = |n: usize| {
            let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
            let client = udp_client(lab, family, n, server.local_addr()?)?;
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            }
            Ok([client, server])
        };
        let both = (0..n).map(open).collect::<Result<_>>()?;
        Ok(Self { family, both })
    }

    /// How many of them go there and back.
    pub(super) fn round(&self) -> usize {
        let goes = |[client, server]: &[UdpSocket; 2]| {
            let mut buffer = [0; 8];
            client.send(b"there").ok()?;
            let (_, from) = server.recv_from(&mut buffer).ok()?;
            server.send_to(b"back", from).ok()?;
            client.recv(&mut buffer).ok()
        };
        self.both.iter().filter(|both| goes(both).is_some()).count()
    }

    fn expect_whole(&self, what: &str, rounds: usize) -> Result<()> {
        for _ in 0..rounds {
            let (done, all) = (self.round(), self.both.len());
            ensure!(
                done == all,
                "{what}, {:?}: {done} of {all} went there and back",
                self.family
            );
        }
        Ok(())
    }
}

pub fn spread() -> Result<()> {
    [Shape::OneNic, Shape::NicEach]
        .into_iter()
        .try_for_each(spread_over)
}

fn spread_over(shape: Shape) -> Result<()> {
    let (lab, _echo) = routed(shape)?;
    let daemon = daemon(&lab, "")?;
    lab.note_passage()?;
    for family in Family::ALL {
        let before = [packets(&daemon, "forwarded")?, sent(&daemon)?];
        let flows = Flows::open(&lab, family, FLOWS)?;
        flows.expect_whole("spread", 6)?;
        let by_isp = lab.expect_passed("next-hop mode", family, FLOWS)?;
        let tally = Tally {
            by_isp,
            ..Tally::default()
        };
        expect_share(&format!("{shape:?} {family:?}"), &tally, 75.0)?;
        let passed = packets(&daemon, "forwarded")? - before[0];
        // The first of six went the kernel's way, and one more may have.
        let (least, most) = (4 * FLOWS as u64, 5 * FLOWS as u64);
        println!("    {shape:?} {family:?}: {passed} packets past the kernel's forwarding");
        ensure!((least..=most).contains(&passed), "{passed} of {most}");
        // Every packet is counted where it leaves, whoever sent it there; probes and ARP's friends, too.
        let sent = sent(&daemon)? - before[1];
        let bytes = 6 * FLOWS as u64 * (14 + 20 + 8 + 5);
        ensure!(sent >= bytes, "{sent} bytes were counted of {bytes}");
    }
    daemon.stop()
}

fn sent(daemon: &uplink_lab::Daemon<'_>) -> Result<u64> {
    let status = daemon.status()?;
    let uplinks = status["uplinks"].as_array();
    let bytes = uplinks
        .into_iter()
        .flatten()
        .filter_map(|u| u["tx_bytes"].as_u64());
    Ok(bytes.sum())
}

/// A dead uplink's flows go by the other one, past the kernel's forwarding again.
pub fn failed_over() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let flows = [
        Flows::open(&lab, Family::V4, 80)?,
        Flows::open(&lab, Family::V6, 80)?,
    ];
    lab.note_passage()?;
    for flows in &flows {
        flows.expect_whole("before", 3)?;
        let [_, two] = lab.expect_passed("before", flows.family, 80)?;
        ensure!(two > 0, "nobody by the second ISP");
    }
    // The way back is by the first.
    lab.blackhole(Isp::Two)?;
    daemon.await_state(Isp::Two, "down", Duration::from_secs(5))?;
    lab.note_passage()?;
    let before = packets(&daemon, "forwarded")?;
    for flows in &flows {
        flows.expect_whole("after", 3)?;
        let by_isp = lab.expect_passed("after", flows.family, 80)?;
        ensure!(by_isp == [80, 0], "{by_isp:?}");
    }
    let passed = packets(&daemon, "forwarded")? - before;
    println!("    {passed} packets past the kernel's forwarding after the failover");
    ensure!(passed >= 2 * 80, "{passed} packets only");
    lab.heal(Isp::Two)?;
    daemon.stop()
}

/// What is under way on a drained uplink stays there.
pub fn drained() -> Result<()> {
    let (lab, _echo) = routed(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let flows = Flows::open(&lab, Family::V4, 60)?;
    lab.note_passage()?;
    flows.expect_whole("before", 2)?;
    let before = lab.passed(Family::V4)?;
    let drain = run(&lab, &["drain", "isp2"])?;
    ensure!(drain.status.success(), "{}", said(&drain));
    lab.note_passage()?;
    let passed = packets(&daemon, "forwarded")?;
    flows.expect_whole("drained", 4)?;
    let after = lab.passed(Family::V4)?;
    ensure!(
        !before[1].is_empty() && before == after,
        "flows moved: {before:?}, {after:?}"
    );
    let passed = packets(&daemon, "forwarded")? - passed;
    println!("    {passed} packets past the kernel's forwarding while drained");
    ensure!(passed >= 3 * 60, "{passed} packets only");
    daemon.stop()
}
