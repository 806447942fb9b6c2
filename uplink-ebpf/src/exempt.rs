//! What is not ours: the kernel would route it elsewhere than by an uplink's default route.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Lookup,
    },
    helpers::bpf_fib_lookup,
    programs::TcContext,
};
use uplink_common::{Addr, Family, FlowKey, NextHop, Reason};

use crate::{
    maps::{NEXT_HOPS, SCRATCH},
    skb,
};

/// `AF_INET`.
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;

/// By the addresses alone, before any lookup.
#[inline(always)]
pub fn by_address(family: Family, key: &FlowKey) -> Result<(), Reason> {
    if !key.dst.is_routable(family) {
        return Err(Reason::NotRoutable);
    }
    if !key.src.is_routable(family) {
        return Err(Reason::BadSource);
    }
    Ok(())
}

/// Asks the kernel where it would send the packet without a mark. Only an answer that is one
/// of our uplinks' gateways makes the flow ours: connected networks, static routes and VPNs
/// keep what they have. Once per new flow.
///
/// Not inlined: it runs seldom.
#[inline(never)]
pub fn by_route(ctx: &TcContext, family: Family, key: &FlowKey) -> Result<(), Reason> {
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(Reason::NotReady)?;
    // SAFETY: a per-CPU entry, used by one packet program at a time.
    let lookup = unsafe { &mut (*scratch).question };
    ask(lookup, family, key, skb::fields(ctx).ifindex);
    let size = size_of::<Lookup>() as i32;
    // SAFETY: both pointers are valid for the call and the size is that of the structure.
    let answer = unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut *lookup, size, 0) };
    if answer < 0 {
        return Err(Reason::NoRoute);
    }
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => {}
        BPF_FIB_LKUP_RET_NOT_FWDED => return Err(Reason::Local),
        _ => return Err(Reason::NoRoute),
    }
    let mut hop = next_hop(lookup);
    if hop.gateway == key.dst {
        // On a wire without a gateway; of those only the aggregate interface is ours.
        hop.gateway = Addr::default();
    }
    // SAFETY: the entry is only tested for presence; user space replaces entries, never reuses.
    if unsafe { NEXT_HOPS.get(&hop) }.is_none() {
        return Err(Reason::NotDefault);
    }
    Ok(())
}

#[inline(always)]
fn ask(q: &mut Lookup, family: Family, key: &FlowKey, ifindex: u32) {
    // SAFETY: integers and byte arrays only, for which zero is valid.
    *q = unsafe { core::mem::zeroed() };
    q.l4_protocol = key.proto;
    q.sport = u16::from_ne_bytes(key.sport);
    q.dport = u16::from_ne_bytes(key.dport);
    q.ifindex = ifindex;
    match family {
        Family::V4 => {
            q.family = AF_INET;
            q.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(key.src.last4());
            q.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(key.dst.last4());
        }
        Family::V6 => {
            q.family = AF_INET6;
            q.__bindgen_anon_3.ipv6_src = words(&key.src);
            q.__bindgen_anon_4.ipv6_dst = words(&key.dst);
        }
    }
}

/// The answer; its family may differ from the question's (an IPv4 route via IPv6, RFC 5549).
#[inline(always)]
fn next_hop(answer: &Lookup) -> NextHop {
    // SAFETY: the family says which member the kernel wrote.
    let gateway = unsafe {
        match answer.family {
            AF_INET6 => from_words(answer.__bindgen_anon_4.ipv6_dst),
            _ => Addr::v4(answer.__bindgen_anon_4.ipv4_dst.to_ne_bytes()),
        }
    };
    NextHop::new(gateway, answer.ifindex)
}

/// An address as the kernel's structures have it.
#[inline(always)]
pub fn words(a: &Addr) -> [u32; 4] {
    // SAFETY: sixteen bytes, aligned to four.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(a.0) }
}

#[inline(always)]
fn from_words(w: [u32; 4]) -> Addr {
    // SAFETY: sixteen bytes; any bytes are an address.
    Addr::v6(unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(w) })
}
