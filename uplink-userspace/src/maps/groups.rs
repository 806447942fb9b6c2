//! The tables of the groups as memory.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use uplink_common::Slot;
use uplink_common::policy::{GROUP_SLOTS, GROUPS};

/// The tables of all groups in our address space: written by plain stores, like the slot table.
pub(super) struct GroupTables {
    memory: NonNull<u8>,
    length: usize,
    /// How many groups either bank has that are not empty.
    filled: [usize; 2],
    _map: MapData,
}

/// Elements of an array map lie at multiples of eight bytes (`array_map_alloc` of the kernel).
const STRIDE: usize = 8;
const SIZE: usize = GROUP_SLOTS as usize;

impl GroupTables {
    pub(super) fn new(map: Map) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map `groups` is no array")
        };
        let length = GROUPS as usize * SIZE * STRIDE;
        // SAFETY: a fresh shared mapping of a map that is kept open beside it.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping the map `groups`");
        }
        let memory = NonNull::new(memory.cast()).context("mapping the map `groups`")?;
        // What an earlier daemon left is anybody's guess.
        let filled = [GROUPS as usize; 2];
        Ok(Self {
            memory,
            length,
            filled,
            _map: map,
        })
    }

    /// Makes one bank hold exactly these groups, in their order; nobody serves any other.
    ///
    /// # Errors
    /// When there are more groups than room.
    pub(super) fn write(&mut self, bank: usize, groups: &[[Vec<u8>; 2]]) -> Result<()> {
        if groups.len() > GROUPS as usize {
            bail!(
                "the policies have {} different `use`, and the map `groups` has room for {GROUPS}: let more of \
                 them use the same uplinks",
                groups.len()
            );
        }
        let bank = bank & 1;
        for (at, [v4, v6]) in groups.iter().enumerate() {
            for (slot, (v4, v6)) in v4.iter().zip(v6).enumerate().take(SIZE) {
                self.store(at * SIZE + slot, bank, [*v4, *v6]);
            }
        }
        for slot in groups.len() * SIZE..self.filled[bank] * SIZE {
            self.store(slot, bank, [0, 0]);
        }
        self.filled[bank] = groups.len();
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// `index` is below `GROUPS * GROUP_SLOTS`, `bank` 0 or 1.
    fn store(&mut self, index: usize, bank: usize, [v4, v6]: [u8; 2]) {
        debug_assert!(index * STRIDE < self.length && bank < 2);
        // SAFETY: slot and bank lie within the mapping; single bytes, which the program reads whole.
        unsafe {
            let slot = self.memory.as_ptr().add(index * STRIDE).cast::<Slot>();
            (&raw mut (*slot).v4).cast::<u8>().add(bank).write_volatile(v4);
            (&raw mut (*slot).v6).cast::<u8>().add(bank).write_volatile(v6);
        }
    }
}

impl Drop for GroupTables {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, with its length.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
