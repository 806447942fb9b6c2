//! The control socket. The wire is Varlink's: JSON objects, each ended by a NUL byte, so
//! `varlinkctl` and any JSON client can talk to it. Requests are bounded in size, time, number and
//! rate. Root, the daemon's own user and members of the group that owns the socket may ask; others
//! hear `org.uplink.PermissionDenied`.
//!
//! | method | parameters | answer |
//! |---|---|---|
//! | `org.uplink.Status` | | [`crate::status::Status`] |
//! | `org.uplink.Drain`, `org.uplink.Enable` | `name` | `changed`, `text` |
//! | `org.uplink.Reload` | | [`crate::changes::Changes`] |
//! | `org.uplink.Plan` | | [`crate::inspect::Report`]: what a reload would do |
//! | `org.uplink.Flows` | `uplink`, `policy`, `address`, `limit`, all optional | `flows`, `total`; in parts with `more` |
//! | `org.uplink.Events` | `after`, `follow`, both optional | `events`, each a [`crate::events::Event`], or how many were `missed`; with `more` and `follow` until the client leaves |
//! | `org.uplink.Metrics` | | `text`: [`crate::metrics`] |
//! | `org.uplink.History` | | [`crate::history::View`] |
//! | `org.uplink.Explain` | those of [`crate::explain::Question`] | [`crate::explain::Answer`] |

mod client;
mod clients;
mod peer;
mod server;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::Problems;

pub use client::{call, follow, is_gone, stream};
pub use peer::Allowed;
pub use server::{bind, serve};

/// Uplinks, health, shares, warnings.
pub const STATUS: &str = "org.uplink.Status";
/// Takes an uplink out: no new flows.
pub const DRAIN: &str = "org.uplink.Drain";
/// Takes it back.
pub const ENABLE: &str = "org.uplink.Enable";
/// Reads the configuration file again.
pub const RELOAD: &str = "org.uplink.Reload";
/// What a reload would do.
pub const PLAN: &str = "org.uplink.Plan";
/// What becomes of a flow, and why.
pub const EXPLAIN: &str = "org.uplink.Explain";
/// What happened, and with `follow` what happens.
pub const EVENTS: &str = "org.uplink.Events";
/// What Prometheus scrapes.
pub const METRICS: &str = "org.uplink.Metrics";
/// The last hour, for graphs.
pub const HISTORY: &str = "org.uplink.History";
/// The pinned flows.
pub const FLOWS: &str = "org.uplink.Flows";

/// Varlink's: no such method.
pub const METHOD_NOT_FOUND: &str = "org.varlink.service.MethodNotFound";
/// Varlink's: a parameter is missing, unknown or wrong.
pub const INVALID_PARAMETER: &str = "org.varlink.service.InvalidParameter";
/// There is no uplink of that name.
pub const NO_SUCH_UPLINK: &str = "org.uplink.NoSuchUplink";
/// There is no policy of that name.
pub const NO_SUCH_POLICY: &str = "org.uplink.NoSuchPolicy";
/// The configuration file is wrong; the message shows where.
pub const INVALID_CONFIGURATION: &str = "org.uplink.InvalidConfiguration";
/// It would leave people without an uplink.
pub const REFUSED: &str = "org.uplink.Refused";
/// Others than root and the socket's group may not ask.
pub const PERMISSION_DENIED: &str = "org.uplink.PermissionDenied";
/// It went wrong.
pub const FAILED: &str = "org.uplink.Failed";
/// The daemon is stopping.
pub const STOPPING: &str = "org.uplink.Stopping";

/// Someone who says nothing for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to the daemon and where the answer goes.
pub struct Request {
    /// Method name.
    pub method: String,
    /// Its parameters; an empty object where the caller gave none.
    pub parameters: Value,
    /// Whether the answer may come in parts.
    pub more: bool,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Asks from within the daemon's process, for an answer of one message.
///
/// # Errors
/// What the daemon says, and when it is stopping.
pub async fn ask(requests: &mpsc::Sender<Request>, method: &str, parameters: Value) -> Result<Value, Error> {
    let stopping = || Error::new(STOPPING, "the daemon is stopping");
    let (reply, mut answers) = mpsc::channel(1);
    let request = Request {
        method: method.into(),
        parameters,
        more: false,
        reply: Reply(reply),
    };
    requests.send(request).await.map_err(|_| stopping())?;
    answers.recv().await.ok_or_else(stopping)?.result
}

/// Takes one answer, or several parts of one. Dropped without any, the client hears that the
/// daemon is stopping.
pub struct Reply(mpsc::Sender<Answer>);

/// One message to the client.
struct Answer {
    result: Result<Value, Error>,
    continues: bool,
}

impl Reply {
    /// The whole answer. A client that has gone hears nothing.
    pub fn finish(self, result: Result<Value, Error>) {
        // It is the first message, so there is room.
        let _ = self.0.try_send(Answer {
            result,
            continues: false,
        });
    }

    /// A part of the answer; as [`Self::part`], for a task.
    pub async fn send(&self, part: Value, continues: bool) -> bool {
        let result = Ok(part);
        self.0.send(Answer { result, continues }).await.is_ok()
    }

    /// Waits until the client has gone.
    pub async fn gone(&self) {
        self.0.closed().await;
    }

    /// A part of the answer, of which the last does not continue. Waits for the client, so not
    /// for a thread that runs others. `false` when the client has gone.
    pub fn part(&self, part: Value, continues: bool) -> bool {
        let result = Ok(part);
        self.0.blocking_send(Answer { result, continues }).is_ok()
    }
}

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// Its qualified name.
    pub name: String,
    /// `message`, for people, and what Varlink asks for.
    pub parameters: Value,
}

impl Error {
    /// An error of that name.
    #[must_use]
    pub fn new(name: &str, message: impl fmt::Display) -> Self {
        Self {
            name: name.into(),
            parameters: json!({ "message": message.to_string() }),
        }
    }

    /// A method that we do not have.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        let message = format!("unknown method {method}: is the daemon older than this program?");
        let parameters = json!({ "method": method, "message": message });
        Self {
            name: METHOD_NOT_FOUND.into(),
            parameters,
        }
    }

    /// What a client should be told of an error.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Problems>() {
            Some(problems) => Self::new(INVALID_CONFIGURATION, problems),
            None => Self::new(FAILED, format!("{error:#}")),
        }
    }

    /// Whether it is the caller's input that is wrong.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        let usage = [
            INVALID_CONFIGURATION,
            NO_SUCH_UPLINK,
            NO_SUCH_POLICY,
            INVALID_PARAMETER,
        ];
        usage.contains(&&*self.name)
    }
}

/// The message alone: names are for programs.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parameters["message"].as_str().unwrap_or(&self.name))
    }
}

impl std::error::Error for Error {}

/// The socket's path.
#[must_use]
pub fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("uplink.sock")
}

#[cfg(test)]
mod tests;
