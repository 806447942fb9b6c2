//! The slot table as memory.

use anyhow::{Result, ensure};
use aya::maps::Map;
use uplink_common::{SLOTS, Slot};

use super::memory::Memory;

/// The slot table: both families, two banks.
pub(super) struct SlotTable(Memory<Slot>);

impl SlotTable {
    pub(super) fn new(map: Map) -> Result<Self> {
        let memory = Memory::new("slots", map)?;
        ensure!(
            memory.elements() == SLOTS,
            "the map `slots` has {} elements instead of {SLOTS}: it belongs to another version of uplink",
            memory.elements()
        );
        Ok(Self(memory))
    }

    /// Fills one bank of every slot.
    pub(super) fn write(&mut self, bank: usize, v4: &[u8], v6: &[u8]) -> Result<()> {
        for (i, (v4, v6)) in (0..SLOTS).zip(v4.iter().zip(v6)) {
            let slot = self.0.at(i)?;
            // SAFETY: the slot is in the mapping, the bank is one of two; single bytes, which the
            // program reads whole.
            unsafe {
                (&raw mut (*slot).v4)
                    .cast::<u8>()
                    .add(bank & 1)
                    .write_volatile(*v4);
                (&raw mut (*slot).v6)
                    .cast::<u8>()
                    .add(bank & 1)
                    .write_volatile(*v6);
            }
        }
        self.0.settle();
        Ok(())
    }
}
