//! A flow without a valid pin: whether it is ours, its policy, its uplink, its pin.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Reason,
    policy::{Choice, Field, mac_value},
};

use crate::{
    act, exempt, inbound,
    maps::SCRATCH,
    parse::{self, Bytes as _, Packet},
    pick,
    pinned::{self, Given},
    policy::{self, About, UNKNOWN},
    skb, steer,
};

/// [`Packet::was`]: the flow is new.
pub const BY_NOBODY: u32 = 0;
/// [`Packet::was`]: it was left to the kernel, some time ago.
pub const BY_KERNEL: u32 = 1;
/// [`Packet::was`]: it had an uplink, which died.
pub const BY_UPLINK: u32 = 2;

/// Why the flow is none of ours, if so; the kernel is not asked again for some time.
///
/// Not inlined, and all that it and those that follow are told is in memory: the verifier looks at them
/// once, not once for each way here.
#[inline(never)]
pub fn leave_alone(ctx: &TcContext, config: &Config, packet: &Packet) -> Option<Reason> {
    let now_s = pinned::now_s();
    if steer::is_stale(config, now_s) {
        return Some(Reason::Stale);
    }
    let (family, key) = (packet.family(), &packet.key);
    let reason = exempt::by_route(ctx, family, key).err()?;
    if let Some(reason) = inbound::keep(ctx, config, u32::from(packet.back), key, family) {
        return Some(reason);
    }
    let again = packet.was != BY_NOBODY;
    pinned::keep(family, key, Given::uplink(0), again, now_s);
    Some(reason)
}

/// The flow's policy, as [`policy::find`] answers.
#[inline(never)]
pub fn policy_of(ctx: &TcContext, config: &Config, packet: &Packet) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `steer::packet`.
    let about = unsafe { &mut (*scratch).about };
    *about = About {
        iif: skb::fields(ctx).ifindex,
        dscp: UNKNOWN,
        mac: 0,
        now_s: pinned::now_s(),
        bank: config.policy_bank,
    };
    if policy::fields(about.bank) & (Field::Dscp.bit() | Field::Mac.bit()) != 0 {
        look_closer(ctx, about);
    }
    policy::find::<false>(config, &packet.key, about)
}

/// Finds an uplink for the flow, and pins it.
#[inline(never)]
pub fn place(ctx: &TcContext, config: &Config, packet: &Packet) -> Reason {
    let (family, key, now_s) = (packet.family(), &packet.key, pinned::now_s());
    let choice = policy::choice(packet.policy);
    let (given, reason) = match pick::by_policy(config, family, key, choice, now_s) {
        Ok(picked) => picked,
        Err(Reason::Refused) => return refuse(ctx, config, choice),
        Err(reason) => return reason,
    };
    let again = packet.was != BY_NOBODY;
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
