//! Loads the programs, pins maps and links, and attaches. Pins that an earlier daemon left are
//! adopted: the maps keep their flows and the links swap programs atomically.

mod cgroup;
mod clsact;
mod link;
mod port;
pub mod query;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use uplink_common::ABI;
use uplink_common::path::{ASKED, LINES, MAX_WAYS};
use uplink_common::recent;
use uplink_common::record::Config;

use crate::config::{self, Attach};
use crate::maps::{self, Maps, fast};

pub use cgroup::{attached_host, directory as cgroup_directory, id as cgroup_id, namespace_cookie};
pub use clsact::{ClsactPort, has_clsact};
pub use port::{Port, attached, behind, detach, foreign_filters, foreign_programs, others, wanted};
pub use wire::wired;

use link::Link;

/// The oldest kernel with what the programs need: cgroup programs may ask whose process it is.
const OLDEST: KernelVersion = KernelVersion::new(6, 1, 0);
/// The first kernel with tcx links.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// Names of pinned links begin with this.
const PIN_PREFIX: &str = "link_";

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/uplink.bpf.o"));

/// How the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// tcx link.
    Tcx,
    /// clsact filter.
    Clsact,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// How much there is to be room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Entries of the flow table.
    pub flows: u32,
    /// Whether there is a fast path, which takes memory for each flow.
    pub fast: bool,
}

impl Room {
    /// Of a configuration.
    #[must_use]
    pub fn of(kernel: &config::Kernel) -> Self {
        Self {
            flows: kernel.flows,
            fast: kernel.is_fast(),
        }
    }

    /// The maps whose size is not always the same.
    fn entries(self) -> [(&'static str, u32); 6] {
        let paths = if self.fast { fast::lines(self.flows) } else { LINES };
        let [asked, ways] = if self.fast { [ASKED, MAX_WAYS] } else { [1; 2] };
        [
            (maps::FLOWS, self.flows),
            (maps::RECENT, recent::lines(self.flows)),
            ("paths_v4", paths),
            ("paths_v6", paths),
            ("ways", ways as u32),
            ("asked", asked as u32),
        ]
    }
}

/// By what our programs are known at interfaces.
#[derive(Clone, Debug)]
pub struct Attached {
    /// How they are attached.
    pub hook: Hook,
    /// Their ids.
    pub programs: Vec<u32>,
}

/// The loaded programs.
pub struct Loaded {
    ebpf: Ebpf,
    bpffs: PathBuf,
    /// How they are attached.
    pub hook: Hook,
    /// By the name of the pin without its prefix.
    links: BTreeMap<String, Link>,
    /// The cgroup whose sockets are steered.
    host: Option<PathBuf>,
    /// Whether the verifier's log belongs to an error.
    verbose: bool,
}

/// Chooses the hook for this kernel.
///
/// # Errors
/// When the kernel lacks what was asked for.
pub fn hook(attach: Attach) -> Result<Hook> {
    let kernel = KernelVersion::current().context("reading the kernel's version")?;
    ensure!(
        kernel >= OLDEST,
        "the kernel is too old: {kernel:?}, at least {OLDEST:?} is needed (Debian 12 has 6.1)"
    );
    match attach {
        Attach::Clsact => Ok(Hook::Clsact),
        Attach::Auto | Attach::Xdp if kernel < TCX => Ok(Hook::Clsact),
        Attach::Tcx if kernel < TCX => {
            bail!("attach = \"tcx\" needs Linux 6.6, this is {kernel:?}: use \"auto\" or \"clsact\"")
        }
        Attach::Auto | Attach::Xdp | Attach::Tcx => Ok(Hook::Tcx),
    }
}

/// Makes the pin directory ours: on a bpffs, mode 0700, owned by us, no symlink. Returns
/// whether pins of an earlier daemon are there.
///
/// # Errors
/// With the remedy, when any of that cannot be had.
pub fn prepare(bpffs: &Path) -> Result<bool> {
    ensure!(
        !OBJECT.is_empty(),
        "this binary was built without its BPF programs: use `cargo xtask build`"
    );
    let parent = bpffs
        .parent()
        .context("--bpffs needs a directory, such as /sys/fs/bpf/uplink")?;
    if !on_bpffs(parent) {
        mount_bpffs(parent)?;
    }
    match fs::symlink_metadata(bpffs) {
        Err(_) => fs::DirBuilder::new()
            .mode(0o700)
            .create(bpffs)
            .with_context(|| format!("creating {}", bpffs.display()))?,
        Ok(found) => {
            // SAFETY: no arguments, cannot fail.
            let me = unsafe { libc::geteuid() };
            ensure!(found.is_dir(), "{} is no directory: remove it", bpffs.display());
            ensure!(
                found.uid() == me && found.mode() & 0o077 == 0,
                "{} is not ours alone (owner {}, mode {:o}), so its pins cannot be trusted: remove it",
                bpffs.display(),
                found.uid(),
                found.mode() & 0o7777
            );
        }
    }
    Ok(bpffs.join("config").exists())
}

fn on_bpffs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs(dir: &Path) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let remedy = || {
        format!(
            "{0} is no BPF file system and cannot be made one: run `mount -t bpf bpf {0}`",
            dir.display()
        )
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), dir, Some("bpf"), flags, Some("mode=0700")).with_context(remedy)
}

