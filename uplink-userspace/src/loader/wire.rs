//! The program of the fast path at an interface's wire.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};

use uplink_common::path::Port;

use super::link::Link;
use super::{Loaded, PIN_PREFIX, needed};

/// Its name.
pub(super) const FAST: &str = "uplink_fast";

/// What the names of its links end with.
const SUFFIX: &str = "_xdp";

fn name(device: u32) -> String {
    format!("{device}{SUFFIX}")
}

impl Loaded {
    /// The program of the fast path.
    pub const FAST: &str = FAST;

    /// Attaches the fast path to a device's driver, taking over what an earlier daemon left there, or makes sure that it
    /// is so. Returns whether that was needed.
    ///
    /// # Errors
    /// When the driver cannot, or somebody else's program is there; or when there is no fast path.
    pub fn attach_wire(&mut self, device: u32, device_name: &str) -> Result<bool> {
        let name = name(device);
        let new = !self.links.contains_key(&name);
        if self.adopt_wire(device)? {
            return Ok(new);
        }
        self.release(&name)?;
        let program = program(&mut self.ebpf)?;
        let id = program
            .attach_to_if_index(device, XdpMode::Driver)
            .with_context(|| format!("attaching to the driver of {device_name}"))?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        let link = Link::keep(link, &self.pin(&name))?;
        self.links.insert(name, link);
        Ok(true)
    }

    /// Puts this daemon's program in the place of the one that an earlier daemon left at a device, which goes where the
    /// driver takes no other in its place. Returns whether this daemon's is there now.
    ///
    /// # Errors
    /// When a pin cannot be removed; or when there is no fast path.
    pub fn adopt_wire(&mut self, device: u32) -> Result<bool> {
        self.verify(&needed(&[], true, false))?;
        let name = name(device);
        let pin = self.pin(&name);
        if !self.links.contains_key(&name)
            && let Some(link) = Link::adopt(&pin)
        {
            self.links.insert(name.clone(), link);
        }
        let Some(link) = self.links.get(&name) else {
            return Ok(false);
        };
        if matches!(link.update(program(&mut self.ebpf)?.fd()?.as_fd()), Ok(true)) {
            return Ok(true);
        }
        self.release(&name)?;
        Ok(false)
    }

    /// Detaches the fast path from all devices but those of these ports, also where an earlier daemon left it.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_other_wires(&mut self, ports: &[Port]) -> Result<()> {
        let keep: Vec<String> = ports.iter().map(|port| name(port.device)).collect();
        for name in pinned(&self.bpffs)?
            .into_iter()
            .filter(|name| !keep.contains(name))
        {
            self.release(&name)?;
        }
        Ok(())
    }
}

/// The names of the links that are pinned.
fn pinned(bpffs: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(bpffs).with_context(|| format!("reading {}", bpffs.display()))?;
    let name = |entry: fs::DirEntry| {
        let file = entry.file_name();
        let name = file.to_str()?.strip_prefix(PIN_PREFIX)?;
        name.ends_with(SUFFIX).then(|| name.to_owned())
    };
    Ok(entries.flatten().filter_map(name).collect())
}

/// Indices of the devices with the fast path at their wire; none where nobody may look.
#[must_use]
pub fn wired(bpffs: &Path) -> BTreeSet<u32> {
    let names = pinned(bpffs).unwrap_or_default();
    let index = |name: &String| name.strip_suffix(SUFFIX)?.parse().ok();
    names.iter().filter_map(index).collect()
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut(FAST)
        .with_context(|| format!("the BPF object has no program `{FAST}`"))?;
    Ok(program.try_into()?)
}
