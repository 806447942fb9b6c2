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

use uplink_common::{FlowKey, Translation};

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

/// One direction of a connection by its ends as the programs at the wire know them: conntrack sees prefixes that are
/// translated from the inside only.
pub fn at_the_wire(key: FlowKey, translations: &[Translation]) -> impl Iterator<Item = FlowKey> {
    let from_outside = translations.iter().filter_map(move |translation| {
        let mut key = key;
        translation.outward(&mut key.dst).then_some(key)
    });
    [key].into_iter().chain(from_outside)
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
    use std::net::IpAddr;

    use uplink_common::Addr;

    use super::*;
    use crate::conntrack::tuple::tests::flow;

    #[test]
    fn what_comes_in_for_a_translated_prefix_is_known_by_its_address_outside() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let translation = |outside| Translation::new(addr("fd00:10::"), addr(outside), 64);
        let translations = ["2001:db8:1:10::", "2001:db8:2:10::"].map(translation);
        let known = |key| at_the_wire(key, &translations).collect::<Vec<_>>();
        let out = flow("fd00:10::2", "2001:db8:9::1", 17);
        assert_eq!(known(out), [out]);
        let [own, one, two] = known(out.reversed())[..] else {
            panic!("not by both uplinks");
        };
        assert_eq!(own, out.reversed());
        for (key, outside) in [(one, "2001:db8:1:10::"), (two, "2001:db8:2:10::")] {
            assert_eq!(FlowKey { dst: own.dst, ..key }, own);
            assert_eq!(key.dst.0[..8], addr(outside).0[..8]);
        }
        let v4 = flow("10.0.0.1", "192.0.2.1", 6);
        assert_eq!(known(v4), [v4]);
    }

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
