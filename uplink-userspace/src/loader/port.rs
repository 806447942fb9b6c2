//! The programs of an interface, on its way in and on its way out.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier};

use super::link::Link;
use super::{Attached, ClsactPort, Hook, Loaded, PIN_PREFIX, clsact, needed, query, remove_pin};

const STEER: &str = "uplink_ingress";
const COUNT: &str = "uplink_count";
const EGRESS: &str = "uplink_egress";

/// Every program that an interface may have.
pub(super) const PROGRAMS: [&str; 3] = [STEER, COUNT, EGRESS];

/// Both ways.
pub(super) const SIDES: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// An interface and its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Client traffic enters here; otherwise what comes back is only counted.
    pub steers: bool,
}

impl Port {
    const fn program(&self, side: TcAttachType) -> &'static str {
        match side {
            TcAttachType::Egress => EGRESS,
            _ if self.steers => STEER,
            _ => COUNT,
        }
    }

    fn link(&self, side: TcAttachType) -> String {
        link(self.ifindex, side)
    }
}

const OUT: &str = "_egress";

/// What the link to an interface is called.
fn link(ifindex: u32, side: TcAttachType) -> String {
    match side {
        TcAttachType::Egress => format!("{ifindex}{OUT}"),
        _ => ifindex.to_string(),
    }
}

impl Loaded {
    /// Attaches to a port, taking over what an earlier daemon left there, or makes sure that it is
    /// so. Returns what had to be attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&mut self, port: &Port) -> Result<Vec<String>> {
        self.verify(&needed(std::slice::from_ref(port), false, false))?;
        let mut attached = Vec::new();
        for side in SIDES {
            let done = match self.hook {
                Hook::Tcx => self.attach_tcx(port, side),
                Hook::Clsact => clsact::attach(program(&mut self.ebpf, port.program(side))?, port, side),
            };
            if done.with_context(|| format!("attaching to {}", port.name))? {
                attached.push(format!("{} at {}", port.program(side), port.name));
            }
        }
        Ok(attached)
    }

    /// As [`Self::attach`] for a port that has its programs, where somebody may have detached them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn ensure(&mut self, port: &Port) -> Result<Vec<String>> {
        if self.hook == Hook::Clsact && clsact::present(port).await? {
            return Ok(Vec::new());
        }
        self.attach(port)
    }

    /// Detaches from a port.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach(&mut self, port: &Port) -> Result<()> {
        for side in SIDES {
            self.links.remove(&port.link(side));
        }
        detach(&self.bpffs, port)
    }

    /// Detaches from where an earlier daemon with another configuration was and this one is not: other interfaces than
    /// these ports, and the other hook. `before` are the interfaces that had its filters.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_others(&mut self, ports: &[Port], before: &[ClsactPort]) -> Result<()> {
        let (linked, filtered): (_, &[Port]) = match self.hook {
            Hook::Tcx => (ports, &[]),
            Hook::Clsact => (&[] as &[Port], ports),
        };
        for index in others(&self.bpffs, linked)? {
            for side in SIDES {
                self.release(&link(index, side))?;
            }
        }
        for port in before {
            if filtered.iter().all(|p| p.name != port.name) {
                clsact::detach(&port.name);
            }
        }
        Ok(())
    }

    fn attach_tcx(&mut self, port: &Port, side: TcAttachType) -> Result<bool> {
        let name = port.link(side);
        let pin = self.pin(&name);
        let new = !self.links.contains_key(&name);
        if new && let Some(link) = Link::adopt(&pin) {
            self.links.insert(name.clone(), link);
        }
        let program = program(&mut self.ebpf, port.program(side))?;
        if let Some(link) = self.links.get(&name)
            && link.update(program.fd()?.as_fd())?
        {
            return Ok(new);
        }
        // Somebody detached it by force, or the interface was made anew.
        remove_pin(&pin)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&port.name, side, order)?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        self.links.insert(name, Link::keep(link, &pin)?);
        Ok(true)
    }
}

