//! Next-hop mode: a pinned flow's packet goes to its uplink's gateway past the kernel's forwarding.
//!
//! Every check comes before the first write. What does not pass goes the kernel's way, with its mark.

use aya_ebpf::{
    bindings::{TC_ACT_REDIRECT, bpf_redir_neigh as Neighbour, bpf_redir_neigh__bindgen_ty_1 as Next},
    helpers::generated::bpf_redirect_neigh,
    programs::TcContext,
};
use uplink_common::{
    Addr, Config, Family, Uplink,
    hop::{self, PAST, Size},
    record::{NEXT_HOP_V4, NEXT_HOP_V6},
};

use crate::{
    exempt::{AF_INET, AF_INET6, words},
    maps::{FLOWS, UPLINKS},
    parse::{self, Bytes as _, ETH_IPV4, ETH_IPV6, ETH_LEN, Packet, RESET, SYN, SYN_ACK, TCP, be16},
    pinned,
    skb::{self, Linear},
};

/// `BPF_F_RECOMPUTE_CSUM`: where the card has summed up the packet, that sum has to follow.
const RECOMPUTE: u64 = 1;

/// Whether pinned flows may pass: somebody has to be there who notices a new firewall.
#[inline(always)]
pub fn is_on(config: &Config, family: Family, now_s: u32) -> bool {
    config.flags & family.next_hop_flag() != 0 && now_s.saturating_sub(config.heartbeat_s) <= hop::ALIVE_S
}

/// Sends the packet to the uplink's gateway, if it may pass. It has its mark already.
///
/// Not inlined: in mark mode nobody comes here, and the verifier looks at it once.
#[inline(never)]
pub fn forward(ctx: &TcContext, uplink: u32) -> bool {
    let Some(u) = UPLINKS.get(uplink) else {
        return false;
    };
    let fields = skb::fields(ctx);
    // A tag beside the packet would go along, one within it is no IP to the kernel's function.
    if u.ifindex == 0 || fields.vlan_present != 0 || fields.tc_index != 0 {
        return false;
    }
    let bytes = skb::linear(ctx);
    let Some(ethertype) = bytes.get(ETH_LEN - 2).map(be16) else {
        return false;
    };
    let (family, ready) = match ethertype {
        ETH_IPV4 => (Family::V4, v4(ctx, &bytes, size(ctx, u.mtu[0]))),
        ETH_IPV6 => (Family::V6, v6(ctx, &bytes, size(ctx, u.mtu[1]))),
        _ => return false,
    };
    ready && redirect(ctx, u, family)
}

#[inline(always)]
fn size(ctx: &TcContext, mtu: u32) -> Size {
    Size {
        frame: ctx.len(),
        segment: skb::fields(ctx).gso_size,
        mtu,
    }
}

/// Whether the packet may pass and is ready to.
#[inline(always)]
fn v4(ctx: &TcContext, bytes: &Linear, size: Size) -> bool {
    let Some(head) = bytes.get::<12>(ETH_LEN) else {
        return false;
    };
    let [a, tos, c, d, e, f, g, h, ttl, proto, high, low] = head;
    let Some(length) = hop::v4([a, tos, c, d, e, f, g, h, ttl, proto], size) else {
        return false;
    };
    if !upper(bytes, proto, length, 20, size) {
        return false;
    }
    // The header sums up to the same as before, so nothing has to be computed anew.
    if ctx
        .store(ETH_LEN + 8, &hop::later([ttl, proto, high, low]), 0)
        .is_err()
    {
        return false;
    }
    // SAFETY: the context is valid during the program, and the field may be written.
    unsafe { (*ctx.skb.skb).priority = hop::priority(tos) };
    true
}

/// As `v4`.
#[inline(always)]
fn v6(ctx: &TcContext, bytes: &Linear, size: Size) -> bool {
    let Some(head) = bytes.get::<8>(ETH_LEN) else {
        return false;
    };
    let Some(length) = hop::v6(head, size) else {
        return false;
    };
    let [.., next, limit] = head;
    if parse::is_extension(u32::from(next)) || !upper(bytes, next, length, 40, size) {
        return false;
    }
    ctx.store(ETH_LEN + 7, &(limit - 1), RECOMPUTE).is_ok()
}

