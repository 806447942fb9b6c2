//! `cargo xtask vm`: the package on a Debian machine of its own, with systemd, under qemu.
//!
//! The machine has two network cards that qemu joins. One is the router's; behind the other the machine
//! itself plays the providers, the LAN and the Internet, so nothing on this host is touched or needed.

mod image;
mod machine;

use std::{fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result};

use crate::{build, package, shell, workspace::Workspace};

/// Revisions of the package: the second is what the first is upgraded to.
const REVISIONS: [u32; 2] = [1, 2];

/// Installs, runs, breaks, upgrades and removes the package in a virtual machine.
///
/// The machine is Debian's stable release with its own kernel, made once under target/vm. It takes KVM
/// where the processor offers it and is emulated elsewhere. For amd64.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask vm")]
pub struct Args {
    /// Make the machine anew
    #[arg(long)]
    fresh: bool,
    /// Take what has been built before
    #[arg(long, hide = true)]
    built: bool,
}

/// Builds, boots and reports; the last line on stdout is `N passed, M failed`.
pub fn vm(workspace: &Workspace, args: &Args) -> Result<()> {
    shell::need(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mmdebstrap", "mmdebstrap"),
        ("mke2fs", "e2fsprogs"),
    ])?;
    if !args.built {
        build::build(workspace)?;
    }
    let began = Instant::now();
    let folder = workspace.target.join("vm");
    let image = image::ensure(&folder, args.fresh)?;
    let imaged = began.elapsed();
    let payload = payload(workspace)?;
    let tally = machine::run(&image, &payload)?;
    println!(
        "image {:.0} s, packages and machine {:.0} s",
        imaged.as_secs_f64(),
        (began.elapsed() - imaged).as_secs_f64()
    );
    tally.report()
}

/// A disk with both packages, the scenarios and the README.
fn payload(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("vm/payload");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let scenarios = workspace.root.join("tests/vm");
    let mut files: Vec<_> = fs::read_dir(&scenarios)?
        .map(|file| Ok(file?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "py"));
    // Which a new user follows.
    files.push(workspace.root.join("README.md"));
    for revision in REVISIONS {
        files.push(package::make(workspace, revision)?);
    }
    for file in files {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(&file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let disk = folder.with_extension("ext4");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .args(["-qF", "-t", "ext4", "-L", "payload", "-d"])
        .args([&folder, &disk])
        .arg("64M");
    shell::run(&mut mke2fs)?;
    Ok(disk)
}
