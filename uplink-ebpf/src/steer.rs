//! The packet path. Unsure means: leave the packet to the kernel, untouched.

use aya_ebpf::programs::TcContext;
use uplink_common::{ABI, Config, Reason, record::DEFRAGMENTED};

use crate::{
    act, exempt, inbound, learn, locals,
    maps::{CONFIG, SCRATCH},
    nexthop, overhear,
    parse::{self, Packet},
    passive,
    pinned::{self, Held},
    place, skb, translate,
};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to our MAC.
const PACKET_HOST: u32 = 0;

/// The policy of what no other policy matches.
pub const EVERYTHING_ELSE: u32 = 0;

/// Steers one packet and counts the outcome.
#[inline(always)]
pub fn steer(ctx: &TcContext) -> Reason {
    let reason = match path(ctx) {
        Ok(reason) | Err(reason) => reason,
    };
    act::count(reason);
    reason
}

/// Counts what came back for this host, marks what opens a connection inward, and leaves the rest. `None`: not for this
/// host.
#[inline(always)]
pub fn count(ctx: &TcContext) -> Option<Reason> {
    let (Ok(reason) | Err(reason)) = inward(ctx).transpose()?;
    act::count(reason);
    Some(reason)
}

/// `None`: not for this host.
#[inline(always)]
fn inward(ctx: &TcContext) -> Result<Option<Reason>, Reason> {
    let config = config()?;
    let bytes = skb::linear(ctx);
    if locals::is_spoofed(ctx, config, &bytes) {
        return Err(Reason::Spoofed);
    }
    let fields = skb::fields(ctx);
    if fields.pkt_type != PACKET_HOST || fields.mark & config.mask != 0 {
        return Ok(None);
    }
    translate::inward(ctx, config);
    overhear::overhear(ctx, config, true);
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes)?;
    let packet = packet()?;
    let defragmented = config.flags & DEFRAGMENTED != 0;
    let opens = parse::flow(&bytes, &network, defragmented, packet)?;
    passive::answer(packet, network.family);
    if let Some(owner) = locals::owner(config, &packet.key.dst) {
        return inbound::to_host(ctx, config, owner, packet, network.family, opens).map(Some);
    }
    let uplink = inbound::transit(ctx, config, packet, network.family);
    if uplink != 0 {
        learn::ask(ctx, config, uplink, 0);
    }
    Ok(opens
        .then(|| inbound::keep(ctx, config, uplink, &packet.key, network.family))
        .flatten())
}

/// The configuration, once user space has written it.
#[inline(always)]
pub fn config() -> Result<&'static Config, Reason> {
    match CONFIG.get(0) {
        Some(config) if config.abi == ABI => Ok(config),
        _ => Err(Reason::NotReady),
    }
}

/// Where to put what is known of the packet. The packet programs of a CPU run one after the other, so
/// it is nobody else's meanwhile; the pad bytes stay zero.
#[inline(always)]
pub fn packet() -> Result<&'static mut Packet, Reason> {
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(Reason::NotReady)?;
    // SAFETY: a per-CPU entry, valid as long as the map, and used as said above.
    Ok(unsafe { &mut (*scratch).packet })
}

/// `Ok` steered, `Err` left alone.
#[inline(always)]
fn path(ctx: &TcContext) -> Result<Reason, Reason> {
    let config = config()?;
    let bytes = skb::linear(ctx);
    if locals::is_spoofed(ctx, config, &bytes) {
        return Err(Reason::Spoofed);
    }
    if skb::fields(ctx).pkt_type != PACKET_HOST {
        return Err(Reason::NotForUs);
    }
    if skb::fields(ctx).mark & config.mask != 0 {
        return Err(Reason::Marked);
    }
    translate::inward(ctx, config);
    overhear::overhear(ctx, config, true);
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes)?;
    let packet = packet()?;
    let defragmented = config.flags & DEFRAGMENTED != 0;
    let opens = parse::flow(&bytes, &network, defragmented, packet)?;
    exempt::by_address(network.family, &packet.key)?;
    passive::answer(packet, network.family);
    if let Some(owner) = locals::owner(config, &packet.key.dst) {
        return inbound::to_host(ctx, config, owner, packet, network.family, opens);
    }
    let from = inbound::transit(ctx, config, packet, network.family);
    if from != 0 {
        learn::ask(ctx, config, from, 0);
    }
    let now_s = pinned::now_s();
    let was = match pinned::find(config, network.family, &packet.key, now_s) {
        pinned::Found::Valid(Held { uplink: 0, .. }) => return Err(Reason::KernelPinned),
        pinned::Found::Valid(held) => {
            if from == 0 {
                learn::ask(ctx, config, 0, held.policy);
            }
            act::send(ctx, config, held.uplink, false);
            if held.policy != EVERYTHING_ELSE {
                act::carried(held.policy);
            }
            let past = nexthop::is_on(config, network.family, now_s) && held.passes;
            if past && nexthop::forward(ctx, held.uplink) {
                return Ok(Reason::Forwarded);
            }
            return Ok(Reason::Pinned);
        }
        pinned::Found::Stale(0) => place::BY_KERNEL,
        pinned::Found::Stale(_) => place::BY_UPLINK,
        pinned::Found::None => place::BY_NOBODY,
    };
    packet.v6 = network.family as u32;
    packet.back = if opens { from as u8 } else { 0 };
    packet.was = was;
    if let Some(reason) = place::leave_alone(ctx, config, packet) {
        return Err(reason);
    }
    packet.policy = place::policy_of(ctx, config, packet);
    Ok(place::place(ctx, config, packet))
}

/// Whether the daemon has been silent for longer than the user wants to trust its table.
#[inline(always)]
pub fn is_stale(config: &Config, now_s: u32) -> bool {
    config.stale_after_s != 0 && now_s.saturating_sub(config.heartbeat_s) > config.stale_after_s
}