/// Whether what is behind an IP header of `at` bytes may pass.
#[inline(always)]
fn upper(bytes: &Linear, proto: u8, length: u32, at: u32, size: Size) -> bool {
    if proto != TCP {
        return hop::fits(length, size);
    }
    let head = bytes.get::<2>(ETH_LEN + at as usize + 12);
    head.is_some_and(|head| hop::segment(length, at, head, size))
}

#[inline(always)]
fn redirect(ctx: &TcContext, u: &Uplink, family: Family) -> bool {
    let gateway = match family {
        Family::V4 => &u.gateway[0],
        Family::V6 => &u.gateway[1],
    };
    let mut neighbour = neighbour(gateway);
    // SAFETY: the context is valid during the program, and the field may be written.
    unsafe { (*ctx.skb.skb).tc_index = PAST };
    let size = size_of::<Neighbour>() as i32;
    // SAFETY: the structure is valid for the call and its size is told.
    let sent = unsafe { bpf_redirect_neigh(u.ifindex, &raw mut neighbour, size, 0) };
    sent == i64::from(TC_ACT_REDIRECT)
}

/// Every word is written at once: the compiler makes a loop of what zeroes them first.
#[inline(always)]
fn neighbour(gateway: &Addr) -> Neighbour {
    let (nh_family, to) = match gateway.family() {
        // The union's first word.
        Family::V4 => (AF_INET, [u32::from_ne_bytes(gateway.last4()), 0, 0, 0]),
        Family::V6 => (AF_INET6, words(gateway)),
    };
    Neighbour {
        nh_family: u32::from(nh_family),
        __bindgen_anon_1: Next { ipv6_nh: to },
    }
}

/// At egress: notes whether the packet came past the kernel's forwarding. Nobody behind sees what told it.
#[inline(always)]
pub fn note(ctx: &TcContext, config: &Config, packet: &mut Packet) {
    packet.past = 0;
    if config.flags & (NEXT_HOP_V4 | NEXT_HOP_V6) != 0 && skb::fields(ctx).tc_index == PAST {
        packet.past = 1;
        // SAFETY: the context is valid during the program, and the field may be written.
        unsafe { (*ctx.skb.skb).tc_index = 0 };
    }
}

/// At egress: whether the packet went the kernel's way with an uplink's mark, and left by an uplink.
#[inline(always)]
pub fn learns(config: &Config, packet: &Packet, value: u32) -> bool {
    config.flags & (NEXT_HOP_V4 | NEXT_HOP_V6) != 0
        && packet.past == 0
        && packet.out != 0
        && value != 0
        && value <= config.uplinks
}

/// At egress: the flow went the kernel's way and left by this uplink, whatever its pin says. Conntrack
/// may know better than a pin that was made in the middle of a connection. From now on the
/// flow may pass, unless that uplink takes no new flows: then it keeps going the kernel's way.
///
/// How a connection opens does not count, so that conntrack sees the third packet of it, too.
///
/// Not inlined: it runs seldom.
#[inline(never)]
pub fn learn(config: &Config, packet: &Packet, value: u32) {
    if !learns(config, packet, value) || matches!(packet.sign, SYN | SYN_ACK | RESET) {
        return;
    }
    let (family, uplink) = (packet.family(), u32::from(packet.out));
    let (Some(pin), Some(u)) = (FLOWS.get_ptr_mut(&packet.key), UPLINKS.get(uplink)) else {
        return;
    };
    // SAFETY: as in `pinned::find`.
    let pin = unsafe { &mut *pin };
    if pin.uplink == 0 || pinned::generation(u32::from(pin.uplink), family) != pin.generation {
        return;
    }
    if u32::from(pin.uplink) != uplink {
        if u.families & family.bit() == 0 {
            return;
        }
        // Whoever sees half of it takes the pin for void, and conntrack decides again.
        pin.generation = pinned::generation(uplink, family);
        pin.uplink = uplink as u8;
    }
    pin.seen = uplink as u8;
    pinned::changed(config, &packet.key);
}
