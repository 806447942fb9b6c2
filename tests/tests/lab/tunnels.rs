//! Protocols without ports: a flow is two addresses and the protocol.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use uplink_lab::topology::{client, elsewhere};
use uplink_lab::traffic::Tally;
use uplink_lab::{Family, Lab, Shape};

use crate::support::{await_within, daemon, expect_share, lab};

const FLOWS: u16 = 400;
const PACKETS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
/// Each with the beginning of a header that routers on the way may look at.
const KINDS: [(&str, i32, [u8; 8]); 2] = [
    ("GRE", 47, [0, 0, 8, 0, 1, 2, 3, 4]),
    ("ESP", 50, [0, 0, 1, 0, 0, 0, 0, 1]),
];

pub fn gre_esp() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    for family in Family::ALL {
        for (name, protocol, header) in KINDS {
            lab.note_passage()?;
            let before = carried(&lab)?;
            (0..FLOWS).try_for_each(|n| send(&lab, family, n, protocol, &header))?;
            let sent = usize::from(FLOWS) * PACKETS;
            await_within("all carried", Instant::now(), SECOND, || {
                Ok(carried(&lab)? - before >= sent as u64)
            })?;
            let what = format!("{name} over {family:?}");
            let by_isp = lab.expect_passed(&what, family, usize::from(FLOWS))?;
            let tally = Tally {
                by_isp,
                ..Tally::default()
            };
            expect_share(&what, &tally, 75.0)?;
        }
    }
    lab.expect_right_isps("GRE and ESP")?;
    daemon.stop()
}

/// Packets with the source address of the ISP that got them.
fn carried(lab: &Lab) -> Result<u64> {
    Ok(lab.carried()?.iter().map(|c| c.own).sum())
}

fn send(lab: &Lab, family: Family, n: u16, protocol: i32, header: &[u8]) -> Result<()> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let raw = || Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)));
    let socket = lab.client.enter(raw)?.context("a raw socket")?;
    socket.bind(&SocketAddr::new(client(family, n as u8), 0).into())?;
    let packet = [header, &n.to_be_bytes()].concat();
    for _ in 0..PACKETS {
        socket.send_to(&packet, &SocketAddr::new(elsewhere(family, n), 0).into())?;
    }
    Ok(())
}
