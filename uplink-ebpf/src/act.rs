//! The last step: the mark and the counters.

use aya_ebpf::programs::TcContext;
use uplink_common::{Config, Reason, mark};

use crate::{
    maps::{COUNTERS, POLICIES, RECEIVED, SENT, UPLINKS},
    skb,
};

/// Sets our bits of the mark.
#[inline(always)]
pub fn mark(ctx: &TcContext, config: &Config, uplink: u32) {
    if let Some(u) = UPLINKS.get(uplink) {
        ctx.set_mark(mark::merge(skb::fields(ctx).mark, config.mask, u.mark));
    }
}

/// Marks the packet and counts what the uplink is given.
#[inline(always)]
pub fn send(ctx: &TcContext, config: &Config, uplink: u32, new_flow: bool) {
    mark(ctx, config, uplink);
    let Some(sent) = SENT.get_ptr_mut(uplink) else {
        return;
    };
    // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
    let sent = unsafe { &mut *sent };
    sent.packets += 1;
    sent.bytes += u64::from(ctx.len());
    sent.flows += u64::from(new_flow);
}

/// Counts a packet that came back by an uplink.
#[inline(always)]
pub fn receive(ctx: &TcContext, uplink: u32) {
    let Some(received) = RECEIVED.get_ptr_mut(uplink) else {
        return;
    };
    // SAFETY: as in `send`.
    let received = unsafe { &mut *received };
    received.packets += 1;
    received.bytes += u64::from(ctx.len());
}

/// Counts a socket of this host that an uplink was given; its packets are not seen here.
#[inline(always)]
pub fn send_socket(uplink: u32) {
    if let Some(sent) = SENT.get_ptr_mut(uplink) {
        // SAFETY: as in `send`.
        unsafe { (*sent).flows += 1 };
    }
}

/// Counts a flow that a policy placed.
#[inline(always)]
pub fn placed(policy: u32) {
    if let Some(policy) = POLICIES.get_ptr_mut(policy) {
        // SAFETY: as in `send`.
        unsafe { (*policy).flows += 1 };
    }
}

/// Counts the outcome.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: as in `send`.
        unsafe { (*counter).packets += 1 };
    }
}
