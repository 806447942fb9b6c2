//! What the BPF build needs: a rustc with the sources of `core`, and bpf-linker.
//!
//! What is there already wins; only what is missing gets installed, and only from Debian's
//! packages and crates.io.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{shell, workspace::Workspace};

/// The bpf-linker that we build where there is none.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM it is built with. It reads bitcode of this version and older, so rustc's may not be newer.
const LLVM_MAJOR: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGE: &str = "llvm-22-dev";
/// Debian's recent compiler for building browsers, with the sources of `core`.
const RUSTC_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// The workspace's `rust-version`, 1.88.
const OLDEST_RUSTC_MINOR: u32 = 88;

/// A compiler and a linker that fit together.
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// Finds or installs the toolchain, and says in one line what was chosen.
pub fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    let linker = find_linker(workspace);
    let foreign = linker
        .as_ref()
        .is_some_and(|linker| !linker.path.starts_with(&workspace.target));
    let rustc = match find_rustc(foreign) {
        Some(rustc) => rustc,
        None => install_rustc(foreign)?,
    };
    let linker = match linker {
        Some(linker) => linker,
        None => install_linker(workspace)?,
    };
    println!(
        "BPF toolchain: {} {} (LLVM {}), {} {}",
        rustc.path.display(),
        rustc.release,
        rustc.llvm,
        linker.path.display(),
        linker.version
    );
    Ok(Toolchain {
        rustc: rustc.path,
        linker: linker.path,
    })
}

struct Rustc {
    path: PathBuf,
    release: String,
    llvm: String,
}

/// The first rustc that has `core`'s sources and whose bitcode the linker reads. A linker that is
/// not ours does not tell its LLVM, so it is taken to fit.
fn find_rustc(any_llvm: bool) -> Option<Rustc> {
    let nightly = || shell::output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]));
    let active = || shell::output(Command::new("rustup").args(["which", "rustc"]));
    let system = || Some("/usr/bin/rustc".to_owned());
    let candidates: [&dyn Fn() -> Option<String>; 3] = [&system, &nightly, &active];
    candidates.into_iter().find_map(|candidate| {
        let rustc = inspect(candidate()?.into())?;
        let recent = number(&rustc.release, 1) >= OLDEST_RUSTC_MINOR;
        (recent && (any_llvm || number(&rustc.llvm, 0) <= LLVM_MAJOR)).then_some(rustc)
    })
}

/// A rustc's versions, if it can build `core`.
fn inspect(path: PathBuf) -> Option<Rustc> {
    let plain = |argument: &[&str]| shell::output(without_cargo(Command::new(&path).args(argument)));
    let sysroot = plain(&["--print", "sysroot"])?;
    let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    let versions = plain(&["-vV"])?;
    let field = |name: &str| {
        Some(
            versions
                .lines()
                .find_map(|line| line.strip_prefix(name))?
                .to_owned(),
        )
    };
    let rustc = Rustc {
        release: field("release: ")?,
        llvm: field("LLVM version: ")?,
        path: path.clone(),
    };
    core.is_file().then_some(rustc)
}

/// The number at this place of a dotted version.
fn number(version: &str, place: usize) -> u32 {
    version
        .split('.')
        .nth(place)
        .and_then(|part| part.parse().ok())
        .unwrap_or(0)
}

fn install_rustc(any_llvm: bool) -> Result<Rustc> {
    let other_way = "no rustc here has the sources of `core`; without Debian's packages, \
        `rustup component add rust-src` gives them to rustup's stable or nightly";
    shell::apt_install(&RUSTC_PACKAGES).context(other_way)?;
    find_rustc(any_llvm).context(other_way)
}

struct Linker {
    path: PathBuf,
    version: String,
}

/// Our own linker, or one in $PATH, that starts: a missing LLVM library shows here.
fn find_linker(workspace: &Workspace) -> Option<Linker> {
    let own = tools(workspace).join("bin/bpf-linker");
    [Some(own), shell::find("bpf-linker")]
        .into_iter()
        .flatten()
        .find_map(|path| {
            let version = shell::output(without_cargo(Command::new(&path).arg("--version")))?;
            Some(Linker {
                version: version.trim_start_matches("bpf-linker ").to_owned(),
                path,
            })
        })
}

/// Builds bpf-linker under `target/`, not in the user's home.
fn install_linker(workspace: &Workspace) -> Result<Linker> {
    if !Path::new(LLVM_PREFIX).join("bin/llvm-config").exists() {
        shell::apt_install(&[LLVM_PACKAGE]).context(
            "bpf-linker is missing; `cargo install bpf-linker` gives one with an LLVM of your own",
        )?;
    }
    println!("building bpf-linker {LINKER_VERSION}, once, in about a minute");
    let mut cargo = workspace.cargo();
    cargo.args([
        "install",
        "bpf-linker",
        "--quiet",
        "--force",
        "--locked",
        "--version",
        LINKER_VERSION,
    ]);
    cargo
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(tools(workspace));
    // bpf-linker reads the first, the crate llvm-sys the second.
    cargo
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("LLVM_SYS_221_PREFIX", LLVM_PREFIX);
    shell::run(without_cargo(&mut cargo))?;
    match find_linker(workspace) {
        Some(linker) => Ok(linker),
        None => bail!(
            "bpf-linker was built but does not start: try {}",
            tools(workspace).display()
        ),
    }
}

fn tools(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools")
}

/// Takes away what cargo, or a user who tunes his own builds, has set for another compiler.
pub fn without_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let compiler =
            text.starts_with("RUSTC") || text.starts_with("RUSTFLAGS") || text == "LD_LIBRARY_PATH";
        let settings = [
            "CARGO_BUILD_",
            "CARGO_PROFILE_",
            "CARGO_TARGET_",
            "CARGO_ENCODED_",
        ];
        if compiler || settings.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}
