//! The kernel's limits of connections hold for the whole machine; they are raised while this runs.

use anyhow::{Context as _, Result};

/// The most connections, and the buckets that they are found by. The kernel makes both alike, each connection being in two
/// buckets (`nf_conntrack-sysctl.rst` of its documentation): with more of them alone it would walk along ever longer chains.
const LIMITS: [&str; 2] = [
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/proc/sys/net/netfilter/nf_conntrack_buckets",
];

/// Puts them back.
pub struct Limits(Vec<(&'static str, String)>);

/// Room for so many flows, in two namespaces at a time: one may still be on its way out.
pub fn raise(flows: &[u32]) -> Result<Limits> {
    let most = flows.iter().max().copied().unwrap_or_default();
    let needed = 3 * u64::from(most);
    let mut raised = Limits(Vec::new());
    for limit in LIMITS {
        let Ok(before) = std::fs::read_to_string(limit) else {
            // Made when the first connection is tracked; its default is large on a machine of this size.
            continue;
        };
        if before.trim().parse::<u64>().unwrap_or(0) < needed {
            std::fs::write(limit, needed.to_string()).with_context(|| format!("{limit} = {needed}"))?;
            raised.0.push((limit, before));
        }
    }
    Ok(raised)
}

impl Drop for Limits {
    fn drop(&mut self) {
        for (limit, before) in &self.0 {
            let _ = std::fs::write(limit, before);
        }
    }
}
