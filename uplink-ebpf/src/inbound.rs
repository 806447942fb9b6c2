//! What comes in by an uplink: its reply must leave by the same one.
//!
//! The uplink is known from the destination, where only one uplink has that address, else from the
//! gateway's MAC address. The mark that is set here reaches conntrack with the first packet, and
//! from there every reply, of this host or of a server behind it.

use aya_ebpf::programs::TcContext;
use uplink_common::{Config, Family, FlowKey, Reason, record::AMBIGUOUS};

use crate::{
    act, pinned,
    skb::{self, End},
};

/// For this host, or for a server behind it that somebody's NAT knows. `owner` is the uplink that
/// the address belongs to, or 0.
#[inline(always)]
pub fn to_host(ctx: &TcContext, config: &Config, owner: u32, opens: bool) -> Result<Reason, Reason> {
    let uplink = if owner != 0 { owner } else { sender(ctx) };
    if uplink == 0 {
        return Err(Reason::Local);
    }
    act::receive(ctx, uplink);
    if !opens {
        return Err(Reason::Local);
    }
    act::mark(ctx, config, uplink);
    Ok(Reason::Inbound)
}

/// For a host behind this one, with its own address: counted, and when it opens a connection the
/// reply is pinned. `None` where it did not come from a gateway.
#[inline(always)]
pub fn transit(
    ctx: &TcContext,
    config: &Config,
    family: Family,
    key: &FlowKey,
    opens: bool,
) -> Option<Reason> {
    let uplink = sender(ctx);
    if uplink == 0 {
        return None;
    }
    act::receive(ctx, uplink);
    if !opens {
        return None;
    }
    pinned::keep(family, &key.reversed(), uplink, false, pinned::now_s());
    act::mark(ctx, config, uplink);
    Some(Reason::Inbound)
}

/// The uplink whose gateway sent the frame, 0 where that is nobody's or several.
#[inline(always)]
fn sender(ctx: &TcContext) -> u32 {
    skb::station(ctx, &skb::linear(ctx), End::Sender).unwrap_or(AMBIGUOUS)
}
