//! The packet path. Unsure means: leave the packet to the kernel, untouched.

use aya_ebpf::programs::TcContext;
use uplink_common::{ABI, Config, Family, FlowKey, Reason, record::DEFRAGMENTED};

use crate::{
    act, exempt,
    maps::{CONFIG, LOCALS},
    parse, pick, pinned, skb,
};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to our MAC.
const PACKET_HOST: u32 = 0;

/// The policy of what no other policy matches.
const EVERYTHING_ELSE: u32 = 0;

/// Steers one packet and counts the outcome.
#[inline(always)]
pub fn steer(ctx: &TcContext) {
    let reason = match path(ctx) {
        Ok(reason) | Err(reason) => reason,
    };
    act::count(reason);
}

/// Counts what came back for this host, and nothing else.
#[inline(always)]
pub fn count(ctx: &TcContext) {
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return;
    };
    let Some(address) = parse::destination(&bytes, &network) else {
        return;
    };
    // SAFETY: a copy of four bytes that user space writes whole.
    if let Some(uplink) = unsafe { LOCALS.get(&address) } {
        act::receive(ctx, *uplink);
    }
}

/// `Ok` steered, `Err` left alone.
#[inline(always)]
fn path(ctx: &TcContext) -> Result<Reason, Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NotReady)?;
    if config.abi != ABI {
        return Err(Reason::NotReady);
    }
    if skb::fields(ctx).pkt_type != PACKET_HOST {
        return Err(Reason::NotForUs);
    }
    if skb::fields(ctx).mark & config.mask != 0 {
        return Err(Reason::Marked);
    }
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes)?;
    let mut key = FlowKey::default();
    let defragmented = config.flags & DEFRAGMENTED != 0;
    parse::flow(&bytes, &network, defragmented, &mut key)?;
    exempt::by_address(network.family, &key)?;
    // SAFETY: a copy of four bytes that user space writes whole.
    if let Some(uplink) = unsafe { LOCALS.get(&key.dst) } {
        act::receive(ctx, *uplink);
        return Err(Reason::Local);
    }
    match pinned::find(network.family, &key, pinned::now_s()) {
        pinned::Found::Valid(0) => Err(Reason::KernelPinned),
        pinned::Found::Valid(uplink) => {
            act::send(ctx, config, uplink, false);
            Ok(Reason::Pinned)
        }
        pinned::Found::Stale(was) => place(ctx, config, network.family, &key, Some(was)),
        pinned::Found::None => place(ctx, config, network.family, &key, None),
    }
}

/// Finds an uplink for a flow without a valid pin, and pins it.
#[inline(always)]
fn place(
    ctx: &TcContext,
    config: &Config,
    family: Family,
    key: &FlowKey,
    was: Option<u32>,
) -> Result<Reason, Reason> {
    let now_s = pinned::now_s();
    if let Err(reason) = exempt::by_route(ctx, family, key) {
        pinned::keep(family, key, 0, was.is_some(), now_s);
        return Err(reason);
    }
    let (picked, reason) = pick::pick(config, family, key)?;
    let uplink = pinned::keep(family, key, picked, was.is_some(), now_s);
    if uplink == 0 {
        return Err(Reason::KernelPinned);
    }
    act::send(ctx, config, uplink, true);
    act::placed(EVERYTHING_ELSE);
    match was {
        Some(1..) => Ok(Reason::Repicked),
        _ => Ok(reason),
    }
}
