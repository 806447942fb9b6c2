//! The daemon killed in the middle of what it does, by `strace -e inject`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::daemon::{Daemon, program, uplink};
use crate::topology::Lab;

/// Calls that change the kernel's state, or ask for it: bpf, what sends on netlink, and what
/// removes pins and files.
pub const CALLS: [&str; 4] = ["bpf", "sendto", "unlink", "rmdir"];

impl<'a> Daemon<'a> {
    /// Starts the daemon, to be killed as it enters the `n`th `call` (from 1) of its main thread.
    /// It may come up, when there are fewer.
    ///
    /// # Errors
    /// When strace cannot be started.
    pub fn spawn_killed_at(lab: &'a Lab, call: &str, n: u32) -> Result<Self> {
        // -D: the tracer is the detached one, so that our child is the daemon itself.
        let mut arguments = vec!["-D".to_owned()];
        arguments.extend(injection(call, n));
        arguments.push(program()?);
        let daemon = uplink(lab, "strace", &arguments, &["run"]);
        Self::launch(lab, daemon)
    }

    /// Has the running daemon killed as it enters the `n`th `call` of its main thread from now.
    ///
    /// # Errors
    /// When strace cannot be started or does not attach within two seconds.
    pub fn kill_at(&mut self, call: &str, n: u32) -> Result<Tracer> {
        let pid = self.pid()?;
        let mut strace = std::process::Command::new("strace");
        strace.args(injection(call, n)).args(["-p", &pid.to_string()]);
        let child = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let tracer = Tracer(child.context("strace")?);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            // Its next call may come before anybody looks.
            if self.ended()?.is_some() {
                return Ok(tracer);
            }
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let traced = status.lines().find(|line| line.starts_with("TracerPid:"));
            if traced.is_some_and(|line| !line.ends_with("\t0")) {
                return Ok(tracer);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("strace does not attach to {pid}")
    }
}

/// A strace that watches a daemon; dropping it lets the daemon go on unwatched.
#[derive(Debug)]
pub struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        // By SIGKILL the daemon could stay stopped or half traced, so ask politely.
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Without -f: helpers like nft are not meant.
fn injection(call: &str, n: u32) -> Vec<String> {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let trace = format!("trace={call}");
    ["-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]
        .map(str::to_owned)
        .to_vec()
}
