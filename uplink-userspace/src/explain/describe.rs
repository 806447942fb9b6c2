//! Records and numbers in the words of the answer.

use anyhow::Result;
use uplink_common::policy::{Field, has_ports};

use super::answer::{self, Answer, Candidate, Outcome, Route, VERSION};
use super::balance::{How, Shares};
use super::decide::{Case, Held};
use super::world::{Routed, Scene};
use super::{Flow, Source, World};
use crate::policy::classify::Tables as _;
use crate::{flows, maps, status};

impl<W: World> Case<'_, W> {
    /// An answer that says nothing yet.
    pub(super) fn blank(&self) -> Answer {
        Answer {
            version: VERSION,
            daemon: self.known.is_some(),
            flow: self.answered.clone(),
            outcome: Outcome::LeftAlone,
            reason: String::new(),
            text: String::new(),
            uplink: None,
            candidates: Vec::new(),
            policy: None,
            missed: Vec::new(),
            others: 0,
            names: self.known.map_or_else(Vec::new, |known| known.names.clone()),
            pin: None,
            anew: Vec::new(),
            kept: None,
            hash: None,
            slot: None,
            slots: None,
            mark: None,
            route: None,
            source: None,
            if_down: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What is odd about the question, or missing from it.
    pub(super) fn notes(&self) -> Result<Vec<String>> {
        let (flow, mut notes) = (self.flow, Vec::new());
        if self.known.is_none() {
            notes.push(
                "no daemon answers: this is what the programs do by themselves, and nobody is there to fail over".into(),
            );
        }
        let fields = self.world.policies().classifier()?.fields;
        for (field, option) in self.not_given() {
            if fields & field.bit() != 0 {
                notes.push(format!(
                    "without {option}, policies that ask for it were taken not to match"
                ));
            }
        }
        if flow.src != Source::Socket && flow.key().is_none() {
            let what = match flow.is_tcp_or_udp() {
                true => "both ports",
                false => "the echo's identifier, as a port,",
            };
            notes.push(format!("give {what} to see the flow's pin and slot"));
        }
        Ok(notes)
    }

    /// The fields that nothing is known of, and what to give for them.
    fn not_given(&self) -> impl Iterator<Item = (Field, &'static str)> {
        let (flow, socket) = (self.flow, self.flow.src == Source::Socket);
        let ports = has_ports(flow.proto);
        let missing = [
            (
                Field::Sport,
                "a source port",
                ports && !socket && flow.sport.is_none(),
            ),
            (Field::Dport, "a destination port", ports && flow.dport.is_none()),
            (Field::Mac, "--mac", !socket && flow.mac.is_none()),
            (Field::Uid, "--uid", socket && flow.uid.is_none()),
            (Field::Cgroup, "--cgroup", socket && self.scene.cgroups.is_empty()),
        ];
        let missing = missing.into_iter().filter(|(.., missing)| *missing);
        missing.map(|(field, option, _)| (field, option))
    }

    /// The name of an uplink.
    pub(super) fn name(&self, id: u32) -> Result<String> {
        let name = maps::name(&self.world.uplink(id)?);
        Ok(if name.is_empty() {
            format!("uplink {id}")
        } else {
            name
        })
    }

    pub(super) fn pin(&self, held: &Held) -> Result<answer::Pin> {
        let (pin, now_s) = (held.pin, self.world.now_s());
        let uplink = match pin.uplink {
            0 => None,
            id => Some(self.name(id.into())?),
        };
        Ok(answer::Pin {
            uplink,
            policy: self.policy_name(pin.policy.into())?,
            age_s: now_s.saturating_sub(pin.created_s),
            idle_s: now_s.saturating_sub(pin.last_used_s),
            valid: held.valid,
        })
    }

    pub(super) fn candidates(&self, shares: &Shares) -> Result<Vec<Candidate>> {
        shares
            .iter()
            .map(|(id, share)| self.candidate(*id, *share))
            .collect()
    }

    fn candidate(&self, id: u8, share: f64) -> Result<Candidate> {
        let engine = self.known.map(|known| &known.engine);
        let described = engine.and_then(|engine| {
            let u = engine.uplinks().iter().find(|u| u.id == id)?;
            Some(status::uplink(engine, u))
        });
        let mut candidate = Candidate {
            uplink: self.name(id.into())?,
            share: (share * 1e4).round() / 1e4,
            state: None,
            why: String::new(),
            rtt_ms: None,
            loss: None,
        };
        if let Some(u) = described {
            (candidate.state, candidate.why) = (Some(u.state.to_string()), u.reason);
            (candidate.rtt_ms, candidate.loss) = (u.rtt_ms, Some(u.loss));
        }
        Ok(candidate)
    }

    /// Why a new flow goes where it goes.
    pub(super) fn because(&self, answer: &Answer, how: How, shares: &Shares) -> Result<String> {
        let policy = answer.policy.as_ref();
        let name = policy.map_or("", |p| &p.name);
        let why = match (how, policy) {
            (How::Kept, _) => format!("policy {name} matches, and its client keeps the uplink it has"),
            (How::Group, _) => format!("policy {name} matches"),
            (_, Some(_)) => {
                format!("policy {name} matches, but none of its uplinks lives: balanced over all")
            }
            (How::Weights, None) => {
                "no policy matches: balanced by the weights that were edited in the map".into()
            }
            (_, None) => "no policy matches: balanced over all uplinks".into(),
        };
        if shares.len() < 2 {
            return Ok(why);
        }
        let open = match self.flow.src {
            Source::Socket => "every socket is placed anew",
            Source::Address(_) => "which one depends on what was not given",
        };
        Ok(format!("{why}; {open}"))
    }
}

/// The flow as it was understood.
pub(super) fn flow(flow: &Flow, scene: &Scene) -> answer::Flow {
    let (src, iif) = match flow.src {
        Source::Socket => ("-".into(), "lo".into()),
        Source::Address(ip) => (ip.to_string(), scene.iif.0.clone()),
    };
    answer::Flow {
        proto: flows::protocol(flow.proto),
        src,
        dst: flow.dst.to_string(),
        sport: flow.sport,
        dport: flow.dport,
        iif,
        dscp: flow.dscp,
        mac: flow.mac.map(mac),
        uid: flow.uid,
        cgroup: scene.cgroup.clone(),
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|b| format!("{b:02x}")).join(":")
}

/// The kernel's answer.
pub(super) fn route(routed: &Routed) -> Route {
    let none = Route {
        gateway: None,
        interface: None,
        table: None,
        error: None,
    };
    match routed {
        Routed::By(way) => Route {
            gateway: way.gateway.map(|g| g.to_string()),
            interface: Some(way.interface.clone()),
            table: Some(way.table).filter(|t| *t != 0),
            error: None,
        },
        Routed::Local => Route {
            error: Some("for this host".into()),
            ..none
        },
        Routed::Nowhere(why) => Route {
            error: Some(why.clone()),
            ..none
        },
    }
}
