//! The tree that the package is made of.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    install::{self, Place, put},
    shell,
    workspace::Workspace,
};

/// Where each shell looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/uplink"),
    ("fish", "usr/share/fish/vendor_completions.d/uplink.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_uplink"),
];
const DOC: &str = "usr/share/doc/uplink";

/// Everything that the package installs.
pub fn files(workspace: &Workspace, tree: &Path, version: &str) -> Result<()> {
    install::place(workspace, &Place::package(tree))?;
    let binary = tree.join("usr/sbin/uplink");
    shell::run(Command::new("strip").arg("--strip-unneeded").arg(&binary))?;
    manuals(&binary, tree)?;
    completions(&binary, tree)?;
    let source = |file: &str| {
        let file = workspace.root.join(file);
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let rows = [
        (
            "packaging/sysusers.conf",
            "usr/lib/sysusers.d/uplink.conf".to_owned(),
        ),
        ("packaging/networkd.conf", format!("{DOC}/examples/networkd.conf")),
        ("packaging/debian/copyright", format!("{DOC}/copyright")),
        (
            "packaging/debian/lintian-overrides",
            "usr/share/lintian/overrides/uplink".to_owned(),
        ),
        ("README.md", format!("{DOC}/README.md")),
        ("CHANGELOG.md", format!("{DOC}/changelog")),
    ];
    for (from, to) in rows {
        put(&tree.join(to), &source(from)?, 0o644)?;
    }
    let news = tree.join(DOC).join("changelog.Debian");
    put(&news, changelog(workspace, version).as_bytes(), 0o644)?;
    gzip(&news)?;
    gzip(&tree.join(DOC).join("changelog"))
}

/// What dpkg runs and reads.
pub fn scripts(workspace: &Workspace, tree: &Path) -> Result<()> {
    for (name, mode) in [
        ("conffiles", 0o644),
        ("postinst", 0o755),
        ("prerm", 0o755),
        ("postrm", 0o755),
    ] {
        let file = workspace.root.join("packaging/debian").join(name);
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        put(&tree.join("DEBIAN").join(name), &content, mode)?;
    }
    let mut sums = Command::new("sh");
    // Installed files only: those in DEBIAN/ stay with dpkg.
    sums.current_dir(tree)
        .args(["-c", "find usr -type f | LC_ALL=C sort | xargs -d '\\n' md5sum"]);
    let sums = shell::output(&mut sums).context("cannot compute md5sums")?;
    put(
        &tree.join("DEBIAN/md5sums"),
        format!("{sums}\n").as_bytes(),
        0o644,
    )
}

/// packaging/debian/control with its blanks filled in.
pub fn control(workspace: &Workspace, tree: &Path, values: &[(&str, &str)]) -> Result<()> {
    let file = workspace.root.join("packaging/debian/control");
    let mut text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    for (blank, value) in values {
        text = text.replace(blank, value);
    }
    put(&tree.join("DEBIAN/control"), text.as_bytes(), 0o644)
}

/// What the package takes on a disk.
pub fn kibibytes(tree: &Path) -> Result<u64> {
    let mut du = Command::new("du");
    du.args(["-sk", "--apparent-size", "--exclude=DEBIAN"]).arg(tree);
    let said = shell::output(&mut du).context("du failed")?;
    said.split_whitespace()
        .next()
        .and_then(|size| size.parse().ok())
        .context("du named no size")
}

/// When the last commit was made: the package depends on the source, not on the clock.
pub fn commit_date(workspace: &Workspace, format: &str) -> String {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root)
        .args(["log", "-1", &format!("--format={format}")]);
    let fallback = if format == "%ct" {
        "0"
    } else {
        "Thu, 01 Jan 1970 00:00:00 +0000"
    };
    shell::output(&mut git).unwrap_or_else(|| fallback.to_owned())
}

fn changelog(workspace: &Workspace, version: &str) -> String {
    let date = commit_date(workspace, "%cD");
    format!(
        "uplink ({version}) unstable; urgency=medium\n\n  * Built from the sources; changelog.gz says what is new.\n\n \
         -- uplink maintainers <maintainers@uplink.example>  {date}\n"
    )
}

/// The manual pages, if this binary writes them.
fn manuals(binary: &Path, tree: &Path) -> Result<()> {
    if !has(binary, "man") {
        println!("this binary writes no manual pages");
        return Ok(());
    }
    let fresh = tree.with_file_name("man");
    fs::create_dir_all(&fresh)?;
    shell::run(Command::new(binary).args(["man", "--dir"]).arg(&fresh))?;
    for page in fs::read_dir(&fresh)? {
        let page = page?.path();
        let section = page
            .extension()
            .and_then(|section| section.to_str())
            .unwrap_or("8");
        let name = page.file_name().context("a page has a name")?;
        let place = tree
            .join("usr/share/man")
            .join(format!("man{section}"))
            .join(name);
        put(&place, &fs::read(&page)?, 0o644)?;
        gzip(&place)?;
    }
    fs::remove_dir_all(&fresh).context("cannot remove the manual pages' folder")
}

/// The shells' completions, if this binary writes them.
fn completions(binary: &Path, tree: &Path) -> Result<()> {
    if !has(binary, "completions") {
        println!("this binary writes no completions");
        return Ok(());
    }
    for (name, file) in COMPLETIONS {
        let text = shell::output(Command::new(binary).args(["completions", name]))
            .with_context(|| format!("`uplink completions {name}` failed"))?;
        put(&tree.join(file), format!("{text}\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Whether the binary knows a command.
fn has(binary: &Path, command: &str) -> bool {
    let mut help = Command::new(binary);
    help.args([command, "--help"]).stderr(Stdio::null());
    shell::output(&mut help).is_some()
}

/// Compresses a file in place, without a time inside.
fn gzip(file: &Path) -> Result<()> {
    shell::run(Command::new("gzip").args(["-9nf"]).arg(file))?;
    let packed = format!("{}.gz", file.display());
    fs::set_permissions(&packed, fs::Permissions::from_mode(0o644)).context("cannot set a mode")
}
