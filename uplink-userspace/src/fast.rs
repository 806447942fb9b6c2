//! The XDP fast path, as seen from user space: what stands in its way, what has all flows take the kernel's way
//! again, and which connections are gone. Unsure means that it stays off.

pub mod closed;
mod devices;
pub mod drivers;
pub mod look;
mod memory;
pub mod queues;
pub mod rules;
pub mod watch;

use std::collections::BTreeSet;

use crate::links;
use crate::loader::Port;
use crate::nexthop::Obstacle;

/// At least so often a packet of every fast flow takes the kernel's way, in seconds. With a million flows of a packet a
/// second this is what the fast path costs, and it is how late what nobody tells of may bite.
pub const LOOK_AGAIN_S: u32 = 30;

/// What was found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What needs every packet; or why that is not known.
    pub obstacles: Result<Vec<Obstacle>, String>,
    /// What goes on with less, for people.
    pub warnings: Vec<String>,
    /// So often a packet of every fast flow has to take the kernel's way, in seconds, so that its connection lives.
    pub look_again_s: u32,
}

/// How often conntrack has to see a packet of connections that it forgets after these times, in seconds: three
/// times in the shortest, but at least every [`LOOK_AGAIN_S`].
#[must_use]
pub fn look_again_s(timeouts_s: impl IntoIterator<Item = u32>) -> u32 {
    let shortest = timeouts_s.into_iter().min().unwrap_or(u32::MAX);
    (shortest / 3).clamp(1, LOOK_AGAIN_S)
}

/// Whether the fast path suits a host with these ports by itself: every one has a wire, and its driver says that it does
/// all that is needed. A kernel that does not tell is none of them.
pub async fn suits(ports: &[Port]) -> bool {
    let indices: Vec<u32> = ports.iter().map(|p| p.ifindex).collect();
    let Ok(wires) = links::wires(&indices).await else {
        return false;
    };
    let device = |index| Some(wires.get(index)?.as_ref().ok()?.port.device);
    let Some(devices) = indices.iter().map(device).collect::<Option<BTreeSet<u32>>>() else {
        return false;
    };
    let is_none = |unable: BTreeSet<u32>| unable.is_empty();
    !devices.is_empty() && drivers::unable(devices).await.is_ok_and(is_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntrack_sees_a_packet_three_times_before_it_forgets() {
        for (timeouts, expected) in [
            (vec![120, 432_000], 30),
            (vec![120, 60], 20),
            (vec![90], 30),
            (vec![89], 29),
            (vec![], 30),
            (vec![2, 30], 1),
            (vec![0], 1),
        ] {
            assert_eq!(look_again_s(timeouts.clone()), expected, "{timeouts:?}");
        }
    }
}
