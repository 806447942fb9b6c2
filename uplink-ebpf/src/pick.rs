//! A new flow's uplink.

use uplink_common::{
    Addr, Config, Family, FlowKey, Reason, Uplink, flow, hash,
    policy::{Choice, GROUP_SLOTS, STICKY_BOTH, STRICT, StickyKey},
    select,
};

use crate::{
    maps::{GROUP_TABLE, MEMBERS, SLOT_TABLE, STICKY, UPLINKS},
    pinned::{self, Given},
    walk::{GO_ON, STOP, walk},
};

/// In an answer of [`choose`]: by the weights of now, not by the slot.
const BY_WEIGHT: u32 = 1 << 16;
const NOBODY: u32 = 0;

/// The uplink that the flow's policy gives it. Where none of the policy's own lives, a strict policy refuses and
/// another leaves the flow to the balance over all.
#[inline(always)]
pub fn by_policy(
    config: &Config,
    family: Family,
    key: &FlowKey,
    choice: Option<&Choice>,
    now_s: u32,
) -> Result<(Given, Reason), Reason> {
    let hash = spread(config, key);
    let Some(choice) = choice else {
        return pick(config, family, hash).map(|(uplink, reason)| (Given::uplink(uplink), reason));
    };
    let policy = choice.policy;
    let uplink = match choice.sticky {
        0 => slot_of(config, family, choice.group, hash),
        _ => {
            let kept = recall(config, family, key, choice, now_s);
            if kept != NOBODY {
                return Ok((Given { uplink: kept, policy }, Reason::Picked));
            }
            let hash = of_ends(config, key, choice.sticky == STICKY_BOTH);
            let uplink = slot_of(config, family, choice.group, hash);
            if uplink != NOBODY {
                remember(family, key, choice, uplink, now_s);
            }
            uplink
        }
    };
    if uplink != NOBODY {
        return Ok((Given { uplink, policy }, Reason::Picked));
    }
    if choice.flags & STRICT != 0 {
        return Err(Reason::Refused);
    }
    pick(config, family, hash).map(|(uplink, reason)| (Given { uplink, policy }, reason))
}

/// Whose uplink it is.
#[inline(always)]
fn client(family: Family, key: &FlowKey, choice: &Choice) -> StickyKey {
    let nobody = Addr([0; 16]);
    StickyKey {
        src: if flow::is_socket(&key.src) {
            nobody
        } else {
            key.src
        },
        dst: if choice.sticky == STICKY_BOTH {
            key.dst
        } else {
            nobody
        },
        policy: choice.policy,
        family: family as u32,
    }
}

/// The uplink that a client keeps, as long as the policy would still give it to somebody.
///
/// Not inlined: its key takes stack.
#[inline(never)]
fn recall(config: &Config, family: Family, key: &FlowKey, choice: &Choice, now_s: u32) -> u32 {
    let Some(pin) = STICKY.get_ptr_mut(&client(family, key, choice)) else {
        return NOBODY;
    };
    // SAFETY: as in `pinned::find`.
    let pin = unsafe { &mut *pin };
    let uplink = u32::from(pin.uplink);
    let fresh = now_s.wrapping_sub(pin.last_used_s) <= choice.sticky_s;
    let lives = pinned::generation(uplink, family) == pin.generation;
    let wanted = MEMBERS.get(choice.group);
    if !fresh || !lives || !wanted.is_some_and(|m| m.contains(family, config.bank, uplink)) {
        return NOBODY;
    }
    pin.last_used_s = now_s;
    uplink
}

/// Not inlined, as `recall`.
#[inline(never)]
fn remember(family: Family, key: &FlowKey, choice: &Choice, uplink: u32, now_s: u32) {
    let policy = choice.policy;
    let pin = Given { uplink, policy }.pin(family, now_s);
    let _ = STICKY.insert(&client(family, key, choice), pin, 0);
}

