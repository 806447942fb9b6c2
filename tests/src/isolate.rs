//! A private view of the file system, so that nothing is left on the host.

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// Directory for files of the lab, on the private tmpfs.
pub const LAB_DIR: &str = "/run/lab";
/// Where the private bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Moves the process to its own mount namespace with a fresh bpffs and a tmpfs on `/run` and
/// `/var/lib`.
///
/// # Errors
/// When the process is not root, has threads already, or a mount fails.
pub fn isolate() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "the lab needs root (network namespaces, BPF)"
    );
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    ensure!(
        threads == 1,
        "isolate() must come before the first thread ({threads} are running)"
    );
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make / private")?;
    let none = MsFlags::empty();
    mount(Some("bpf"), BPFFS, Some("bpf"), none, Some("mode=0700")).context("mount a bpffs")?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        none,
        Some("mode=0755,size=256m"),
    )
    .context("mount a tmpfs on /run")?;
    // What outlives a boot, such as how much of a quota is used, is nothing of the host's either.
    mount(
        Some("tmpfs"),
        "/var/lib",
        Some("tmpfs"),
        none,
        Some("mode=0755,size=16m"),
    )
    .context("mount a tmpfs on /var/lib")?;
    std::fs::create_dir_all(LAB_DIR).context(LAB_DIR)
}
