//! What a process takes, as the kernel accounts for it.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// What `USER_HZ` says on every machine that we know.
const TICK: Duration = Duration::from_millis(10);

/// The processor's time of a process so far, in user space and in the kernel; with that of its children that have ended
/// and were waited for, if `family` says so. In hundredths of a second.
///
/// # Errors
/// When it has gone.
pub fn cpu_time(pid: u32, family: bool) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may have spaces; proc(5) counts fields from 1, and this is the third.
    let fields = stat.rsplit(')').next().context("no fields")?;
    let times = fields
        .split_whitespace()
        .skip(14 - 3)
        .take(if family { 4 } else { 2 });
    let ticks = times.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Its resident memory, in KiB.
///
/// # Errors
/// When it has gone.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// The processor's time of this thread so far.
///
/// # Errors
/// When the kernel has no such clock.
pub fn own_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
