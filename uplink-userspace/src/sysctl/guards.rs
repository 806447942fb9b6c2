//! Sysctls by which our programs look at source addresses instead of the kernel.

use anyhow::Result;
use uplink_common::Family;

use super::wanted::{every_interface, uplink_interfaces};
use super::{Change, Entry, Saved, read, restore};
use crate::plan::Sysctl;
use crate::resolve::Uplink;

const ACCEPT_LOCAL: &str = "/accept_local";
/// Any number but 0 means yes. This one nobody else writes, so that it tells who did.
const OURS: &str = "2";

/// Where there are rules, the kernel looks up the way back to the source of every packet, to find that it is not one of
/// this host's addresses (`fib_validate_source` in net/ipv4/fib_frontend.c). Told to accept such, it need not look, and
/// our programs do, for next to nothing.
///
/// Nothing where somebody else accepts such packets on purpose, and not where a reverse path filter looks anyway.
#[must_use]
pub fn guards(uplinks: &[Uplink], lan: &[String], read: impl Fn(&str) -> Option<String>) -> Vec<Sysctl> {
    let path = |interface: &str, name: &str| format!("net/ipv4/conf/{interface}{name}");
    let is = |interface: &str, name: &str| read(&path(interface, name)).unwrap_or_default();
    let outside = uplink_interfaces(uplinks, Family::V4);
    if outside.is_empty() || is("all", ACCEPT_LOCAL) != "0" || is("all", "/rp_filter") != "0" {
        return Vec::new();
    }
    let unfiltered = |interface: &&str| is(interface, "/rp_filter") == "0";
    let ours: Vec<&str> = every_interface(&outside, lan)
        .into_iter()
        .filter(unfiltered)
        .collect();
    if ours
        .iter()
        .any(|interface| !matches!(&*is(interface, ACCEPT_LOCAL), "0" | OURS))
    {
        return Vec::new();
    }
    let want = |interface: &&str| Sysctl {
        path: path(interface, ACCEPT_LOCAL),
        value: OURS.to_owned(),
    };
    ours.iter().map(want).collect()
}

/// Whether it is one of [`guards`].
#[must_use]
pub fn is_guard(sysctl: &Sysctl) -> bool {
    sysctl.path.ends_with(ACCEPT_LOCAL) && sysctl.value == OURS
}

/// [`guards`], which are for when the programs look, and all others.
#[must_use]
pub fn apart(sysctls: Vec<Sysctl>) -> (Vec<Sysctl>, Vec<Sysctl>) {
    sysctls.into_iter().partition(is_guard)
}

/// Puts back the [`guards`] that are not `wanted` any longer, while our programs still look.
pub fn release(saved: &Saved, wanted: &[Sysctl]) -> Result<Vec<Change>> {
    let mut gone = saved.guards();
    let ours = |e: &Entry| read(&e.path).as_deref() == Some(OURS);
    gone.0
        .retain(|e| ours(e) && wanted.iter().all(|s| s.path != e.path));
    restore(&gone)
}

impl Saved {
    /// What [`guards`] asked for.
    #[must_use]
    pub fn guards(&self) -> Self {
        let guards = self.0.iter().filter(|e| e.path.ends_with(ACCEPT_LOCAL));
        Self(guards.cloned().collect())
    }
}
