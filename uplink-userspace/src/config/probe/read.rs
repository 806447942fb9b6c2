//! `[probe]`, and `probe = { ... }` of an uplink, which is read over it.

use std::ops::Range;
use std::time::Duration;

use super::{Http, Kind, Probe, Target, kind, target};
use crate::config::Uplink;
use crate::config::reader::Reader;
use uplink_common::Family;

/// The words of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Icmp,
    Tcp,
    Dns,
    Http,
    Https,
    Exec,
}

impl Type {
    const ALL: [Self; 6] = [
        Self::Icmp,
        Self::Tcp,
        Self::Dns,
        Self::Http,
        Self::Https,
        Self::Exec,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Https => "https",
            Self::Exec => "exec",
        }
    }

    const fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Icmp => Self::Icmp,
            Kind::Tcp => Self::Tcp,
            Kind::Dns { .. } => Self::Dns,
            Kind::Http(Http { tls: false, .. }) => Self::Http,
            Kind::Http(Http { tls: true, .. }) => Self::Https,
            Kind::Exec { .. } => Self::Exec,
        }
    }
}

/// A probe and where it stands.
#[derive(Clone, Debug)]
pub(in crate::config) struct Written {
    pub probe: Probe,
    /// Where `targets` stands; empty if it is written nowhere.
    pub list: Range<usize>,
    /// Where each target stands, in their order; empty for defaults.
    pub places: Vec<Range<usize>>,
}

impl Default for Written {
    fn default() -> Self {
        let targets = Type::Icmp.targets();
        Self {
            list: 0..0,
            places: vec![0..0; targets.len()],
            probe: Probe {
                kind: Kind::Icmp,
                targets,
                quorum: 1,
                interval: Duration::from_millis(500),
                timeout: Duration::from_secs(1),
                fall: 3,
                rise: 5,
            },
        }
    }
}

/// `[probe]` of the whole file.
pub(in crate::config) fn read(top: &mut Reader<'_, '_>) -> Written {
    let mut written = Written::default();
    if let Some(mut table) = top.table("probe", "[probe]") {
        fill(&mut table, &mut written);
        table.finish();
    }
    written
}

/// The probe of an uplink: `[probe]`, and over it what the uplink says itself.
pub(in crate::config) fn of_uplink(uplink: &mut Reader<'_, '_>, common: &Written) -> Written {
    let mut written = common.clone();
    if let Some(mut table) = uplink.table("probe", "probe of an [[uplink]]") {
        fill(&mut table, &mut written);
        table.finish();
    }
    written
}

fn fill(table: &mut Reader<'_, '_>, written: &mut Written) {
    let before = table.problems.len();
    let words = Type::ALL.map(|t| (t.word(), Some(t)));
    let told = table.one_of("type", &words).map(|at| at.value);
    let inherited = Type::of(&written.probe.kind);
    let now = told.unwrap_or(inherited);
    if now != inherited {
        (written.probe.targets, written.places) = target::carried(written, now);
        written.probe.kind = now.kind();
    }
    if told.is_none() && table.has("type") {
        table.pass("targets");
        kind::ignore(table);
    } else {
        target::read(table, now, written);
        kind::read(table, now, &mut written.probe.kind);
    }
    fill_pace(table, &mut written.probe);
    fill_quorum(table, before, written);
}

fn fill_pace(table: &mut Reader<'_, '_>, probe: &mut Probe) {
    let ms = Duration::from_millis;
    let hour = ms(3_600_000);
    let interval = table.duration("interval", ms(50)..=hour, "50ms to 1h, such as \"500ms\"");
    probe.interval = interval.unwrap_or(probe.interval);
    let timeout = table.duration("timeout", ms(10)..=ms(60_000), "10ms to 1min, such as \"1s\"");
    probe.timeout = timeout.unwrap_or(probe.timeout);
    let times = "an integer from 1 to 100";
    let fall = table.integer("fall", 1..=100, times);
    probe.fall = fall.map_or(probe.fall, |n| n.value);
    let rise = table.integer("rise", 1..=100, times);
    probe.rise = rise.map_or(probe.rise, |n| n.value);
}

/// A quorum that no family can reach is a mistake; a family with fewer targets needs them all.
fn fill_quorum(table: &mut Reader<'_, '_>, before: usize, written: &mut Written) {
    let read = table.integer("quorum", 1..=16, "an integer from 1 to 16");
    let told = read.as_ref().map(|at| at.span.clone());
    let probe = &mut written.probe;
    probe.quorum = read.map_or(probe.quorum, |n| n.value);
    if table.problems.len() > before {
        return;
    }
    let most = Family::ALL.map(|family| probe.targets_of(family).count());
    let most = most.into_iter().max().unwrap_or(0);
    if probe.quorum as usize > most {
        let quorum = probe.quorum;
        let message = format!("quorum {quorum} is more than any family has targets ({most})");
        let help = format!("at most {most}, or more targets");
        // It is at fault where it stands; inherited, it is what stands here that does not fit.
        let list = Some(written.list.clone()).filter(|_| table.has("targets"));
        let place = told.or(list).unwrap_or_else(|| table.span());
        table.complain(place, message, help);
    }
}

/// An uplink without any target of its families could never be found up.
pub(in crate::config) fn reachable(top: &mut Reader<'_, '_>, uplinks: &[Uplink], lists: &[Range<usize>]) {
    // An uplink whose gateway was refused lacks a family only for that reason.
    if !top.problems.is_empty() {
        return;
    }
    for (uplink, list) in uplinks.iter().zip(lists) {
        let probed = |target: &Target| uplink.gateway(target.family()).is_some();
        if !uplink.probe.targets.iter().any(probed) {
            let name = &uplink.name.value;
            let message = format!("no target has the address family of uplink {name}");
            top.complain(list.clone(), message, "add one that it can reach");
        }
    }
}
