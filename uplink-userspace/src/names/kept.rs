//! What was learned, for the next daemon: clients go on using addresses that they looked up before a restart.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{Known, Learned};

const FILE: &str = "names.json";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// One name of one address. Times are seconds since boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    address: IpAddr,
    name: Arc<str>,
    expires_s: u64,
    heard_s: u64,
    server: IpAddr,
    question: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct File {
    /// Times count from this boot.
    boot: String,
    names: Vec<Row>,
}

impl Row {
    /// Everything that was learned.
    #[must_use]
    pub fn all(learned: &Learned) -> Vec<Self> {
        let entries = learned.iter();
        let names = entries.flat_map(|(address, entry)| entry.names().map(move |named| (address, named)));
        let row = |(address, (name, known)): (IpAddr, (&Arc<str>, &Known))| Self {
            address,
            name: Arc::clone(name),
            expires_s: known.expires_s,
            heard_s: known.heard_s,
            server: known.server,
            question: Arc::clone(&known.question),
        };
        names.map(row).collect()
    }

    /// The address, the name, and how it is known; whether a policy asks for it is not in here.
    pub(super) fn parts(self) -> (IpAddr, Arc<str>, Known) {
        let known = Known {
            expires_s: self.expires_s,
            heard_s: self.heard_s,
            server: self.server,
            question: self.question,
            wanted: false,
        };
        (self.address, self.name, known)
    }
}

/// Writes the rows whole or not at all.
///
/// # Errors
/// When the file system refuses.
pub fn write(dir: &Path, names: Vec<Row>) -> Result<()> {
    let path = path(dir);
    let new = path.with_extension("new");
    let write = || -> Result<()> {
        let boot = fs::read_to_string(BOOT)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&serde_json::to_vec(&File { boot, names })?)?;
        Ok(fs::rename(&new, &path)?)
    };
    let written = write();
    if written.is_err() {
        // On a full disk half a file only takes more room.
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// The rows that an earlier daemon wrote since the last boot.
///
/// # Errors
/// When there is a file that cannot be read.
pub fn read(dir: &Path) -> Result<Vec<Row>> {
    let path = path(dir);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let file: File = serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    let now = fs::read_to_string(BOOT).with_context(|| format!("reading {BOOT}"))?;
    Ok(if file.boot == now { file.names } else { Vec::new() })
}

/// Removes the file.
pub fn remove(dir: &Path) {
    let _ = fs::remove_file(path(dir));
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
