//! What outlives a reboot: the usage of quotas and the measured capacities, in `usage.json` in
//! the state directory.
//!
//! None of it is worth a daemon that does not start: a file that cannot be read is reported and
//! set aside, and one that cannot be written is tried again a minute later.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::quota::Book;
use crate::rates::{Rate, decay};

const FILE: &str = "usage.json";
/// What this version writes, and all that it reads.
const VERSION: u32 = 1;
/// Between two writings: cheap flash wears out.
const INTERVAL: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    version: u32,
    /// When it was written.
    pub written: Timestamp,
    /// [`maps_identity`] of the maps whose counters the usage was computed from.
    pub maps: String,
    /// Usage by name of the uplink, for [`crate::quota::Quotas::restore`].
    pub quotas: BTreeMap<String, Book>,
    /// Measured capacities by name of the uplink, bits per second, as they were when it was
    /// written.
    pub capacities: BTreeMap<String, Rate>,
}

impl Kept {
    /// What is to be written.
    #[must_use]
    pub fn new(
        written: Timestamp,
        maps: String,
        quotas: BTreeMap<String, Book>,
        capacities: BTreeMap<String, Rate>,
    ) -> Self {
        Self {
            version: VERSION,
            written,
            maps,
            quotas,
            capacities,
        }
    }

    /// The capacities as they are worth at `now`; a clock that went back makes them no larger.
    pub fn capacities_at(&self, now: Timestamp) -> impl Iterator<Item = (&str, Rate)> {
        let elapsed = Duration::try_from(now.duration_since(self.written)).unwrap_or_default();
        let worth = decay(elapsed);
        let capacities = self.capacities.iter();
        capacities.map(move |(name, c)| (name.as_str(), c.times(worth)))
    }
}

/// Names a set of maps for ever: the kernel gives every map of a boot a number of its own
/// (`bpf_map_info.id`), and every boot an id. Maps that a start adopts have kept theirs.
///
/// # Errors
/// When the boot's id cannot be read.
pub fn maps_identity(map: u32) -> Result<String> {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(BOOT).with_context(|| format!("reading {BOOT}"))?;
    Ok(format!("{}/{map}", boot.trim()))
}

/// Reads and writes the file.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    written: Option<Duration>,
}

impl Store {
    /// The file in this state directory, which need not exist yet.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        let (path, written) = (state_dir.join(FILE), None);
        Self { path, written }
    }

    /// What was kept, or `None` where nothing was.
    ///
    /// # Errors
    /// When the file is there but is of no use; it has been renamed to `usage.json.broken` then,
    /// unless it could not even be read. The caller reports it and goes on without.
    pub fn read(&self) -> Result<Option<Kept>> {
        let path = self.path.display();
        match fs::read(&self.path) {
            Ok(text) => parse(&text).map(Some).with_context(|| {
                let aside = self.path.with_extension("json.broken");
                match fs::rename(&self.path, &aside) {
                    Ok(()) => format!("{path} is broken and was renamed to {}", aside.display()),
                    Err(e) => format!("{path} is broken and will be overwritten ({e})"),
                }
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {path}")),
        }
    }

    /// Whether a minute has passed since this last said so; `now` since the daemon's start.
    #[must_use]
    pub fn due(&mut self, now: Duration) -> bool {
        let due = self.written.is_none_or(|at| now.saturating_sub(at) >= INTERVAL);
        if due {
            self.written = Some(now);
        }
        due
    }

    /// Whether the directory is there already.
    #[must_use]
    pub fn has_directory(&self) -> bool {
        self.path.parent().is_some_and(Path::is_dir)
    }

    /// Writes the file whole or not at all, for its owner alone, and creates the directory where
    /// it is missing. When it is [`Self::due`], and at the stop. Waits for the disk.
    ///
    /// # Errors
    /// When the file system refuses. The file is as it was then.
    pub fn write(&self, kept: &Kept) -> Result<()> {
        let new = self.path.with_extension("json.new");
        let write = || -> Result<()> {
            if let Some(dir) = self.path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
            }
            let text = serde_json::to_string_pretty(kept)?;
            // What a killed daemon left may have other rights.
            let _ = fs::remove_file(&new);
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(fs::rename(&new, &self.path)?)
        };
        write().with_context(|| format!("writing {}", self.path.display()))
    }
}

