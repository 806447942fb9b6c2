//! `cargo xtask install` and `uninstall`.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{build, shell, workspace::Workspace};

/// The binary's path in packaging/uplink.service.
const UNIT_BINARY: &str = "/usr/sbin/uplink";
/// The group whose members may use the control socket.
const GROUP: &str = "uplink";

/// Where `install` puts things.
#[derive(clap::Args)]
pub struct Place {
    /// Where the binary (PREFIX/sbin) and the unit (PREFIX/lib/systemd/system) go
    #[arg(long, default_value = "/usr")]
    prefix: PathBuf,
    /// Put everything under this folder instead of /, for packages
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
}

/// Builds as the user, then installs as root.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask install --prefix /usr/local")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Install what has been built before
    #[arg(long, hide = true)]
    built: bool,
}

impl Place {
    /// The tree of a package.
    pub fn package(tree: &Path) -> Self {
        Self {
            prefix: "/usr".into(),
            destdir: Some(tree.to_owned()),
        }
    }

    /// A path on the installed system, given from its root.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match &self.destdir {
            Some(destdir) => destdir.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn binary(&self) -> PathBuf {
        self.prefix.join("sbin/uplink")
    }

    fn unit(&self) -> PathBuf {
        self.at(self.prefix.join("lib/systemd/system/uplink.service"))
    }

    /// The names of our route protocol and tables, with the files in packaging/.
    fn names(&self) -> [(PathBuf, &'static str); 2] {
        [
            (self.at("/etc/iproute2/rt_protos.d/uplink.conf"), "rt_protos.conf"),
            (self.at("/etc/iproute2/rt_tables.d/uplink.conf"), "rt_tables.conf"),
        ]
    }

    fn systemctl_reload(&self) {
        if self.destdir.is_none() && Path::new("/run/systemd/system").exists() {
            shell::output(Command::new("systemctl").arg("daemon-reload"));
        }
    }
}

/// Builds and installs.
pub fn install(workspace: &Workspace, args: &Args) -> Result<()> {
    if !args.built {
        build::build(workspace)?;
        if args.place.destdir.is_none() && !shell::is_root() {
            return as_root(&["install", "--built"], &args.place);
        }
    }
    place(workspace, &args.place)?;
    let place = &args.place;
    if place.destdir.is_none() {
        add_group()?;
    }
    place.systemctl_reload();
    println!("next: edit /etc/uplink/uplink.toml, then `uplink check --plan`, `uplink doctor`,");
    println!("      `systemctl enable --now uplink` and `uplink status`");
    println!("      (members of the group {GROUP} need no root for status; {NETWORKD})");
    Ok(())
}

/// Puts the files there; the user's own configuration is never overwritten.
pub fn place(workspace: &Workspace, place: &Place) -> Result<()> {
    let packaging = workspace.root.join("packaging");
    let read =
        |name: &str| fs::read(packaging.join(name)).with_context(|| format!("cannot read packaging/{name}"));
    let binary = workspace.binary("uplink");
    let binary = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let put_there = |file: &Path, content: &[u8], mode| {
        put(file, content, mode)?;
        if place.destdir.is_none() {
            println!("installed {}", file.display());
        }
        anyhow::Ok(())
    };
    put_there(&place.at(place.binary()), &binary, 0o755)?;
    let unit = String::from_utf8(read("uplink.service")?)?;
    put_there(
        &place.unit(),
        unit.replace(UNIT_BINARY, &place.binary().to_string_lossy())
            .as_bytes(),
        0o644,
    )?;
    for (file, name) in place.names() {
        put_there(&file, &read(name)?, 0o644)?;
    }
    let config = place.at("/etc/uplink/uplink.toml");
    if !config.exists() {
        put_there(&config, &read("uplink.toml")?, 0o644)?;
    }
    Ok(())
}

const NETWORKD: &str = "with systemd-networkd see packaging/networkd.conf";

/// Removes what `install` put there.
pub fn uninstall(place: &Place) -> Result<()> {
    if place.destdir.is_none() && !shell::is_root() {
        return as_root(&["uninstall"], place);
    }
    if place.destdir.is_none() {
        // Fails harmlessly where the unit was never enabled, or there is no systemd.
        shell::output(Command::new("systemctl").args(["disable", "--now", "uplink.service"]));
    }
    let [(protos, _), (tables, _)] = place.names();
    for file in [place.at(place.binary()), place.unit(), protos, tables] {
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
            println!("removed {}", file.display());
        }
    }
    place.systemctl_reload();
    println!("/etc/uplink and the group {GROUP} stay");
    Ok(())
}

/// Writes a file whole: a running binary is replaced, not overwritten.
pub fn put(file: &Path, content: &[u8], mode: u32) -> Result<()> {
    let folder = file.parent().context("a file lies in a folder")?;
    let write = || {
        fs::create_dir_all(folder)?;
        let fresh = file.with_extension("uplink-new");
        fs::write(&fresh, content)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
        fs::rename(&fresh, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

fn add_group() -> Result<()> {
    if shell::output(Command::new("getent").args(["group", GROUP])).is_some() {
        return Ok(());
    }
    let groupadd = shell::find("groupadd").context("there is no groupadd: add the system group uplink")?;
    shell::run(Command::new(groupadd).args(["--system", GROUP]))
}

/// Becomes ourselves as root.
fn as_root(arguments: &[&str], place: &Place) -> Result<()> {
    let mut command = shell::as_root(&env::current_exe()?, &[])?;
    shell::exec(command.args(arguments).arg("--prefix").arg(&place.prefix))
}
