//! Entry points only. The path reads top to bottom in [`steer`]: parse, exempt, pinned, pick, act.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the host only checks the types")
)]
// The macro of the entry points expands to functions of its own, without documentation.
#![allow(missing_docs)]
// By reference on purpose: by value a key would be copied on a stack of 512 bytes.
#![allow(clippy::needless_borrows_for_generic_args)]

#[cfg(target_arch = "bpf")]
use aya_ebpf::{
    bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};
#[cfg(target_arch = "bpf")]
use uplink_common::Reason;

mod act;
mod egress;
mod exempt;
mod fast;
mod host;
mod inbound;
mod learn;
mod locals;
mod maps;
mod nexthop;
mod overhear;
mod parse;
mod passive;
mod paths;
mod pick;
mod pinned;
mod place;
mod policy;
mod read;
mod skb;
mod steer;
mod translate;
mod walk;

/// Ingress of an interface where client traffic enters. Marks the packet or leaves it alone, and lets the next
/// program and the kernel go on, unless the kernel alone would refuse the packet's source. In next-hop mode a pinned
/// flow's packet leaves here for its gateway.
#[cfg(target_arch = "bpf")]
#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    verdict(steer::steer(&ctx))
}

/// Ingress of an uplink's interface where no client traffic enters: counts what comes back.
#[cfg(target_arch = "bpf")]
#[classifier]
pub fn uplink_count(ctx: TcContext) -> i32 {
    steer::count(&ctx).map_or(TC_ACT_UNSPEC, verdict)
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
const fn verdict(reason: Reason) -> i32 {
    match reason {
        Reason::Forwarded => TC_ACT_REDIRECT,
        Reason::Spoofed => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}

/// Egress of every interface of ours: what leaves by an uplink, and what comes in through us.
#[cfg(target_arch = "bpf")]
#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    egress::egress(&ctx);
    TC_ACT_UNSPEC
}

/// The wire of an interface of ours, before the kernel has the packet: what it would do is done at once where it is
/// known.
#[cfg(target_arch = "bpf")]
#[xdp(frags)]
pub fn uplink_fast(ctx: XdpContext) -> u32 {
    fast::fast(&ctx).unwrap_or(XDP_PASS)
}

/// A socket of this host connects. Always lets it go on: what a strict policy refuses gets a mark.
#[cfg(target_arch = "bpf")]
#[cgroup_sock_addr(connect4)]
pub fn uplink_connect4(ctx: SockAddrContext) -> i32 {
    host::connect4(&ctx);
    1
}

/// As `uplink_connect4`.
#[cfg(target_arch = "bpf")]
#[cgroup_sock_addr(connect6)]
pub fn uplink_connect6(ctx: SockAddrContext) -> i32 {
    host::connect6(&ctx);
    1
}

/// An unconnected socket of this host sends a datagram. Lets it go on, unless a strict policy refuses.
#[cfg(target_arch = "bpf")]
#[cgroup_sock_addr(sendmsg4)]
pub fn uplink_sendmsg4(ctx: SockAddrContext) -> i32 {
    host::sendmsg4(&ctx)
}

/// As `uplink_sendmsg4`.
#[cfg(target_arch = "bpf")]
#[cgroup_sock_addr(sendmsg6)]
pub fn uplink_sendmsg6(ctx: SockAddrContext) -> i32 {
    host::sendmsg6(&ctx)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
