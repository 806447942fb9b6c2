//! The flow table: which uplink a flow already has.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use uplink_common::{
    Config, Family, FlowKey, PIN_IDLE_S, Pin, Uplink,
    hop::LOOK_AGAIN_S,
    recent::{self, Line, Recent, Short, WAYS},
};

use crate::{
    maps::{FLOWS, RECENT, UPLINKS},
    pick,
};

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
    /// Whether it was seen leaving by that uplink on the kernel's way, not long ago.
    pub passes: bool,
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

/// Looks a packet's flow up. Most packets belong to a flow that had one within this second, and cost one cache line; the flow
/// table is asked once a second, so that it knows who is there, and what was changed in it counts.
#[inline(always)]
pub fn find(config: &Config, family: Family, key: &FlowKey, now_s: u32) -> Found {
    let hash = pick::spread(config, key);
    let line = line(config, hash);
    if let Some(pin) = line.and_then(|line| copy(line, hash)) {
        let uplink = pin.uplink();
        if pin.age_s(now_s) == 0 && pin.is_of(generation(uplink, family)) {
            return Found::Valid(Held {
                uplink,
                policy: pin.policy(),
                passes: pin.passes(),
            });
        }
    }
    let Some(pin) = pin(key) else {
        return Found::None;
    };
    // Another CPU's second may be the next one already.
    if now_s.saturating_sub(pin.last_used_s) > PIN_IDLE_S {
        return Found::Stale(u32::from(pin.uplink));
    }
    let found = renew(pin, family, now_s);
    if let (Some(line), Found::Valid(_)) = (line, &found) {
        remember(line, hash, pin, now_s);
    }
    found
}

/// The same in the flow table alone.
#[inline(always)]
pub fn find_pin(family: Family, key: &FlowKey, now_s: u32) -> Found {
    pin(key).map_or(Found::None, |pin| renew(pin, family, now_s))
}

/// The flow's pin has changed: its copy is void. Who has just read the pin may still write one, for what is left of the second.
#[inline(always)]
pub fn changed(config: &Config, key: &FlowKey) {
    let hash = pick::spread(config, key);
    let Some(line) = line(config, hash) else {
        return;
    };
    for way in 0..WAYS {
        if read(line, way).is(hash) {
            write(line, way, Recent::default());
        }
    }
}

/// The line where the flow is, if anywhere.
#[inline(always)]
fn line(config: &Config, hash: u64) -> Option<*mut Line> {
    RECENT.get_ptr_mut(recent::place(hash, config.recent))
}

/// What the flow's pin said when it was copied, if it was.
#[inline(always)]
fn copy(line: *mut Line, hash: u64) -> Option<Short> {
    for way in 0..WAYS {
        let entry = read(line, way);
        if entry.is(hash) {
            return Some(entry.pin);
        }
    }
    None
}

/// Copies the flow's pin over its last copy, else over that of a flow that has gone. Where nobody has, the flow goes without:
/// too many that meet would drive each other out.
#[inline(always)]
fn remember(line: *mut Line, hash: u64, pin: &Pin, now_s: u32) {
    let mut free = None;
    for way in 0..WAYS {
        let entry = read(line, way);
        if entry.is(hash) {
            free = Some(way);
            break;
        }
        if free.is_none() && entry.pin.age_s(now_s) > 1 {
            free = Some(way);
        }
    }
    if let Some(way) = free {
        write(line, way, Recent::new(hash, Short::new(pin, now_s)));
    }
}

/// An entry, each word of it once: other CPUs write meanwhile.
#[inline(always)]
fn read(line: *mut Line, way: usize) -> Recent {
    // SAFETY: an entry of the map is valid as long as the map.
    unsafe {
        let entry = &raw mut (*line).0[way];
        Recent {
            tag: (&raw const (*entry).tag).read_volatile(),
            pin: (&raw const (*entry).pin).read_volatile(),
        }
    }
}

#[inline(always)]
fn write(line: *mut Line, way: usize, entry: Recent) {
    // SAFETY: as in `read`.
    unsafe { (*line).0[way] = entry };
}

#[inline(always)]
fn pin(key: &FlowKey) -> Option<&'static mut Pin> {
    let pin = FLOWS.get_ptr_mut(key)?;
    // SAFETY: the kernel keeps the entry's memory valid during the program. It may be reused
    // for another flow of ours meanwhile, which misplaces one packet, or what comes within the second.
    Some(unsafe { &mut *pin })
}

#[inline(always)]
fn judge(pin: &Pin, family: Family, now_s: u32) -> Found {
    let uplink = u32::from(pin.uplink);
    if generation(uplink, family) != pin.generation {
        return Found::Stale(uplink);
    }
    if uplink == 0 && now_s - pin.created_s > KERNEL_PIN_S {
        return Found::Stale(uplink);
    }
    Found::Valid(Held {
        uplink,
        policy: u32::from(pin.policy),
        passes: pin.seen == pin.uplink,
    })
}

/// As `judge`, and refreshes a valid pin at most once a second: a write for every packet costs cache misses.
#[inline(always)]
fn renew(pin: &mut Pin, family: Family, now_s: u32) -> Found {
    let found = judge(pin, family, now_s);
    let Found::Valid(held) = found else {
        return found;
    };
    let mut passes = held.passes;
    if pin.last_used_s != now_s {
        if (pin.last_used_s ^ now_s) >= LOOK_AGAIN_S {
            (pin.seen, passes) = (0, false);
        }
        pin.last_used_s = now_s;
    }
    Found::Valid(Held { passes, ..held })
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
    match find_pin(family, key, now_s) {
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
