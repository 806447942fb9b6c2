//! `cargo xtask test`: everything that must hold before a change goes in.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{build, shell, workspace::Workspace};

/// Every step runs even after one has failed, so that one run tells all.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask test --only packet")]
pub struct Args {
    /// Run these tests alone, without the checks of format and lints
    #[arg(long, value_name = "SUITE")]
    only: Option<Suite>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Suite {
    /// The unit tests of every crate; no root needed
    Unit,
    /// The examples in the documentation of every crate; no root needed
    Doc,
    /// tests/tests/packets: packets through the BPF programs
    Packet,
    /// tests/tests/lab: the scenarios in the lab
    Lab,
}

impl Suite {
    const fn needs_root(self) -> bool {
        matches!(self, Self::Packet | Self::Lab)
    }
}

/// What `cargo test` said, over all runs.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Checks, builds and tests; the last line on stdout is `N passed, M failed`.
pub fn test(workspace: &Workspace, args: &Args) -> Result<()> {
    shell::need(&[
        ("nft", "nftables"),
        ("ip", "iproute2"),
        ("bpftool", "bpftool"),
        ("conntrack", "conntrack"),
        ("strace", "strace"),
        ("tc", "iproute2"),
        ("ethtool", "ethtool"),
        ("dnsmasq", "dnsmasq-base"),
        ("busybox", "busybox"),
        ("openssl", "openssl"),
        ("chromium", "chromium"),
        ("iptables", "iptables"),
        ("tmux", "tmux"),
        ("groff", "groff-base"),
        ("ping", "iputils-ping"),
        ("bash", "bash"),
    ])?;
    shell::need_without_service("unbound", "unbound", "unbound.service")?;
    shell::need_without_service("keepalived", "keepalived", "keepalived.service")?;
    shell::need_without_service("ufw", "ufw", "ufw.service")?;
    shell::need_without_service("conntrackd", "conntrackd", "conntrackd.service")?;
    shell::need_without_service("promtool", "prometheus", "prometheus.service")?;
    let object = build::build(workspace)?;
    let mut broken = Vec::new();
    let mut note = |step: Result<()>| broken.extend(step.err().map(|error| format!("{error:#}")));
    if args.only.is_none() {
        note(shell::run(workspace.cargo().args(["fmt", "--all", "--check"])));
        note(shell::run(&mut clippy(workspace, &object)));
    }
    let mut tally = Tally::default();
    for suite in [Suite::Unit, Suite::Doc, Suite::Packet, Suite::Lab] {
        if args.only.is_none_or(|only| only == suite) {
            note(run_suite(workspace, suite, &object, &mut tally));
        }
    }
    report(&tally, &broken)
}

/// Every crate and target, the BPF programs as they compile for the host.
fn clippy(workspace: &Workspace, object: &Path) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    cargo.env(build::OBJECT_VARIABLE, object);
    cargo
}

fn run_suite(workspace: &Workspace, suite: Suite, object: &Path, tally: &mut Tally) -> Result<()> {
    let mut cargo = workspace.cargo();
    if suite.needs_root() && !shell::is_root() {
        // cargo stays the user's, only the tests become root.
        cargo.args(["--config", shell::SUDO_RUNNER]);
    }
    // The same packages each time: what is built depends on the features that they want of others together.
    cargo.args([
        "test",
        "--no-fail-fast",
        "--workspace",
        "--exclude",
        "uplink-ebpf",
    ]);
    match suite {
        Suite::Unit => cargo.args(["--lib", "--bins"]),
        Suite::Doc => cargo.arg("--doc"),
        Suite::Packet => cargo.args(["--test", "packets"]),
        Suite::Lab => cargo.args(["--test", "lab"]),
    };
    if suite.needs_root() {
        // One lab at a time: they share the machine's cgroups and its two cores.
        cargo.env("RUST_TEST_THREADS", "1");
    }
    cargo
        .env("UPLINK_BIN", workspace.binary("uplink"))
        .env(build::OBJECT_VARIABLE, object);
    watch(&mut cargo, tally)
}

/// Runs `cargo test`, passes its lines on, and counts.
fn watch(cargo: &mut Command, tally: &mut Tally) -> Result<()> {
    let failed_before = tally.failed;
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == failed_before {
        bail!("{} failed: {status}", shell::line(cargo));
    }
    Ok(())
}

impl Tally {
    /// Counts a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .split_once("test result: ")
            .and_then(|(_, rest)| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count
                .split_once(' ')
                .map(|(number, what)| (number.parse::<u64>().unwrap_or(0), what))
            {
                Some((number, "passed")) => self.passed += number,
                Some((number, "failed")) => self.failed += number,
                Some((number, "ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Says what broke, then prints the totals as the last line.
fn report(tally: &Tally, broken: &[String]) -> Result<()> {
    for step in broken {
        eprintln!("xtask: {step}");
    }
    if tally.ignored > 0 {
        eprintln!("xtask: {} ignored", tally.ignored);
    }
    if tally.passed == 0 {
        eprintln!("xtask: no test has passed, so this says nothing");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 || tally.passed == 0 || !broken.is_empty() {
        // The totals are the last line, so nothing follows them.
        std::process::exit(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn counts_the_result_lines_only() {
        let mut tally = Tally::default();
        tally.add("test weights::sums ... ok");
        tally.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.add("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (7, 2, 1));
    }
}
