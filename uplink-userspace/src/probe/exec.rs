//! Programs as probes: exit status 0 is an answer.
//!
//! A program gets a session, a process group and an environment of its own, `/dev/null`, and what
//! the timeout leaves it. When it has ended, or its time has, everything it started is killed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, ensure};

use super::kinds::{Refused, Reply, Way, unsent};
use crate::config::Target;
use crate::process::{PATH, Process};

/// A program and its arguments.
#[derive(Debug)]
pub(super) struct Program(Vec<String>);

impl Program {
    /// Whether the program exists shows when it is run: it may be installed later.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn new(command: &[String]) -> Result<Self> {
        let program = command
            .first()
            .ok_or_else(|| anyhow!("the command is empty: give a program"))?;
        ensure!(
            program.starts_with('/'),
            "the program {program:?} has no absolute path: write it out"
        );
        Ok(Self(command.to_vec()))
    }

    /// Runs the program, unless it is still running by this way for this target.
    pub async fn ask(&self, way: &Way, target: Target, refused: &Refused) -> Reply {
        let Some(turn) = Turn::take((self.0.clone(), way.mark, target)) else {
            return Reply::Skipped;
        };
        match self.run(turn, way, target).await {
            Ok(true) => Reply::Answered,
            Ok(false) => Reply::Lost,
            Err(failure) => {
                refused.note("exec-start");
                unsent(&failure, refused)
            }
        }
    }

    async fn run(&self, turn: Turn, way: &Way, target: Target) -> std::io::Result<bool> {
        let (command, environment) = (self.0.clone(), environment(way, target));
        // To start a program may take long: its file may be on a server that does not answer.
        let start = tokio::task::spawn_blocking(move || Process::start(&command, &environment, None, turn));
        let process = start.await.map_err(std::io::Error::other)??;
        process.exited().await?;
        process.succeeded()
    }
}

fn environment(way: &Way, target: Target) -> Vec<(String, String)> {
    let mut environment = way.environment.clone();
    environment.push(("PATH".into(), PATH.into()));
    if !target.address.is_unspecified() {
        environment.push(("UPLINK_TARGET".into(), target.to_string()));
    }
    environment
}

/// Command, mark of the uplink, target.
type Key = (Vec<String>, u32, Target);

/// All that run, of all probers: a reload must not start a second one beside a first that cannot
/// be killed.
static RUNNING: Mutex<Option<HashSet<Key>>> = Mutex::new(None);

/// The right to run, given back when the last process of the probe is gone.
struct Turn(Key);

impl Turn {
    fn take(key: Key) -> Option<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let new = running.get_or_insert_default().insert(key.clone());
        new.then(|| Self(key))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.get_or_insert_default().remove(&self.0);
    }
}

#[cfg(test)]
mod tests;
