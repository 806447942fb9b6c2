//! What a policy does, as a record.

use uplink_common::policy::{Choice, GROUPS, STICKY_BOTH, STICKY_SOURCE, STRICT};

use super::full::{Full, Limit};
use crate::config::{Group, Policy};

/// The records by place; `numbers` likewise. `groups` has all of theirs, and may have others.
pub(super) fn choices(policies: &[Policy], numbers: &[u32], groups: &[Group]) -> Result<Vec<Choice>, Full> {
    if groups.len() > GROUPS as usize {
        return Err(Full {
            limit: Limit::Groups,
            wanted: groups.len(),
        });
    }
    let group = |policy: &Policy| {
        let group = policy.group();
        groups.iter().position(|g| *g == group).unwrap_or(0) as u32
    };
    let numbers = numbers.iter().copied().chain(std::iter::repeat(0));
    let records = policies.iter().zip(numbers);
    Ok(records.map(|(p, number)| record(p, number, group(p))).collect())
}

fn record(policy: &Policy, number: u32, group: u32) -> Choice {
    let sticky = |destination| if destination { STICKY_BOTH } else { STICKY_SOURCE };
    Choice {
        policy: number,
        group,
        flags: if policy.strict { STRICT } else { 0 },
        sticky: policy.sticky.map_or(0, |s| sticky(s.destination)),
        sticky_s: policy
            .sticky
            .map_or(0, |s| u32::try_from(s.time.as_secs()).unwrap_or(u32::MAX)),
        line: policy.line,
        name: name_bytes(&policy.name.value),
    }
}

fn name_bytes(name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let room = bytes.len() - 1;
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(room)) {
        *to = from;
    }
    bytes
}

/// The name in a record.
#[must_use]
pub fn name(choice: &Choice) -> String {
    let bytes: Vec<u8> = choice.name.iter().copied().take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
