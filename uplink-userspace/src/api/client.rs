//! The commands' end of the control socket.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Error, PATIENCE, STATUS, STOPPING};

/// What changes something may take its time, and giving up would not stop it.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts to be let in.
const TURN: Duration = Duration::from_millis(10);

/// Asks a running daemon.
///
/// # Errors
/// When none runs, when we may not ask, or with the [`Error`] it answered.
pub async fn call(runtime_dir: &Path, method: &str, parameters: Value) -> Result<Value> {
    let mut last = Value::Null;
    let request = json!({ "method": method, "parameters": parameters });
    talk(runtime_dir, patience(method), &request, |part| {
        last = part;
        Ok(())
    })
    .await?;
    Ok(last)
}

/// Asks a running daemon for an answer in parts, and gives each to `take`.
///
/// # Errors
/// As [`call`], and those of `take`.
pub async fn stream(
    runtime_dir: &Path,
    method: &str,
    parameters: Value,
    take: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let request = json!({ "method": method, "parameters": parameters, "more": true });
    talk(runtime_dir, patience(method), &request, take).await
}

/// As [`stream`], for as long as the daemon has something to say.
///
/// # Errors
/// As [`stream`].
pub async fn follow(
    runtime_dir: &Path,
    method: &str,
    parameters: Value,
    take: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let request = json!({ "method": method, "parameters": parameters, "more": true });
    talk(runtime_dir, Duration::MAX, &request, take).await
}

fn patience(method: &str) -> Duration {
    match method {
        STATUS => PATIENCE,
        _ => LONG_PATIENCE,
    }
}

/// Asks, and once more where the daemon hangs up before it says anything: it makes room for others among many clients
/// by whoever it has not heard yet.
async fn talk(
    runtime_dir: &Path,
    patience: Duration,
    request: &Value,
    mut take: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(0);
    let begun = Instant::now();
    loop {
        let mut heard = false;
        let result = talk_once(runtime_dir, patience, &bytes, |part| {
            heard = true;
            take(part)
        });
        match result.await {
            Err(e) if !heard && e.is::<Cut>() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(TURN).await;
            }
            result => return result,
        }
    }
}

async fn talk_once(
    runtime_dir: &Path,
    patience: Duration,
    request: &[u8],
    mut take: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let (read, mut write) = connect(runtime_dir).await?.into_split();
    write.write_all(request).await.map_err(cut)?;
    let mut read = BufReader::new(read);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let answer = tokio::time::timeout(patience, read.read_until(0, &mut bytes)).await;
        answer
            .with_context(|| format!("the daemon does not answer within {} s", patience.as_secs()))?
            .map_err(cut)?;
        anyhow::ensure!(bytes.pop() == Some(0), Cut);
        let answer: Value = serde_json::from_slice(&bytes).context("the daemon's answer is no JSON")?;
        let continues = answer["continues"] == true;
        take(parameters(answer)?)?;
        if !continues {
            return Ok(());
        }
    }
}

fn parameters(mut answer: Value) -> Result<Value, Error> {
    let parameters = answer["parameters"].take();
    match answer.get("error").and_then(Value::as_str) {
        None => Ok(parameters),
        Some(name) => Err(Error {
            name: name.into(),
            parameters,
        }),
    }
}

async fn connect(runtime_dir: &Path) -> Result<UnixStream> {
    let path = super::path(runtime_dir);
    let begun = Instant::now();
    let failure = loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => return Ok(stream),
            // Many others wait to be let in.
            Err(e) if e.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(TURN).await;
            }
            Err(e) => break e,
        }
    };
    let path = path.display();
    Err(match failure.kind() {
        ErrorKind::NotFound => anyhow!(Gone(format!(
            "{path} does not exist: the daemon is not running (start it with `uplink run`)"
        ))),
        ErrorKind::ConnectionRefused => anyhow!(Gone(format!(
            "nobody answers at {path}: the daemon is not running (start it with `uplink run`)"
        ))),
        ErrorKind::PermissionDenied => {
            anyhow!("you may not talk to {path}: be root, or a member of the group that owns it")
        }
        _ => anyhow::Error::new(failure).context(format!("cannot talk to {path}")),
    })
}

fn cut(_: std::io::Error) -> anyhow::Error {
    anyhow!(Cut)
}

/// Whether the daemon does not run, or has ended, so that waiting for it makes sense.
#[must_use]
pub fn is_gone(error: &anyhow::Error) -> bool {
    let stopping = error.downcast_ref::<Error>().is_some_and(|e| e.name == STOPPING);
    stopping || error.is::<Gone>() || error.is::<Cut>()
}

/// There is no daemon, or no longer; in words.
#[derive(Debug)]
struct Gone(String);

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Gone {}

/// The answer was cut off.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the daemon has gone while answering")
    }
}

impl std::error::Error for Cut {}
