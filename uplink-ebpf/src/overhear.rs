//! DNS packets that cross this host are shown to user space, which learns from them what names addresses have.
//! They go on untouched.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use uplink_common::{
    Config, Family, Reason,
    policy::{CAPTURED, Capture, FROM_GATEWAY},
    record::LEARNS,
};

use crate::{
    act,
    maps::{ANSWERS, COPY},
    parse::{self, Bytes as _},
    skb::{self, End},
};

/// The port of DNS.
const DNS: [u8; 2] = [0, 53];
const TCP: u8 = 6;
const UDP: u8 = 17;
const _: () = assert!(CAPTURED.is_power_of_two());

/// Shows a DNS packet, where policies go by names.
#[inline(always)]
pub fn overhear(ctx: &TcContext, config: &Config, inward: bool) {
    if config.flags & LEARNS != 0 {
        show(ctx, u32::from(inward));
    }
}

/// Not inlined: seldom anything to do, and how it was found is forgotten.
#[inline(never)]
fn show(ctx: &TcContext, inward: u32) {
    let Some(offset) = network_offset(ctx) else {
        return;
    };
    let Some(copy) = COPY.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU entry, used by one packet program at a time.
    let copy = unsafe { &mut *copy };
    let whole = ctx.len().wrapping_sub(offset);
    copy.capture = Capture {
        length: if whole > CAPTURED { CAPTURED } else { whole },
        whole,
        ifindex: skb::fields(ctx).ifindex,
        inward: origin(ctx, inward),
    };
    // Read back, or the compiler knows more than the verifier, which has to see the bounds here. An empty
    // packet has no ports, so this changes nothing.
    // SAFETY: a field of a valid structure.
    let length = unsafe { (&raw const copy.capture.length).read_volatile() };
    let length = (length.wrapping_sub(1) & (CAPTURED - 1)) + 1;
    // SAFETY: the buffer has room for CAPTURED bytes, and `length` is at most that.
    if unsafe { bpf_skb_load_bytes(ctx.as_ptr(), offset, copy.bytes.as_mut_ptr().cast(), length) } != 0 {
        return;
    }
    let all = size_of::<Capture>() + length as usize;
    // SAFETY: the header and as many bytes behind it as were just written.
    let record = unsafe { core::slice::from_raw_parts((&raw const *copy).cast::<u8>(), all) };
    let heard = ANSWERS.output_untyped::<[u8]>(record, 0).is_ok();
    act::count(if heard { Reason::Overheard } else { Reason::Unheard });
}

/// A question is nobody's behind this host if it comes from a gateway.
#[inline(always)]
fn origin(ctx: &TcContext, inward: u32) -> u32 {
    if inward != 0 && skb::station(ctx, &skb::linear(ctx), End::Sender).is_some() {
        return FROM_GATEWAY;
    }
    inward
}

/// Where the IP header of a DNS packet begins. Fragments and extension headers hide a port; nobody learns
/// from those.
#[inline(always)]
fn network_offset(ctx: &TcContext) -> Option<u32> {
    let bytes = skb::linear(ctx);
    let network = parse::network(&bytes).ok()?;
    let (proto, upper) = match network.family {
        Family::V4 => {
            let head: [u8; 10] = bytes.get(network.offset)?;
            (head[9], network.offset + (head[0] & 0x0f) as usize * 4)
        }
        Family::V6 => {
            let head: [u8; 8] = bytes.get(network.offset)?;
            (head[6], network.offset + 40)
        }
    };
    if proto != UDP && proto != TCP {
        return None;
    }
    let ports: [u8; 4] = bytes.get(upper)?;
    let (from, to) = ([ports[0], ports[1]], [ports[2], ports[3]]);
    (from == DNS || to == DNS).then_some(network.offset as u32)
}
