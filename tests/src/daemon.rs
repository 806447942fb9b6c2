//! The daemon under test, as a child process in the router's namespace.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::isolate::{BPFFS, LAB_DIR};
use crate::topology::{Isp, Lab};

/// What the lab's configuration file says; [`Config::text`] writes it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Weights of the two uplinks.
    pub weights: [u32; 2],
    /// Lines to add to each uplink, TOML.
    pub uplink_more: [String; 2],
    /// Whole sections to append, TOML.
    pub more: String,
    /// Whether the uplinks have IPv6 gateways.
    pub ipv6: bool,
    /// Interfaces where clients enter beside [`Lab::lan`].
    pub lans: Vec<String>,
    /// Whether the gateways of each uplink are found by DHCP and router advertisements.
    pub auto: [bool; 2],
    /// The cgroup whose sockets are steered, as [`crate::Cgroup::path`] names it. Off without
    /// one: the programs of the root cgroup would act on the whole host.
    pub local: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            weights: [3, 1],
            uplink_more: Default::default(),
            more: String::new(),
            ipv6: true,
            lans: Vec::new(),
            auto: [false; 2],
            local: None,
        }
    }
}

impl Config {
    /// The file.
    #[must_use]
    pub fn text(&self, lab: &Lab) -> String {
        let mut text = String::new();
        for isp in Isp::ALL {
            let (name, interface) = (isp.name(), isp.interface(lab.shape));
            let (gateway, gateway6) = match self.auto[isp.index()] {
                true => ("auto", "auto"),
                false => isp.gateways(),
            };
            let weight = self.weights[isp.index()];
            let _ = writeln!(
                text,
                "[[uplink]]\nname = \"{name}\"\ninterface = \"{interface}\"\n\
                 gateway = \"{gateway}\"\nweight = {weight}",
            );
            if self.ipv6 {
                let _ = writeln!(text, "gateway6 = \"{gateway6}\"");
            }
            let _ = writeln!(text, "{}", self.uplink_more[isp.index()]);
        }
        let lans: Vec<&str> = [lab.lan()]
            .into_iter()
            .chain(self.lans.iter().map(String::as_str))
            .collect();
        let local = match &self.local {
            Some(cgroup) => format!("enabled = true\ncgroup = \"{cgroup}\""),
            None => "enabled = false".into(),
        };
        let _ = write!(text, "[lan]\ninterfaces = {lans:?}\n[local]\n{local}\n");
        text + &self.more
    }
}

/// Runs the program's subcommands, and the daemon.
#[derive(Debug)]
pub struct Daemon<'a> {
    lab: &'a Lab,
    child: Option<Child>,
    /// How long the start took, until `status` answered.
    pub ready: Duration,
}

impl<'a> Daemon<'a> {
    /// Writes the configuration, starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// When it does not within 5 s; the error carries its log.
    pub fn start(lab: &'a Lab, config: &Config) -> Result<Self> {
        write_config(&config.text(lab))?;
        Self::restart(lab)
    }

