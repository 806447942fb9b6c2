//! The way of the programs, step by step, with the reasons.

use anyhow::{Result, ensure};
use uplink_common::policy::{Choice, STICKY_BOTH, STRICT, StickyKey};
use uplink_common::record::{Config, DEFRAGMENTED};
use uplink_common::{ABI, Addr, PIN_IDLE_S, Pin, Reason, hash, hop, select};

use super::answer::{Answer, Outcome};
use super::balance::{self, Chosen, How, Shares, Spread, choose};
use super::shares::Live;
use super::world::{Ask, Known, Routed, Scene, Way, generation};
use super::{Flow, Source, World, answer};
use crate::maps::fast::Learned;

/// As the programs have it: a pin that leaves a flow to the kernel counts for so many seconds.
const KERNEL_PIN_S: u32 = 1;

/// What becomes of a flow.
///
/// # Errors
/// When something cannot be read, or the maps are those of another version.
pub fn explain<W: World>(flow: &Flow, scene: &Scene, world: &W, known: Option<&Known>) -> Result<Answer> {
    let config = world.config()?;
    ensure!(
        config.abi == ABI,
        "the maps are of version {} and this program knows {ABI}: nothing is steered, or another version does it; \
         use its `uplink explain`",
        config.abi
    );
    Case {
        flow,
        scene,
        world,
        known,
        config,
        answered: super::describe::flow(flow, scene),
    }
    .answer()
}

/// A flow and all that is known about it.
pub(super) struct Case<'a, W> {
    pub flow: &'a Flow,
    pub scene: &'a Scene,
    pub world: &'a W,
    pub known: Option<&'a Known>,
    pub config: Config,
    /// The flow as it is answered.
    pub answered: answer::Flow,
}

/// Why a flow is none of ours, and the route that it takes where that was asked.
pub(super) struct Alone {
    pub reason: &'static str,
    pub text: String,
    pub route: Option<Routed>,
}

/// Of a flow in next-hop mode.
const PASSES: &str = "next-hop mode: its packets go to that gateway at once, past conntrack, firewall and routing of the kernel; what does not fit the MTU, \
                      has options, or opens or closes a connection goes the kernel's way";

/// A pin, and whether it counts.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub pin: Pin,
    pub valid: bool,
}

/// What a new flow is given, by what, and what decides.
pub(super) struct Fresh {
    pub choice: Option<Choice>,
    pub kept: Option<Held>,
    pub spread: Spread,
    pub chosen: Chosen,
}

