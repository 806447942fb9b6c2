//! The daemon's end of the control socket.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;

use super::clients::{Clients, MAX_LISTENERS};
use super::peer::{Allowed, Peer};
use super::{Error, INVALID_PARAMETER, PATIENCE, PERMISSION_DENIED, REFUSED, Reply, Request, STOPPING};

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// Parts of an answer that may wait for a slow client.
const MAX_PARTS: usize = 2;
/// Before we look again for a descriptor or a place.
const PAUSE: Duration = Duration::from_millis(20);

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
pub async fn serve(listener: UnixListener, allowed: Allowed, requests: mpsc::Sender<Request>) {
    let clients = Rc::new(RefCell::new(Clients::default()));
    let mut tasks = HashMap::new();
    let (left, mut leaving) = mpsc::unbounded_channel();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, most likely: let others finish.
                Err(_) => { tokio::time::sleep(PAUSE).await; continue; }
            },
            Some(id) = leaving.recv() => { tasks.remove(&id); continue; }
        };
        make_room(&clients, &mut tasks).await;
        let (place, left) = (Place::take(&stream, &clients, allowed), left.clone());
        let requests = requests.clone();
        let id = place.id;
        let task = tokio::task::spawn_local(async move {
            if let Err(e) = client(stream, &place, requests).await {
                tracing::debug!("control socket: {e:#}");
            }
            let _ = left.send(place.id);
        });
        tasks.insert(id, task.abort_handle());
        // Whoever has just come may have asked already: they are heard before others are let in.
        tokio::task::yield_now().await;
    }
}

/// Until there is a place, whoever is idle for longest leaves.
async fn make_room(clients: &RefCell<Clients>, tasks: &mut HashMap<u64, AbortHandle>) {
    while clients.borrow().is_full() {
        let id = clients.borrow().to_leave();
        match id.and_then(|id| tasks.remove(&id)) {
            Some(task) => task.abort(),
            // All are at work, which is bounded in time.
            None => tokio::time::sleep(PAUSE).await,
        }
        tokio::task::yield_now().await;
    }
}

/// A client's place, free again when dropped.
struct Place {
    id: u64,
    uid: u32,
    allowed: bool,
    clients: Rc<RefCell<Clients>>,
}

impl Place {
    fn take(stream: &UnixStream, clients: &Rc<RefCell<Clients>>, allowed: Allowed) -> Self {
        let peer = Peer::of(stream);
        let uid = peer.as_ref().map_or(u32::MAX, |peer| peer.uid);
        Self {
            id: clients.borrow_mut().enter(uid, Instant::now()),
            uid,
            allowed: peer.is_ok_and(|peer| allowed.lets_in(&peer)),
            clients: clients.clone(),
        }
    }

    /// Waits for the client as long as for any; meanwhile it is the first to leave.
    async fn patiently<T>(&self, of_client: impl Future<Output = T>) -> Result<T, Elapsed> {
        self.clients.borrow_mut().idle(self.id, Instant::now());
        let result = tokio::time::timeout(PATIENCE, of_client).await;
        self.clients.borrow_mut().busy(self.id);
        result
    }

    /// Waits until its user may ask again; meanwhile it is as good as idle, or a user with many clients would keep
    /// others waiting at the door.
    async fn pace(&self) {
        let wait = self.clients.borrow_mut().pace(self.uid, Instant::now());
        if !wait.is_zero() {
            self.clients.borrow_mut().idle(self.id, Instant::now());
            tokio::time::sleep(wait).await;
            self.clients.borrow_mut().busy(self.id);
        }
    }

    /// Its next answer comes in parts, or does not; whether it may.
    fn listen(&self, listens: bool) -> bool {
        self.clients.borrow_mut().listen(self.id, listens)
    }

    async fn send(&self, write: &mut OwnedWriteHalf, message: &Value) -> Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(0);
        Ok(self.patiently(write.write_all(&bytes)).await??)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.borrow_mut().leave(self.id);
    }
}

async fn client(stream: UnixStream, place: &Place, requests: mpsc::Sender<Request>) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let bounded = &mut (&mut read).take(MAX_REQUEST);
        let n = place.patiently(bounded.read_until(0, &mut line)).await??;
        if n == 0 {
            return Ok(());
        }
        if line.pop() != Some(0) {
            let error = Error::new(INVALID_PARAMETER, "request too long or not ended by NUL");
            place.send(&mut write, &failure(error)).await?;
            bail!("request too long or not ended by NUL");
        }
        if !place.allowed {
            let message = "only root and members of the group that owns the socket may ask";
            place
                .send(&mut write, &failure(Error::new(PERMISSION_DENIED, message)))
                .await?;
            bail!("user {} may not ask", place.uid);
        }
        place.pace().await;
        match serde_json::from_slice::<Call>(&line) {
            Ok(call) if !place.listen(call.more) => {
                let message = format!("user {} listens in {MAX_LISTENERS} places already", place.uid);
                place
                    .send(&mut write, &failure(Error::new(REFUSED, message)))
                    .await?;
            }
            Ok(call) => {
                answer(call, place, &requests, &mut read, &mut write).await?;
                place.listen(false);
            }
            Err(e) => {
                let message = format!("no JSON object with a `method`: {e}");
                place
                    .send(&mut write, &failure(Error::new(INVALID_PARAMETER, message)))
                    .await?;
            }
        }
    }
}

/// Passes a request on, and to the client all that comes back.
async fn answer(
    call: Call,
    place: &Place,
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
            place.send(write, &message).await?;
        }
        if !continues {
            return Ok(());
        }
    }
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
