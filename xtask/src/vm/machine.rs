//! One run of the machine, and what it said.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::image::Image;

/// Emulation is an order of magnitude slower, and two cores may be shared with others.
const LIMIT_KVM: &str = "360";
const LIMIT_EMULATED: &str = "2400";

/// Scenarios that held, and that did not.
#[derive(Default)]
pub struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn add(&mut self, line: &str) {
        self.passed += u32::from(line.starts_with("ok "));
        self.failed += u32::from(line.starts_with("FAILED "));
    }

    /// Prints the totals as the last line, and fails unless all held.
    pub fn report(&self) -> Result<()> {
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 || self.passed == 0 {
            std::process::exit(1);
        }
        Ok(())
    }
}

/// Boots, passes on what the scenarios say, and waits until the machine is off.
pub fn run(image: &Image, payload: &Path) -> Result<Tally> {
    let log = payload.with_file_name("console.log");
    let mut qemu = command(image, payload, &log);
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu")?;
    let said = child.stdout.take().context("qemu has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(said).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait()?;
    if !status.success() || tally.passed + tally.failed == 0 {
        bail!(
            "the machine ended early ({status}; 124 is the time limit) or ran no scenario: see {}",
            log.display()
        );
    }
    Ok(tally)
}

/// Whether KVM has the processor's help. On a machine that is itself virtual, /dev/kvm may open and
/// yet not get a guest through its boot.
fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let helped = flags
        .split_whitespace()
        .any(|flag| ["vmx", "svm"].contains(&flag));
    helped && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// qemu within a time limit that holds even when nobody waits for it any more.
fn command(image: &Image, payload: &Path, log: &Path) -> Command {
    let kvm = kvm_works();
    let (limit, accelerator, cpu) = if kvm {
        (LIMIT_KVM, "kvm", "host")
    } else {
        println!("this processor offers no KVM here: the machine is emulated, which takes long");
        (LIMIT_EMULATED, "tcg", "max")
    };
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", limit, "qemu-system-x86_64"]);
    command.args([
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
        "-smp",
        "2",
        "-m",
        "1024",
    ]);
    command.args(["-accel", accelerator, "-cpu", cpu, "-device", "virtio-rng-pci"]);
    command
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd);
    command.args(["-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1"]);
    for (disk, how) in [(&*image.disk, "snapshot=on"), (payload, "readonly=on")] {
        command
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,{how}", disk.display()));
    }
    for (name, mac) in [("router", "52:54:00:00:00:01"), ("street", "52:54:00:00:00:02")] {
        command.args(["-netdev", &format!("hubport,id={name},hubid=0")]);
        command.args(["-device", &format!("virtio-net-pci,netdev={name},mac={mac}")]);
    }
    command.arg("-serial").arg(format!("file:{}", log.display()));
    command.args(["-chardev", "stdio,id=said,signal=off", "-serial", "chardev:said"]);
    command
}
