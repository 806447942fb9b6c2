//! The kernel's limit of connections holds for the whole machine; it is raised while this runs.

use anyhow::{Context as _, Result};

const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Puts the limit back.
pub struct Limits(Option<String>);

/// Room for so many flows, in two namespaces at a time: one may still be on its way out.
pub fn raise(flows: &[u32]) -> Result<Limits> {
    let most = flows.iter().max().copied().unwrap_or_default();
    let needed = 3 * u64::from(most);
    let Ok(before) = std::fs::read_to_string(MOST) else {
        // Made when the first connection is tracked; its default is large on a machine of this size.
        return Ok(Limits(None));
    };
    if before.trim().parse::<u64>().unwrap_or(0) >= needed {
        return Ok(Limits(None));
    }
    std::fs::write(MOST, needed.to_string()).with_context(|| format!("{MOST} = {needed}"))?;
    Ok(Limits(Some(before)))
}

impl Drop for Limits {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(MOST, before);
        }
    }
}
