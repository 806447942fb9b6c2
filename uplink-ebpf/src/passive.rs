//! What the users' own packets tell of a path, at the interface towards the provider: there the
//! addresses behind NAT are the same both ways. Counted only; user space judges.

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::TcContext,
};
use uplink_common::{
    Family, FlowKey,
    record::{Echo, Opening, PROBE_PRIORITY, Passive, RTT_BUCKETS, passive_index},
};

use crate::{
    act,
    maps::{ECHOES, OPENINGS, PASSIVE, SCRATCH},
    parse::{Packet, QUERY, RESET, RESPONSE, STAMPED, SYN, SYN_ACK},
    skb,
};

/// An echo that has not come by then will not come.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Timestamps are taken at most this often: they tick once a millisecond, and each one taken writes to
/// memory that other CPUs read.
const PACE_NS: u64 = 10_000_000;

/// A question this old is another one with the same ports: hosts give up before.
const FORGOTTEN_NS: u64 = 100_000_000_000;

/// Whether the same question is still open.
#[inline(always)]
fn is_open(opening: &Opening, uplink: u32) -> bool {
    // SAFETY: no arguments, always callable.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    opening.uplink == uplink && now_ns.saturating_sub(opening.sent_ns) < FORGOTTEN_NS
}

/// A packet leaves by an uplink.
#[inline(always)]
pub fn leave(ctx: &TcContext, packet: &Packet, uplink: u32) {
    let family = packet.family();
    act::leave(ctx, uplink);
    if skb::fields(ctx).priority == PROBE_PRIORITY {
        return;
    }
    match packet.sign {
        SYN => open(&packet.key, uplink, family),
        QUERY => query(&packet.key, uplink, family),
        STAMPED if packet.payload != 0 => stamp(packet, uplink, family),
        _ => {}
    }
}

/// A SYN: the first of a connection, or one of those that follow while nobody answers.
///
/// Not inlined, as what follows here: these run seldom.
#[inline(never)]
fn open(key: &FlowKey, uplink: u32, family: Family) {
    let Some(passive) = passive(uplink, family) else {
        return;
    };
    if let Some(opening) = OPENINGS.get_ptr_mut(key) {
        // SAFETY: valid during the program; reused for another opening at worst, whose round-trip
        // time is then not taken.
        let opening = unsafe { &mut *opening };
        if is_open(opening, uplink) {
            opening.more += 1;
            passive.retransmitted += 1;
            return;
        }
    }
    let opening = Opening {
        sent_ns: now_ns(),
        uplink,
        more: 0,
    };
    let _ = OPENINGS.insert(key, opening, 0);
    passive.opened += 1;
}

/// A DNS query. One socket may ask for two records at once, so they are counted, not only noted.
#[inline(never)]
fn query(key: &FlowKey, uplink: u32, family: Family) {
    let Some(passive) = passive(uplink, family) else {
        return;
    };
    passive.queries += 1;
    if let Some(opening) = OPENINGS.get_ptr_mut(key) {
        // SAFETY: as in `open`; one query too many is noted at worst.
        let opening = unsafe { &mut *opening };
        if is_open(opening, uplink) {
            opening.more += 1;
            return;
        }
    }
    let opening = Opening {
        sent_ns: now_ns(),
        uplink,
        more: 1,
    };
    let _ = OPENINGS.insert(key, opening, 0);
}

/// A packet came in: the answer to what is open, perhaps.
#[inline(always)]
pub fn answer(packet: &Packet, family: Family) {
    if matches!(packet.sign, SYN_ACK | RESET | RESPONSE) {
        settle(packet, family);
    }
}

