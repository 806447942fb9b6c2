//! The commands' end of the control socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Error, PATIENCE, STATUS};

/// What changes something may take its time, and giving up would not stop it.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

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

fn patience(method: &str) -> Duration {
    match method {
        STATUS => PATIENCE,
        _ => LONG_PATIENCE,
    }
}

async fn talk(
    runtime_dir: &Path,
    patience: Duration,
    request: &Value,
    mut take: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let (read, mut write) = connect(runtime_dir).await?.into_split();
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(0);
    write.write_all(&bytes).await?;
    let mut read = BufReader::new(read);
    loop {
        bytes.clear();
        let answer = tokio::time::timeout(patience, read.read_until(0, &mut bytes)).await;
        answer.with_context(|| format!("the daemon does not answer within {} s", patience.as_secs()))??;
        anyhow::ensure!(bytes.pop() == Some(0), "the daemon has gone while answering");
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
    let stream = UnixStream::connect(&path).await;
    stream.with_context(|| match path.exists() {
        true => format!(
            "cannot talk to {}: the daemon is not running, or you are not in group `uplink`",
            path.display()
        ),
        false => format!(
            "{} does not exist: the daemon is not running (start it with `uplink run`)",
            path.display()
        ),
    })
}
