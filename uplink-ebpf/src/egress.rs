//! What leaves an interface of ours: by an uplink, or inward to a host behind us.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Family, FlowKey, Reason,
    record::{AMBIGUOUS, DEFRAGMENTED, UNTRANSLATED_LEAK},
};

use crate::{
    act, exempt,
    maps::{LEAKS, LOCALS},
    parse, pinned,
    skb::{self, End},
    steer, translate,
};

/// Looks, translates IPv6 prefixes, remembers; never drops.
#[inline(always)]
pub fn egress(ctx: &TcContext) {
    let Ok(config) = steer::config() else {
        return;
    };
    let marked = (skb::fields(ctx).mark & config.mask) >> (config.shift & 31);
    match skb::station(ctx, &skb::linear(ctx), End::Receiver) {
        Some(AMBIGUOUS) => outward(ctx, config, marked),
        Some(uplink) => outward(ctx, config, uplink),
        None if marked != 0 => inward(ctx, config, marked),
        None => {}
    }
}

/// Leaves by an uplink.
#[inline(always)]
fn outward(ctx: &TcContext, config: &Config, uplink: u32) {
    translate::outward(ctx, config, uplink);
    if config.flags & UNTRANSLATED_LEAK != 0 && leaks(ctx, config).is_some() {
        act::count(Reason::Leaked);
    }
}

/// Notes a flow whose packet leaves with a private address that is not ours: NAT is missing.
#[inline(always)]
fn leaks(ctx: &TcContext, config: &Config) -> Option<()> {
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes).ok()?;
    let source = parse::source(&bytes, &network)?;
    // SAFETY: the entry is only tested for presence.
    if !source.is_private(network.family) || unsafe { LOCALS.get(&source) }.is_some() {
        return None;
    }
    let mut key = FlowKey::default();
    let defragmented = config.flags & DEFRAGMENTED != 0;
    parse::flow(&bytes, &network, defragmented, &mut key).ok()?;
    exempt::by_address(network.family, &key).ok()?;
    let _ = LEAKS.insert(&key, &pinned::now_s(), 0);
    Some(())
}

/// Goes to a host behind us with the mark of the uplink that it came in by: the reply, which
/// will have these addresses the other way round, is pinned to that uplink.
#[inline(always)]
fn inward(ctx: &TcContext, config: &Config, uplink: u32) {
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return;
    };
    let mut key = FlowKey::default();
    let defragmented = config.flags & DEFRAGMENTED != 0;
    let Ok(payload) = parse::flow(&bytes, &network, defragmented, &mut key) else {
        return;
    };
    if parse::opens(&bytes, &key, payload) && is_forwarded(&key) {
        remember(network.family, &key, uplink);
    }
}

/// Not what this host sends itself.
#[inline(always)]
fn is_forwarded(key: &FlowKey) -> bool {
    // SAFETY: the entry is only tested for presence.
    unsafe { LOCALS.get(&key.src) }.is_none()
}

#[inline(always)]
fn remember(family: Family, key: &FlowKey, uplink: u32) {
    pinned::keep(family, &key.reversed(), uplink, false, pinned::now_s());
}
