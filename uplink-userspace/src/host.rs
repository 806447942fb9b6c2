//! What the host looks like, as plain data: the pure modules decide on it, `links` reads it.

use std::net::IpAddr;

use ipnet::IpNet;

/// A snapshot of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Every interface.
    pub interfaces: Vec<Interface>,
    /// Tables that hold routes of somebody else (main, local and default left out).
    pub foreign_tables: Vec<u32>,
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
    /// Its addresses with their prefixes, link-local ones too; host bits kept.
    pub addresses: Vec<IpNet>,
}

impl Host {
    /// The interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
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
