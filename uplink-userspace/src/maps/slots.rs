//! The slot table as memory.

use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use uplink_common::{SLOTS, Slot};

/// The slot table in our address space: a whole table is written by plain stores, without
/// 65,537 system calls.
pub(super) struct SlotTable {
    memory: NonNull<u8>,
    length: usize,
    _map: MapData,
}

/// Elements of an array map lie at multiples of eight bytes (`array_map_alloc` of the kernel).
const STRIDE: usize = 8;

impl SlotTable {
    pub(super) fn new(map: Map) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map `slots` is no array")
        };
        let length = SLOTS as usize * STRIDE;
        // SAFETY: a fresh shared mapping of a map that is kept open beside it.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                std::os::fd::AsRawFd::as_raw_fd(&map.fd().as_fd()),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping the map `slots`");
        }
        let memory = NonNull::new(memory.cast()).context("mapping the map `slots`")?;
        Ok(Self {
            memory,
            length,
            _map: map,
        })
    }

    /// Fills one bank of every slot.
    pub(super) fn write(&mut self, bank: usize, v4: &[u8], v6: &[u8]) {
        for (i, (v4, v6)) in v4.iter().zip(v6).enumerate().take(SLOTS as usize) {
            // SAFETY: `i` is below SLOTS, so slot and both banks lie within the mapping; single
            // bytes, which the program reads whole.
            unsafe {
                let slot = self.memory.as_ptr().add(i * STRIDE).cast::<Slot>();
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
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, with its length.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