/// Detaches from an interface that has no part any more.
///
/// # Errors
/// When the pin cannot be removed.
pub fn detach(bpffs: &Path, port: &Port) -> Result<()> {
    clsact::detach(&port.name);
    for side in SIDES {
        let pin = bpffs.join(format!("{PIN_PREFIX}{}", port.link(side)));
        if fs::symlink_metadata(&pin).is_ok() {
            remove_pin(&pin)?;
        }
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the BPF object has no program `{name}`"))?;
    Ok(program.try_into()?)
}

/// The programs that belong to a port, by side.
#[must_use]
pub fn wanted(port: &Port) -> [(&'static str, &'static str); 2] {
    SIDES.map(|side| (side_name(side), port.program(side)))
}

/// The programs of ours that are at a port, by side. What lost its pin does not count: a start replaces it.
///
/// # Errors
/// When we may not look.
pub async fn attached(bpffs: &Path, hook: Hook, port: &Port) -> Result<Vec<(&'static str, &'static str)>> {
    if hook == Hook::Clsact {
        let there = clsact::present(port).await?;
        return Ok(wanted(port).into_iter().filter(|_| there).collect());
    }
    let mut found = Vec::new();
    for side in SIDES {
        if !bpffs
            .join(format!("{PIN_PREFIX}{}", port.link(side)))
            .try_exists()?
        {
            continue;
        }
        let query = SchedClassifier::query_tcx(&port.name, side);
        let (_, programs) = query.with_context(|| format!("reading the programs at {}", port.name))?;
        let ours = |name: &&&str| programs.iter().any(|p| p.name_as_str() == Some(**name));
        found.extend(PROGRAMS.iter().find(ours).map(|name| (side_name(side), *name)));
    }
    Ok(found)
}

/// Programs and filters of others that see a packet behind ours on its way in, for people.
///
/// # Errors
/// When we may not look.
pub async fn behind(ours: &Attached, port: &Port) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if ours.hook == Hook::Tcx {
        let ids = query::tcx(port.ifindex, TcAttachType::Ingress);
        let ids = ids.with_context(|| format!("reading the programs at {}", port.name))?;
        let behind = ids.iter().skip_while(|id| !ours.programs.contains(id)).skip(1);
        found.extend(behind.map(|id| format!("program {} at {}", query::name(*id), port.name)));
    }
    found.extend(clsact::behind(ours.hook, port).await?);
    Ok(found)
}

/// The names of others' programs at tcx, both ways.
///
/// # Errors
/// When we may not look.
pub fn foreign_programs(ours: &Attached, port: &Port) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for side in SIDES.into_iter().filter(|_| ours.hook == Hook::Tcx) {
        let ids = query::tcx(port.ifindex, side);
        let ids = ids.with_context(|| format!("reading the programs at {}", port.name))?;
        let foreign = ids.iter().filter(|id| !ours.programs.contains(id));
        found.extend(foreign.map(|id| query::name(*id)));
    }
    Ok(found)
}

/// Filters of others on both ways of an interface, wherever they stand, for people.
///
/// # Errors
/// When we may not look.
pub async fn foreign_filters(hook: Hook, port: &Port) -> Result<Vec<String>> {
    clsact::foreign(hook, port).await
}

/// Indices of interfaces with pinned links that are none of these ports.
///
/// # Errors
/// When we may not look.
pub fn others(bpffs: &Path, ports: &[Port]) -> Result<BTreeSet<u32>> {
    let directory = match fs::read_dir(bpffs) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other.with_context(|| format!("reading {}", bpffs.display()))?,
    };
    let index = |entry: fs::DirEntry| -> Option<u32> {
        let name = entry.file_name();
        let link = name.to_str()?.strip_prefix(PIN_PREFIX)?;
        link.strip_suffix(OUT).unwrap_or(link).parse().ok()
    };
    let indices = directory.flatten().filter_map(index);
    Ok(indices
        .filter(|i| ports.iter().all(|p| p.ifindex != *i))
        .collect())
}

const fn side_name(side: TcAttachType) -> &'static str {
    match side {
        TcAttachType::Egress => "egress",
        _ => "ingress",
    }
}
