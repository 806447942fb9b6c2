//! What leaves an interface of ours: by an uplink, or inward to a host behind us.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Reason,
    record::{DEFRAGMENTED, UNTRANSLATED_LEAK},
};

use crate::{
    act, exempt,
    maps::{LEAKS, LOCALS, UPLINKS},
    parse::{self, Packet},
    passive, pinned,
    skb::{self, End},
    steer, translate,
};

/// Looks, counts, translates IPv6 prefixes, remembers; never drops. Most packets have no mark and a
/// public source, and cost no look-up, or this host's own, and cost one.
#[inline(always)]
pub fn egress(ctx: &TcContext) {
    let Ok(config) = steer::config() else {
        return;
    };
    // Before the translation, as `steer` reads the answer behind its own.
    let opens = match read(ctx, config.flags & DEFRAGMENTED != 0) {
        UNREADABLE => return,
        opens => opens == OPENS,
    };
    let Ok(packet) = steer::packet() else {
        return;
    };
    let value = (skb::fields(ctx).mark & config.mask) >> (config.shift & 31);
    let translated = translate::outward(ctx, config, value);
    let private = packet.source.is_private(packet.family());
    let leaks = private && !translated && config.flags & UNTRANSLATED_LEAK != 0;
    let uplink = named(config, value);
    if uplink == 0 && !leaks && !passive::asks(packet) {
        return;
    }
    // Sent by this host, or given its address by NAT.
    // SAFETY: a copy of four bytes that user space writes whole.
    match unsafe { LOCALS.get(&packet.source) } {
        Some(owner) => own(ctx, packet, *owner, uplink),
        None => others(ctx, config, packet, value, opens, leaks),
    }
}

/// In answers of [`read`].
const UNREADABLE: u32 = 0;
const LATER: u32 = 1;
const OPENS: u32 = 2;

/// Reads the packet; without a flow it still has to be translated and counted.
///
/// Not inlined: behind it the verifier knows nothing more of the ways through the headers.
#[inline(never)]
fn read(ctx: &TcContext, defragmented: bool) -> u32 {
    let bytes = skb::linear(ctx);
    let (Ok(network), Ok(packet)) = (parse::network(&bytes), steer::packet()) else {
        return UNREADABLE;
    };
    packet.v6 = network.family as u32;
    packet.source = parse::source(&bytes, &network).unwrap_or_default();
    match parse::flow(&bytes, &network, defragmented, packet) {
        Ok(true) => OPENS,
        _ => LATER,
    }
}

/// The uplink that a mark names, this host's sockets' included; 0: none. `value` is the mark shifted.
#[inline(always)]
fn named(config: &Config, value: u32) -> u32 {
    if value <= config.uplinks {
        return value;
    }
    let id = (config.mask >> (config.shift & 31)) - value;
    let named = UPLINKS
        .get(id)
        .is_some_and(|u| u.host_mark == value << (config.shift & 31));
    if named { id } else { 0 }
}

/// From an address of this host. Where that is one uplink's, it says more than the mark: NAT gives the
/// address that fits the route taken.
#[inline(always)]
fn own(ctx: &TcContext, packet: &Packet, owner: u32, uplink: u32) {
    let uplink = if owner != 0 { owner } else { uplink };
    let by = UPLINKS
        .get(uplink)
        .filter(|u| uplink != 0 && u.ifindex == skb::fields(ctx).ifindex);
    if by.is_some() {
        passive::leave(ctx, packet, uplink, packet.family());
    }
}

/// From somebody else's address: outward, with the mark of the uplink or by its gateway's MAC address,
/// or inward.
#[inline(always)]
fn others(ctx: &TcContext, config: &Config, packet: &Packet, value: u32, opens: bool, leaks: bool) {
    match skb::station(ctx, &skb::linear(ctx), End::Receiver) {
        Some(gateway) => {
            let uplink = if gateway != 0 {
                gateway
            } else {
                named(config, value)
            };
            if uplink != 0 {
                passive::leave(ctx, packet, uplink, packet.family());
            }
            if leaks {
                leak(packet);
            }
        }
        // With the mark of the uplink that it came in by, which the reply belongs to.
        // A mark that names no uplink: this host's sockets and resets have such.
        None if opens && value != 0 && value <= config.uplinks => {
            pinned::keep(
                packet.family(),
                &packet.key.reversed(),
                value,
                false,
                pinned::now_s(),
            );
        }
        None => {}
    }
}

/// The flow leaves without NAT.
#[inline(always)]
fn leak(packet: &Packet) {
    if exempt::by_address(packet.family(), &packet.key).is_ok() {
        act::count(Reason::Leaked);
        let _ = LEAKS.insert(&packet.key, pinned::now_s(), 0);
    }
}
