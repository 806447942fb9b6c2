//! What a killed daemon leaves for the next start or for `uplink down`: written before the
//! kernel is changed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::config::Group;
use crate::loader::ClsactPort;
use crate::names::kept;
use crate::sysctl::Saved;

const FILE: &str = "state.json";

/// What has to be put back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Tag of our routes and rules.
    pub protocol: u8,
    /// Sysctls as they were.
    pub sysctls: Saved,
    /// Interfaces with a clsact filter of ours.
    pub clsact: Vec<ClsactPort>,
    /// Names of the uplinks that were taken out by hand.
    #[serde(default)]
    pub drained: Vec<String>,
    /// Groups of policies by number: those in the maps are still read when the next start begins.
    #[serde(default)]
    pub groups: Vec<Group>,
}

impl State {
    /// The state that was left, if any.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = path(dir);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?,
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = path(dir);
        let new = path.with_extension("new");
        let write = || -> Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            Ok(fs::rename(&new, &path)?)
        };
        let written = write();
        if written.is_err() {
            // On a full disk half a file only takes more room.
            let _ = fs::remove_file(&new);
        }
        written.with_context(|| format!("writing {}", path.display()))
    }

    /// Removes the file; the directory too when it is empty and not systemd's.
    pub fn remove(dir: &Path) {
        kept::remove(dir);
        let _ = fs::remove_file(path(dir));
        let _ = fs::remove_dir(dir);
    }
}

/// Creates the runtime directory.
///
/// # Errors
/// When the file system refuses.
pub fn create_dir(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        let builder = &mut fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .with_context(|| format!("creating {}", dir.display()))?;
    }
    Ok(())
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
