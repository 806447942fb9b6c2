//! What leaves an interface of ours: by an uplink, or inward to a host behind us.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Reason,
    record::{DEFRAGMENTED, UNTRANSLATED_LEAK},
};

use crate::{
    act, exempt,
    maps::{LEAKS, LOCALS},
    parse, pinned,
    skb::{self, End},
    steer, translate,
};

/// Looks, translates IPv6 prefixes, remembers; never drops. Most packets have no mark and a public
/// source, or this host's own: they cost no look-up, or one.
#[inline(always)]
pub fn egress(ctx: &TcContext) {
    let Ok(config) = steer::config() else {
        return;
    };
    let marked = (skb::fields(ctx).mark & config.mask) >> (config.shift & 31);
    translate::outward(ctx, config, marked);
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return;
    };
    let source = parse::source(&bytes, &network).unwrap_or_default();
    let leaks = config.flags & UNTRANSLATED_LEAK != 0 && source.is_private(network.family);
    if marked == 0 && !leaks {
        return;
    }
    // Sent by this host, or given its address by NAT.
    // SAFETY: the entry is only tested for presence.
    if unsafe { LOCALS.get(&source) }.is_some() {
        return;
    }
    let outward = skb::station(ctx, &bytes, End::Receiver).is_some();
    // A mark that names no uplink: this host's sockets and resets have such.
    let inward = !outward && marked != 0 && marked <= config.uplinks;
    if (outward && leaks) || inward {
        note(ctx, config, outward, marked);
    }
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
    if opens {
        pinned::keep(network.family, &key.reversed(), uplink, false, now_s);
    }
}
