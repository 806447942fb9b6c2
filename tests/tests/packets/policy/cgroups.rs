//! Cgroups for the time of a test. The whole process moves between them, which nobody else minds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use uplink_userspace::loader;

/// A tree of cgroups, which is gone with this.
pub struct Cgroups {
    mount: PathBuf,
    /// Path of the outermost below the mount.
    pub base: String,
    before: String,
    made: Vec<String>,
}

impl Cgroups {
    /// Makes the outermost, and those below it by their paths, outer ones first.
    pub fn make(below: &[&str]) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").expect("a cgroup");
        let before = own.lines().find_map(|line| line.strip_prefix("0::"));
        let base = format!("/uplink-packets-{}", std::process::id());
        let mut cgroups = Self {
            mount: loader::cgroup_directory("/").expect("this test needs a cgroup v2 mount"),
            before: before.expect("the process is in no cgroup v2").to_owned(),
            base,
            made: Vec::new(),
        };
        for path in [""].iter().chain(below) {
            let path = format!("{}{path}", cgroups.base);
            fs::create_dir(cgroups.directory(&path)).expect("this test needs a writable cgroup v2");
            cgroups.made.push(path);
        }
        cgroups
    }

    /// Paths of all of them.
    pub fn paths(&self) -> &[String] {
        &self.made
    }

    /// A cgroup's id.
    pub fn id(&self, path: &str) -> u64 {
        fs::metadata(self.directory(path)).expect("a cgroup").ino()
    }

    /// The ids of a cgroup and of all around it, the deepest first.
    pub fn lineage(&self, path: &str) -> Vec<u64> {
        let around = Path::new(path).ancestors();
        around
            .map(|p| self.id(p.to_str().expect("our own names")))
            .collect()
    }

    /// Moves the process.
    pub fn enter(&self, path: &str) {
        let file = self.directory(path).join("cgroup.procs");
        fs::write(file, "0").expect("this test needs a writable cgroup v2");
    }

    fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.enter(&self.before.clone());
        for path in self.made.iter().rev() {
            fs::remove_dir(self.directory(path)).expect("an empty cgroup");
        }
    }
}
