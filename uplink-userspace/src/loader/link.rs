//! A BPF link and its pin. aya creates links; what it has no words for is done here: adopting one
//! under whatever program, swapping that program, and pinning it again.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::programs::links::FdLink;

// `enum bpf_cmd` of linux/bpf.h.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// A link that stays while its pin or this value does.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    pin: PathBuf,
}

/// The part of `union bpf_attr` for pins: `pathname`, `bpf_fd`, `file_flags`.
#[repr(C)]
#[derive(Default)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part for `BPF_LINK_UPDATE`: `link_fd`, `new_prog_fd`, `flags`, `old_prog_fd`.
#[repr(C)]
#[derive(Default)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

impl Link {
    /// The link that is pinned there, if one is.
    #[must_use]
    pub fn adopt(pin: &Path) -> Option<Self> {
        let path = c_path(pin).ok()?;
        let mut attributes = PinAttributes {
            path: path.as_ptr() as u64,
            ..PinAttributes::default()
        };
        let fd = bpf(BPF_OBJ_GET, &mut attributes).ok()?;
        // SAFETY: the kernel just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).ok()?) };
        let pin = pin.to_owned();
        Some(Self { fd, pin })
    }

    /// Pins a link that aya made.
    ///
    /// # Errors
    /// When the kernel refuses the pin.
    pub fn keep(link: FdLink, pin: &Path) -> Result<Self> {
        link.pin(pin)
            .with_context(|| format!("pinning {}", pin.display()))?;
        Self::adopt(pin).with_context(|| format!("{} went away", pin.display()))
    }

    /// Swaps the program atomically. `false` when the link is dead: detached by force, or its
    /// interface or cgroup went.
    ///
    /// # Errors
    /// When the kernel refuses; the link stays as it was.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<bool> {
        let mut attributes = UpdateAttributes {
            link: self.fd.as_raw_fd().cast_unsigned(),
            program: program.as_raw_fd().cast_unsigned(),
            ..UpdateAttributes::default()
        };
        match bpf(BPF_LINK_UPDATE, &mut attributes) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Pins it again where somebody removed the pin. Returns whether that was needed.
    ///
    /// # Errors
    /// When the kernel refuses the pin.
    pub fn ensure_pinned(&self) -> Result<bool> {
        if fs::symlink_metadata(&self.pin).is_ok() {
            return Ok(false);
        }
        let path = c_path(&self.pin)?;
        let mut attributes = PinAttributes {
            path: path.as_ptr() as u64,
            fd: self.fd.as_raw_fd().cast_unsigned(),
            flags: 0,
        };
        bpf(BPF_OBJ_PIN, &mut attributes).with_context(|| format!("pinning {}", self.pin.display()))?;
        Ok(true)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

pub(super) fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are one of the structures of this module and `query`, which fit the command, and their
    // size goes along; what they point to outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>() as libc::c_long,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(done)
    }
}
