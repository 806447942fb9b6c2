//! What leaves an interface of ours: by an uplink, or inward to a host behind us.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Reason,
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
    let gateway = skb::station(ctx, &skb::linear(ctx), End::Receiver);
    let uplink = match gateway {
        Some(uplink) if uplink != AMBIGUOUS => uplink,
        _ => marked,
    };
    if gateway.is_some() {
        translate::outward(ctx, config, uplink);
        if config.flags & UNTRANSLATED_LEAK == 0 || !has_foreign_private_source(ctx) {
            return;
        }
    } else if uplink == 0 || uplink > config.uplinks {
        // No mark, or one that names no uplink: this host's sockets and resets have such.
        return;
    }
    note(ctx, config, gateway.is_some(), uplink);
}

/// A private source address that is not ours: NAT is missing.
#[inline(always)]
fn has_foreign_private_source(ctx: &TcContext) -> bool {
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return false;
    };
    let source = parse::source(&bytes, &network).unwrap_or_default();
    // SAFETY: the entry is only tested for presence.
    source.is_private(network.family) && unsafe { LOCALS.get(&source) }.is_none()
}

/// What is remembered of a packet: outward, that its flow leaves without NAT; inward, with the
/// mark of the uplink that it came in by, that the reply belongs to that uplink.
#[inline(always)]
fn note(ctx: &TcContext, config: &Config, outward: bool, uplink: u32) {
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return;
    };
    let Ok(key) = steer::scratch() else {
        return;
    };
    let defragmented = config.flags & DEFRAGMENTED != 0;
    let Ok(opens) = parse::flow(&bytes, &network, defragmented, key) else {
        return;
    };
    let now_s = pinned::now_s();
    if outward {
        if exempt::by_address(network.family, key).is_ok() {
            act::count(Reason::Leaked);
            let _ = LEAKS.insert(&*key, &now_s, 0);
        }
        return;
    }
    // What this host sends itself has no reply that enters here.
    // SAFETY: the entry is only tested for presence.
    if opens && unsafe { LOCALS.get(&key.src) }.is_none() {
        pinned::keep(network.family, &key.reversed(), uplink, false, now_s);
    }
}
