//! Datagrams too long for one packet.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::Tally;
use uplink_lab::{Family, Isp, Lab, Shape};

use crate::balance::route_back;
use crate::pair::{udp_client, udp_server};
use crate::support::{daemon, expect_share, lab};

const FLOWS: usize = 330;
/// Lengths of a flow's datagrams. Those of one packet have ports all over, and still belong to the
/// same flow.
const LENGTHS: [usize; 4] = [LONGEST, 100, LONGEST, LONGEST];
/// Three packets.
const LONGEST: usize = 3_000;
const PORT: u16 = 7300;

/// With NAT conntrack reassembles them; each flow keeps its ISP and arrives whole.
pub fn translated() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    Family::ALL
        .into_iter()
        .try_for_each(|family| expect_whole(&lab, family))?;
    let carried: u64 = lab.carried()?.iter().map(|c| c.own).sum();
    let fragments = 2 * FLOWS as u64 * 10;
    ensure!(carried >= fragments, "{carried} packets only: not fragmented");
    lab.expect_right_isps("fragments")?;
    daemon.stop()
}

/// All datagrams arrive, those of a flow by one ISP, in both directions.
pub fn expect_whole(lab: &Lab, family: Family) -> Result<()> {
    let mut tally = Tally::default();
    for n in 0..FLOWS {
        let seen = there_and_back(lab, family, n)?;
        let isp = Isp::of(seen).with_context(|| format!("seen from {seen}"))?;
        tally.by_isp[isp.index()] += 1;
    }
    expect_share(&format!("long datagrams, {family:?}"), &tally, 75.0)
}

/// Without NAT a fragment goes by addresses alone, so that all of them agree.
pub fn untranslated() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    route_back(&lab)?;
    let daemon = daemon(&lab, "[nat]\nmode = \"off\"\n")?;
    lab.note_passage()?;
    for family in Family::ALL {
        for n in 0..FLOWS {
            let seen = there_and_back(&lab, family, n)?;
            ensure!(Isp::of(seen).is_none(), "translated to {seen}");
        }
        let tally = Tally {
            by_isp: lab.expect_passed("without NAT", family, FLOWS)?,
            ..Tally::default()
        };
        expect_share(&format!("{family:?}"), &tally, 75.0)?;
    }
    daemon.stop()
}

/// Some datagrams of flow `n` there and back; the address that the server saw.
fn there_and_back(lab: &Lab, family: Family, n: usize) -> Result<IpAddr> {
    let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
    let client = udp_client(lab, family, n, server.local_addr()?)?;
    let (mut buffer, mut seen) = ([0; LONGEST + 1], None);
    for (length, round) in LENGTHS.into_iter().zip(0u8..) {
        let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ round).collect();
        client.send(&sent)?;
        let got = server.recv_from(&mut buffer);
        let (length, from) = got.with_context(|| format!("flow {n} at the server"))?;
        ensure!(buffer[..length] == sent, "flow {n} arrived as something else");
        ensure!(
            seen.is_none_or(|seen| seen == from),
            "flow {n}: {seen:?}, then {from}"
        );
        seen = Some(from);
        server.send_to(&sent, from)?;
        let length = client
            .recv(&mut buffer)
            .with_context(|| format!("flow {n} at the client"))?;
        ensure!(buffer[..length] == sent, "flow {n} came back as something else");
    }
    Ok(seen.context("nothing was sent")?.ip())
}
