//! What the checks look at, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::sysctl::Change;

/// What was read, or why it was not.
pub(super) type Seen = Result<Value, String>;

/// What was read of the host, whatever the configuration says.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Who we are, and what we may.
    pub user: User,
    /// Version of the kernel, as it writes it.
    pub release: String,
    /// Where maps are pinned.
    pub bpffs: Bpffs,
    /// Maps that are pinned.
    pub pins: Pins,
    /// The daemon.
    pub daemon: Daemon,
    /// Programs that were not found.
    pub missing: Vec<&'static str>,
    /// `nft -t -j list ruleset`.
    pub ruleset: Seen,
    /// Lines of `iptables-save` and `ip6tables-save`, with the program's name in front.
    pub iptables: Vec<(&'static str, String)>,
    /// Tables of the old iptables are in use.
    pub legacy: bool,
    /// Devices with our fast path at their wire, by index.
    pub wired: BTreeSet<u32>,
    /// `ip -j -d link`.
    pub links: Seen,
    /// `ip -j addr`.
    pub addresses: Seen,
    /// `ip -j neigh` of those that failed.
    pub neighbours: Seen,
    /// `tc -j qdisc`.
    pub qdiscs: Seen,
    /// Connections that are tracked and the most there may be; `None` as long as nothing is tracked.
    pub conntrack: Option<(u64, u64)>,
    /// `net.core.bpf_jit_enable` is 0.
    pub interpreted: bool,
    /// Strict filters on the reverse path, by interface; the greater of its own and that of `all`.
    pub rp_filter: BTreeMap<String, u8>,
    /// What runs in this network namespace, by names of at most 15 characters.
    pub running: BTreeSet<String>,
    /// networkd's configuration where it runs, what counts more behind what counts less.
    pub networkd: Option<String>,
    /// Indices of interfaces that NetworkManager manages.
    pub managed: BTreeSet<u32>,
    /// Whether there is a group `uplink`.
    pub group: bool,
    /// Names of routing protocols in files other than ours, by number.
    pub protocols: BTreeMap<u8, String>,
}

/// Who runs the doctor.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    /// Its effective user is root.
    pub root: bool,
    /// Effective capabilities, a bit each.
    pub effective: u64,
    /// What it could ever get.
    pub bounding: u64,
    /// `/proc/sys` can be written; `None` where that is not for this user to say.
    pub sysctls: Option<bool>,
}

/// The place for pins.
#[derive(Clone, Debug)]
pub(super) struct Bpffs {
    /// What `--bpffs` names.
    pub path: PathBuf,
    /// The directory around it exists.
    pub exists: bool,
    /// It is in a BPF file system.
    pub mounted: bool,
}

/// What is pinned.
#[derive(Clone, Debug)]
pub(super) enum Pins {
    /// Nothing.
    Nothing,
    /// Maps of this version.
    Ours,
    /// Maps of the version with this ABI.
    Other(u32),
    /// It could not be seen, and why.
    Unseen(String),
}

/// The daemon of this runtime directory.
#[derive(Clone, Debug)]
pub(super) enum Daemon {
    /// None, and none left anything.
    Absent,
    /// Its status.
    Runs(Value),
    /// None runs, but one left its state.
    Gone,
    /// There is one that does not answer as it should, and how.
    Silent(String),
    /// It could not be asked, and why.
    Unseen(String),
}

/// What was read because the configuration says so.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Rules and routes with our protocol.
    pub tagged: usize,
    /// Sysctls that are not as they are wanted.
    pub sysctls: Vec<Change>,
    /// Why this host's own sockets cannot be steered, where they should be.
    pub cgroup: Option<String>,
    /// Why the programs cannot be attached.
    pub attach: Option<String>,
    /// They go to the clsact qdisc.
    pub clsact: bool,
}
