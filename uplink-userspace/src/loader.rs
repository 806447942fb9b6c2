//! Loads the programs, pins maps and links, and attaches. Pins that an earlier daemon left are
//! adopted: the maps keep their flows and the links swap programs atomically.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use uplink_common::ABI;
use uplink_common::record::Config;

use crate::config::Attach;
use crate::maps::{self, Maps};

/// The oldest kernel with what the programs need: `bpf_loop`.
const OLDEST: KernelVersion = KernelVersion::new(5, 17, 0);
/// The first kernel with tcx links.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// Where our clsact filter stands among others'.
const FILTER: (u16, u16) = (50, 1);

const STEER: &str = "uplink_ingress";
const COUNT: &str = "uplink_count";

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

/// The loaded programs.
pub struct Loaded {
    ebpf: Ebpf,
    bpffs: PathBuf,
    /// How they are attached.
    pub hook: Hook,
}

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
        Attach::Auto if kernel < TCX => Ok(Hook::Clsact),
        Attach::Tcx if kernel < TCX => {
            bail!("attach = \"tcx\" needs Linux 6.6, this is {kernel:?}: use \"auto\" or \"clsact\"")
        }
        Attach::Auto | Attach::Tcx => Ok(Hook::Tcx),
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
    /// Loads programs and maps, adopting the maps pinned under `bpffs`.
    ///
    /// # Errors
    /// When pins are another version's, or the kernel refuses maps or programs. The verifier's
    /// log is part of the error where `verbose`.
    pub fn load(bpffs: &Path, hook: Hook, flows: u32, verbose: bool) -> Result<Self> {
        refuse_other_abi(bpffs)?;
        drop_resized_flows(bpffs, flows)?;
        let mut loader = EbpfLoader::new();
        // The kernel's own BTF is only for relocations, of which the programs have none.
        loader.btf(None).map_max_entries(maps::FLOWS, flows);
        if verbose {
            loader.verifier_log_level(VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS);
        }
        for name in maps::NAMES {
            loader.map_pin_path(name, bpffs.join(name));
        }
        let mut ebpf = loader.load(OBJECT).context("loading the BPF maps")?;
        for name in [STEER, COUNT] {
            program(&mut ebpf, name)?
                .load()
                .map_err(|e| refused(e, verbose))?;
        }
        Ok(Self {
            ebpf,
            bpffs: bpffs.to_owned(),
            hook,
        })
    }

    /// The maps.
    ///
    /// # Errors
    /// When the object lacks one.
    pub fn take_maps(&mut self) -> Result<Maps> {
        Maps::take(&mut self.ebpf)
    }

    /// Attaches to a port, taking over the link or filter of an earlier daemon.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&mut self, port: &Port) -> Result<()> {
        let pin = pin_of(&self.bpffs, port.ifindex);
        let hook = self.hook;
        let program = program(&mut self.ebpf, if port.steers { STEER } else { COUNT })?;
        match hook {
            Hook::Tcx => attach_tcx(program, port, &pin),
            Hook::Clsact => attach_clsact(program, port),
        }
        .with_context(|| format!("attaching to {}", port.name))
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the BPF object has no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn refused(error: aya::programs::ProgramError, verbose: bool) -> anyhow::Error {
    use aya::programs::ProgramError;
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

fn attach_tcx(program: &mut SchedClassifier, port: &Port, pin: &Path) -> Result<()> {
    if let Ok(pinned) = PinnedLink::from_pin(pin) {
        let link = SchedClassifierLink::try_from(FdLink::from(pinned))?;
        if let Ok(id) = program.attach_to_link(link) {
            // The pin keeps the link; only our descriptor goes.
            FdLink::try_from(program.take_link(id)?)?;
            return Ok(());
        }
        // Somebody detached it by force, or the interface was made anew (ENOLINK).
        fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(&port.name, TcAttachType::Ingress, order)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(pin)
        .with_context(|| format!("pinning {}", pin.display()))?;
    Ok(())
}

fn attach_clsact(program: &mut SchedClassifier, port: &Port) -> Result<()> {
    let _ = qdisc_add_clsact(&port.name);
    let (priority, handle) = FILTER;
    let handle = TcHandle::new(0, handle);
    let options = NlOptions {
        priority,
        handle,
        classid: None,
    };
    let ours = SchedClassifierLink::attached(&port.name, TcAttachType::Ingress, priority, handle, None)?;
    // Replacing comes first, so that an adopted filter is never missing.
    let id = match program.attach_to_link(ours) {
        Ok(id) => id,
        Err(_) => program.attach_with_options(
            &port.name,
            TcAttachType::Ingress,
            TcAttachOptions::Netlink(options),
        )?,
    };
    // Dropping the link would detach the filter, which has to outlive us.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn pin_of(bpffs: &Path, ifindex: u32) -> PathBuf {
    bpffs.join(format!("link_{ifindex}"))
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

/// A flow table of another size is not reused; its flows are found again by their slots.
fn drop_resized_flows(bpffs: &Path, flows: u32) -> Result<()> {
    let pin = bpffs.join(maps::FLOWS);
    let Ok(map) = MapData::from_pin(&pin) else {
        return Ok(());
    };
    if map.info()?.max_entries() != flows {
        tracing::warn!("the flow table gets a new size: pins of live flows are lost");
        fs::remove_file(&pin)?;
    }
    Ok(())
}

/// Detaches from an interface that has no part any more.
///
/// # Errors
/// When the pin cannot be removed.
pub fn detach(bpffs: &Path, port: &Port) -> Result<()> {
    for name in [STEER, COUNT] {
        let _ = qdisc_detach_program(&port.name, TcAttachType::Ingress, name);
    }
    let pin = pin_of(bpffs, port.ifindex);
    if pin.exists() {
        fs::remove_file(&pin).with_context(|| format!("removing {}", pin.display()))?;
    }
    Ok(())
}

/// Detaches everything and removes all pins; only what is ours. Missing things are fine.
///
/// # Errors
/// When a pin cannot be removed.
pub fn remove(bpffs: &Path, clsact: &[ClsactPort]) -> Result<()> {
    for port in clsact {
        for name in [STEER, COUNT] {
            let _ = qdisc_detach_program(&port.name, TcAttachType::Ingress, name);
        }
        if port.qdisc_is_ours {
            remove_empty_clsact(&port.name);
        }
    }
    let Ok(entries) = fs::read_dir(bpffs) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let name = file.to_string_lossy();
        if maps::NAMES.contains(&&*name) || name.starts_with("link_") {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    let _ = fs::remove_dir(bpffs);
    Ok(())
}

/// An interface with a filter of ours.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClsactPort {
    /// Interface.
    pub name: String,
    /// There was no clsact qdisc before us.
    pub qdisc_is_ours: bool,
}

/// Whether an interface has a clsact qdisc.
#[must_use]
pub fn has_clsact(interface: &str) -> bool {
    tc(&["qdisc", "show", "dev", interface]).is_some_and(|out| out.contains("clsact"))
}

/// Somebody else's filters on our qdisc keep it.
fn remove_empty_clsact(interface: &str) {
    let empty = |side| tc(&["filter", "show", "dev", interface, side]).is_some_and(|o| o.trim().is_empty());
    if empty("ingress") && empty("egress") {
        tc(&["qdisc", "del", "dev", interface, "clsact"]);
    }
}

fn tc(args: &[&str]) -> Option<String> {
    let out = std::process::Command::new("tc").args(args).output().ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}