impl<W: World> Case<'_, W> {
    fn answer(&self) -> Result<Answer> {
        let mut answer = self.blank();
        answer.notes = self.notes()?;
        if let Some(alone) = self.never_ours()? {
            return self.leave(answer, alone);
        }
        let held = self.held()?;
        answer.pin = held.map(|h| self.pin(&h)).transpose()?;
        let steady = held.filter(|h| h.valid && h.pin.uplink != 0);
        if steady.is_none()
            && let Some(alone) = self.not_ours(held)?
        {
            return self.leave(answer, alone);
        }
        let fresh = self.fresh(&mut answer)?;
        match steady {
            Some(held) => self.go_on(answer, &held, &fresh),
            None => self.begin(answer, held, &fresh),
        }
    }

    /// The flow's pin. Sockets are known by a number that they have not got yet.
    fn held(&self) -> Result<Option<Held>> {
        let Some(key) = self.flow.key() else {
            return Ok(None);
        };
        let Some(pin) = self.world.pin(&key)? else {
            return Ok(None);
        };
        let age_s = self.world.now_s().saturating_sub(pin.created_s);
        let old = pin.uplink == 0 && age_s > KERNEL_PIN_S;
        let idle_s = self.world.now_s().saturating_sub(pin.last_used_s);
        let valid = self.lives(&pin)? && !old && idle_s <= PIN_IDLE_S;
        Ok(Some(Held { pin, valid }))
    }

    /// Whether the uplink of a pin has not died since.
    fn lives(&self, pin: &Pin) -> Result<bool> {
        let record = self.world.uplink(pin.uplink.into())?;
        Ok(generation(&record, self.flow.family()) == pin.generation)
    }

    /// What the flow is given if it is new. Tells of the policies.
    fn fresh(&self, answer: &mut Answer) -> Result<Fresh> {
        let verdict = self.classify()?;
        (answer.missed, answer.others) = self.missed(&verdict)?;
        let choice = verdict.place.map(|place| self.world.choice(place)).transpose()?;
        if let (Some(place), Some(choice)) = (verdict.place, &choice) {
            answer.policy = Some(self.matched(&verdict, place, choice)?);
        }
        let kept = choice.as_ref().map_or(Ok(None), |choice| self.kept(choice))?;
        answer.kept = kept.map(|h| self.pin(&h)).transpose()?;
        let spread = self.spread(choice.as_ref());
        let live = Live {
            world: self.world,
            config: &self.config,
            family: self.flow.family(),
        };
        let client = kept.filter(|h| h.valid).map(|h| h.pin);
        let chosen = choose(&live, choice.as_ref(), spread, client.as_ref())?;
        Ok(Fresh {
            choice,
            kept,
            spread,
            chosen,
        })
    }

    /// What the client keeps by a sticky policy.
    fn kept(&self, choice: &Choice) -> Result<Option<Held>> {
        if choice.sticky == 0 {
            return Ok(None);
        }
        let ends = self.flow.ends(choice.sticky == STICKY_BOTH);
        let key = StickyKey {
            src: ends.src,
            dst: ends.dst,
            policy: choice.policy,
            family: self.flow.family() as u32,
        };
        let Some(pin) = self.world.kept(&key)? else {
            return Ok(None);
        };
        let idle_s = self.world.now_s().saturating_sub(pin.last_used_s);
        let valid = idle_s <= choice.sticky_s && self.lives(&pin)?;
        Ok(Some(Held { pin, valid }))
    }

    fn spread(&self, choice: Option<&Choice>) -> Spread {
        let seed = self.config.seed;
        let both = choice.is_some_and(|c| c.sticky == STICKY_BOTH);
        Spread {
            flow: self.flow.key().map(|key| hash::flow(seed, &key)),
            ends: hash::flow(seed, &self.flow.ends(both)),
        }
    }

    /// A flow that keeps its uplink.
    fn go_on(&self, mut answer: Answer, held: &Held, fresh: &Fresh) -> Result<Answer> {
        let id = held.pin.uplink;
        let name = self.name(id.into())?;
        answer.reason = Reason::Pinned.name().into();
        answer.text = match answer.pin.as_ref().and_then(|pin| pin.policy.as_ref()) {
            Some(policy) => format!("it is pinned to {name}, which policy {policy} gave it"),
            None => format!("it is pinned to {name}"),
        };
        if self.passes(&held.pin) {
            answer.reason = Reason::Forwarded.name().into();
            answer.notes.push(PASSES.into());
        }
        if let Some(path) = self.path()? {
            if is_used(&path) {
                answer.reason = Reason::Fast.name().into();
            }
            answer.notes.push(of_fast_path(&path));
        }
        if let Chosen::Given(shares, how) = &fresh.chosen {
            answer.anew = self.candidates(shares)?;
            self.tell_slot(&mut answer, fresh, *how);
        }
        self.steer(&mut answer, &vec![(id, 1.0)], false)?;
        answer.if_down = self.if_down(&answer, fresh, Some(id))?;
        Ok(answer)
    }

    /// What the fast path knows of the flow, while a daemon lives to notice what changes.
    fn path(&self) -> Result<Option<Learned>> {
        let silent_s = self.world.now_s().saturating_sub(self.config.heartbeat_s);
        let key = self.flow.key().filter(|_| silent_s <= hop::ALIVE_S);
        key.map_or(Ok(None), |key| self.world.path(&key))
    }

    /// Whether plain packets of the flow go past the kernel's forwarding.
    fn passes(&self, pin: &Pin) -> bool {
        let silent_s = self.world.now_s().saturating_sub(self.config.heartbeat_s);
        let on = self.config.flags & self.flow.family().next_hop_flag() != 0 && silent_s <= hop::ALIVE_S;
        on && pin.seen == pin.uplink && self.flow.src != Source::Socket
    }

    /// A flow that is given one.
    fn begin(&self, mut answer: Answer, held: Option<Held>, fresh: &Fresh) -> Result<Answer> {
        let strict = fresh.choice.is_some_and(|c| c.flags & STRICT != 0);
        match &fresh.chosen {
            Chosen::Nobody => return self.leave(answer, no_slot()),
            Chosen::Refused => self.refuse(&mut answer),
            Chosen::Given(shares, how) => {
                answer.reason = self.reason(held, *how).name().into();
                answer.text = self.because(&answer, *how, shares)?;
                self.tell_slot(&mut answer, fresh, *how);
                self.steer(&mut answer, shares, strict)?;
            }
        }
        answer.if_down = self.if_down(&answer, fresh, None)?;
        Ok(answer)
    }

    fn reason(&self, held: Option<Held>, how: How) -> Reason {
        match (self.flow.src, held) {
            (Source::Socket, _) => Reason::HostPicked,
            (_, Some(held)) if held.pin.uplink != 0 => Reason::Repicked,
            _ if how == How::Weights => Reason::PickedByWeight,
            _ => Reason::Picked,
        }
    }

    fn refuse(&self, answer: &mut Answer) {
        let socket = self.flow.src == Source::Socket;
        let reason = if socket {
            Reason::HostRefused
        } else {
            Reason::Refused
        };
        let policy = answer.policy.as_ref().map_or("", |p| &p.name);
        answer.outcome = Outcome::Refused;
        answer.reason = reason.name().into();
        answer.text = format!(
            "policy {policy} is strict, and none of its uplinks lives: the sender is told that the host is unreachable"
        );
        let highest = self.config.mask >> (self.config.shift & 31);
        if highest > self.config.uplinks {
            answer.mark = Some(format!("{:#x}", self.config.mask));
        }
    }

    /// Which slot of which table decided.
    fn tell_slot(&self, answer: &mut Answer, fresh: &Fresh, how: How) {
        let (hash, group) = match (&fresh.choice, how) {
            (_, How::Kept) => return,
            (Some(choice), How::Group) => (balance::by(choice, fresh.spread), Some(choice.group)),
            _ => (fresh.spread.flow, None),
        };
        let Some(hash) = hash else { return };
        answer.hash = Some(format!("{hash:#018x}"));
        if how != How::Weights {
            let size = group.map_or(uplink_common::SLOTS, |_| uplink_common::policy::GROUP_SLOTS);
            answer.slot = Some(select::among(hash, size));
            answer.slots = Some(answer::Slots { group, size });
        }
    }

    /// The uplinks, and what follows from it where there is only one. `strict`: a socket is not to go elsewhere later.
    fn steer(&self, answer: &mut Answer, shares: &Shares, strict: bool) -> Result<()> {
        answer.outcome = Outcome::Steered;
        answer.candidates = self.candidates(shares)?;
        let [(id, _)] = shares[..] else {
            return Ok(());
        };
        let record = self.world.uplink(id.into())?;
        let socket = self.flow.src == Source::Socket && !strict;
        let mark = if socket { record.host_mark } else { record.mark };
        let routed = self.world.route(&Ask {
            mark,
            ..Ask::of(self.flow, self.scene)
        })?;
        answer.uplink = Some(self.name(id.into())?);
        answer.mark = Some(format!("{mark:#x}"));
        answer.source = Some(self.source(id)?);
        answer.route = Some(super::describe::route(&routed));
        Ok(())
    }

    /// The address that the other end sees.
    fn source(&self, id: u8) -> Result<String> {
        let family = self.flow.family();
        let own = self.world.uplink(id.into())?.source[family as usize];
        let Source::Address(src) = self.flow.src else {
            return Ok(format!("{own:?}"));
        };
        let mut address = Addr::from(src);
        if self.world.translation(id.into())?.outward(&mut address) || self.config.flags & DEFRAGMENTED == 0 {
            return Ok(format!("{address:?}"));
        }
        Ok(format!("{own:?}"))
    }

    /// What takes the kernel's route.
    fn leave(&self, mut answer: Answer, alone: Alone) -> Result<Answer> {
        let routed = match alone.route {
            Some(routed) => routed,
            None => self.world.route(&Ask::of(self.flow, self.scene))?,
        };
        answer.outcome = Outcome::LeftAlone;
        (answer.reason, answer.text) = (alone.reason.into(), alone.text);
        answer.route = Some(super::describe::route(&routed));
        Ok(answer)
    }

    pub(super) fn unmarked(&self) -> Result<Routed> {
        self.world.route(&Ask::of(self.flow, self.scene))
    }

    /// Whether a route means all uplinks.
    pub(super) fn is_ours(&self, way: &Way) -> Result<bool> {
        self.world.is_ours(&way.next_hop())
    }
}

/// Whether the next plain packet takes it.
const fn is_used(path: &Learned) -> bool {
    path.answered && path.open && path.seen_s < path.trust_s
}

fn of_fast_path(path: &Learned) -> String {
    let Learned {
        seen_s,
        trust_s,
        longest,
        ..
    } = path;
    let why = match path {
        path if !path.answered => "no answer was seen yet".to_owned(),
        path if !path.open => "its next hop was lost or forgotten".to_owned(),
        path if !is_used(path) => format!("the kernel saw it {seen_s} s ago, and has to every {trust_s} s"),
        _ => {
            return format!(
                "fast path: its packets are rewritten and sent on by the driver, as the kernel did it {seen_s} s ago; the kernel \
                 sees one every {trust_s} s, and what is longer than {longest} bytes, has options, or opens or closes a connection"
            );
        }
    };
    format!("fast path: the next packet is the kernel's, as {why}")
}

fn no_slot() -> Alone {
    Alone {
        reason: Reason::BadSlot.name(),
        text: "no uplink serves its address family".into(),
        route: None,
    }
}
