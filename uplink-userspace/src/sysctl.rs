//! The sysctls that forwarding between several uplinks needs, and the way back.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uplink_common::Family;

use crate::plan::Sysctl;

mod guards;
mod wanted;

pub use guards::{apart, guards, is_guard, release};
pub use wanted::{EVENTS, LIBERAL, desired, of_aggregate};

const ROOT: &str = "/proc/sys";
const V4_FORWARD: &str = "net/ipv4/ip_forward";
const V6_FORWARD: &str = "net/ipv6/conf/all/forwarding";
/// What the kernel changes by itself when forwarding is switched, below `conf/*`.
const V4_SIDE_EFFECTS: [&str; 3] = ["forwarding", "accept_redirects", "send_redirects"];
const V6_SIDE_EFFECTS: [&str; 3] = ["forwarding", "accept_ra", "accept_redirects"];

/// How things were before we came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved(pub Vec<Entry>);

/// One sysctl and the value it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path below `/proc/sys`.
    pub path: String,
    /// Its value.
    pub value: String,
}

/// A sysctl that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path below `/proc/sys`.
    pub path: String,
    /// The value before.
    pub from: String,
    /// The value now.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} (was {})", self.path, self.to, self.from)
    }
}

impl Saved {
    /// Takes `value` for that of a sysctl which is not there yet.
    pub fn assume(&mut self, path: &str, value: &str) {
        if self.0.iter().all(|e| e.path != path) {
            let (path, value) = (path.to_owned(), value.to_owned());
            self.0.push(Entry { path, value });
        }
    }

    /// Takes the values of `earlier` where it has them: they were read before anything changed.
    pub fn prefer(&mut self, earlier: Self) {
        self.0.retain(|e| earlier.0.iter().all(|o| o.path != e.path));
        self.0.extend(earlier.0);
    }
}

/// The present value of a sysctl, `None` if there is no such sysctl here.
#[must_use]
pub fn read(path: &str) -> Option<String> {
    value(path).ok()
}

/// What to put back later: the present value of everything in `wanted`, and of everything
/// that changes by itself when `wanted` switches forwarding on.
pub fn snapshot(wanted: &[Sysctl]) -> io::Result<Saved> {
    let mut paths: BTreeSet<String> = wanted.iter().map(|s| s.path.clone()).collect();
    for (family, prefix) in [(Family::V4, "net/ipv4/"), (Family::V6, "net/ipv6/")] {
        if wanted.iter().any(|s| s.path.starts_with(prefix)) {
            paths.extend(side_effects(family)?);
        }
    }
    let mut saved = Vec::new();
    for path in paths {
        match value(&path) {
            Ok(value) => saved.push(Entry { path, value }),
            // The interface went meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Saved(saved))
}

/// Writes what differs, in this order, and says what that was.
pub fn apply(wanted: &[Sysctl]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for Sysctl { path, value: to } in wanted {
        let from = value(path).with_context(|| format!("reading sysctl {path}"))?;
        if from != *to {
            write(path, to).with_context(|| {
                format!(
                    "setting sysctl {path} to {to} (it is {from}): if /proc/sys is read-only here, \
                     set it from a file in /etc/sysctl.d"
                )
            })?;
            changes.push(Change {
                path: path.clone(),
                from,
                to: to.clone(),
            });
        }
    }
    Ok(changes)
}

/// Puts everything back: first what changes others by itself, then what still differs. What
/// belongs to an interface that has gone is left out. Tries all, reports the first failure.
pub fn restore(saved: &Saved) -> Result<Vec<Change>> {
    let mut entries: Vec<&Entry> = saved.0.iter().collect();
    entries.sort_by_key(|entry| influence(&entry.path));
    let (mut changes, mut failure) = (Vec::new(), None);
    for Entry { path, value: to } in entries {
        let Ok(from) = value(path) else { continue };
        if from == *to {
            continue;
        }
        let (path, to) = (path.clone(), to.clone());
        match write(&path, &to) {
            Ok(()) => changes.push(Change { path, from, to }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("setting sysctl {path} back to {to} (it is {from})");
                failure.get_or_insert(anyhow::Error::new(error).context(what));
            }
        }
    }
    failure.map_or(Ok(changes), Err)
}

/// Zero for what changes everything else when written, one for what changes interfaces that
/// nobody configured, two for the rest.
fn influence(path: &str) -> u8 {
    match path {
        V4_FORWARD | V6_FORWARD => 0,
        _ if path.contains("/conf/default/") => 1,
        _ => 2,
    }
}

fn side_effects(family: Family) -> io::Result<Vec<String>> {
    let (conf, names) = match family {
        Family::V4 => ("net/ipv4/conf", V4_SIDE_EFFECTS),
        Family::V6 => ("net/ipv6/conf", V6_SIDE_EFFECTS),
    };
    let mut paths = vec![
        if family == Family::V4 {
            V4_FORWARD
        } else {
            V6_FORWARD
        }
        .to_owned(),
    ];
    for entry in std::fs::read_dir(full(conf))? {
        let interface = entry?.file_name();
        let interface = interface.to_string_lossy();
        paths.extend(names.iter().map(|name| format!("{conf}/{interface}/{name}")));
    }
    Ok(paths)
}

fn full(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn value(path: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(full(path))?.trim_end().to_owned())
}

fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(full(path), value)
}

#[cfg(test)]
mod tests;
