//! A new flow's uplink.

use uplink_common::{Config, Family, FlowKey, Reason, Uplink, hash, select};

use crate::{
    maps::{SLOT_TABLE, UPLINKS},
    walk::{GO_ON, STOP, walk},
};

/// The uplink of the flow's slot; where somebody edited a weight in the map, the uplink by
/// the weights as they are now.
#[inline(always)]
pub fn pick(config: &Config, family: Family, key: &FlowKey) -> Result<(u32, Reason), Reason> {
    let hash = hash::flow(config.seed, key);
    let mut survey = Survey {
        family: family.bit(),
        total: 0,
        edited: 0,
    };
    walk(config.uplinks, survey_one, &mut survey);
    if survey.edited != 0 {
        let point = select::point(hash, survey.total);
        let mut search = Search {
            family: family.bit(),
            point,
            found: 0,
        };
        walk(config.uplinks, search_one, &mut search);
        return match search.found {
            0 => Err(Reason::BadSlot),
            id => Ok((id, Reason::PickedByWeight)),
        };
    }
    let slot = SLOT_TABLE.get(select::slot(hash)).ok_or(Reason::BadSlot)?;
    let id = u32::from(select::in_bank(slot, family, config.bank));
    match UPLINKS.get(id) {
        Some(u) if id != 0 && weight(u, family.bit()) != 0 => Ok((id, Reason::Picked)),
        _ => Err(Reason::BadSlot),
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
