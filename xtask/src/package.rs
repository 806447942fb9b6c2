//! `cargo xtask package`: the Debian package.
//!
//! A staged tree and `dpkg-deb`, with maintainer scripts written out as debhelper would: every Debian
//! machine has the tools, nothing is fetched, and what is installed can be read in packaging/.

mod stage;

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{build, shell, workspace::Workspace};

/// Programs that make the package, and where they come from.
const TOOLS: [(&str, &str); 4] = [
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("strip", "binutils"),
    ("gzip", "gzip"),
];

/// Builds the daemon and puts it into a Debian package, with all that belongs to it.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask package && sudo apt install ./target/package/uplink_*.deb")]
pub struct Args {
    /// The Debian revision: the last part of the package's version
    #[arg(long, default_value_t = 1, value_name = "N")]
    revision: u32,
    /// Check the package with lintian; its errors are ours
    #[arg(long)]
    lint: bool,
    /// Package what has been built before
    #[arg(long, hide = true)]
    built: bool,
}

/// Builds everything, then the package, and says where it is.
pub fn package(workspace: &Workspace, args: &Args) -> Result<()> {
    if !args.built {
        build::build(workspace)?;
    }
    let file = make(workspace, args.revision)?;
    if args.lint {
        lint(&file)?;
    }
    println!("package: {}", file.display());
    Ok(())
}

/// Makes a package of what has been built.
pub fn make(workspace: &Workspace, revision: u32) -> Result<PathBuf> {
    shell::need(&TOOLS)?;
    let folder = workspace.target.join("package");
    let tree = folder.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
    stage::files(workspace, &tree, &version)?;
    stage::scripts(workspace, &tree)?;
    stage::control(
        workspace,
        &tree,
        &[
            ("@VERSION@", &version),
            ("@ARCH@", architecture()?),
            ("@SIZE@", &stage::kibibytes(&tree)?.to_string()),
            ("@SHLIBS@", &libraries(&folder, &tree.join("usr/sbin/uplink"))?),
        ],
    )?;
    let file = folder.join(format!("uplink_{version}_{}.deb", architecture()?));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"])
        .args([&tree, &file]);
    dpkg.env("SOURCE_DATE_EPOCH", stage::commit_date(workspace, "%ct"));
    shell::output(&mut dpkg).with_context(|| format!("{} failed", shell::line(&dpkg)))?;
    Ok(file)
}

/// Debian's name of the machine that we build on and for.
fn architecture() -> Result<&'static str> {
    Ok(match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "powerpc64" => "ppc64el",
        other => bail!("no Debian architecture is known for {other}"),
    })
}

/// The packages whose libraries the binary needs, in the versions that it needs.
fn libraries(folder: &Path, binary: &Path) -> Result<String> {
    // dpkg-shlibdeps wants to see a source package.
    let debian = folder.join("debian");
    fs::create_dir_all(&debian)?;
    fs::write(
        debian.join("control"),
        "Source: uplink\n\nPackage: uplink\nArchitecture: any\n",
    )?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.current_dir(folder).arg("-O").arg(binary);
    let said = shell::output(&mut command).context("dpkg-shlibdeps failed")?;
    let found = said.strip_prefix("shlibs:Depends=");
    Ok(found.context("dpkg-shlibdeps named no libraries")?.to_owned())
}

fn lint(file: &Path) -> Result<()> {
    shell::need(&[("lintian", "lintian")])?;
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error", "--allow-root"]).arg(file);
    shell::run(&mut lintian)
}
