//! Answers that nobody should learn from: each is counted by its name, and steers nothing.

use anyhow::{Result, ensure};
use uplink_lab::names::{Trick, Trickster, Way, ask};
use uplink_lab::traffic::flows_to;
use uplink_lab::{Daemon, Family, Isp, Lab, Shape};

use super::{all_by, config, outcome, resolver_at, start};
use crate::support::{lab, pause};

pub fn no_harm() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _trickster = Trickster::start(&lab)?;
    let mut daemon = start(&lab, &config("\"*.example.org\"", ""))?;
    let pid = daemon.pid()?;
    for trick in Trick::ALL {
        harmless(&lab, &daemon, trick, Way::Udp, counter(trick))?;
    }
    harmless(&lab, &daemon, Trick::TooLong, Way::Tcp, Some("oversized"))?;
    let good = lab
        .client
        .enter(|| ask(resolver_at(Family::V4), &Trick::None.name(), Family::V4, Way::Udp))??;
    pause(0.05);
    all_by(Isp::Two, "a good answer", &flows_to(&lab.client, &good.addresses)?)?;
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
    pause(0.05);
    let more = count()? - before;
    println!("    {what}: {counter:?} {more} more");
    ensure!(more > 0 || counter.is_none(), "{what}: not counted");
    if matches!(trick, Trick::Private | Trick::Gateway) {
        // There is nobody to talk to beyond the ISPs.
        return Ok(());
    }
    all_by(Isp::One, &what, &flows_to(&lab.client, &[trick.victim().into()])?)
}
