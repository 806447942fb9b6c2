//! Bytes of a packet, read with bounds checks.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes, programs::TcContext};
use uplink_common::Station;

use crate::{
    maps::STATIONS,
    parse::{Bytes, HEADERS, MAX_EXTENSIONS, Walk},
    walk::{GO_ON, STOP, walk},
};

/// The linear part of an skb.
pub struct Linear {
    data: usize,
    end: usize,
    skb: *mut __sk_buff,
}

/// Makes the headers linear where the driver left them in fragments.
#[inline(always)]
pub fn linear(ctx: &TcContext) -> Linear {
    let want = if ctx.len() < HEADERS { ctx.len() } else { HEADERS };
    if ctx.data_end() - ctx.data() < want as usize {
        // A refusal leaves less to read, which the parser reports as truncated.
        let _ = ctx.pull_data(want);
    }
    Linear {
        data: ctx.data(),
        end: ctx.data_end(),
        skb: ctx.skb.skb,
    }
}

/// A walk and the packet it is on.
#[repr(C)]
struct Steps {
    walk: Walk,
    skb: *mut __sk_buff,
}

extern "C" fn step(_index: u32, steps: *mut Steps) -> i64 {
    // SAFETY: `walk` passes a valid state.
    let steps = unsafe { &mut *steps };
    let mut head = [0; 4];
    let offset = u32::from(steps.walk.offset);
    // SAFETY: the buffer is valid for its four bytes, the context during the program.
    let there = unsafe { bpf_skb_load_bytes(steps.skb.cast(), offset, head.as_mut_ptr().cast(), 4) } == 0;
    if steps.walk.step(there.then_some(head)) {
        GO_ON
    } else {
        STOP
    }
}

impl Bytes for Linear {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N >= 2) };
        if offset > HEADERS as usize || self.data + offset + N > self.end {
            return None;
        }
        // SAFETY: the line above shows that N bytes from here lie before the packet's end, and
        // a byte array needs no alignment.
        Some(unsafe { *((self.data + offset) as *const [u8; N]) })
    }

    /// Seldom needed, and behind it the verifier knows nothing more of the offsets: without that it
    /// would look at all that follows once for each way through the headers.
    #[inline(always)]
    fn walk(&self, state: &mut Walk) {
        let mut steps = Steps {
            walk: *state,
            skb: self.skb,
        };
        walk(MAX_EXTENSIONS, step, &mut steps);
        *state = steps.walk;
    }
}

/// The skb's context fields. All of them are plain loads that the verifier rewrites.
#[inline(always)]
pub fn fields(ctx: &TcContext) -> &__sk_buff {
    // SAFETY: the kernel hands a valid context for the duration of the program.
    unsafe { &*ctx.skb.skb }
}

/// Which end of the link a MAC address belongs to.
#[derive(Clone, Copy)]
pub enum End {
    /// Whom the frame is for.
    Receiver,
    /// Who sent it.
    Sender,
}

/// The uplink whose gateway is at one end of the frame: `None` where no gateway is, else an id or
/// `AMBIGUOUS`.
#[inline(always)]
pub fn station(ctx: &TcContext, bytes: &Linear, end: End) -> Option<u32> {
    let offset = match end {
        End::Receiver => 0,
        End::Sender => 6,
    };
    let station = Station {
        ifindex: fields(ctx).ifindex,
        mac: bytes.get(offset)?,
        pad: [0; 2],
    };
    // SAFETY: a copy of four bytes that user space writes whole.
    unsafe { STATIONS.get(&station) }.copied()
}