fn parse(text: &[u8]) -> Result<Kept> {
    let kept: Kept = serde_json::from_slice(text)?;
    let version = kept.version;
    anyhow::ensure!(version == VERSION, "its version is {version}, not {VERSION}");
    let sound = |c: &Rate| [c.down, c.up].iter().all(|c| c.is_finite() && *c >= 0.0);
    if let Some((name, capacity)) = kept.capacities.iter().find(|(_, c)| !sound(c)) {
        anyhow::bail!("the capacity of {name:?} is {capacity:?}");
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use jiff::civil::date;

    use super::*;
    use crate::config::{Period, Quota, Then};
    use crate::quota::{Counter, Quotas};

    const SECOND: Duration = Duration::from_secs(1);

    fn kept() -> Kept {
        let mut quotas = Quotas::default();
        let quota = Quota {
            bytes: 1 << 40,
            per: Period::Month,
            starts: 15,
            then: Then::Disable,
        };
        quotas.set([("isp1".into(), quota)]);
        for bytes in [5, 1005] {
            quotas.count("isp1", Counter { id: 1, bytes }, date(2026, 11, 20));
        }
        let capacity = Rate {
            down: 94.25e6,
            up: 9e6,
        };
        Kept::new(
            "2026-11-20T10:00:00Z".parse().unwrap(),
            "boot/17".into(),
            quotas.books().clone(),
            [("isp1".into(), capacity)].into(),
        )
    }

    #[test]
    fn what_is_written_is_read_again_and_the_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("lib/uplink");
        let store = Store::new(&state);
        assert_eq!(store.read().unwrap(), None);
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("usage.json.new"), "half").unwrap();
        store.write(&kept()).unwrap();
        assert_eq!(Store::new(&state).read().unwrap(), Some(kept()));
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.join(FILE)), 0o600);
        let names = fs::read_dir(&state).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [FILE]);
    }

    #[test]
    fn the_directory_is_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("uplink");
        Store::new(&state).write(&kept()).unwrap();
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o027, 0);
    }

    #[test]
    fn it_is_written_at_most_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path());
        assert!(store.due(Duration::ZERO));
        store.write(&kept()).unwrap();
        assert!(!store.due(59 * SECOND) && store.due(60 * SECOND));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_and_is_not_tried_at_once_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let store = Store::new(&dir.path().join("file"));
        let error = store.write(&kept()).unwrap_err();
        assert!(format!("{error:#}").contains("file/usage.json"), "{error:#}");
    }

    #[test]
    fn a_broken_file_is_set_aside() {
        let sound = serde_json::to_string(&kept()).unwrap();
        let cut = &sound[..sound.len() - 1];
        let other = sound.replace("\"version\":1", "\"version\":2");
        let negative = sound.replace("94250000.0", "-1.0");
        let no_date = sound.replace("2026-11-15", "2026-11-35");
        for text in ["", "[]", "\u{0}", cut, &other, &negative, &no_date] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE);
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", Store::new(dir.path()).read().unwrap_err());
            assert!(error.contains("usage.json.broken"), "{error}");
            let aside = fs::read_to_string(dir.path().join("usage.json.broken")).unwrap();
            assert_eq!(aside, text);
            assert_eq!(Store::new(dir.path()).read().unwrap(), None);
        }
    }

    #[test]
    fn capacities_fade_with_the_calendar_and_not_backwards() {
        let kept = kept();
        let down = |at: &str| kept.capacities_at(at.parse().unwrap()).next().unwrap().1.down;
        assert!((down("2026-11-27T10:00:00Z") - 47.125e6).abs() < 1.0);
        assert!((down("1970-01-01T00:00:00Z") - 94.25e6).abs() < 1.0);
    }

    #[test]
    fn maps_are_named_by_boot_and_number() {
        let identity = maps_identity(17).unwrap();
        assert!(
            identity.len() == 36 + 3 && identity.ends_with("/17"),
            "{identity}"
        );
        assert_eq!(identity, maps_identity(17).unwrap());
    }
}