/// Counts for the uplink that the question left by.
#[inline(never)]
fn settle(packet: &Packet, family: Family) {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU entry, used by one packet program at a time.
    let key = unsafe { &mut (*scratch).reverse };
    *key = packet.key.reversed();
    let Some(opening) = OPENINGS.get_ptr_mut(&*key) else {
        return;
    };
    // SAFETY: as in `open`.
    let opening = unsafe { &mut *opening };
    let Some(passive) = passive(opening.uplink, family) else {
        return;
    };
    let Opening { sent_ns, more, .. } = *opening;
    if packet.sign == RESPONSE {
        passive.responses += 1;
        if more > 1 {
            opening.more = more - 1;
            return;
        }
        let _ = OPENINGS.remove(&*key);
        return;
    }
    // Of two answers on two CPUs one closes it.
    if OPENINGS.remove(&*key).is_err() {
        return;
    }
    passive.answered += 1;
    // A reset may be the work of a firewall on the way.
    if packet.sign == SYN_ACK && more == 0 {
        sample(passive, now_ns().saturating_sub(sent_ns));
    }
}

/// Whether the path has room for another timestamp.
#[inline(always)]
pub fn is_due(uplink: u32, family: Family) -> bool {
    echo_of(uplink, family).is_some_and(|echo| may_replace(echo))
}

#[inline(always)]
fn may_replace(echo: &Echo) -> bool {
    // SAFETY: no arguments, always callable. The tick's time: one nanosecond instead of thirty.
    let age_ns = unsafe { bpf_ktime_get_coarse_ns() }.saturating_sub(echo.sent_ns);
    age_ns >= PACE_NS && (echo.awaited == 0 || age_ns >= PATIENCE_NS)
}

/// A segment leaves: its timestamp is remembered, unless another one is awaited. A pure ACK's is not,
/// as nobody answers it.
#[inline(always)]
fn stamp(packet: &Packet, uplink: u32, family: Family) {
    let Some(echo) = echo_of(uplink, family).filter(|echo| may_replace(echo)) else {
        return;
    };
    *echo = Echo {
        sent_ns: now_ns(),
        tsval: packet.tsval,
        remote: packet.key.dst.last4(),
        sport: packet.key.sport,
        dport: packet.key.dport,
        awaited: 1,
    };
}

/// A segment came in by an uplink: it returns the awaited timestamp, perhaps. The time includes what
/// the other end held its ACK back, which is why user space looks at the quick ones of many.
///
/// Two CPUs may take the same echo, or one may see another's half written: one sample too many, or
/// none, as the timestamp has to match.
#[inline(always)]
pub fn echo(packet: &Packet, uplink: u32, family: Family) {
    if packet.sign != STAMPED {
        return;
    }
    let Some(echo) = echo_of(uplink, family) else {
        return;
    };
    let key = &packet.key;
    let ours = key.sport == echo.dport && key.dport == echo.sport && key.src.last4() == echo.remote;
    if echo.awaited == 0 || !ours {
        return;
    }
    match packet.tsecr.wrapping_sub(echo.tsval) {
        0 => returned(echo, uplink, family),
        // Later: its ACK was lost, or went by another segment's timestamp. Nobody knows how long ago
        // that one left.
        1..0x8000_0000 => echo.awaited = 0,
        _ => {}
    }
}

#[inline(never)]
fn returned(echo: &mut Echo, uplink: u32, family: Family) {
    echo.awaited = 0;
    if let Some(passive) = passive(uplink, family) {
        sample(passive, now_ns().saturating_sub(echo.sent_ns));
    }
}

#[inline(always)]
fn sample(passive: &mut Passive, ns: u64) {
    let us = ns / 1_000;
    passive.rtt_us += us;
    passive.rtts += 1;
    let bucket = (us | 1).ilog2().min(RTT_BUCKETS as u32 - 1);
    if let Some(count) = passive.rtt_log2.get_mut(bucket as usize) {
        *count += 1;
    }
}

#[inline(always)]
fn passive(uplink: u32, family: Family) -> Option<&'static mut Passive> {
    let passive = PASSIVE.get_ptr_mut(passive_index(uplink, family))?;
    // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
    Some(unsafe { &mut *passive })
}

#[inline(always)]
fn echo_of(uplink: u32, family: Family) -> Option<&'static mut Echo> {
    let echo = ECHOES.get_ptr_mut(passive_index(uplink, family))?;
    // SAFETY: valid as long as the map; `echo` says what other CPUs may do to it.
    Some(unsafe { &mut *echo })
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: no arguments, always callable.
    unsafe { bpf_ktime_get_ns() }
}
