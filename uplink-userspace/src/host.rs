//! What the host looks like, as plain data: the pure modules decide on it, `links` reads it.

mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use uplink_common::Family;

pub use rule::{Action, ForeignRule};

/// The kernel's table for routes of no particular table.
pub const MAIN: u32 = 254;

/// A snapshot of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Every interface.
    pub interfaces: Vec<Interface>,
    /// Tables that hold routes of somebody else (main, local and default left out).
    pub foreign_tables: Vec<u32>,
    /// Who is known by MAC address, gateways among them.
    pub neighbours: Vec<Neighbour>,
    /// Policy routing rules that are neither ours nor the kernel's three standard ones, in the
    /// order of the kernel.
    pub rules: Vec<ForeignRule>,
    /// What is in `main` and in the tables that `rules` look up, our own routes left out.
    pub tables: BTreeMap<(Family, u32), Destinations>,
    /// Default routes of `main`, our own left out: what DHCP, router advertisements, PPP or an
    /// administrator put there. One for each next hop.
    pub default_routes: Vec<DefaultRoute>,
    /// The far ends of point-to-point addresses.
    pub peers: Vec<Peer>,
    /// Indices of both ends of the aggregate interface, where there is one. Routes by it are as good as
    /// ours: they are in none of the lists above.
    pub aggregates: Vec<u32>,
    /// Tables with routes by it.
    pub entering: BTreeSet<(Family, u32)>,
}

/// A next hop of a default route in `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Address family of what it carries.
    pub family: Family,
    /// The interface it leads out by.
    pub ifindex: u32,
    /// Its next hop; an IPv4 route may have an IPv6 one.
    pub gateway: Option<IpAddr>,
    /// Its preferred source.
    pub source: Option<IpAddr>,
    /// The lowest wins.
    pub metric: u32,
    /// Router preference of RFC 4191: 1 high, 0 medium, -1 low. Decides between equal metrics.
    pub preference: i8,
}

/// The far end of one of our addresses on a point-to-point link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The interface.
    pub ifindex: u32,
    /// Our address.
    pub local: IpAddr,
    /// Its address and the prefix that is connected by it.
    pub remote: IpNet,
}

/// A neighbour that can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// Where the routes of one table lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// To these prefixes, host bits zero.
    Listed(Vec<IpNet>),
    /// To more prefixes than are worth a list: anywhere.
    Anywhere,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up and with carrier.
    pub running: bool,
    /// By family: the longest IP packet in bytes that it sends; 0: not known.
    pub mtu: [u32; 2],
    /// Its addresses with their prefixes, link-local ones too; host bits kept.
    pub addresses: Vec<IpNet>,
    /// Those among them that are about to go and should not be used for anything new.
    pub deprecated: Vec<IpAddr>,
}

impl Host {
    /// The interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
    }

    /// Whether `address` is one of this host's.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let mut all = self.interfaces.iter().flat_map(|i| &i.addresses);
        all.any(|net| net.addr() == address)
    }
}

impl Interface {
    /// Our address with the longest prefix that contains `gateway`.
    #[must_use]
    pub fn towards(&self, gateway: IpAddr) -> Option<IpNet> {
        let mut found: Option<IpNet> = None;
        for net in &self.addresses {
            let longer = found.is_none_or(|f| net.prefix_len() > f.prefix_len());
            if net.contains(&gateway) && longer {
                found = Some(*net);
            }
        }
        found
    }
}
