//! Everything about the router that a clean stop must restore.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use aya::programs::{SchedClassifier, tc::TcAttachType};

use crate::isolate::BPFFS;
use crate::topology::Lab;

/// Lines of state, by what they are about.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Snapshot(BTreeMap<String, Vec<String>>);

impl Snapshot {
    /// Reads rules, routes, nftables, TC, attached programs, pins, runtime files and sysctls.
    ///
    /// # Errors
    /// When one of the tools fails.
    pub fn take(lab: &Lab) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (line, sorted) in [
            ("ip -4 rule", false),
            ("ip -6 rule", false),
            ("ip -4 route show table all", true),
            ("ip -6 route show table all", true),
            ("ip -o addr", false),
            ("nft list ruleset", false),
            ("tc qdisc show", true),
        ] {
            let mut lines: Vec<_> = lab.router.run(line)?.lines().map(steady).collect();
            if sorted {
                lines.sort();
            }
            all.insert(line.to_owned(), lines);
        }
        all.insert("attached programs".into(), attached(lab)?);
        all.insert("pins".into(), files(Path::new(BPFFS)));
        all.insert("runtime files".into(), files(Path::new("/run/uplink")));
        all.insert("sysctls".into(), lab.router.enter(sysctls)?);
        Ok(Self(all))
    }

    /// The lines that are only in one of the two, as `- line` (only in `self`) or `+ line`.
    #[must_use]
    pub fn diff(&self, later: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (what, before) in &self.0 {
            let after = later.0.get(what).map_or(&[][..], Vec::as_slice);
            let gone = before.iter().filter(|line| !after.contains(line));
            differences.extend(gone.map(|line| format!("{what}: - {line}")));
            let new = after.iter().filter(|line| !before.contains(line));
            differences.extend(new.map(|line| format!("{what}: + {line}")));
        }
        if differences.is_empty() && self != later {
            differences.push("the same lines in another order or number".into());
        }
        differences
    }
}

/// The line without what changes by itself: counters and ages.
fn steady(line: &str) -> String {
    let mut words = Vec::new();
    let mut iter = line.split_whitespace();
    while let Some(word) = iter.next() {
        match word {
            "expires" | "packets" | "bytes" => {
                iter.next();
            }
            _ => words.push(word),
        }
    }
    words.join(" ")
}

/// The programs at the router's interfaces by tcx, one line each.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn attached(lab: &Lab) -> Result<Vec<String>> {
    lab.router.enter(|| inside(lab))
}

/// As [`attached`], at one device.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn attached_at(lab: &Lab, device: &str) -> Result<Vec<String>> {
    lab.router.enter(|| at(device).collect())
}

fn inside(lab: &Lab) -> Vec<String> {
    let devices: &[&str] = match lab.shape {
        crate::Shape::OneNic => &["eth0", "lo"],
        crate::Shape::NicEach => &["wan1", "wan2", "lan0", "lo"],
    };
    devices.iter().flat_map(|device| at(device)).collect()
}

fn at(device: &str) -> impl Iterator<Item = String> {
    let sides = [
        (TcAttachType::Ingress, "ingress"),
        (TcAttachType::Egress, "egress"),
    ];
    sides.into_iter().flat_map(move |(side, name)| {
        let programs = SchedClassifier::query_tcx(device, side).map_or_else(|_| Vec::new(), |(_, all)| all);
        let line = |program: &str| format!("{device} {name} {program}");
        let lines = programs.iter().map(|p| line(p.name_as_str().unwrap_or("?")));
        lines.collect::<Vec<_>>()
    })
}

/// Everything below `directory`, including itself.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if directory.exists() {
        found.push(directory.display().to_string());
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path().display().to_string()),
        }
    }
    found.sort();
    found
}

fn sysctls() -> Vec<String> {
    let mut lines = Vec::new();
    for root in ["ipv4", "ipv6", "netfilter"] {
        for path in files(Path::new(&format!("/proc/sys/net/{root}"))) {
            // Counts, and what is random by design.
            if path.ends_with("nf_conntrack_count") || path.contains("tcp_fastopen_key") {
                continue;
            }
            if let Ok(value) = std::fs::read_to_string(&path) {
                lines.push(format!("{path} = {}", value.trim()));
            }
        }
    }
    lines
}
