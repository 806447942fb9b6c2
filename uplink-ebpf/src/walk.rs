//! A loop that the verifier looks at once, not once for each time round: `bpf_loop` (Linux 5.17).

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;

/// What a step returns.
pub const GO_ON: i64 = 0;
/// The steps that are left are not taken.
pub const STOP: i64 = 1;

/// Calls `step` with `0..count`.
#[inline(always)]
pub fn walk<T>(count: u32, step: extern "C" fn(u32, *mut T) -> i64, state: &mut T) {
    let state: *mut T = state;
    // SAFETY: the callback has the signature that the helper wants, and the state outlives it.
    unsafe { bpf_loop(count, step as *mut c_void, state.cast(), 0) };
}
