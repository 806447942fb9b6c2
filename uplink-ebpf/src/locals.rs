//! This host's addresses.

use aya_ebpf::programs::TcContext;
use uplink_common::{Addr, Config, record::GUARDS};

use crate::{
    maps::LOCALS,
    parse,
    skb::{self, Linear},
};

/// The uplink that an address of this host belongs to, or 0; `None` for somebody else's address, which mostly costs no
/// look-up.
#[inline(always)]
pub fn owner(config: &Config, address: &Addr) -> Option<u32> {
    if !config.locals.may_hold(address) {
        return None;
    }
    // SAFETY: a copy of four bytes that user space writes whole.
    unsafe { LOCALS.get(address) }.copied()
}

/// Whether a packet from outside says that it comes from this host, which is what the kernel refuses where
/// `accept_local` does not keep it from looking. That setting is the interface's own, so not that of a tagged frame.
#[inline(always)]
pub fn is_spoofed(ctx: &TcContext, config: &Config, bytes: &Linear) -> bool {
    let fields = skb::fields(ctx);
    if config.flags & GUARDS == 0 || fields.ifindex == config.unguarded || fields.vlan_present != 0 {
        return false;
    }
    parse::untagged_v4_source(bytes).is_some_and(|source| owner(config, &source).is_some())
}
