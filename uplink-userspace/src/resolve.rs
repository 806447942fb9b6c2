//! The configuration applied to this host: names become indices, gateways get their source.

use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::Family;

/// An uplink with everything the kernel needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its id in marks and maps, from 1. Stays with the name across restarts.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// The interface's index.
    pub ifindex: u32,
    /// IPv4 leg.
    pub v4: Option<Leg>,
    /// IPv6 leg.
    pub v6: Option<Leg>,
    /// Configured weight.
    pub weight: u32,
    /// Lower is preferred.
    pub tier: u32,
    /// MTU of its routes.
    pub mtu: Option<u32>,
    /// Its routing table.
    pub table: u32,
    /// Its mark, our bits only.
    pub mark: u32,
}

/// One address family of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Next hop.
    pub gateway: IpAddr,
    /// Our address towards it.
    pub source: IpAddr,
    /// The connected prefix they share, host bits zero.
    pub prefix: IpNet,
}

impl Uplink {
    /// The leg of a family.
    #[must_use]
    pub const fn leg(&self, family: Family) -> Option<&Leg> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}
