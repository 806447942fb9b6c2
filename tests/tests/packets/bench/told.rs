//! What the programs have told of a path.

use uplink_common::Family;
use uplink_common::record::Passive;
use uplink_userspace::engine::Path;
use uplink_userspace::maps::Carried;

use super::Bench;

impl Bench {
    /// What the users' packets told of a path so far.
    pub fn told(&self, uplink: u8, family: Family) -> Passive {
        self.maps.passive(Path { uplink, family }).expect("map `passive`")
    }

    /// What an uplink carried so far.
    pub fn carried(&self, uplink: u8) -> Carried {
        self.maps.carried(uplink).expect("maps `sent` and `received`")
    }

    /// The mark of this host's sockets on an uplink.
    pub fn host_mark(&self, uplink: u8) -> u32 {
        self.uplinks[usize::from(uplink) - 1].host_mark
    }
}
