//! IPv6 prefix translation (RFC 6296), where an uplink has a prefix of its own for our hosts.
//!
//! Conntrack and routing see the internal addresses only. The translation is neutral to every
//! checksum that covers the addresses, so none is touched, also not in what an error quotes.

use aya_ebpf::programs::TcContext;
use uplink_common::{
    Addr, Config, Family, Translation,
    record::{AMBIGUOUS, TRANSLATES},
};

use crate::{
    maps::TRANSLATIONS,
    parse::{self, Bytes as _},
    skb::{self, End},
};

const SOURCE: usize = 8;
const DESTINATION: usize = 24;

/// What a gateway sent us, at TC ingress.
#[inline(always)]
pub fn inward(ctx: &TcContext, config: &Config) {
    if config.flags & TRANSLATES != 0 {
        let uplink = skb::station(ctx, &skb::linear(ctx), End::Sender).unwrap_or(AMBIGUOUS);
        translate(ctx, uplink, Way::In);
    }
}

/// What leaves by a gateway, at TC egress. Where several gateways have the receiver's MAC address
/// the uplink is that of the mark. Returns whether the source was translated.
#[inline(always)]
pub fn outward(ctx: &TcContext, config: &Config, marked: u32) -> bool {
    if config.flags & TRANSLATES == 0 {
        return false;
    }
    match skb::station(ctx, &skb::linear(ctx), End::Receiver) {
        Some(AMBIGUOUS) => translate(ctx, marked, Way::Out),
        Some(uplink) => translate(ctx, uplink, Way::Out),
        None => false,
    }
}

/// Where a packet was for that came in by an uplink and is for this address inside now.
///
/// Not inlined, as `translate`.
#[inline(never)]
pub fn as_it_came(uplink: u32, destination: &mut Addr) {
    if let Some(translation) = TRANSLATIONS.get(uplink) {
        translation.outward(destination);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
}

/// Not inlined: seldom in use, and its addresses take stack.
#[inline(never)]
fn translate(ctx: &TcContext, uplink: u32, way: Way) -> bool {
    let Some(translation) = TRANSLATIONS.get(uplink).filter(|t| t.length != 0) else {
        return false;
    };
    let bytes = skb::linear(ctx);
    let Ok(network) = parse::network(&bytes) else {
        return false;
    };
    if network.family != Family::V6 {
        return false;
    }
    // An error quotes a packet that went the other way.
    let (own, quoted) = match way {
        Way::In => (DESTINATION, SOURCE),
        Way::Out => (SOURCE, DESTINATION),
    };
    let inner = parse::quoted_by_icmpv6(&bytes, &network);
    let translated = rewrite(ctx, translation, way, network.offset + own);
    if let Some(inner) = inner {
        rewrite(ctx, translation, way, inner + quoted);
    }
    translated
}

/// Every check comes before the write. Without RECOMPUTE_CSUM: the sum does not change.
#[inline(always)]
fn rewrite(ctx: &TcContext, translation: &Translation, way: Way, offset: usize) -> bool {
    let Some(mut address) = skb::linear(ctx).get(offset).map(Addr::v6) else {
        return false;
    };
    let translated = match way {
        Way::In => translation.inward(&mut address),
        Way::Out => translation.outward(&mut address),
    };
    if translated {
        let _ = ctx.store(offset, &address.0, 0);
    }
    translated
}
