//! Asks the daemon for everybody. Many clients that ask at the same time cost the steering thread
//! no more than one does: an answer serves all who come within a quarter of a second.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::health::Health;
use super::route::Resource;
use crate::api::{self, Error};
use crate::status::Status;

/// How long an answer may serve others.
const FRESH: Duration = Duration::from_millis(250);
/// A daemon that says nothing for this long has lost itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body and whether all is well.
pub(super) type Answer = Result<(Bytes, bool), Error>;

/// The way to the daemon.
pub(super) struct Desk {
    requests: mpsc::Sender<api::Request>,
    kept: [Mutex<Option<(Instant, Answer)>>; 4],
    /// Events after a number are asked for one at a time.
    events: Mutex<()>,
}

impl Desk {
    pub(super) fn new(requests: mpsc::Sender<api::Request>) -> Self {
        Self {
            requests,
            kept: Default::default(),
            events: Mutex::new(()),
        }
    }

    /// The answer, perhaps one that somebody else has just got.
    pub(super) async fn answer(&self, resource: Resource) -> Answer {
        let place = match resource {
            Resource::Metrics => 0,
            Resource::Health => 1,
            Resource::Status => 2,
            Resource::History => 3,
            Resource::Events(_) | Resource::Page => {
                let _turn = self.events.lock().await;
                return self.fetch(resource).await;
            }
        };
        let mut kept = self.kept[place].lock().await;
        if let Some((at, answer)) = &*kept
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.fetch(resource).await;
        *kept = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn fetch(&self, resource: Resource) -> Answer {
        let (method, parameters) = match resource {
            Resource::Metrics => (api::METRICS, json!({})),
            Resource::History => (api::HISTORY, json!({})),
            Resource::Events(after) => (api::EVENTS, json!({ "after": after })),
            Resource::Status | Resource::Health | Resource::Page => (api::STATUS, json!({})),
        };
        let asked = api::ask(&self.requests, method, parameters);
        let late = |_| Error::new(api::FAILED, "the daemon does not answer");
        let value = tokio::time::timeout(PATIENCE, asked).await.map_err(late)??;
        let written = tokio::task::spawn_blocking(move || write(resource, value)).await;
        written.map_err(|e| Error::new(api::FAILED, e))?
    }
}

/// Beside the thread that steers: an hour of 64 uplinks is most of a megabyte.
fn write(resource: Resource, value: Value) -> Answer {
    let failed = |e| Error::new(api::FAILED, e);
    match resource {
        Resource::Metrics => {
            let text = value["text"].as_str().unwrap_or_default();
            Ok((Bytes::copy_from_slice(text.as_bytes()), true))
        }
        Resource::Health => {
            let status: Status = serde_json::from_value(value).map_err(failed)?;
            let health = Health::of(&status);
            let body = serde_json::to_vec(&health).map_err(failed)?;
            Ok((body.into(), health.is_ok()))
        }
        _ => Ok((serde_json::to_vec(&value).map_err(failed)?.into(), true)),
    }
}
