//! The daemon's end of the control socket.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::{Error, INVALID_PARAMETER, PATIENCE, Reply, Request, STOPPING};

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// Clients at one time; others wait in the backlog.
const MAX_CLIENTS: usize = 64;
/// Parts of an answer that may wait for a slow client.
const MAX_PARTS: usize = 2;

/// A request on the wire; what else it says is ignored, as Varlink wants it.
#[derive(Deserialize)]
struct Call {
    method: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(default)]
    more: bool,
    /// The client wants no answer.
    #[serde(default)]
    oneway: bool,
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
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
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
        if line.pop() != Some(0) {
            let error = Error::new(INVALID_PARAMETER, "request too long or not ended by NUL");
            send(&mut write, &failure(error)).await?;
            bail!("request too long or not ended by NUL");
        }
        match serde_json::from_slice(&line) {
            Ok(call) => answer(call, &requests, &mut read, &mut write).await?,
            Err(e) => {
                let message = format!("no JSON object with a `method`: {e}");
                send(&mut write, &failure(Error::new(INVALID_PARAMETER, message))).await?;
            }
        }
    }
}

/// Passes a request on, and to the client all that comes back.
async fn answer(
    call: Call,
    requests: &mpsc::Sender<Request>,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> Result<()> {
    let (reply, mut answers) = mpsc::channel(MAX_PARTS);
    let request = Request {
        method: call.method,
        parameters: Value::Object(call.parameters.unwrap_or_default()),
        more: call.more,
        reply: Reply(reply),
    };
    // A failure drops the request and its end of `answers`, which says so below.
    let _ = requests.send(request).await;
    let mut listening = true;
    loop {
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            // A client that only listens leaves without a word; one that asks on waits its turn.
            more = read.fill_buf(), if listening => {
                listening = false;
                match more {
                    Ok([]) | Err(_) if call.more => return Ok(()),
                    _ => continue,
                }
            }
        };
        let (message, continues) = match answer {
            Some(answer) => (answer.result.map_or_else(failure, success), answer.continues),
            None => (failure(Error::new(STOPPING, "the daemon is stopping")), false),
        };
        let message = match continues {
            true => continued(message),
            false => message,
        };
        if !call.oneway {
            send(write, &message).await?;
        }
        if !continues {
            return Ok(());
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &Value) -> Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(0);
    Ok(tokio::time::timeout(PATIENCE, write.write_all(&bytes)).await??)
}

fn success(parameters: Value) -> Value {
    json!({ "parameters": parameters })
}

fn failure(error: Error) -> Value {
    json!({ "error": error.name, "parameters": error.parameters })
}

fn continued(mut message: Value) -> Value {
    message["continues"] = true.into();
    message
}
