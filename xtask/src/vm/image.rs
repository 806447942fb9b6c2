//! The machine's disk, kernel and initial RAM disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::shell;

const SUITE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,linux-image-cloud-amd64,initramfs-tools,iproute2,nftables,bpftool,\
    python3,procps,kmod,passwd,util-linux";

/// Runs what is on the payload disk, and switches off. The second serial port takes what it says.
const TRIAL: &str = "[Unit]
After=dbus.service network.target systemd-user-sessions.service
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
Type=oneshot
Environment=PYTHONDONTWRITEBYTECODE=1 HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/sh -c 'mount -o ro -L payload /mnt && exec python3 -u /mnt/run.py >/dev/ttyS1 2>&1'
[Install]
WantedBy=multi-user.target
";

/// Where its parts lie.
pub struct Image {
    /// The root file system; the machine writes into a copy that nobody keeps.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
}

/// Makes the machine unless there is one made by the same recipe.
pub fn ensure(folder: &Path, fresh: bool) -> Result<Image> {
    let image = Image {
        disk: folder.join("debian.ext4"),
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd.img"),
    };
    let recipe = format!("{SUITE}\n{PACKAGES}\n{TRIAL}");
    let made_by = folder.join("recipe");
    if !fresh && fs::read_to_string(&made_by).is_ok_and(|made| made == recipe) {
        return Ok(image);
    }
    println!("making the machine from Debian's packages, once, in about two minutes");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let trial = folder.join("trial.service");
    fs::write(&trial, TRIAL)?;
    let tree = folder.join("tree");
    // Without its end the recipe is not there either, so a broken attempt is made again.
    fs::remove_file(&made_by).ok();
    remove(&tree)?;
    bootstrap(&tree, &trial)?;
    pack(&tree, &image)?;
    remove(&tree)?;
    fs::write(&made_by, recipe)?;
    Ok(image)
}

fn bootstrap(tree: &Path, trial: &Path) -> Result<()> {
    let copy = format!("copy-in {} /etc/systemd/system", trial.display());
    let mut mmdebstrap = as_root("mmdebstrap")?;
    mmdebstrap.args([
        "--quiet",
        "--variant=minbase",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]);
    mmdebstrap.arg(format!("--include={PACKAGES}"));
    for hook in [
        &copy,
        "chroot \"$1\" systemctl enable --quiet trial.service",
        "chroot \"$1\" systemctl mask --quiet getty.target apt-daily.timer apt-daily-upgrade.timer systemd-networkd.service",
    ] {
        mmdebstrap.arg(format!("--customize-hook={hook}"));
    }
    shell::run(mmdebstrap.arg(SUITE).arg(tree))
}

/// Puts the tree onto a disk, and the kernel beside it.
fn pack(tree: &Path, image: &Image) -> Result<()> {
    let mut mke2fs = as_root("mke2fs")?;
    mke2fs
        .args(["-qF", "-t", "ext4", "-d"])
        .args([tree, &image.disk])
        .arg("2G");
    shell::run(&mut mke2fs)?;
    for (name, place) in [("vmlinuz", &image.kernel), ("initrd.img", &image.initrd)] {
        let mut install = as_root("install")?;
        shell::run(install.args(["-m", "0644"]).args([&tree.join(name), place]))?;
    }
    Ok(())
}

fn remove(tree: &Path) -> Result<()> {
    shell::run(
        as_root("rm")?
            .args(["-rf", "--one-file-system"])
            .arg(tree)
            .stdin(Stdio::null()),
    )
}

fn as_root(program: &str) -> Result<Command> {
    let found = shell::find(program).with_context(|| format!("there is no {program}"))?;
    shell::as_root(&found, &[])
}
