//! What comes in by an uplink: its reply must leave by the same one.
//!
//! The uplink is known from the destination, where only one uplink has that address, else from the
//! gateway's MAC address. The mark that is set here reaches conntrack with the first packet, and
//! from there every reply, of this host or of a server behind it.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Config, Family, FlowKey, Reason,
    record::{AMBIGUOUS, TRANSIT},
};

use crate::{
    act, learn,
    parse::Packet,
    passive,
    pinned::{self, Given},
    skb::{self, End},
};

/// For this host, or for a server behind it that somebody's NAT knows. `owner` is the uplink that
/// the address belongs to, or 0.
#[inline(always)]
pub fn to_host(
    ctx: &TcContext,
    config: &Config,
    owner: u32,
    packet: &Packet,
    family: Family,
    opens: bool,
) -> Result<Reason, Reason> {
    let uplink = if owner != 0 { owner } else { sender(ctx) };
    if uplink == 0 {
        return Err(Reason::Local);
    }
    act::receive(ctx, uplink);
    passive::echo(packet, uplink, family);
    // To this host, or to somebody behind its NAT.
    learn::ask(ctx, config, uplink, 0);
    if !opens {
        return Err(Reason::Local);
    }
    act::mark(ctx, config, uplink);
    Ok(Reason::Inbound)
}

/// What came in for a host behind this one, with its own address: counted. Returns the uplink that it
/// came in by, 0 where it did not come from a gateway, or nobody may be reached so.
#[inline(always)]
pub fn transit(ctx: &TcContext, config: &Config, packet: &Packet, family: Family) -> u32 {
    if config.flags & TRANSIT == 0 {
        return 0;
    }
    let uplink = sender(ctx);
    if uplink != 0 {
        act::receive(ctx, uplink);
        passive::echo(packet, uplink, family);
    }
    uplink
}

/// Pins the reply to a connection that came in by an uplink. `None` where it did not.
#[inline(always)]
pub fn keep(ctx: &TcContext, config: &Config, uplink: u32, key: &FlowKey, family: Family) -> Option<Reason> {
    if uplink == 0 {
        return None;
    }
    pinned::keep(
        family,
        &key.reversed(),
        Given::uplink(uplink),
        false,
        pinned::now_s(),
    );
    act::mark(ctx, config, uplink);
    Some(Reason::Inbound)
}

/// The uplink whose gateway sent the frame, 0 where that is nobody's or several.
#[inline(always)]
fn sender(ctx: &TcContext) -> u32 {
    skb::station(ctx, &skb::linear(ctx), End::Sender).unwrap_or(AMBIGUOUS)
}
