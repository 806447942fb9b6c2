//! The configuration file: what it can say, its defaults, and where each value stands, so that
//! every later complaint can point at a line and a column.

mod parse;
mod problem;
mod reader;
mod sections;
#[cfg(test)]
mod tests;
mod uplinks;

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use uplink_common::mark::Mask;

pub use parse::{load, parse};
pub use problem::{Problem, Problems};

/// A value and the bytes of the file it came from. Defaults carry an empty span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Byte range in [`File::text`].
    pub span: Range<usize>,
}

/// The file as read: for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path as the user gave it.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it came from.
    pub file: File,
    /// In the order of the file; the position gives the default table.
    pub uplinks: Vec<Uplink>,
    /// Where client traffic enters. Empty: the interfaces of the uplinks.
    pub lan: Vec<At<String>>,
    /// Source address translation.
    pub nat: NatMode,
    /// Health probes.
    pub probe: Probe,
    /// Numbers that must not collide with others on this host.
    pub kernel: Kernel,
}

/// One way to the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// 1 to 15 bytes, unique.
    pub name: At<String>,
    /// The interface it is reached by.
    pub interface: At<String>,
    /// IPv4 next hop and source, if it carries IPv4.
    pub v4: Option<Gateway>,
    /// IPv6 next hop and source, if it carries IPv6.
    pub v6: Option<Gateway>,
    /// 1 to 1000.
    pub weight: u32,
    /// Lower is preferred.
    pub tier: u32,
    /// Link MTU for routes through it, if given.
    pub mtu: Option<u32>,
    /// Its routing table.
    pub table: At<u32>,
}

impl Uplink {
    /// Where to point when its table is at fault: a default table stands nowhere, the name does.
    #[must_use]
    pub fn table_span(&self) -> Range<usize> {
        match self.table.span.is_empty() {
            true => self.name.span.clone(),
            false => self.table.span.clone(),
        }
    }
}

/// A next hop of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The next hop's address.
    pub address: At<IpAddr>,
    /// Our address towards it; default: the interface's address in the gateway's subnet.
    pub source: Option<At<IpAddr>>,
}

/// Whether packets get the uplink's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatMode {
    /// The source address fits the uplink.
    Masquerade,
    /// Addresses stay: the gateways route our prefixes back.
    Off,
}

/// How uplinks are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Probed through every uplink that carries their family.
    pub targets: Vec<IpAddr>,
    /// Between rounds, 50 ms to 1 h.
    pub interval: Duration,
    /// A reply later than this counts as lost, 10 ms to 1 min.
    pub timeout: Duration,
    /// Lost rounds in a row that take an uplink out, 1 to 100.
    pub fall: u32,
    /// Answered rounds in a row that take it back, 1 to 100.
    pub rise: u32,
}

/// Our share of the kernel's number spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Our bits of the mark.
    pub fwmark_mask: Mask,
    /// First of a block of 256 priorities, and the number of the catch-all table.
    pub rule_priority: u32,
    /// Tags our routes and rules.
    pub protocol: u8,
    /// Hook of the packet path.
    pub attach: Attach,
    /// Entries of the flow table.
    pub flows: u32,
}

/// Hook of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// tcx where the kernel has it (6.6), else clsact.
    Auto,
    /// A tcx link.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}
