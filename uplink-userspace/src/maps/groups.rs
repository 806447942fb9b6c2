//! The tables of the groups of uplinks.

use anyhow::{Result, bail};
use aya::maps::{Array, Map, MapData};
use uplink_common::Slot;
use uplink_common::policy::{GROUP_SLOTS, GROUPS, Members};

use super::memory::Memory;

/// The tables of all groups, and who is in them.
pub(super) struct GroupTables {
    slots: Memory<Slot>,
    members: Array<MapData, Members>,
    /// How many groups either bank has that are not empty.
    filled: [u32; 2],
}

impl GroupTables {
    /// From the maps `groups` and `members`.
    pub(super) fn new(slots: Map, members: Map) -> Result<Self> {
        Ok(Self {
            slots: Memory::new("groups", slots)?,
            members: members.try_into()?,
            // What an earlier daemon left is anybody's guess.
            filled: [GROUPS; 2],
        })
    }

    /// Makes one bank hold exactly these groups, in their order; nobody serves any other.
    ///
    /// # Errors
    /// When there are more groups than room, or the kernel refuses a write.
    pub(super) fn write(&mut self, bank: u32, groups: &[[Vec<u8>; 2]]) -> Result<()> {
        if groups.len() > GROUPS as usize {
            bail!(
                "the policies have {} different `use`, and the map `groups` has room for {GROUPS}: let more of \
                 them use the same uplinks",
                groups.len()
            );
        }
        let bank = bank & 1;
        let empty = [vec![0; GROUP_SLOTS as usize], vec![0; GROUP_SLOTS as usize]];
        let unused = std::iter::repeat(&empty);
        let count = self.filled[bank as usize].max(groups.len() as u32);
        for (at, group) in (0..count).zip(groups.iter().chain(unused)) {
            self.write_one(bank as usize, at, group)?;
        }
        self.slots.settle();
        self.filled[bank as usize] = groups.len() as u32;
        Ok(())
    }

    fn write_one(&mut self, bank: usize, at: u32, [v4, v6]: &[Vec<u8>; 2]) -> Result<()> {
        let first = at * GROUP_SLOTS;
        for (index, (v4, v6)) in (first..).zip(v4.iter().zip(v6)) {
            let mut slot = self.slots.read(index)?;
            (slot.v4[bank], slot.v6[bank]) = (*v4, *v6);
            self.slots.write(index, slot)?;
        }
        let mut members = self.members.get(&at, 0)?;
        (members.v4[bank], members.v6[bank]) = (mask(v4), mask(v6));
        Ok(self.members.set(at, members, 0)?)
    }
}

/// Who has a slot.
fn mask(slots: &[u8]) -> u64 {
    let ids = slots.iter().filter(|id| **id != 0);
    ids.fold(0, |mask, id| mask | 1 << (u32::from(id - 1) & 63))
}
