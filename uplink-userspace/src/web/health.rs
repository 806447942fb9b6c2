//! Whether this router does its work, for load balancers, VRRP scripts and monitoring.

use serde::Serialize;

use crate::status::{State, Status};

/// Warnings that tell of something of our own that is broken. Others tell of the world.
const BROKEN: [&str; 4] = ["all-down", "not-published", "programs", "repair-failed"];

/// `/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// "ok" or "failing".
    pub status: &'static str,
    /// Names of the uplinks that take new flows and are not down.
    pub serving: Vec<String>,
    /// Why it is failing.
    pub reasons: Vec<String>,
}

impl Health {
    /// At least one uplink serves, and nothing of ours is broken.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let serves = |state| !matches!(state, State::Down | State::Disabled);
        let serving = status.uplinks.iter().filter(|u| u.share > 0.0 && serves(u.state));
        let serving: Vec<String> = serving.map(|u| u.name.clone()).collect();
        let broken = status.warnings.iter().filter(|w| BROKEN.contains(&&*w.code));
        let mut reasons: Vec<String> = broken.map(|w| format!("{}: {}", w.code, w.text)).collect();
        if serving.is_empty() {
            reasons.push("no uplink serves".into());
        }
        Self {
            status: if reasons.is_empty() { "ok" } else { "failing" },
            serving,
            reasons,
        }
    }

    /// Whether the answer is 200.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.reasons.is_empty()
    }
}
