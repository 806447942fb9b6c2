//! The last step: the mark and the counters.

use aya_ebpf::programs::TcContext;
use uplink_common::{Config, Reason, mark, record::Traffic};

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

/// Marks the packet, and counts a new flow that the uplink is given. Its packets are counted where
/// they leave.
#[inline(always)]
pub fn send(ctx: &TcContext, config: &Config, uplink: u32, new_flow: bool) {
    mark(ctx, config, uplink);
    if new_flow {
        flow(uplink);
    }
}

/// Counts a flow that an uplink was given.
#[inline(always)]
pub fn flow(uplink: u32) {
    if let Some(sent) = SENT.get_ptr_mut(uplink) {
        // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
        unsafe { (*sent).flows += 1 };
    }
}

/// Counts a packet that leaves by an uplink.
#[inline(always)]
pub fn leave(ctx: &TcContext, uplink: u32) {
    if let Some(sent) = SENT.get_ptr_mut(uplink) {
        // SAFETY: as in `flow`.
        add(ctx, unsafe { &mut *sent });
    }
}

/// Counts a packet that came back by an uplink.
#[inline(always)]
pub fn receive(ctx: &TcContext, uplink: u32) {
    if let Some(received) = RECEIVED.get_ptr_mut(uplink) {
        // SAFETY: as in `flow`.
        add(ctx, unsafe { &mut *received });
    }
}

#[inline(always)]
fn add(ctx: &TcContext, traffic: &mut Traffic) {
    traffic.packets += 1;
    traffic.bytes += u64::from(ctx.len());
}

/// Sets the mark of what is to be refused, which a rule answers with ICMP unreachable.
#[inline(always)]
pub fn refuse(ctx: &TcContext, config: &Config) {
    if config.mask >> (config.shift & 31) > config.uplinks {
        ctx.set_mark(skb::fields(ctx).mark | config.mask);
    }
}

/// Counts a packet of a flow that a policy placed.
#[inline(always)]
pub fn carried(policy: u32) {
    if let Some(policy) = POLICIES.get_ptr_mut(policy) {
        // SAFETY: as in `flow`.
        unsafe { (*policy).packets += 1 };
    }
}

/// Counts a flow that a policy placed or refused.
#[inline(always)]
pub fn placed(policy: u32) {
    if let Some(policy) = POLICIES.get_ptr_mut(policy) {
        // SAFETY: as in `flow`.
        unsafe { (*policy).flows += 1 };
    }
}

/// Counts the outcome.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: as in `flow`.
        unsafe { (*counter).packets += 1 };
    }
}
