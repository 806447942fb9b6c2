//! `[hooks]`: a program of the user's that hears of every change of an uplink's state, and nothing
//! else. It runs beside what steers: one at a time for each uplink, in order, for a bounded time.

mod run;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config;
use crate::status::{State, Warning};

/// A change as a hook hears of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Name of the uplink.
    pub name: String,
    /// What a hook heard last.
    pub old: State,
    /// What it is now.
    pub new: State,
    /// Why, where it is not up.
    pub reason: String,
    /// Interface.
    pub interface: String,
    /// Next hop; empty where there is none.
    pub gateway: String,
    /// Part of new flows, 0 to 1.
    pub share: f64,
    /// When, RFC 3339.
    pub time: String,
    /// Number of the event.
    pub seq: u64,
}

impl Change {
    fn environment(&self) -> Vec<(String, String)> {
        let values = [
            ("NAME", self.name.clone()),
            ("STATE", self.new.to_string()),
            ("OLD_STATE", self.old.to_string()),
            ("REASON", self.reason.clone()),
            ("INTERFACE", self.interface.clone()),
            ("GATEWAY", self.gateway.clone()),
            ("SHARE", self.share.to_string()),
            ("TIME", self.time.clone()),
            ("SEQ", self.seq.to_string()),
        ];
        let named = |(key, value): (&str, String)| (format!("UPLINK_{key}"), value.replace('\0', "?"));
        values.map(named).into()
    }
}

/// Why a hook did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Failure {
    fn new(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            remedy: remedy.into(),
        }
    }
}

/// A hook that has ended.
#[derive(Debug)]
pub struct Ended {
    name: String,
    /// The settings that it ran by.
    by: u32,
    result: Result<(), Failure>,
}

/// What waits for an uplink's hook to end.
#[derive(Debug, Default)]
struct Waiting {
    next: Option<Change>,
    /// Changes that no hook hears of.
    skipped: u32,
}

impl Waiting {
    /// The newest state wins. It is told as a change from what a hook heard last, and not at all
    /// where nothing has changed since.
    fn add(&mut self, change: Change) {
        let Some(earlier) = self.next.take() else {
            self.next = Some(change);
            return;
        };
        self.skipped += 1;
        match earlier.old == change.new {
            true => self.skipped += 1,
            false => {
                self.next = Some(Change {
                    old: earlier.old,
                    ..change
                });
            }
        }
    }
}

/// Runs hooks.
#[derive(Debug, Default)]
pub struct Hooks {
    settings: Option<config::Hooks>,
    /// Which settings they are.
    by: u32,
    /// By name of the uplink whose hook runs.
    running: BTreeMap<String, Waiting>,
    /// By uplink: a program that cannot be killed keeps the next one from starting.
    turns: BTreeMap<String, Arc<Semaphore>>,
    runs: JoinSet<Ended>,
    failure: Option<Failure>,
    failures: u64,
}

impl Hooks {
    /// Goes by these settings from now on; what runs goes on by the old ones.
    pub fn follow(&mut self, settings: Option<&config::Hooks>) {
        let same = |a: &config::Hooks, b: &config::Hooks| {
            (&a.on_change.value, a.timeout) == (&b.on_change.value, b.timeout)
        };
        let stays = matches!((&self.settings, settings), (Some(a), Some(b)) if same(a, b));
        if !stays {
            self.failure = None;
            self.by = self.by.wrapping_add(1);
        }
        self.settings = settings.cloned();
    }

    /// Runs the hook, or has it wait for the one that runs.
    pub fn tell(&mut self, change: Change) {
        match self.running.get_mut(&change.name) {
            Some(waiting) => waiting.add(change),
            None => self.start(change),
        }
    }

    fn start(&mut self, change: Change) {
        let Some(settings) = self.settings.clone() else {
            return;
        };
        let (name, by) = (change.name.clone(), self.by);
        let turn = self.turns.entry(name.clone());
        let turn = turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        self.running.insert(name.clone(), Waiting::default());
        self.runs.spawn_local(async move {
            let result = run::run(&settings, &name, change.environment(), turn).await;
            Ended { name, by, result }
        });
    }

    /// The next one that ends; `None` while none runs. May be dropped at any time.
    pub async fn ended(&mut self) -> Option<Ended> {
        loop {
            // One that was given up has nothing to tell.
            if let Ok(ended) = self.runs.join_next().await? {
                return Some(ended);
            }
        }
    }

    /// Takes note of how one ended and starts the next; what people should be told.
    pub fn note(&mut self, ended: Ended) -> Vec<String> {
        let mut told = Vec::new();
        let failure = ended.result.err();
        if let Some(failure) = &failure {
            self.failures += 1;
            told.push(failure.text.clone());
        }
        // How one of other settings ended says nothing about these.
        if ended.by == self.by {
            self.failure = failure;
        }
        let waiting = self.running.remove(&ended.name).unwrap_or_default();
        if waiting.skipped > 0 {
            told.push(format!(
                "{} changes of {} came and went while its hook ran, and were not told to it",
                waiting.skipped, ended.name
            ));
        }
        if let Some(change) = waiting.next {
            self.start(change);
        }
        told
    }

    /// Stands while the last hook that ended has failed.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        self.failure.as_ref().map(|failure| Warning {
            code: "hook".into(),
            text: failure.text.clone(),
            remedy: failure.remedy.clone(),
        })
    }

    /// Hooks that failed since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Leaves those that run some time to end; then they are killed.
    pub async fn finish(mut self, limit: Duration) {
        let all = async { while self.runs.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("a hook still ran {limit:?} after the stop and was killed");
        }
    }
}

#[cfg(test)]
mod tests;
