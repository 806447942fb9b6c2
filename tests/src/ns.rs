//! Network namespaces as values.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// A network namespace without a name, alive as long as this value (and what runs in it).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fd: OwnedFd,
}

impl Namespace {
    /// A new namespace with the loopback device up. `name` appears in errors only.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(name: &str) -> Result<Self> {
        let create = || -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        let fd = std::thread::scope(|s| join(s.spawn(create).join()))?;
        let ns = Self {
            name: name.to_owned(),
            fd,
        };
        ns.run("ip link set lo up")?;
        Ok(ns)
    }

    /// The same namespace once more.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            fd: self.fd.try_clone()?,
        })
    }

    /// The name given to [`Self::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that `ip ... netns PATH` accepts.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Runs `f` in a thread inside the namespace and waits for it. Sockets made there stay there.
    ///
    /// Do not spawn processes that shall outlive `f`: they die with its thread.
    ///
    /// # Errors
    /// When the thread cannot enter.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || -> Result<T> {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).context("enter a namespace")?;
            Ok(f())
        };
        std::thread::scope(|s| join(s.spawn(inside).join()))
    }

    /// Starts a thread inside the namespace.
    ///
    /// # Errors
    /// When the namespace or the thread cannot be had.
    pub fn spawn<T, F>(&self, f: F) -> Result<JoinHandle<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let fd = self.fd.try_clone()?;
        let inside = move || {
            setns(&fd, CloneFlags::CLONE_NEWNET).context("enter a namespace")?;
            f()
        };
        Ok(std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(inside)?)
    }

    /// A command that will run inside the namespace and die with the calling thread.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let fd = self.fd.as_raw_fd();
        let enter = move || {
            // SAFETY: the descriptor is open in the child: it is a copy of the parent's, whose
            // `Namespace` outlives the spawn, and close-on-exec has not happened yet.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            setns(fd, CloneFlags::CLONE_NEWNET)?;
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
        unsafe { command.pre_exec(enter) };
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command line (words separated by blanks, no shell) and returns its output.
    ///
    /// # Errors
    /// When it fails; the error carries what it said on stderr.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command line")?;
        let output = self
            .command(program)
            .args(words)
            .output()
            .with_context(|| line.to_owned())?;
        self.success(line, &output)
    }

    /// Gives `ip -batch` its lines.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.feed("ip -batch -", lines)
    }

    /// Loads an nftables script.
    ///
    /// # Errors
    /// When nft refuses it; nothing is changed then.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed("nft -f -", script)
    }

    /// Writes a sysctl below `/proc/sys/net`, like `ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("{path} = {value}")))?
    }

    fn feed(&self, line: &str, input: &str) -> Result<()> {
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command line")?;
        let mut command = self.command(program);
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| line.to_owned())?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // A child that fails early closes the pipe; its message says more than EPIPE.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        self.success(&format!("{line} <<<\n{input}"), &output).map(drop)
    }

    fn success(&self, line: &str, output: &Output) -> Result<String> {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("in {}: {line}: {}: {}", self.name, output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn join<T>(joined: std::thread::Result<T>) -> T {
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
