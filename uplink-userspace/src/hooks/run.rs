//! One run of a hook, from its start to the end of all that it has started.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::wait::WaitStatus;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Failure, trust};
use crate::config;
use crate::process::{PATH, Process};

/// Bytes of a hook's output that reach the log.
const LOGGED: usize = 4096;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// What was written before the end is read within.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Runs the hook for an uplink.
pub(super) async fn run(
    settings: &config::Hooks,
    uplink: &str,
    environment: Vec<(String, String)>,
    turn: Arc<Semaphore>,
) -> Result<(), Failure> {
    let (path, limit) = (settings.on_change.value.clone(), settings.timeout);
    let checked = path.clone();
    let check = move || trust::check(&checked);
    run_if(check, &path, limit, uplink, environment, turn).await
}

/// Runs the program that `check` allows: the file that was judged, not what its name leads to by then.
pub(super) async fn run_if(
    check: impl FnOnce() -> Result<PathBuf, Failure> + Send + 'static,
    path: &Path,
    limit: Duration,
    uplink: &str,
    environment: Vec<(String, String)>,
    turn: Arc<Semaphore>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let shown = path.display();
    let failed = |what: String| {
        let remedy = format!("see what {shown} does, or take it out of [hooks] and reload");
        Failure::new(format!("the hook {shown} for {uplink} {what}"), remedy)
    };
    let started = match timeout_at(deadline, start(check, environment, turn)).await {
        Ok(Ok(started)) => started?,
        Ok(Err(e)) => return Err(failed(format!("cannot be started: {e}"))),
        Err(_) => return Err(failed(format!("could not be started within {limit:?}"))),
    };
    let (process, mut output) = started;
    let result = attend(&process, &mut output, deadline, limit).await;
    output.log(uplink);
    result.map_err(|what| failed(what + &output.last_line()))
}

/// Waits until nothing of the run before is left, then starts the program.
async fn start(
    check: impl FnOnce() -> Result<PathBuf, Failure> + Send + 'static,
    mut environment: Vec<(String, String)>,
    turn: Arc<Semaphore>,
) -> io::Result<Result<(Process, Output), Failure>> {
    environment.push(("PATH".into(), PATH.into()));
    let turn = turn.acquire_owned().await.map_err(io::Error::other)?;
    // Files may be on a server that does not answer.
    let starting = tokio::task::spawn_blocking(move || -> io::Result<_> {
        let program = match check() {
            Ok(program) => program.into_os_string().into_string(),
            Err(failure) => return Ok(Err(failure)),
        };
        let command = [program.map_err(|name| io::Error::other(format!("{} is no UTF-8", name.display())))?];
        let (output, into) = io::pipe()?;
        let process = Process::start(&command, &environment, Some(into), turn)?;
        Ok(Ok((process, output)))
    });
    match starting.await.map_err(io::Error::other)?? {
        Ok((process, output)) => Ok(Ok((process, Output::new(output)?))),
        Err(failure) => Ok(Err(failure)),
    }
}

/// Waits for the end of the program, or ends it; why it failed.
async fn attend(
    process: &Process,
    output: &mut Output,
    deadline: Instant,
    limit: Duration,
) -> Result<(), String> {
    let unknown = |e: io::Error| format!("cannot be waited for: {e}");
    let left = deadline.saturating_duration_since(Instant::now());
    match output.meanwhile(timeout(left, process.exited())).await {
        Ok(exited) => exited.map_err(unknown)?,
        Err(_) => {
            process.terminate();
            let _ = output.meanwhile(timeout(GRACE, process.exited())).await;
            return Err(format!("took longer than {limit:?} and was killed"));
        }
    }
    if !output.closed {
        let _ = timeout(LAST_WORDS, output.read()).await;
    }
    match process.status().map_err(unknown)? {
        WaitStatus::Exited(_, 0) if output.closed => Ok(()),
        WaitStatus::Exited(_, 0) => Err("left others running that hold its output; they were killed".into()),
        WaitStatus::Exited(_, status) => Err(format!("failed with exit status {status}")),
        WaitStatus::Signaled(_, signal, _) => Err(format!("was killed by {signal}")),
        other => Err(format!("ended as {other:?}")),
    }
}

/// What the program writes: the beginning is kept, the rest read and forgotten, so that nobody
/// waits for a reader.
struct Output {
    pipe: Receiver,
    kept: Vec<u8>,
    more: u64,
    closed: bool,
}

impl Output {
    fn new(pipe: io::PipeReader) -> io::Result<Self> {
        Ok(Self {
            pipe: Receiver::from_owned_fd(pipe.into())?,
            kept: Vec::new(),
            more: 0,
            closed: false,
        })
    }

    /// Reads until nobody can write any more.
    async fn read(&mut self) {
        let mut buffer = [0; 1024];
        while !self.closed {
            match self.pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => self.closed = true,
                Ok(n) => {
                    let room = n.min(LOGGED - self.kept.len());
                    self.kept.extend_from_slice(&buffer[..room]);
                    self.more += (n - room) as u64;
                }
            }
        }
    }

    /// Reads while `other` goes on.
    async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            result = other => result,
            never = async { self.read().await; std::future::pending().await } => never,
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let lines = text
            .lines()
            .map(|line| line.chars().map(printable).collect::<String>());
        lines.filter(|line| !line.trim().is_empty()).collect()
    }

    fn log(&self, uplink: &str) {
        for line in self.lines() {
            tracing::info!("hook for {uplink}: {line}");
        }
        if self.more > 0 {
            tracing::info!("hook for {uplink}: {} more bytes are not shown", self.more);
        }
    }

    fn last_line(&self) -> String {
        let line = self.lines().pop();
        line.map_or_else(String::new, |line| {
            format!("; it said: {}", line.chars().take(200).collect::<String>())
        })
    }
}
