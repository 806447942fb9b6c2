//! Datagrams too long for one packet.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::Tally;
use uplink_lab::{Family, Isp, Lab, Shape};

use crate::balance::route_back;
use crate::pair::{udp_client, udp_server};
use crate::support::{daemon, expect_share, lab};

const FLOWS: usize = 200;
const ROUNDS: u8 = 3;
/// Three packets each.
const LENGTH: usize = 3_000;
const PORT: u16 = 7300;

/// With NAT conntrack reassembles them; each flow keeps its ISP and arrives whole.
pub fn translated() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    for family in Family::ALL {
        let mut tally = Tally::default();
        for n in 0..FLOWS {
            let seen = there_and_back(&lab, family, n)?;
            let isp = Isp::of(seen).with_context(|| format!("seen from {seen}"))?;
            tally.by_isp[isp.index()] += 1;
        }
        expect_share(&format!("{family:?}"), &tally, 75.0, 12.0)?;
    }
    let carried: u64 = lab.carried()?.iter().map(|c| c.own).sum();
    let fragments = 2 * FLOWS as u64 * u64::from(ROUNDS) * 3;
    ensure!(carried >= fragments, "{carried} packets only: not fragmented");
    lab.expect_right_isps("fragments")?;
    daemon.stop()
}

/// Without NAT a fragment goes by addresses alone, so that all of them agree.
pub fn untranslated() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    route_back(&lab)?;
    let daemon = daemon(&lab, "[nat]\nmode = \"off\"\n")?;
    lab.note_passage()?;
    for n in 0..FLOWS {
        let seen = there_and_back(&lab, Family::V4, n)?;
        ensure!(Isp::of(seen).is_none(), "translated to {seen}");
    }
    let by_isp = lab.expect_passed("without NAT", Family::V4, FLOWS)?;
    let tally = Tally {
        by_isp,
        ..Tally::default()
    };
    expect_share("without NAT", &tally, 75.0, 12.0)?;
    daemon.stop()
}

/// Some datagrams of flow `n` there and back; the address that the server saw.
fn there_and_back(lab: &Lab, family: Family, n: usize) -> Result<IpAddr> {
    let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
    let client = udp_client(lab, family, n, server.local_addr()?)?;
    let (mut buffer, mut seen) = ([0; LENGTH + 1], None);
    for round in 0..ROUNDS {
        let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8 ^ round).collect();
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
