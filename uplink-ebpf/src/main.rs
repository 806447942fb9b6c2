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
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

mod act;
mod exempt;
mod maps;
mod parse;
mod pick;
mod pinned;
mod skb;
mod steer;

/// Ingress of an interface where client traffic enters. Marks the packet or leaves it alone,
/// and always lets the next program and the kernel go on.
#[cfg(target_arch = "bpf")]
#[classifier]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    steer::steer(&ctx);
    TC_ACT_UNSPEC
}

/// Ingress of an uplink's interface where no client traffic enters: counts what comes back.
#[cfg(target_arch = "bpf")]
#[classifier]
pub fn uplink_count(ctx: TcContext) -> i32 {
    steer::count(&ctx);
    TC_ACT_UNSPEC
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
