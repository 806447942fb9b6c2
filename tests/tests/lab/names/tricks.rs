//! Answers that nobody should learn from: each is counted by its name, and steers nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use uplink_lab::names::{PORT, Trick, Trickster, Way, ask};
use uplink_lab::traffic::flows_to;
use uplink_lab::{Daemon, Family, Isp, Lab, Shape};

use super::{all_by, await_addresses, config, outcome, resolver_at, start};
use crate::support::{await_within, lab, pause};

/// Until what was heard has been counted.
const SOON: Duration = Duration::from_secs(2);

pub fn no_harm() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _trickster = Trickster::start(&lab)?;
    // The user lets packets in that pretend to come from here: nothing but the look at who sent them is in the way.
    lab.router.sysctl("ipv4/conf/eth0/accept_local", "1")?;
    let mut daemon = start(&lab, &config("\"*.example.org\"", ""))?;
    let pid = daemon.pid()?;
    for trick in Trick::ALL {
        harmless(&lab, &daemon, trick, Way::Udp, counter(trick))?;
    }
    harmless(&lab, &daemon, Trick::TooLong, Way::Tcp, Some("oversized"))?;
    planted(&lab, &daemon)?;
    let known = super::names(&daemon)?["addresses"].as_u64().unwrap_or(0);
    let good = lab
        .client
        .enter(|| ask(resolver_at(Family::V4), &Trick::None.name(), Family::V4, Way::Udp))??;
    await_addresses(&daemon, known + good.addresses.len() as u64)?;
    all_by(
        Isp::Two,
        "a good answer",
        &flows_to(&lab.client, &good.addresses)?,
    )?;
    ensure!(
        daemon.ended()?.is_none() && daemon.pid()? == pid,
        "the daemon has ended"
    );
    println!("    {}", super::names(&daemon)?);
    daemon.stop()
}

/// What counts it. From or to another port it is no DNS of anybody's here.
const fn counter(trick: Trick) -> Option<&'static str> {
    Some(match trick {
        Trick::None => "learned",
        Trick::OtherPort => return None,
        Trick::WrongId | Trick::WrongName | Trick::OtherServer | Trick::ToOtherPort | Trick::Second => {
            "unsolicited"
        }
        Trick::Stowaway | Trick::Failure => "no-address",
        Trick::AliasLoop => "looping",
        Trick::PointerLoop | Trick::TooFewRecords | Trick::CutShort => "malformed",
        Trick::TooLong => "fragment",
        Trick::Private | Trick::Gateway => "private",
        Trick::ProbeTarget => "excluded",
        Trick::Planted => "from-outside",
    })
}

fn harmless(lab: &Lab, daemon: &Daemon<'_>, trick: Trick, way: Way, counter: Option<&str>) -> Result<()> {
    let what = format!("{trick:?} {way:?}");
    let count = || counter.map_or(Ok(0), |counter| outcome(daemon, counter));
    let before = count()?;
    // Most are no answer to the client, either.
    let _ = lab
        .client
        .enter(|| ask(resolver_at(Family::V4), &trick.name(), Family::V4, way))?;
    // Looked at beside, soon.
    match counter {
        Some(_) => {
            _ = await_within(&format!("{what}: {counter:?}"), Instant::now(), SOON, || {
                Ok(count()? > before)
            })?
        }
        None => pause(0.05),
    }
    if matches!(trick, Trick::Private | Trick::Gateway) {
        // There is nobody to talk to beyond the ISPs.
        return Ok(());
    }
    all_by(Isp::One, &what, &flows_to(&lab.client, &[trick.victim().into()])?)
}

/// Somebody on the Internet sends this host both a question and its answer, in this host's name.
fn planted(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    let [query, answer] = Trick::Planted.exchange()?;
    let own = Ipv4Addr::new(192, 168, 1, 100);
    lab.internet.enter(|| -> Result<()> {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        raw.set_header_included_v4(true)?;
        for (from, to, payload) in [(5_555, PORT, query), (PORT, 5_555, answer)] {
            let packet = datagram((own, from), (own, to), &payload)?;
            raw.send_to(&packet, &SocketAddr::from((own, 0)).into())?;
        }
        Ok(())
    })??;
    let count = || outcome(daemon, "from-outside");
    await_within("planted", Instant::now(), SOON, || Ok(count()? > 0))?;
    pause(0.05);
    let count = count();
    println!("    planted: {count:?}, {}", super::names(daemon)?);
    all_by(
        Isp::One,
        "planted",
        &flows_to(&lab.client, &[Trick::Planted.victim().into()])?,
    )?;
    ensure!(count? == 1, "the planted question was not counted");
    Ok(())
}

fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ipv4(from.0.octets(), to.0.octets(), 64).udp(from.1, to.1);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload)?;
    Ok(packet)
}
