//! Which uplinks are shown, and in which order.

use std::cmp::Ordering;

use crate::status::{State, Uplink};

use super::history::Sample;

/// What the list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The order of the configuration.
    #[default]
    File,
    /// By name.
    Name,
    /// Those that need attention first.
    State,
    /// The largest first, and so below.
    Share,
    /// Rate towards us.
    Down,
    /// Rate from us.
    Up,
    /// Flows in use.
    Flows,
    /// Round-trip time.
    Rtt,
    /// Jitter.
    Jitter,
    /// Loss.
    Loss,
    /// The lowest first.
    Tier,
}

impl Sort {
    const ALL: [Self; 11] = [
        Self::File,
        Self::Name,
        Self::State,
        Self::Share,
        Self::Rtt,
        Self::Down,
        Self::Up,
        Self::Loss,
        Self::Flows,
        Self::Jitter,
        Self::Tier,
    ];

    /// The next one, in the order of the columns.
    #[must_use]
    pub fn next(self) -> Self {
        let here = Self::ALL.iter().position(|s| *s == self).unwrap_or(0);
        Self::ALL[(here + 1) % Self::ALL.len()]
    }

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "order of the file",
            Self::Name => "name",
            Self::State => "state",
            Self::Share => "share",
            Self::Down => "rate down",
            Self::Up => "rate up",
            Self::Flows => "flows",
            Self::Rtt => "RTT",
            Self::Jitter => "jitter",
            Self::Loss => "loss",
            Self::Tier => "tier",
        }
    }

    /// How two uplinks stand to each other.
    pub(super) fn compare(self, a: (&Uplink, Sample), b: (&Uplink, Sample)) -> Ordering {
        let most = |of: fn(&Uplink) -> f64| of(b.0).total_cmp(&of(a.0));
        let known = |ms: Option<f64>| ms.unwrap_or(-1.0);
        match self {
            Self::File => Ordering::Equal,
            Self::Name => a.0.name.cmp(&b.0.name),
            Self::State => urgency(b.0.state).cmp(&urgency(a.0.state)),
            Self::Share => most(|u| u.share),
            Self::Down => known(b.1.down_bps).total_cmp(&known(a.1.down_bps)),
            Self::Up => known(b.1.up_bps).total_cmp(&known(a.1.up_bps)),
            Self::Flows => b.0.active_flows.cmp(&a.0.active_flows),
            Self::Rtt => known(b.0.rtt_ms).total_cmp(&known(a.0.rtt_ms)),
            Self::Jitter => known(b.0.jitter_ms).total_cmp(&known(a.0.jitter_ms)),
            Self::Loss => most(|u| u.loss),
            Self::Tier => a.0.tier.cmp(&b.0.tier),
        }
    }
}

/// How much a state needs attention.
pub(super) const fn urgency(state: State) -> u8 {
    match state {
        State::Down => 5,
        State::Degraded => 4,
        State::Draining => 3,
        State::Disabled => 2,
        State::Unknown => 1,
        State::Up => 0,
    }
}

/// Whether the text is in the name, the state or the interface.
pub(super) fn matches(u: &Uplink, filter: &str) -> bool {
    let filter = filter.to_lowercase();
    let texts = [
        u.name.to_lowercase(),
        u.state.to_string(),
        u.interface.to_lowercase(),
    ];
    texts.iter().any(|t| t.contains(&filter))
}
