//! The programs of this host's own sockets, attached to a cgroup.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};

use super::link::Link;
use super::{Loaded, needed};

/// Of asm-generic/socket.h; other numbers are parisc's and sparc's only.
const SO_NETNS_COOKIE: libc::c_int = 71;

const MOUNTS: &str = "/proc/self/mounts";

/// One for each system call that begins a flow.
pub(super) const PROGRAMS: [&str; 4] = [
    "uplink_connect4",
    "uplink_connect6",
    "uplink_sendmsg4",
    "uplink_sendmsg6",
];

/// The directory of a cgroup, given relative to the cgroup v2 mount.
///
/// # Errors
/// When no cgroup v2 is mounted, or it has no such cgroup.
pub fn directory(cgroup: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string(MOUNTS).context("reading the mounts")?;
    let root = mount_point(&mounts)
        .context("no cgroup v2 is mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified`")?;
    let directory = Path::new(&root).join(cgroup.trim_start_matches('/'));
    anyhow::ensure!(
        directory.is_dir(),
        "{} is no cgroup: make it, or correct [local] cgroup",
        directory.display()
    );
    Ok(directory)
}

/// The kernel's number for a cgroup below the cgroup v2 mount, while it exists.
#[must_use]
pub fn id(cgroup: &str) -> Option<u64> {
    let directory = directory(cgroup).ok()?;
    fs::metadata(directory).ok().map(|found| found.ino())
}

/// Where cgroup v2 is mounted, out of `/proc/self/mounts`.
fn mount_point(mounts: &str) -> Option<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|f| f.get(2) == Some(&"cgroup2"))
        .find_map(|f| f.get(1).map(|dir| dir.replace("\\040", " ")))
}

/// What the cgroup programs know our network namespace by (Linux 5.14).
///
/// # Errors
/// When there is no loopback device, or the kernel is older.
pub fn namespace_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the buffer is eight bytes, as its length says.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Loaded {
    /// Attaches to a cgroup, or makes sure that it is so. Returns what had to be attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_host(&mut self, cgroup: &Path) -> Result<Vec<String>> {
        self.verify(&needed(&[], false, true))?;
        if self.host.as_deref() != Some(cgroup) {
            PROGRAMS.iter().for_each(|name| drop(self.links.remove(*name)));
            self.host = Some(cgroup.to_owned());
        }
        let mut attached = Vec::new();
        for name in PROGRAMS {
            let done = self.attach_socket_program(name, cgroup);
            if done.with_context(|| format!("attaching {name} to {}", cgroup.display()))? {
                attached.push(format!("{name} at {}", cgroup.display()));
            }
        }
        Ok(attached)
    }

    /// Detaches the programs of this host's sockets; none there is just as well.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_host(&mut self) -> Result<()> {
        self.host = None;
        PROGRAMS.iter().try_for_each(|name| self.release(name))
    }

    /// A link that an earlier daemon left may belong to another cgroup, so it is replaced: first
    /// the new one, then away with the old. A socket that meets both is placed by the first.
    fn attach_socket_program(&mut self, name: &'static str, cgroup: &Path) -> Result<bool> {
        let pin = self.pin(name);
        let program: &mut CgroupSockAddr = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the BPF object has no program `{name}`"))?
            .try_into()?;
        if let Some(link) = self.links.get(name)
            && link.update(program.fd()?.as_fd())?
        {
            return Ok(false);
        }
        let directory = File::open(cgroup)?;
        // A link always allows others beside it; the mode is only for attachments without one.
        let id = program.attach(directory, CgroupAttachMode::Single)?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        let _ = fs::remove_file(&pin);
        self.links.insert(name.to_owned(), Link::keep(link, &pin)?);
        Ok(true)
    }
}

/// Whether the programs of this host's sockets are attached, by their pins.
///
/// # Errors
/// When we may not look.
pub fn attached_host(bpffs: &Path) -> io::Result<bool> {
    for name in PROGRAMS {
        if !bpffs.join(format!("{}{name}", super::PIN_PREFIX)).try_exists()? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::mount_point;

    #[test]
    fn the_mount_of_version_two_is_found() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw,relatime 0 0\n";
        assert_eq!(mount_point(mounts).as_deref(), Some("/sys/fs/cgroup/uni fied"));
        assert_eq!(mount_point("tmpfs / tmpfs rw 0 0\n"), None);
    }
}
