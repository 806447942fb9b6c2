//! Reads a packet at egress, and no more of it than is needed: most belong to connections under way,
//! of which nobody wants to know the key.

use aya_ebpf::programs::TcContext;
use uplink_common::{Config, record::DEFRAGMENTED};

use crate::{
    parse::{self, NOTHING, Packet},
    skb, steer,
};

/// What a look at the packet says.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Look {
    /// Not IP, or hardly.
    Unreadable,
    /// To be read whole.
    Whole,
    /// It asks nothing, and its key may not be wanted.
    UnderWay,
}

/// Notes family and source, and whether the rest is of interest.
#[inline(always)]
pub fn look(ctx: &TcContext) -> Look {
    let bytes = skb::linear(ctx);
    let (Ok(network), Ok(packet)) = (parse::network(&bytes), steer::packet()) else {
        return Look::Unreadable;
    };
    let Some(source) = parse::source(&bytes, &network) else {
        return Look::Unreadable;
    };
    packet.source = source;
    packet.v6 = network.family as u32;
    (packet.opens, packet.out, packet.back, packet.leaks) = (0, 0, 0, 0);
    let glance = parse::glance(&bytes, &network);
    packet.sign = glance.unwrap_or(NOTHING);
    match glance {
        Some(_) => Look::UnderWay,
        None => Look::Whole,
    }
}

/// Reads the key and the sign, and says whether it could. A packet that cannot be read has no sign and opens
/// nothing.
///
/// Not inlined: behind it the verifier knows nothing more of the ways through the headers, and does not
/// look at all that follows once for each.
#[inline(never)]
pub fn whole(ctx: &TcContext, config: &Config, packet: &mut Packet) -> bool {
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return false;
    };
    let defragmented = config.flags & DEFRAGMENTED != 0;
    match parse::flow(&bytes, &network, defragmented, packet) {
        Ok(opens) => {
            packet.opens = u8::from(opens);
            true
        }
        // Without a whole key nobody knows what leaked.
        Err(_) => {
            packet.leaks = 0;
            false
        }
    }
}
