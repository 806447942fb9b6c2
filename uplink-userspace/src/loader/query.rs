//! Which programs are at a hook. The kernel lists their ids to whoever may attach; what an id stands for it tells only
//! to `CAP_SYS_ADMIN`, which the service does not have. So ours are known by their ids, others by name where we may ask.

use std::io;

use aya::programs::loaded_programs;
use aya::programs::tc::TcAttachType;

use super::link::bpf;

/// `BPF_PROG_QUERY` of `enum bpf_cmd`, linux/bpf.h.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX: [u32; 2] = [46, 47];
/// `BPF_MPROG_MAX` of linux/bpf_mprog.h: there are no more at a hook.
const MOST: usize = 64;

/// The part of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
    id_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// The ids of the programs at tcx, in the order in which they run.
///
/// # Errors
/// When the kernel has no tcx, or refuses.
pub fn tcx(ifindex: u32, side: TcAttachType) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST];
    let mut attributes = QueryAttributes {
        ifindex,
        attach_type: TCX[usize::from(side == TcAttachType::Egress)],
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..QueryAttributes::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// What a program is called, for people.
#[must_use]
pub fn name(id: u32) -> String {
    // One that goes while we look is not one that is attached.
    let mut programs = loaded_programs().flatten();
    let found = programs.find(|program| program.id() == id);
    found
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("with id {id}"))
}
