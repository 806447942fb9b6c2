//! Flows are spread, keep their uplinks, addresses and ports, and leave dead uplinks, as without a fast path.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uplink_common::path::FIRST_LOOK_S;
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::Tally;
use uplink_lab::{Family, Isp, Lab, Shape};

use super::{daemon, packets, wired};
use crate::pair::{udp_client, udp_server};
use crate::support::{expect_share, pause};

const PORT: u16 = 7640;
const FLOWS: usize = 240;

/// Both ends of flows, each to a destination of its own, and where the server saw it come from.
pub(super) struct Flows(Vec<Flow>);

struct Flow {
    client: UdpSocket,
    server: UdpSocket,
    from: Option<SocketAddr>,
}

/// What became of one packet each way.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Those that went there and back, by ISP.
    pub by_isp: [usize; 2],
    /// Those that came from another address or port than before.
    pub moved: u64,
    /// Those that did not.
    pub lost: u64,
}

impl Flows {
    pub(super) fn open(lab: &Lab, family: Family, n: usize) -> Result<Self> {
        let open = |n: usize| {
            let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
            let client = udp_client(lab, family, n, server.local_addr()?)?;
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            }
            Ok(Flow {
                client,
                server,
                from: None,
            })
        };
        Ok(Self((0..n).map(open).collect::<Result<_>>()?))
    }

    /// One packet each way in every flow.
    pub(super) fn round(&mut self) -> Round {
        self.padded_round(0)
    }

    /// One that has so many bytes more.
    pub(super) fn padded_round(&mut self, padding: usize) -> Round {
        let mut round = Round::default();
        for flow in &mut self.0 {
            match flow.exchange(padding) {
                None => round.lost += 1,
                Some(from) => {
                    round.moved += u64::from(flow.from.is_some_and(|before| before != from));
                    flow.from = Some(from);
                    if let Some(isp) = Isp::of(from.ip()) {
                        round.by_isp[isp.index()] += 1;
                    }
                }
            }
        }
        round
    }

    /// One packet outward in every flow, and no answer. Returns how many arrived from where they came before.
    pub(super) fn outward(&self) -> usize {
        self.0.iter().filter(|flow| flow.arrives()).count()
    }

    /// Nobody moves, nobody is lost.
    pub(super) fn expect_whole(&mut self, what: &str, rounds: usize) -> Result<[usize; 2]> {
        let mut by_isp = [0; 2];
        for n in 0..rounds {
            let round = self.round();
            ensure!(
                round.moved == 0 && round.lost == 0,
                "{what}, round {n}: {round:?}"
            );
            by_isp = round.by_isp;
        }
        let all: usize = by_isp.iter().sum();
        ensure!(all == self.0.len(), "{what}: {by_isp:?}");
        Ok(by_isp)
    }
}

impl Flow {
    fn arrives(&self) -> bool {
        let sent = self.client.send(b"there");
        let came = self.server.recv_from(&mut [0; 512]);
        sent.is_ok() && came.is_ok_and(|(_, from)| Some(from) == self.from)
    }

    fn exchange(&self, padding: usize) -> Option<SocketAddr> {
        let mut buffer = [0; 512];
        let [there, back] = [&b"there"[..], b"and back"].map(|word| [word, &vec![0; padding]].concat());
        self.client.send(&there).ok()?;
        let (n, from) = self.server.recv_from(&mut buffer).ok()?;
        (buffer[..n] == there).then_some(())?;
        self.server.send_to(&back, from).ok()?;
        let n = self.client.recv(&mut buffer).ok()?;
        (buffer[..n] == back).then_some(from)
    }
}

pub fn spread() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        for family in Family::ALL {
            spread_over(shape, family).with_context(|| format!("{shape:?} {family:?}"))?;
        }
    }
    Ok(())
}

fn spread_over(shape: Shape, family: Family) -> Result<()> {
    let (lab, _echo, _ends) = wired(shape)?;
    let daemon = daemon(&lab, "")?;
    let mut flows = Flows::open(&lab, family, FLOWS)?;
    let by_isp = flows.expect_whole("spread", 8)?;
    let tally = Tally {
        by_isp,
        ..Tally::default()
    };
    expect_share(&format!("{shape:?} {family:?}"), &tally, 75.0)?;
    let (fast, all) = (packets(&daemon, "fast")?, 16 * FLOWS as u64);
    println!("    {shape:?} {family:?}: {fast} of {all} packets by the fast path");
    // The first way, the second way, and what fell on another flow's place.
    ensure!(fast >= all * 3 / 4 && fast <= all, "{fast} of {all}");
    daemon.stop()
}

/// A dead uplink's flows go by the other one, by the fast path again.
pub fn failed_over() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let mut flows = [
        Flows::open(&lab, Family::V4, 80)?,
        Flows::open(&lab, Family::V6, 80)?,
    ];
    for flows in &mut flows {
        let by_isp = flows.expect_whole("before", 5)?;
        ensure!(by_isp[1] > 0, "nobody by the second ISP");
    }
    lab.blackhole(Isp::Two)?;
    daemon.await_state(Isp::Two, "down", Duration::from_secs(5))?;
    for flows in &mut flows {
        // Those that were by the second ISP have another address now.
        flows.round();
        let before = packets(&daemon, "fast")?;
        let by_isp = flows.expect_whole("after", 5)?;
        ensure!(by_isp == [80, 0], "{by_isp:?}");
        let fast = packets(&daemon, "fast")? - before;
        ensure!(fast >= 480, "{fast} packets by the fast path");
    }
    lab.heal(Isp::Two)?;
    daemon.stop()
}

/// More flows than the table has room for: those that find none are the kernel's, and nobody else notices.
pub fn full() -> Result<()> {
    // 2,048 lines, so that they are nearly full with both ways of all.
    const TABLE: &str = "flows = 1024\n";
    const MANY: usize = 960;
    const FEW: usize = 60;
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("two sockets for each flow")?;
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, TABLE)?;
    let mut flows = Flows::open(&lab, Family::V6, MANY)?;
    flows.expect_whole("learned", 4)?;
    // Those that have a place go on with it when the kernel has to have a look at them.
    pause(f64::from(FIRST_LOOK_S));
    flows.expect_whole("looked at again", 1)?;
    let before = packets(&daemon, "fast")?;
    flows.expect_whole("as far as there is room", 2)?;
    let (fast, all) = (packets(&daemon, "fast")? - before, 4 * MANY as u64);
    println!("    {fast} of {all} packets by the fast path while the table is full");
    ensure!(fast > all / 2 && fast < all, "{fast} of {all}");
    // Then there is room for those who still have something to say.
    lab.router.nft("table inet other {}")?;
    flows.0.truncate(FEW);
    pause(0.5);
    flows.expect_whole("learned anew", 8)?;
    let before = packets(&daemon, "fast")?;
    flows.expect_whole("room again", 2)?;
    let (fast, all) = (packets(&daemon, "fast")? - before, 4 * FEW as u64);
    ensure!(fast == all, "{fast} of {all} packets by the fast path");
    daemon.stop()
}