impl Loaded {
    /// Makes the maps, adopting those pinned under `bpffs`. Programs are loaded when they are needed: see
    /// [`Self::verify`]. The verifier's log is part of its error where `verbose`.
    ///
    /// # Errors
    /// When pins are another version's, or the kernel refuses maps.
    pub fn load(bpffs: &Path, hook: Hook, room: Room, verbose: bool) -> Result<Self> {
        refuse_other_abi(bpffs)?;
        let mut loader = EbpfLoader::new();
        // The kernel's own BTF is only for relocations, of which the programs have none.
        loader.btf(None);
        for (name, entries) in room.entries() {
            drop_resized(bpffs, name, entries)?;
            loader.map_max_entries(name, entries);
        }
        if verbose {
            loader.verifier_log_level(VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS);
        }
        for name in maps::NAMES {
            loader.map_pin_path(name, bpffs.join(name));
        }
        Ok(Self {
            ebpf: loader.load(OBJECT).context("loading the BPF maps")?,
            bpffs: bpffs.to_owned(),
            hook,
            links: BTreeMap::new(),
            host: None,
            verbose,
        })
    }

    /// The maps.
    ///
    /// # Errors
    /// When the object lacks one.
    pub fn maps(&self) -> Result<Maps> {
        Maps::of(&self.ebpf)
    }

