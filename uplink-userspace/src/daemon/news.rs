//! What the daemon tells of: states and warnings that changed since it last looked, and what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

use super::Daemon;
use crate::api::{Error, REFUSED, Reply};
use crate::events::{Event, Journal, Kind, News};
use crate::hooks;
use crate::status::{self, State};

/// Followers at one time; each holds a place at the control socket for as long as it likes.
const FOLLOWERS: usize = 32;
static FOLLOWING: Semaphore = Semaphore::const_new(FOLLOWERS);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What was seen at the last look.
    seen: BTreeMap<String, State>,
    states: BTreeMap<String, (State, SystemTime)>,
    warnings: BTreeSet<(String, String)>,
}

/// Parameters of `Events`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Those after this number.
    #[serde(default)]
    after: u64,
    /// Goes on with those that come, until the client leaves.
    #[serde(default)]
    follow: bool,
}

impl Daemon {
    /// Tells followers, and remembers.
    pub(super) fn tell(&mut self, news: News) -> Event {
        self.tally.tell(&news);
        self.journal.tell(SystemTime::now(), news)
    }

    /// Tells followers and hooks of every uplink whose state is not what it was, once it is the same at two
    /// looks: the families of one that dies die one after the other, and that is one piece of news.
    pub(super) fn tell_states(&mut self) {
        let mut before = std::mem::take(&mut self.told.states);
        let seen = std::mem::take(&mut self.told.seen);
        let mut changes = Vec::new();
        for u in self.engine.uplinks() {
            let (state, reason) = status::health(&self.engine, u);
            let known = before.remove(&u.name);
            let (old, since) = known.unwrap_or((State::Unknown, self.since));
            self.told.seen.insert(u.name.clone(), state);
            if state == old || seen.get(&u.name) != Some(&state) {
                self.told.states.insert(u.name.clone(), (old, since));
            } else {
                self.told
                    .states
                    .insert(u.name.clone(), (state, SystemTime::now()));
                let described = status::uplink(&self.engine, u);
                changes.push(hooks::Change {
                    name: u.name.clone(),
                    old,
                    new: state,
                    reason,
                    interface: described.interface,
                    gateway: described.gateway,
                    share: described.share,
                    time: String::new(),
                    seq: 0,
                });
            }
        }
        changes.into_iter().for_each(|change| self.tell_state(change));
    }

    fn tell_state(&mut self, change: hooks::Change) {
        let why = match &*change.reason {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let text = format!("{} is {}{why}", change.name, change.new);
        let news = News {
            states: Some((change.old, change.new)),
            ..News::of(Kind::State, text).about(&change.name)
        };
        let event = self.tell(news);
        self.hooks.tell(hooks::Change {
            time: event.time,
            seq: event.seq,
            ..change
        });
    }

    /// Since when the uplink answers, or does not, as it does now.
    pub(super) fn state_since(&self, name: &str) -> Option<String> {
        let (_, since) = self.told.states.get(name)?;
        Some(humantime::format_rfc3339_seconds(*since).to_string())
    }

    /// What became of a hook.
    pub(super) fn hook_ended(&mut self, ended: hooks::Ended) {
        for text in self.hooks.note(ended) {
            tracing::warn!("{text}");
            self.tell(News::of(Kind::Hook, text));
        }
    }

    /// Tells of every warning that began or ended.
    pub(super) fn tell_warnings(&mut self) {
        let now = self.warnings().into_iter().map(|w| (w.code, w.text)).collect();
        let before = std::mem::replace(&mut self.told.warnings, now);
        let line = |(code, text): &(String, String)| format!("[{code}] {text}");
        let began: Vec<_> = self.told.warnings.difference(&before).map(line).collect();
        let ended: Vec<_> = before.difference(&self.told.warnings).map(line).collect();
        for (kind, texts) in [(Kind::Warning, began), (Kind::Resolved, ended)] {
            for text in texts {
                self.tell(News::of(kind, text));
            }
        }
    }

    pub(super) fn answer_events(&self, parameters: Value, more: bool, reply: Reply) {
        let wanted = match super::control::read::<Wanted>(parameters) {
            Ok(wanted) => wanted,
            Err(e) => return reply.finish(Err(e)),
        };
        let known = part(self.journal.after(wanted.after));
        if !(more && wanted.follow) {
            return reply.finish(Ok(known));
        }
        let Ok(place) = FOLLOWING.try_acquire() else {
            let message = format!("{FOLLOWERS} others follow the events already");
            return reply.finish(Err(Error::new(REFUSED, message)));
        };
        let follower = follow(&self.journal, known, reply);
        tokio::task::spawn_local(async move {
            follower.await;
            drop(place);
        });
    }
}

/// Sends what is known and all that comes, until the client or the daemon has gone.
fn follow(journal: &Journal, known: Value, reply: Reply) -> impl Future<Output = ()> + use<> {
    let mut events = journal.follow();
    async move {
        let mut message = known;
        while reply.send(message, true).await {
            message = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => part([&event]),
                    Err(RecvError::Lagged(n)) => json!({ "events": [], "missed": n }),
                    Err(RecvError::Closed) => return,
                },
                () = reply.gone() => return,
            };
        }
    }
}

fn part<'a>(events: impl IntoIterator<Item = &'a Event>) -> Value {
    json!({ "events": events.into_iter().collect::<Vec<_>>() })
}
