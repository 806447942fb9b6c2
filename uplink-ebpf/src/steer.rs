//! The packet path. Unsure means: leave the packet to the kernel, untouched.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    ABI, Config, Family, FlowKey, Reason,
    record::{DEFRAGMENTED, TRANSIT},
};

use crate::{
    act, exempt, inbound,
    maps::{CONFIG, LOCALS},
    parse, pick, pinned, skb, translate,
};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to our MAC.
const PACKET_HOST: u32 = 0;

/// The policy of what no other policy matches.
pub const EVERYTHING_ELSE: u32 = 0;

/// Steers one packet and counts the outcome.
#[inline(always)]
pub fn steer(ctx: &TcContext) {
    let reason = match path(ctx) {
        Ok(reason) | Err(reason) => reason,
    };
    act::count(reason);
}

/// Counts what came back for this host, marks what opens a connection inward, and leaves the rest.
#[inline(always)]
pub fn count(ctx: &TcContext) {
    if let Some(Ok(reason) | Err(reason)) = inward(ctx).transpose() {
        act::count(reason);
    }
}

/// `None`: not for this host.
#[inline(always)]
fn inward(ctx: &TcContext) -> Result<Option<Reason>, Reason> {
    let config = config()?;
    let fields = skb::fields(ctx);
    if fields.pkt_type != PACKET_HOST || fields.mark & config.mask != 0 {
        return Ok(None);
    }
    translate::inward(ctx, config);
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes)?;
    let mut key = FlowKey::default();
    let defragmented = config.flags & DEFRAGMENTED != 0;
    let payload = parse::flow(&bytes, &network, defragmented, &mut key)?;
    let opens = parse::opens(&bytes, &key, payload);
    // SAFETY: a copy of four bytes that user space writes whole.
    match unsafe { LOCALS.get(&key.dst) } {
        Some(owner) => inbound::to_host(ctx, config, *owner, opens).map(Some),
        None if config.flags & TRANSIT != 0 => Ok(inbound::transit(ctx, config, network.family, &key, opens)),
        None => Ok(None),
    }
}

/// The configuration, once user space has written it.
#[inline(always)]
pub fn config() -> Result<&'static Config, Reason> {
    match CONFIG.get(0) {
        Some(config) if config.abi == ABI => Ok(config),
        _ => Err(Reason::NotReady),
    }
}

/// `Ok` steered, `Err` left alone.
#[inline(always)]
fn path(ctx: &TcContext) -> Result<Reason, Reason> {
    let config = config()?;
    if skb::fields(ctx).pkt_type != PACKET_HOST {
        return Err(Reason::NotForUs);
    }
    if skb::fields(ctx).mark & config.mask != 0 {
        return Err(Reason::Marked);
    }
    translate::inward(ctx, config);
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes)?;
    let mut key = FlowKey::default();
    let defragmented = config.flags & DEFRAGMENTED != 0;
    let payload = parse::flow(&bytes, &network, defragmented, &mut key)?;
    exempt::by_address(network.family, &key)?;
    // SAFETY: a copy of four bytes that user space writes whole.
    if let Some(owner) = unsafe { LOCALS.get(&key.dst) } {
        let opens = parse::opens(&bytes, &key, payload);
        return inbound::to_host(ctx, config, *owner, opens);
    }
    match pinned::find(network.family, &key, pinned::now_s()) {
        pinned::Found::Valid(0) => Err(Reason::KernelPinned),
        pinned::Found::Valid(uplink) => {
            act::send(ctx, config, uplink, false);
            Ok(Reason::Pinned)
        }
        found => {
            let opens = parse::opens(&bytes, &key, payload);
            place(ctx, config, network.family, &key, found.was(), opens)
        }
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
    opens: bool,
) -> Result<Reason, Reason> {
    let now_s = pinned::now_s();
    if is_stale(config, now_s) {
        return Err(Reason::Stale);
    }
    if let Err(reason) = exempt::by_route(ctx, family, key) {
        if config.flags & TRANSIT != 0
            && let Some(reason) = inbound::transit(ctx, config, family, key, opens)
        {
            return Ok(reason);
        }
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

/// Whether the daemon has been silent for longer than the user wants to trust its table.
#[inline(always)]
pub fn is_stale(config: &Config, now_s: u32) -> bool {
    config.stale_after_s != 0 && now_s.wrapping_sub(config.heartbeat_s) > config.stale_after_s
}