    /// Has the kernel verify those of these programs that it has not yet. Nothing is attached, so that whoever is
    /// about to change something may ask for it before.
    ///
    /// All at once: the verifier works on as many processors as there are, and a start waits for the longest of the
    /// programs instead of for all of them.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn verify(&mut self, programs: &BTreeSet<&str>) -> Result<()> {
        let wanted =
            |(name, program): &(&str, &mut Program)| programs.contains(name) && program.fd().is_err();
        let missing: Vec<_> = self.ebpf.programs_mut().filter(wanted).collect();
        let done = std::thread::scope(|scope| {
            let loads = missing
                .into_iter()
                .map(|(_, program)| scope.spawn(|| load(program)));
            let loads: Vec<_> = loads.collect();
            let mut done = loads.into_iter().map(|load| load.join());
            done.try_for_each(|load| load.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        done.map_err(|e| refused(e, self.verbose))
    }

    /// Pins again what somebody removed, and says what that was.
    ///
    /// # Errors
    /// When the directory is gone and cannot be made, or a pin is refused.
    pub fn ensure_pins(&self) -> Result<Vec<String>> {
        prepare(&self.bpffs)?;
        let mut repaired = Vec::new();
        for name in maps::NAMES {
            let pin = self.bpffs.join(name);
            if fs::symlink_metadata(&pin).is_err() {
                let map = self.ebpf.map(name);
                let map = map.with_context(|| format!("the BPF object has no map `{name}`"))?;
                maps::data(map)
                    .pin(&pin)
                    .with_context(|| format!("pinning {}", pin.display()))?;
                repaired.push((*name).to_owned());
            }
        }
        for (name, link) in &self.links {
            if link.ensure_pinned()? {
                repaired.push(format!("{PIN_PREFIX}{name}"));
            }
        }
        Ok(repaired)
    }

    /// What is ours at interfaces.
    #[must_use]
    pub fn attached(&self) -> Attached {
        let ids = self
            .ebpf
            .programs()
            .filter_map(|(_, p)| Some(p.info().ok()?.id()));
        Attached {
            hook: self.hook,
            programs: ids.collect(),
        }
    }

    fn pin(&self, link: &str) -> PathBuf {
        self.bpffs.join(format!("{PIN_PREFIX}{link}"))
    }

    /// Lets a link go, and with it its program.
    fn release(&mut self, link: &str) -> Result<()> {
        self.links.remove(link);
        remove_pin(&self.pin(link))
    }
}

/// The programs that there is work for: at these ports, at the wire where there is a fast path, and for this host's
/// own sockets.
#[must_use]
pub fn needed(ports: &[Port], fast: bool, host: bool) -> BTreeSet<&'static str> {
    let ports = ports
        .iter()
        .flat_map(|port| wanted(port).map(|(_, program)| program));
    let host = cgroup::PROGRAMS.into_iter().filter(|_| host);
    ports.chain(fast.then_some(wire::FAST)).chain(host).collect()
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    if let Ok(classifier) = <&mut SchedClassifier>::try_from(&mut *program) {
        again(|| classifier.load())
    } else if let Ok(wire) = <&mut Xdp>::try_from(&mut *program) {
        again(|| wire.load())
    } else {
        let socket = <&mut CgroupSockAddr>::try_from(program)?;
        again(|| socket.load())
    }
}

/// The verifier breaks off with EAGAIN when a signal is pending.
fn again(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const ATTEMPTS: u32 = 5;
    let mut attempt = 1;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            done => return done,
        }
    }
}

fn refused(error: ProgramError, verbose: bool) -> anyhow::Error {
    match &error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } if verbose => {
            anyhow::anyhow!("the kernel refused the BPF program ({io_error}):\n{verifier_log}")
        }
        ProgramError::LoadError { io_error, .. } => anyhow::anyhow!(
            "the kernel refused the BPF program ({io_error}): run with --verbose for the verifier's log; \
             CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed"
        ),
        _ => error.into(),
    }
}

fn refuse_other_abi(bpffs: &Path) -> Result<()> {
    let pin = bpffs.join("config");
    if !pin.exists() {
        return Ok(());
    }
    let remedy = "it was left by another version of uplink: run `uplink down`, then start again";
    let map = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
    let record = Map::from_map_data(map)
        .and_then(Array::<_, Config>::try_from)
        .with_context(|| format!("{}: {remedy}", pin.display()))?
        .get(&0, 0)?;
    ensure!(
        record.abi == ABI || record.abi == 0,
        "{} has map layout {}, this program has {ABI}: {remedy}",
        pin.display(),
        record.abi
    );
    Ok(())
}

/// A table of another size is not reused. Flows are found again by their slots, paths are learned anew.
fn drop_resized(bpffs: &Path, name: &str, entries: u32) -> Result<()> {
    let pin = bpffs.join(name);
    let Ok(map) = MapData::from_pin(&pin) else {
        return Ok(());
    };
    if map.info()?.max_entries() != entries {
        if name == maps::FLOWS {
            tracing::warn!("the flow table gets a new size: pins of live flows are lost");
        }
        fs::remove_file(&pin)?;
    }
    Ok(())
}

/// Detaches everything and removes all pins; only what is ours. Missing things are fine.
///
/// # Errors
/// When a pin cannot be removed.
pub fn remove(bpffs: &Path, clsact: &[ClsactPort]) -> Result<()> {
    clsact.iter().for_each(clsact::remove);
    let Ok(entries) = fs::read_dir(bpffs) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let name = file.to_string_lossy();
        if maps::NAMES.contains(&&*name) || name.starts_with(PIN_PREFIX) {
            remove_pin(&entry.path())?;
        }
    }
    let _ = fs::remove_dir(bpffs);
    Ok(())
}

fn remove_pin(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", pin.display()))
        }
        _ => Ok(()),
    }
}
