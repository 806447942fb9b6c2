//! The control socket. The wire is Varlink's: JSON objects, each ended by a NUL byte, so
//! `varlinkctl` and any JSON client can talk to it. Requests are bounded in size, time and number.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The only method so far.
pub const STATUS: &str = "org.uplink.Status";

/// Longest request.
const MAX_REQUEST: u64 = 64 * 1024;
/// Clients at one time; others wait in the backlog.
const MAX_CLIENTS: usize = 64;
/// A client that says nothing for this long is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the daemon and where the answer goes.
pub struct Request {
    /// Method name.
    pub method: String,
    /// The answer; an error becomes a Varlink error.
    pub reply: oneshot::Sender<Result<Value>>,
}

/// The socket's path.
#[must_use]
pub fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("uplink.sock")
}

/// Binds the socket: mode 0660, group `uplink` where there is one.
///
/// # Errors
/// When the file system refuses.
pub fn bind(path: &Path) -> Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let open = || -> Result<UnixListener> {
        let listener = UnixListener::bind(path)?;
        if let Ok(Some(group)) = nix::unistd::Group::from_name("uplink") {
            // Without CAP_CHOWN the socket keeps the daemon's own group, which the unit sets.
            let _ = nix::unistd::chown(path, None, Some(group.gid));
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    open().with_context(|| format!("opening the control socket {}", path.display()))
}

/// Serves clients until the daemon ends.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let places = std::sync::Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: let others finish.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let requests = requests.clone();
        tokio::task::spawn_local(async move {
            if let Err(e) = client(stream, requests).await {
                tracing::debug!("control socket: {e:#}");
            }
            drop(place);
        });
    }
}

async fn client(stream: UnixStream, requests: mpsc::Sender<Request>) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let bounded = &mut (&mut read).take(MAX_REQUEST);
        let n = tokio::time::timeout(PATIENCE, bounded.read_until(0, &mut line)).await??;
        if n == 0 {
            return Ok(());
        }
        let answer = match line.pop() {
            Some(0) => answer(&line, &requests).await,
            _ => error(
                "org.varlink.service.InvalidParameter",
                "request too long or not ended by NUL",
            ),
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(0);
        tokio::time::timeout(PATIENCE, write.write_all(&bytes)).await??;
        if line.len() as u64 + 1 >= MAX_REQUEST {
            bail!("request too long");
        }
    }
}

async fn answer(line: &[u8], requests: &mpsc::Sender<Request>) -> Value {
    let method = serde_json::from_slice::<Value>(line)
        .ok()
        .and_then(|v| v.get("method")?.as_str().map(str::to_owned));
    let Some(method) = method else {
        return error(
            "org.varlink.service.InvalidParameter",
            "no JSON object with a `method`",
        );
    };
    let (reply, result) = oneshot::channel();
    if requests.send(Request { method, reply }).await.is_err() {
        return error("org.uplink.Stopping", "the daemon is stopping");
    }
    match result.await {
        Ok(Ok(parameters)) => json!({ "parameters": parameters }),
        Ok(Err(e)) => error("org.uplink.Failed", &format!("{e:#}")),
        Err(_) => error("org.uplink.Stopping", "the daemon is stopping"),
    }
}

fn error(name: &str, message: &str) -> Value {
    json!({ "error": name, "parameters": { "message": message } })
}

/// Asks a running daemon.
///
/// # Errors
/// When none runs, when we may not ask, or with what it said.
pub async fn call(runtime_dir: &Path, method: &str) -> Result<Value> {
    let path = path(runtime_dir);
    let stream = UnixStream::connect(&path)
        .await
        .with_context(|| match path.exists() {
            true => format!(
                "cannot talk to {}: the daemon is not running, or you are not in group `uplink`",
                path.display()
            ),
            false => format!(
                "{} does not exist: the daemon is not running (start it with `uplink run`)",
                path.display()
            ),
        })?;
    let (read, mut write) = stream.into_split();
    let mut request = serde_json::to_vec(&json!({ "method": method }))?;
    request.push(0);
    write.write_all(&request).await?;
    let mut bytes = Vec::new();
    let mut read = BufReader::new(read);
    tokio::time::timeout(PATIENCE, read.read_until(0, &mut bytes))
        .await
        .context("the daemon does not answer")??;
    bytes.pop();
    let mut answer: Value = serde_json::from_slice(&bytes).context("the daemon's answer is no JSON")?;
    match answer.get("error") {
        None => Ok(answer["parameters"].take()),
        Some(name) => Err(anyhow!("{}: {}", name, answer["parameters"]["message"])),
    }
}
