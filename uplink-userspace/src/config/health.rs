//! When an uplink is worse than it should be, how new flows are shared, and what may be used up.

pub(super) mod quota;
pub(super) mod read;

use std::time::Duration;

/// `[health]`: what makes an uplink `degraded`, and how soon it is trusted again.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Lost probes, 0 to 1.
    pub loss: Limits<f64>,
    /// Smoothed round-trip time, if it matters.
    pub rtt: Option<Limits<Duration>>,
    /// Smoothed jitter, if it matters.
    pub jitter: Option<Limits<Duration>>,
    /// An uplink must have been good for so long without a break before it gets better again,
    /// 0 to 1 h.
    pub hold_down: Duration,
    /// A recovered uplink's weight grows over this time, 0 (at once) to 1 h.
    pub slow_start: Duration,
    /// Flips of an uplink within a minute that are not its death, 2 to 60: a recovery that would
    /// make more waits.
    pub switches_per_minute: u32,
}

/// Two values, so that what lies about a limit does not flap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<T> {
    /// From here on it is degraded.
    pub worse: T,
    /// From here on it is good again; below `worse`.
    pub better: T,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            loss: Limits {
                worse: 0.15,
                better: 0.05,
            },
            rtt: None,
            jitter: None,
            hold_down: Duration::from_secs(3),
            slow_start: Duration::from_secs(5),
            switches_per_minute: 2,
        }
    }
}

/// `[balance]`: what the shares of new flows follow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance {
    /// What the weights are multiplied with.
    pub by: By,
    /// The first uplink, in the order of the file, takes all new flows until it carries this part
    /// of its capacity, then the next does, and so on; above 0, at most 1.
    pub spillover: Option<f64>,
}

/// What the weights are multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Nothing.
    #[default]
    Weight,
    /// The inverse of the round-trip time.
    Latency,
    /// What loss leaves of the goodput.
    Loss,
    /// The capacity that is left; every uplink has `down` and `up` then.
    Bandwidth,
    /// All three; `down` and `up` count where all uplinks have them.
    Quality,
}

/// How much an uplink can carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Towards us, bits per second; 8 kbit/s to 1 Tbit/s.
    pub down: Option<u64>,
    /// From us, bits per second.
    pub up: Option<u64>,
}

/// `quota` of an uplink: how much it may carry in a period, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes, at least 1 MB.
    pub bytes: u64,
    /// The period.
    pub per: Period,
    /// The day on which a month begins, 1 to 28.
    pub starts: u8,
    /// What happens when it is used up.
    pub then: Then,
}

/// The period of a quota, in the host's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the day that `starts` names.
    Month,
}

/// What happens when a quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The uplink serves only when no other one answers.
    LastResort,
    /// It takes no new flows at all, and its state is `disabled`.
    Disable,
}
