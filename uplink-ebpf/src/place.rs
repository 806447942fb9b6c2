//! A flow without a valid pin: whether it is ours, its policy, its uplink, its pin.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Family, FlowKey, Reason,
    policy::{Choice, Field, mac_value},
};

use crate::{
    act, exempt, inbound,
    maps::SCRATCH,
    parse::{self, Bytes as _, Packet},
    pick,
    pinned::{self, Given},
    policy::{self, About, Origin, UNKNOWN},
    skb, steer,
};

/// [`Packet::was`]: the flow is new.
pub const BY_NOBODY: u32 = 0;
/// [`Packet::was`]: it was left to the kernel, some time ago.
pub const BY_KERNEL: u32 = 1;
/// [`Packet::was`]: it had an uplink, which died.
pub const BY_UPLINK: u32 = 2;

/// Finds an uplink for the flow, and pins it.
///
/// Not inlined, and all that it is told is in memory: the verifier looks at it once, not once for each way
/// here.
#[inline(never)]
pub fn place(ctx: &TcContext, config: &Config, packet: &Packet) -> Reason {
    let now_s = pinned::now_s();
    if steer::is_stale(config, now_s) {
        return Reason::Stale;
    }
    let (family, key) = (packet.family(), &packet.key);
    let again = packet.was != BY_NOBODY;
    if let Err(reason) = is_ours(ctx, config, family, key) {
        if let Some(reason) = inbound::keep(ctx, config, u32::from(packet.back), key, family) {
            return reason;
        }
        pinned::keep(family, key, Given::uplink(0), again, now_s);
        return reason;
    }
    let choice = policy_of(ctx, config, key, now_s);
    let (given, reason) = match pick::by_policy(config, family, key, choice, now_s) {
        Ok(picked) => picked,
        Err(Reason::Refused) => return refuse(ctx, config, choice),
        Err(reason) => return reason,
    };
    let uplink = pinned::keep(family, key, given, again, now_s);
    if uplink == 0 {
        return Reason::KernelPinned;
    }
    act::send(ctx, config, uplink, true);
    act::placed(given.policy);
    if given.policy != steer::EVERYTHING_ELSE {
        act::carried(given.policy);
    }
    match packet.was {
        BY_UPLINK => Reason::Repicked,
        _ => reason,
    }
}

/// What was routed into the aggregate interface is ours; else the kernel is asked.
#[inline(always)]
fn is_ours(ctx: &TcContext, config: &Config, family: Family, key: &FlowKey) -> Result<(), Reason> {
    if skb::fields(ctx).ifindex == config.aggregate {
        return Ok(());
    }
    exempt::by_route(ctx, family, key)
}

/// The policy of a new flow.
#[inline(always)]
fn policy_of(ctx: &TcContext, config: &Config, key: &FlowKey, now_s: u32) -> Option<&'static Choice> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: as in `steer::packet`.
    let about = unsafe { &mut (*scratch).about };
    *about = About {
        iif: skb::fields(ctx).ifindex,
        dscp: UNKNOWN,
        mac: 0,
        now_s,
        pad: 0,
    };
    if policy::fields(config) & (Field::Dscp.bit() | Field::Mac.bit()) != 0 {
        look_closer(ctx, about);
    }
    policy::find(config, key, about, Origin::Others)
}

/// What the key has not, and few policies ask for.
#[inline(never)]
fn look_closer(ctx: &TcContext, about: &mut About) {
    let bytes = skb::linear(ctx);
    if let Some(mac) = bytes.get(6) {
        about.mac = mac_value(mac);
    }
    if let Ok(network) = parse::network(&bytes) {
        about.dscp = parse::code_point(&bytes, &network).unwrap_or(UNKNOWN);
    }
}

/// The flow gets no uplink: rather an answer than another one.
#[inline(always)]
fn refuse(ctx: &TcContext, config: &Config, choice: Option<&Choice>) -> Reason {
    act::refuse(ctx, config);
    if let Some(choice) = choice {
        act::placed(choice.policy);
    }
    Reason::Refused
}
