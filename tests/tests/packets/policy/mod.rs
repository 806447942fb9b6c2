//! Policies, on packets and on this host's sockets.

use uplink_userspace::config::{At, Choice, Domain, Match, Policy};

/// Seconds since boot when a name is still known, however long the machine has been up.
pub const FAR_AWAY_S: u32 = u32::MAX;

/// A policy for everything, by all uplinks.
pub fn plain(name: &str) -> Policy {
    Policy {
        name: At {
            value: name.into(),
            span: 0..0,
        },
        line: 1,
        matches: Match::default(),
        when: Vec::new(),
        choice: Choice::default(),
        strict: false,
        sticky: None,
    }
}

/// A policy for everything, by these uplinks.
pub fn by(name: &str, uplinks: &[&str]) -> Policy {
    let uplinks = uplinks.iter().map(|u| ((*u).to_owned(), None));
    Policy {
        choice: Choice {
            tiers: vec![uplinks.collect()],
            ..Choice::default()
        },
        ..plain(name)
    }
}

/// A policy for what was looked up by a name.
pub fn named(name: &str) -> Policy {
    let mut policy = plain(name);
    policy.matches.domain.push(Domain {
        name: name.into(),
        below: true,
    });
    policy
}

mod cgroups;
mod dns;
mod draw;
mod packet;
mod random;
mod reference;
mod sockets;
mod sticky;
mod strict;
mod swap;
