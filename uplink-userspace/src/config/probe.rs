//! What a probe is, for all uplinks or for one.

mod kind;
pub(super) mod read;
mod target;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use uplink_common::Family;

/// How an uplink is probed: `[probe]`, with what its own `probe = { ... }` says instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub kind: Kind,
    /// Who is asked, 1 to 16, each once, through every uplink that carries their family.
    pub targets: Vec<Target>,
    /// Targets of a family that must answer for a round to be good, 1 to 16; where a family has
    /// fewer, all of them.
    pub quorum: u32,
    /// Between rounds, 50 ms to 1 h.
    pub interval: Duration,
    /// A reply later than this counts as lost, 10 ms to 1 min. What is known of the path may make
    /// a probe count as lost sooner; a reply that comes all the same undoes that.
    pub timeout: Duration,
    /// Lost rounds in a row that take an uplink out, 1 to 100.
    pub fall: u32,
    /// Answered rounds in a row that take it back, 1 to 100.
    pub rise: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ICMP echo.
    Icmp,
    /// A TCP connection, closed at once; a refused one is no answer.
    Tcp,
    /// A DNS query over UDP for the NS records of this name; an answer counts, also that there
    /// is no such name.
    Dns {
        /// The name, "." by default.
        name: String,
    },
    /// An HTTP GET.
    Http(Http),
    /// A program: exit status 0 is an answer.
    Exec {
        /// An absolute path and arguments.
        command: Vec<String>,
    },
}

/// An HTTP(S) GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// HTTPS.
    pub tls: bool,
    /// The Host field, and the name in the server's certificate; default: the target's address.
    pub host: Option<String>,
    /// The path, "/" by default.
    pub path: String,
    /// Statuses that count as an answer; default 200-399.
    pub status: Vec<RangeInclusive<u16>>,
    /// PEM file with the authorities that are trusted instead of the web's.
    pub ca: Option<PathBuf>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its address. Unspecified where an `exec` probe has no targets: one of each family.
    pub address: IpAddr,
    /// Its port, 0 where the protocol has none.
    pub port: u16,
}

impl Target {
    /// Its address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => self.address.fmt(f),
            port => SocketAddr::new(self.address, port).fmt(f),
        }
    }
}

impl Probe {
    /// The targets of a family, in the order of the file.
    pub fn targets_of(&self, family: Family) -> impl Iterator<Item = Target> + '_ {
        self.targets.iter().copied().filter(move |t| t.family() == family)
    }
}