    /// As [`Self::start`], with the configuration as it is.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(lab: &'a Lab) -> Result<Self> {
        Self::when_ready(Self::spawn(lab)?)
    }

    /// As [`Self::restart`], where something may be missing yet.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart_waiting(lab: &'a Lab) -> Result<Self> {
        Self::when_ready(Self::launch(
            lab,
            uplink(lab, &program()?, &[], &["run", "--wait"]),
        )?)
    }

    /// As [`Self::restart`], with another program than [`binary`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart_from(lab: &'a Lab, program: &str) -> Result<Self> {
        Self::when_ready(Self::launch(lab, uplink(lab, program, &[], &["run"]))?)
    }

    /// Starts the daemon and waits for nothing.
    ///
    /// # Errors
    /// When there is no program to start.
    pub fn spawn(lab: &'a Lab) -> Result<Self> {
        Self::launch(lab, uplink(lab, &program()?, &[], &["run"]))
    }

    /// Starts this command as the daemon.
    pub(crate) fn launch(lab: &'a Lab, mut command: Command) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log_path())?;
        command.process_group(0).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start the daemon")?;
        Ok(Self {
            lab,
            child: Some(child),
            ready: Duration::ZERO,
        })
    }

    fn when_ready(mut self) -> Result<Self> {
        let begun = Instant::now();
        self.wait_ready(begun)
            .map_err(|e| anyhow!("{e:#}; its log:\n{}", log_tail()))?;
        self.ready = begun.elapsed();
        Ok(self)
    }

    fn wait_ready(&mut self, begun: Instant) -> Result<()> {
        while begun.elapsed() < Duration::from_secs(5) {
            if let Some(status) = self.child()?.try_wait()? {
                bail!("the daemon ended at once: {status}");
            }
            if self.status().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the daemon does not answer `status --json` within 5 s")
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it was killed or waited for.
    pub fn pid(&mut self) -> Result<u32> {
        Ok(self.child()?.id())
    }

    /// `status --json`.
    ///
    /// # Errors
    /// When it fails or prints something else than JSON.
    pub fn status(&self) -> Result<Value> {
        let output = run(self.lab, &["status", "--json"])?;
        ensure!(output.status.success(), "status: {}", said(&output));
        serde_json::from_slice(&output.stdout).context("status --json")
    }

    /// The state and the share (0 to 1) of each uplink.
    ///
    /// # Errors
    /// When the status lacks them.
    pub fn uplinks(&self) -> Result<[(String, f64); 2]> {
        let status = self.status()?;
        let one = |isp: Isp| -> Result<(String, f64)> {
            let uplink = find(&status, isp).with_context(|| format!("no {isp:?} in {status}"))?;
            let state = uplink["state"].as_str().context("no state")?;
            Ok((state.to_owned(), uplink["share"].as_f64().context("no share")?))
        };
        Ok([one(Isp::One)?, one(Isp::Two)?])
    }

    /// Waits until the uplink is in `state`, and returns how long that took.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn await_state(&self, isp: Isp, state: &str, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let now = self.uplinks()?;
            if now[isp.index()].0 == state {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > limit {
                bail!(
                    "{} is not {state} within {limit:?}: {now:?}\n{}",
                    isp.name(),
                    log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until both uplinks are up.
    ///
    /// # Errors
    /// When they are not within 10 s.
    pub fn await_up(&self) -> Result<()> {
        let limit = Duration::from_secs(10);
        Isp::ALL
            .iter()
            .try_for_each(|isp| self.await_state(*isp, "up", limit).map(drop))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is no longer there.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?.cast_signed());
        kill(pid, signal).with_context(|| format!("send {signal}"))
    }

    /// Sends a signal and waits until the daemon ends.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn end(mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(signal)?;
        }
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "the daemon did not end within {limit:?} of {signal}; its log:\n{}",
            log_tail()
        )
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child()?.try_wait()?)
    }

    /// Stops it with SIGTERM.
    ///
    /// # Errors
    /// When it does not end within 5 s, or not with exit status 0.
    pub fn stop(self) -> Result<()> {
        let status = self.end(Signal::SIGTERM, Duration::from_secs(5))?;
        ensure!(status.success(), "SIGTERM: {status}; its log:\n{}", log_tail());
        Ok(())
    }

    fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("the daemon has ended")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An uplink's object in the status.
#[must_use]
pub fn find(status: &Value, isp: Isp) -> Option<&Value> {
    status["uplinks"]
        .as_array()?
        .iter()
        .find(|u| u["name"] == isp.name())
}

/// Writes the configuration file of the lab.
///
/// # Errors
/// When the file cannot be written.
pub fn write_config(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(LAB_DIR).join("uplink.toml");
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Runs a subcommand in the router's namespace to its end.
///
/// # Errors
/// When it cannot be started; look at the output for the rest.
pub fn run(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = uplink(lab, &program()?, &[], arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().with_context(|| format!("uplink {arguments:?}"))
}

/// A subcommand in the router's namespace, to be started.
///
/// # Errors
/// When there is no program.
pub fn command(lab: &Lab, arguments: &[&str]) -> Result<Command> {
    Ok(uplink(lab, &program()?, &[], arguments))
}

/// What a command wrote on both streams.
#[must_use]
pub fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text).trim())
}

/// The last lines of the daemon's log.
#[must_use]
pub fn log_tail() -> String {
    let log = std::fs::read_to_string(log_path()).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Where the daemon's log goes.
#[must_use]
pub fn log_path() -> PathBuf {
    PathBuf::from(LAB_DIR).join("daemon.log")
}

/// `$UPLINK_BIN`, else a build next to this program, release first.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("UPLINK_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let names = ["release/uplink", "uplink", "debug/uplink"];
    exe.ancestors()
        .skip(1)
        .take(4)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|path| path.is_file())
        .context("no `uplink` binary: set UPLINK_BIN, or build uplink-userspace first")
}

pub(crate) fn program() -> Result<String> {
    let path = binary()?;
    Ok(path.to_str().context("a path that is no UTF-8")?.to_owned())
}

/// A subcommand with the lab's paths. `before` are arguments of a program that runs ours.
pub(crate) fn uplink(lab: &Lab, program: &str, before: &[String], arguments: &[&str]) -> Command {
    let mut command = lab.router.command(program);
    command.args(before);
    let config = format!("{LAB_DIR}/uplink.toml");
    command.args(["--config", &config, "--runtime-dir", "/run/uplink"]);
    command
        .args(["--bpffs", &format!("{BPFFS}/uplink")])
        .args(arguments);
    command
}
