//! The flow table: which uplink a flow already has.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use uplink_common::{Family, FlowKey, Pin, Uplink, hop::LOOK_AGAIN_S};

use crate::maps::{FLOWS, UPLINKS};

/// `BPF_NOEXIST`: the first of two packets that race on different CPUs decides.
const NOEXIST: u64 = 1;
const ANY: u64 = 0;

/// A pin that leaves a flow to the kernel is asked again after this many seconds, so that a
/// VPN or route that appears while no daemon runs is still respected.
const KERNEL_PIN_S: u32 = 1;

/// What the flow table says.
pub enum Found {
    /// The flow keeps this uplink.
    Valid(Held),
    /// Its uplink died, or the kernel's choice may have changed.
    Stale(u32),
    /// A new flow.
    None,
}

/// A valid pin.
#[derive(Clone, Copy)]
pub struct Held {
    /// Uplink id; 0 is the kernel.
    pub uplink: u32,
    /// `Choice::policy` of the policy that gave it, or 0.
    pub policy: u32,
    /// `Pin::seen`.
    pub seen: u32,
}

impl Found {
    /// The uplink of a pin that is void.
    #[inline(always)]
    pub const fn was(&self) -> Option<u32> {
        match self {
            Self::Stale(was) => Some(*was),
            _ => None,
        }
    }
}

/// Seconds since boot, from the tick: one nanosecond instead of thirty.
#[inline(always)]
pub fn now_s() -> u32 {
    // SAFETY: no arguments, always callable.
    (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
}

/// Looks the flow up, and refreshes its pin at most once a second: a write for every packet
/// costs cache misses.
#[inline(always)]
pub fn find(family: Family, key: &FlowKey, now_s: u32) -> Found {
    let Some(pin) = FLOWS.get_ptr_mut(key) else {
        return Found::None;
    };
    // SAFETY: the kernel keeps the entry's memory valid during the program. It may be reused
    // for another flow of ours meanwhile, which misplaces one packet at most.
    let pin = unsafe { &mut *pin };
    let uplink = u32::from(pin.uplink);
    if generation(uplink, family) != pin.generation {
        return Found::Stale(uplink);
    }
    if uplink == 0 && now_s - pin.created_s > KERNEL_PIN_S {
        return Found::Stale(uplink);
    }
    if pin.last_used_s != now_s {
        if (pin.last_used_s ^ now_s) >= LOOK_AGAIN_S {
            pin.seen = 0;
        }
        pin.last_used_s = now_s;
    }
    Found::Valid(Held {
        uplink,
        policy: u32::from(pin.policy),
        seen: u32::from(pin.seen),
    })
}

/// What a pin says: an uplink, 0 being the kernel, and the number of the policy that gave it, or 0.
#[derive(Clone, Copy)]
pub struct Given {
    /// Uplink id.
    pub uplink: u32,
    /// `Choice::policy`.
    pub policy: u32,
}

impl Given {
    /// By nobody's policy.
    #[inline(always)]
    pub const fn uplink(uplink: u32) -> Self {
        Self { uplink, policy: 0 }
    }

    /// As a pin that begins now.
    #[inline(always)]
    pub fn pin(self, family: Family, now_s: u32) -> Pin {
        Pin {
            uplink: self.uplink as u8,
            seen: 0,
            policy: self.policy as u16,
            generation: generation(self.uplink, family),
            last_used_s: now_s,
            created_s: now_s,
        }
    }
}

/// Pins the flow. Returns the uplink it really has, which is another's when that was first.
#[inline(always)]
pub fn keep(family: Family, key: &FlowKey, given: Given, replace: bool, now_s: u32) -> u32 {
    let uplink = given.uplink;
    let pin = given.pin(family, now_s);
    let flags = if replace { ANY } else { NOEXIST };
    if FLOWS.insert(key, pin, flags).is_ok() {
        return uplink;
    }
    match find(family, key, now_s) {
        Found::Valid(other) => other.uplink,
        _ => uplink,
    }
}

/// The generation of pins that are valid.
#[inline(always)]
pub fn generation(uplink: u32, family: Family) -> u32 {
    UPLINKS.get(uplink).map_or(u32::MAX, |u: &Uplink| match family {
        Family::V4 => u.generation[0],
        Family::V6 => u.generation[1],
    })
}
