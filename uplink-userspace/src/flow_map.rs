//! Reads the flow table in batches. Going from key to key would start over whenever the key is
//! evicted meanwhile, and so might never end on a table that is flooded.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use uplink_common::{FlowKey, Pin};

/// `BPF_MAP_LOOKUP_BATCH` of linux/bpf.h.
const LOOKUP_BATCH: libc::c_long = 24;
/// Entries in a batch at first: a bucket of the table has to fit, and most are short.
const BATCH: usize = 4096;

/// The `batch` member of the kernel's `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Batch>() == 56);

/// Seconds since boot by the clock that pins are made with, which is a tick late: one that is ahead of it would make
/// the programs take this second for one long past.
#[must_use]
pub fn now_s() -> u32 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is ours; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    u32::try_from(now.tv_sec).unwrap_or(u32::MAX)
}

/// Gives every pinned flow to `each`. Those that come and go meanwhile are seen or not. A table
/// of a million takes tenths of a second: not on the thread that steers.
///
/// # Errors
/// When the pin at `path` cannot be opened or read.
pub fn read(path: &Path, mut each: impl FnMut(&FlowKey, &Pin)) -> Result<()> {
    let map = MapData::from_pin(path).with_context(|| format!("opening {}", path.display()))?;
    let mut keys = vec![FlowKey::default(); BATCH];
    let mut pins = vec![Pin::default(); BATCH];
    let mut position: Option<u32> = None;
    loop {
        let batch = lookup(map.fd().as_fd(), position, &mut keys, &mut pins);
        let batch = batch.with_context(|| format!("reading {}", path.display()))?;
        let Some((count, next, more)) = batch else {
            let longer = keys.len() * 2;
            keys.resize(longer, FlowKey::default());
            pins.resize(longer, Pin::default());
            continue;
        };
        let found = keys.iter().zip(&pins).take(count);
        found.for_each(|(key, pin)| each(key, pin));
        if !more {
            return Ok(());
        }
        position = Some(next);
    }
}

/// How many entries were read, where to go on, and whether there are more. `None` when the next
/// bucket does not fit.
fn lookup(
    map: BorrowedFd<'_>,
    position: Option<u32>,
    keys: &mut [FlowKey],
    pins: &mut [Pin],
) -> std::io::Result<Option<(usize, u32, bool)>> {
    let mut next = 0u32;
    let mut batch = Batch {
        in_batch: position.as_ref().map_or(0, |p| std::ptr::from_ref(p) as u64),
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: pins.as_mut_ptr() as u64,
        count: keys.len().min(pins.len()) as u32,
        map_fd: map.as_raw_fd().cast_unsigned(),
        ..Batch::default()
    };
    // SAFETY: the pointers are to memory that lives over the call; the kernel writes at most
    // `count` entries of the sizes that the map was made with, which are those of the records
    // (`ABI`), and every bit pattern is valid in them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
    let error = match result {
        0 => return Ok(Some((batch.count as usize, next, true))),
        _ => std::io::Error::last_os_error(),
    };
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(Some((batch.count as usize, next, false))),
        Some(libc::ENOSPC) => Ok(None),
        _ => Err(error),
    }
}
