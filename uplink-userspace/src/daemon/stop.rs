//! Putting everything back, after a clean run or after a daemon that was killed.

use anyhow::{Context as _, Result};

use super::Daemon;
use crate::config;
use crate::lock::Lock;
use crate::options::Options;
use crate::routes::Routes;
use crate::state::State;
use crate::{aggregate, api, loader, nat, state, sysctl};

/// Our default tag, for when neither state nor configuration can be read.
const DEFAULT_PROTOCOL: u8 = 117;

impl Daemon {
    pub(super) async fn stop(mut self) -> Result<()> {
        // From now on the kernel sees every packet, and its rules may go.
        if let Err(e) = self.maps.fast.switch([false; 2], 0) {
            tracing::error!("switching the fast path off: {e:#}");
        }
        let Self {
            options,
            config,
            loaded,
            maps,
            lock,
            ..
        } = self;
        drop((loaded, maps));
        put_back(&options, Some(config.kernel.protocol)).await?;
        lock.remove();
        State::remove(&options.runtime_dir);
        tracing::info!("stopped: everything is as it was");
        Ok(())
    }
}

/// `uplink down`.
///
/// # Errors
/// When a daemon is running, or something cannot be removed.
pub async fn down(options: &Options) -> Result<()> {
    let new_dir = !options.runtime_dir.exists();
    state::create_dir(&options.runtime_dir)?;
    let lock = Lock::take(&options.runtime_dir).context("nothing was removed")?;
    let configured = config::load(&options.config).ok().map(|c| c.kernel.protocol);
    put_back(options, configured).await?;
    lock.remove();
    State::remove(&options.runtime_dir);
    if new_dir {
        let _ = std::fs::remove_dir(&options.runtime_dir);
    }
    Ok(())
}

/// Removes programs, routing, NAT and pins of ours and restores sysctls. Goes on after an
/// error, so that one failure does not leave the rest; reports the first.
pub(super) async fn put_back(options: &Options, protocol: Option<u8>) -> Result<()> {
    let state = State::read(&options.runtime_dir).unwrap_or_else(|e| {
        tracing::warn!("{e:#}: sysctls cannot be restored");
        None
    });
    let protocol = state
        .as_ref()
        .map(|s| s.protocol)
        .or(protocol)
        .unwrap_or(DEFAULT_PROTOCOL);
    let clsact = state.as_ref().map(|s| s.clsact.clone()).unwrap_or_default();
    // Before the programs that look at source addresses instead of the kernel.
    let guards = state.as_ref().map(|s| sysctl::restore(&s.sysctls.guards()));
    // First: without our rules what is routed into it would come back to it.
    let aggregate = aggregate::remove_others(None).await.map(drop);
    let guards = guards.unwrap_or(Ok(Vec::new())).map(drop);
    let mut result = guards.and(aggregate).and(loader::remove(&options.bpffs, &clsact));
    let routing = async { Routes::new(protocol)?.remove_all().await };
    result = result.and(routing.await.map(drop));
    result = result.and(nat::remove().await);
    if let Some(state) = state {
        result = result.and(sysctl::restore(&state.sysctls).map(drop));
    }
    let _ = std::fs::remove_file(api::path(&options.runtime_dir));
    result
}
