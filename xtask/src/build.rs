//! The BPF object, and the programs that carry it.

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{shell, toolchain, toolchain::Toolchain, workspace::Workspace};

/// The variable by which the daemon's build script and the tests find the BPF object.
pub const OBJECT_VARIABLE: &str = "UPLINK_BPF_OBJECT";

/// The host's byte order: a map is shared memory.
const BPF_TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Where the kernel lets programs read packets at any address (`HAVE_EFFICIENT_UNALIGNED_ACCESS`): an address is then one
/// instruction instead of seven. Our own linker's LLVM knows how; somebody else's may be too old.
const UNALIGNED: [&str; 2] = ["x86_64", "aarch64"];

/// Builds everything and returns the path of the BPF object.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let toolchain = toolchain::ensure(workspace)?;
    let object = build_object(workspace, &toolchain)?;
    build_programs(workspace, &object)?;
    Ok(object)
}

/// Compiles `uplink-ebpf` with debug information, from which bpf-linker makes BTF.
fn build_object(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    let target_dir = workspace.target.join("bpf");
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        format!("-Clinker={}", toolchain.linker.display()),
    ];
    let own_linker = toolchain.linker.starts_with(&workspace.target);
    if own_linker && UNALIGNED.contains(&ARCH) {
        flags.push("-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned());
    }
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--package",
        "uplink-ebpf",
        "--release",
        "-Zbuild-std=core",
        "--target",
        BPF_TARGET,
    ]);
    cargo.arg("--target-dir").arg(&target_dir);
    toolchain::without_cargo(&mut cargo);
    // Bootstrap mode lets a stable compiler build `core`.
    cargo.env("RUSTC", &toolchain.rustc).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // bpf-linker does the link-time optimisation itself, on one module of bitcode.
    cargo
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "2");
    shell::run(&mut cargo).context(
        "cannot build the BPF object (does bpf-linker complain about bitcode? its LLVM must be as new as rustc's)",
    )?;
    let object = target_dir.join(BPF_TARGET).join("release/uplink-ebpf");
    if !object.is_file() {
        bail!("the BPF build left no {}", object.display());
    }
    Ok(object)
}

/// Compiles the daemon, with the object inside, and the lab.
fn build_programs(workspace: &Workspace, object: &Path) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--release",
        "--bins",
        "--package",
        "uplink-userspace",
        "--package",
        "uplink-tests",
    ]);
    shell::run(cargo.env(OBJECT_VARIABLE, object))
}
