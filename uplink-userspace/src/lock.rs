//! One daemon per runtime directory and per network namespace.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Held while the daemon lives; the kernel frees both parts when the process ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Flock<File>,
    /// Abstract names belong to the network namespace, whose rules and routes we manage.
    _namespace: UnixListener,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another daemon has it, with its process id.
    pub fn take(runtime_dir: &Path) -> Result<Self> {
        let path = runtime_dir.join("uplink.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let mut holder = String::new();
        file.read_to_string(&mut holder).ok();
        let Ok(mut file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!(
                "another uplink daemon (process {}) uses {}: stop it first, or give --runtime-dir and --bpffs of your own",
                holder.trim(),
                runtime_dir.display()
            );
        };
        let name = SocketAddr::from_abstract_name("uplink-daemon")?;
        let namespace = UnixListener::bind_addr(&name).context(
            "another uplink daemon manages this network namespace (with another --runtime-dir): stop it first",
        )?;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self {
            path,
            _file: file,
            _namespace: namespace,
        })
    }

    /// Removes the file, too: for a stop that leaves nothing.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
