//! What leaves an interface of ours: by an uplink, or inward to a host behind us.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Family, Reason,
    record::{AMBIGUOUS, TRANSLATES, UNTRANSLATED_LEAK},
};

use crate::{
    act, exempt, learn, locals,
    maps::{LEAKS, UPLINKS},
    nexthop, overhear,
    parse::{Packet, STAMPED_DATA},
    passive,
    pinned::{self, Given},
    read::{self, Look},
    skb::{self, End},
    steer, translate,
};

/// Looks, counts, translates IPv6 prefixes, remembers; never drops. Most packets have no mark and a
/// public source, and cost no look-up by hash, or this host's address, and cost one.
#[inline(always)]
pub fn egress(ctx: &TcContext) {
    let (Ok(config), Ok(packet)) = (steer::config(), steer::packet()) else {
        return;
    };
    overhear::overhear(ctx, config, false);
    let value = (skb::fields(ctx).mark & config.mask) >> (config.shift & 31);
    nexthop::note(ctx, config, packet);
    match destine(ctx, config, packet, value) {
        Need::Nothing => return learn::answer(ctx, config, packet),
        Need::Place => {}
        // Before the translation, as `steer` reads the answer behind its own.
        Need::Key => {
            if read::whole(ctx, config, packet) {
                nexthop::learn(config, packet, value);
            }
        }
    }
    let translated = translate::outward(ctx, config, value);
    learn::answer(ctx, config, packet);
    if packet.out != 0 {
        passive::leave(ctx, packet, u32::from(packet.out));
    }
    if packet.back != 0 && packet.opens != 0 {
        reply(packet, u32::from(packet.back));
    }
    if packet.leaks != 0 && !translated {
        leak(packet);
    }
}

/// What a packet needs.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Need {
    /// To be left alone.
    Nothing,
    /// To be counted where it goes.
    Place,
    /// To be read whole, too.
    Key,
}

/// Finds out where the packet goes. `value` is its mark shifted.
///
/// Not inlined, as in `read`: how the answer was found is forgotten.
#[inline(never)]
fn destine(ctx: &TcContext, config: &Config, packet: &mut Packet, value: u32) -> Need {
    let look = read::look(ctx);
    if look == Look::Unreadable {
        return Need::Nothing;
    }
    let translates = config.flags & TRANSLATES != 0;
    let private = config.flags & UNTRANSLATED_LEAK != 0 && packet.source.is_private(packet.family());
    // What this host says itself has no mark without `[local]`, and is counted all the same.
    let inward = value == 0 && !private && !config.locals.may_hold(&packet.source);
    if inward && look == Look::UnderWay && !translates {
        return Need::Nothing;
    }
    if packet.past != 0 {
        // To the gateway that its mark means.
        packet.out = there(ctx, value) as u8;
    } else if fits(ctx, packet, value) {
        packet.out = value as u8;
    } else {
        // Sent by this host, or given its address by NAT.
        match locals::owner(config, &packet.source) {
            Some(owner) => packet.out = own(ctx, config, owner, value) as u8,
            None => others(ctx, config, packet, value, private),
        }
    }
    let learns = nexthop::learns(config, packet, value);
    let due = packet.sign == STAMPED_DATA
        && packet.out != 0
        && passive::is_due(u32::from(packet.out), packet.family());
    if look == Look::Whole || translates || due || learns || packet.leaks | packet.back != 0 {
        return Need::Key;
    }
    Need::Place
}

/// Whether the packet has the mark, the address and the interface of one uplink, as most have that leave: there is
/// nothing to look up then. Where several uplinks have the address, the mark tells as well.
#[inline(always)]
fn fits(ctx: &TcContext, packet: &Packet, value: u32) -> bool {
    let Some(uplink) = UPLINKS.get(value).filter(|_| value != 0) else {
        return false;
    };
    let source = match packet.family() {
        Family::V4 => uplink.source[0],
        Family::V6 => uplink.source[1],
    };
    source == packet.source && uplink.ifindex == skb::fields(ctx).ifindex
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
/// address that fits the route taken. Without a mark it may be for a neighbour on the same wire, so
/// that the gateway's MAC address decides.
#[inline(always)]
fn own(ctx: &TcContext, config: &Config, owner: u32, value: u32) -> u32 {
    let uplink = if value == 0 {
        match skb::station(ctx, &skb::linear(ctx), End::Receiver) {
            Some(AMBIGUOUS) => owner,
            Some(gateway) => gateway,
            None => 0,
        }
    } else if owner != 0 {
        owner
    } else {
        named(config, value)
    };
    there(ctx, uplink)
}

/// The uplink, if this is its interface; else 0.
#[inline(always)]
fn there(ctx: &TcContext, uplink: u32) -> u32 {
    let there = UPLINKS
        .get(uplink)
        .is_some_and(|u| u.ifindex == skb::fields(ctx).ifindex);
    if there { uplink } else { 0 }
}

/// From somebody else's address: outward, by the gateway whose MAC address it has, or inward.
#[inline(always)]
fn others(ctx: &TcContext, config: &Config, packet: &mut Packet, value: u32, private: bool) {
    match skb::station(ctx, &skb::linear(ctx), End::Receiver) {
        Some(gateway) => {
            // Of several with one MAC address the mark tells.
            let uplink = if gateway == AMBIGUOUS {
                named(config, value)
            } else {
                gateway
            };
            packet.out = uplink as u8;
            packet.leaks = u8::from(private);
        }
        // Not this host's sockets and resets, whose marks name no uplink.
        None if value <= config.uplinks => packet.back = value as u8,
        None => {}
    }
}

/// The reply belongs to the uplink that the packet came in by.
#[inline(always)]
fn reply(packet: &Packet, uplink: u32) {
    let now_s = pinned::now_s();
    pinned::keep(
        packet.family(),
        &packet.key.reversed(),
        Given::uplink(uplink),
        false,
        now_s,
    );
}

/// The flow leaves without NAT.
#[inline(always)]
fn leak(packet: &Packet) {
    if exempt::by_address(packet.family(), &packet.key).is_ok() {
        act::count(Reason::Leaked);
        let _ = LEAKS.insert(&packet.key, pinned::now_s(), 0);
    }
}
