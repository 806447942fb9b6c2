//! A new flow's uplink.

use uplink_common::{Config, Family, FlowKey, Reason, Uplink, hash, select};

use crate::{
    maps::{SLOT_TABLE, UPLINKS},
    walk::{GO_ON, STOP, walk},
};

/// In an answer of [`choose`]: by the weights of now, not by the slot.
const BY_WEIGHT: u32 = 1 << 16;
const NOBODY: u32 = 0;

/// The uplink of the flow's slot; where somebody edited a weight in the map, the uplink by
/// the weights as they are now.
#[inline(always)]
pub fn pick(config: &Config, family: Family, key: &FlowKey) -> Result<(u32, Reason), Reason> {
    match choose(config, family, key) {
        NOBODY => Err(Reason::BadSlot),
        id if id & BY_WEIGHT != 0 => Ok((id & !BY_WEIGHT, Reason::PickedByWeight)),
        id => Ok((id, Reason::Picked)),
    }
}

/// Not inlined: the hash needs stack, of which all frames together have 512 bytes. A function of
/// its own returns one register, hence the number.
#[inline(never)]
fn choose(config: &Config, family: Family, key: &FlowKey) -> u32 {
    let hash = hash::flow(config.seed, key);
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

/// What the uplinks' weights add up to.
#[repr(C)]
struct Survey {
    family: u32,
    total: u32,
    edited: u32,
}

/// The uplink in whose part of the total a point lies.
#[repr(C)]
struct Search {
    family: u32,
    point: u32,
    found: u32,
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
