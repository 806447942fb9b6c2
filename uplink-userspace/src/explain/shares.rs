//! The tables of new flows as the maps have them.

use anyhow::Result;
use uplink_common::policy::GROUP_SLOTS;
use uplink_common::record::Config;
use uplink_common::{Family, MAX_UPLINKS, Pin, SLOTS, Slot, Uplink, select};

use super::World;
use super::balance::{Balance, Shares};

/// The live banks.
pub(super) struct Live<'a, W> {
    pub world: &'a W,
    pub config: &'a Config,
    pub family: Family,
}

impl<W: World> Live<'_, W> {
    fn id(&self, slot: &Slot) -> u8 {
        select::in_bank(slot, self.family, self.config.bank)
    }

    fn serves(&self, record: &Uplink) -> bool {
        record.families & self.family.bit() != 0
    }

    /// The uplinks in use, by id.
    fn records(&self) -> Result<Vec<(u8, Uplink)>> {
        let ids = 1..=self.config.uplinks.min(MAX_UPLINKS);
        ids.map(|id| Ok((id as u8, self.world.uplink(id)?))).collect()
    }

    /// Of the one slot of a hash, or of all of them, those that may be had.
    fn of(
        &self,
        size: u32,
        hash: Option<u64>,
        read: impl Fn(u32) -> Result<Slot>,
        may: impl Fn(&Uplink) -> bool,
    ) -> Result<Shares> {
        let slots = match hash {
            Some(hash) => {
                let at = select::among(hash, size);
                at..at + 1
            }
            None => 0..size,
        };
        let all = f64::from(slots.end - slots.start);
        let mut counts = [0_u32; 256];
        for at in slots {
            counts[usize::from(self.id(&read(at)?))] += 1;
        }
        let mut shares = Shares::new();
        for (id, count) in (0..=u8::MAX).zip(counts).filter(|(id, n)| *id != 0 && *n > 0) {
            if u32::from(id) <= MAX_UPLINKS && may(&self.world.uplink(id.into())?) {
                shares.push((id, f64::from(count) / all));
            }
        }
        Ok(shares)
    }

    /// The weights as they are now.
    fn weights(&self, records: &[(u8, Uplink)], hash: Option<u64>) -> Shares {
        let serving = records.iter().filter(|(_, r)| self.serves(r) && r.weight > 0);
        let weights: Vec<(u8, u32)> = serving.map(|(id, r)| (*id, r.weight)).collect();
        let total = weights.iter().fold(0_u32, |sum, (_, w)| sum.wrapping_add(*w));
        let Some(hash) = hash else {
            let part = |(id, weight)| (id, f64::from(weight) / f64::from(total));
            return weights.into_iter().map(part).collect();
        };
        let mut point = select::point(hash, total);
        for (id, weight) in weights {
            if point < weight {
                return vec![(id, 1.0)];
            }
            point -= weight;
        }
        Shares::new()
    }
}

impl<W: World> Balance for Live<'_, W> {
    fn everybody(&self, hash: Option<u64>) -> Result<(Shares, bool)> {
        let records = self.records()?;
        if records.iter().any(|(_, r)| r.weight != r.built_weight) {
            return Ok((self.weights(&records, hash), true));
        }
        let may = |r: &Uplink| self.serves(r) && r.weight != 0;
        let shares = self.of(SLOTS, hash, |at| self.world.slot(at), may)?;
        Ok((shares, false))
    }

    fn group(&self, group: u32, hash: Option<u64>) -> Result<Shares> {
        let first = group.wrapping_mul(GROUP_SLOTS);
        let read = |at| self.world.group_slot(first.wrapping_add(at));
        self.of(GROUP_SLOTS, hash, read, |r| self.serves(r))
    }

    fn goes_on(&self, group: u32, kept: &Pin) -> Result<bool> {
        let members = self.world.members(group)?;
        Ok(members.contains(self.family, self.config.bank, kept.uplink.into()))
    }
}
