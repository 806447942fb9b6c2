//! A cgroup for the lab's process, so that steering the host's own traffic concerns it alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The process (all its threads and later children) in a cgroup v2 of its own, until dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    directory: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup and moves the process there.
    ///
    /// # Errors
    /// When no cgroup v2 is mounted, or the kernel refuses.
    pub fn join() -> Result<Self> {
        let mount = mount()?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let before = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = mount.join(before.context("the process is in no cgroup v2")?);
        let path = path_of(std::process::id());
        let directory = mount.join(&path[1..]);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let cgroup = Self {
            path,
            directory,
            before,
        };
        enter(&cgroup.directory)?;
        Ok(cgroup)
    }

    /// Its path below the mount, as the configuration names it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Moves the process into a cgroup within this one, made for it, until the value is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn descend(&self, name: &str) -> Result<Inner> {
        let inner = Inner {
            directory: self.directory.join(name),
            above: self.directory.clone(),
        };
        fs::create_dir_all(&inner.directory).with_context(|| inner.directory.display().to_string())?;
        enter(&inner.directory)?;
        Ok(inner)
    }

    /// The programs attached to it, as bpftool prints them.
    ///
    /// # Errors
    /// When bpftool fails.
    pub fn programs(&self) -> Result<String> {
        let mut bpftool = Command::new("bpftool");
        let output = bpftool.args(["cgroup", "show"]).arg(&self.directory).output()?;
        ensure!(output.status.success(), "bpftool cgroup show: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = enter(&self.before);
        let _ = remove(&self.directory);
    }
}

/// The process in a cgroup further down, until dropped.
#[derive(Debug)]
pub struct Inner {
    directory: PathBuf,
    above: PathBuf,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = enter(&self.above);
    }
}

/// Removes what a process with this id left when it was killed.
///
/// # Errors
/// When somebody is still in it after two seconds.
pub fn remove_of(process: u32) -> Result<()> {
    // No cgroup v2, no cgroup left.
    mount().map_or(Ok(()), |mount| remove(&mount.join(&path_of(process)[1..])))
}

fn path_of(process: u32) -> String {
    format!("/lab-{process}")
}

fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let words = mounts
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut v2 = words.filter(|words| words.get(2) == Some(&"cgroup2"));
    let first = v2.next().context("no cgroup v2 is mounted")?;
    Ok(PathBuf::from(first[1]))
}

fn enter(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| file.display().to_string())
}

/// With all below it. Children that were killed a moment ago may still be on their way out.
fn remove(directory: &Path) -> Result<()> {
    for below in fs::read_dir(directory).into_iter().flatten().flatten() {
        if below.file_type()?.is_dir() {
            remove(&below.path())?;
        }
    }
    let begun = Instant::now();
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if begun.elapsed() > Duration::from_secs(2) => {
                return Err(e).with_context(|| directory.display().to_string());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
