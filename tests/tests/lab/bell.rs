//! What user space sees of the XDP fast path's conditions, in a namespace of its own with real changes.

mod bumps;
mod closed;
mod daemons;
mod looks;

pub use bumps::{burst, changes, overrun};
pub use closed::{flushed, told};
pub use daemons::{clsact, tcx};
pub use looks::obstacles;

use std::future::Future;

use anyhow::Result;
use uplink_lab::Namespace;

/// A namespace with a pair of interfaces, `eth0` with addresses, and a neighbour behind it. The kernel makes no
/// addresses of its own there: those are news a second later.
fn host() -> Result<Namespace> {
    let ns = Namespace::new("host")?;
    ns.ip("link add eth0 type veth peer name eth1
        link set eth0 addrgenmode none
        link set eth1 addrgenmode none
        link set eth0 up
        link set eth1 up
        addr add 10.0.0.1/24 dev eth0
        addr add fd00::1/64 dev eth0 nodad
        neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 nud reachable dev eth0\n")?;
    Ok(ns)
}

/// Runs `f` inside of a namespace.
fn inside<T: Send, F: Future<Output = Result<T>>>(ns: &Namespace, f: impl FnOnce() -> F + Send) -> Result<T> {
    ns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(f())
    })?
}