/// The hash of a client, or of a client and a destination: as long as the shares stay, so does his uplink.
///
/// Not inlined, as `recall`.
#[inline(never)]
fn of_ends(config: &Config, key: &FlowKey, both: bool) -> u64 {
    let mut ends = FlowKey::default();
    if !flow::is_socket(&key.src) {
        ends.src = key.src;
    }
    if both {
        ends.dst = key.dst;
    }
    spread(config, &ends)
}

/// The hash of a flow.
///
/// Not inlined: it needs stack, of which all frames together have 512 bytes.
#[inline(never)]
pub fn spread(config: &Config, key: &FlowKey) -> u64 {
    hash::flow(config.seed, key)
}

/// The uplink of the flow's slot in the table of a group.
#[inline(always)]
fn slot_of(config: &Config, family: Family, group: u32, hash: u64) -> u32 {
    let Some(slot) = GROUP_TABLE.get(group.wrapping_mul(GROUP_SLOTS) + select::among(hash, GROUP_SLOTS))
    else {
        return NOBODY;
    };
    let id = u32::from(select::in_bank(slot, family, config.bank));
    match UPLINKS.get(id) {
        Some(u) if id != 0 && u.families & family.bit() != 0 => id,
        _ => NOBODY,
    }
}

/// The uplink of the flow's slot; where somebody edited a weight in the map, the uplink by
/// the weights as they are now.
#[inline(always)]
fn pick(config: &Config, family: Family, hash: u64) -> Result<(u32, Reason), Reason> {
    match choose(config, family, hash) {
        NOBODY => Err(Reason::BadSlot),
        id if id & BY_WEIGHT != 0 => Ok((id & !BY_WEIGHT, Reason::PickedByWeight)),
        id => Ok((id, Reason::Picked)),
    }
}

/// Not inlined: a function of its own returns one register, hence the number.
#[inline(never)]
fn choose(config: &Config, family: Family, hash: u64) -> u32 {
    let mut survey = Survey {
        family: family.bit(),
        total: 0,
        edited: 0,
    };
    walk(config.uplinks, survey_one, &mut survey);
    if survey.edited != 0 {
        let mut search = Search {
            family: family.bit(),
            point: select::point(hash, survey.total),
            found: NOBODY,
        };
        walk(config.uplinks, search_one, &mut search);
        return match search.found {
            NOBODY => NOBODY,
            id => id | BY_WEIGHT,
        };
    }
    let Some(slot) = SLOT_TABLE.get(select::slot(hash)) else {
        return NOBODY;
    };
    let id = u32::from(select::in_bank(slot, family, config.bank));
    match UPLINKS.get(id) {
        Some(u) if weight(u, family.bit()) != 0 => id,
        _ => NOBODY,
    }
}

/// What the uplinks' weights add up to. Zeros that are written together begin at a multiple of eight: the verifier
/// refuses any other access to the stack.
#[repr(C, align(8))]
struct Survey {
    total: u32,
    edited: u32,
    family: u32,
}

/// The uplink in whose part of the total a point lies.
#[repr(C, align(8))]
struct Search {
    point: u32,
    found: u32,
    family: u32,
}

extern "C" fn survey_one(index: u32, state: *mut Survey) -> i64 {
    // SAFETY: `walk` passes a valid state.
    let state = unsafe { &mut *state };
    let Some(u) = UPLINKS.get(index + 1) else {
        return STOP;
    };
    state.edited |= u.weight ^ u.built_weight;
    state.total = state.total.wrapping_add(weight(u, state.family));
    GO_ON
}

extern "C" fn search_one(index: u32, state: *mut Search) -> i64 {
    // SAFETY: `walk` passes a valid state.
    let state = unsafe { &mut *state };
    let Some(u) = UPLINKS.get(index + 1) else {
        return STOP;
    };
    let weight = weight(u, state.family);
    if state.point < weight {
        state.found = index + 1;
        return STOP;
    }
    state.point -= weight;
    GO_ON
}

/// The weight that counts for a family: none where the uplink does not serve it.
#[inline(always)]
fn weight(u: &Uplink, family: u32) -> u32 {
    if u.families & family == 0 { 0 } else { u.weight }
}
