//! How many flows each uplink has. Counting reads the whole flow table, so a large one is counted
//! now and then, beside the thread that steers, and whoever asks hears the last count.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Semaphore;

use crate::flow_map;
use crate::flows::{Counts, Uplinks};

/// A count that takes no longer than this is made anew for whoever asks.
const QUICK: Duration = Duration::from_millis(20);
/// Between counts that nobody asks for, at least, and as a multiple of what the last one took.
const PERIOD: Duration = Duration::from_secs(10);
const PERIODS_OF_COST: u32 = 100;

/// The last count.
#[derive(Debug)]
struct Last {
    counts: Arc<Counts>,
    at: Instant,
    cost: Duration,
}

/// Counts flows. Clones share the last count.
#[derive(Clone, Debug)]
pub struct Census {
    pin: PathBuf,
    last: Arc<Mutex<Option<Last>>>,
    /// One count at a time.
    turn: Arc<Semaphore>,
}

impl Census {
    /// Of the flow table that is pinned there.
    #[must_use]
    pub fn new(pin: PathBuf) -> Self {
        Self {
            pin,
            last: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The flows by uplink: of now where counting is quick, else as they were some time ago.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn counts(&self, uplinks: Uplinks) -> Result<Arc<Counts>> {
        let Some(last) = self.last().as_ref().map(|l| (l.counts.clone(), l.cost)) else {
            return self.count(uplinks).await;
        };
        if last.1 > QUICK {
            return Ok(last.0);
        }
        // A table that has filled since then takes longer; its count goes on for the next one.
        let census = self.clone();
        let counting = tokio::task::spawn_local(async move { census.count(uplinks).await });
        match tokio::time::timeout(2 * QUICK, counting).await {
            Ok(counted) => counted?,
            Err(_) => Ok(last.0),
        }
    }

    /// Whether a count is due that nobody asks for.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let last = self.last();
        let free = self.turn.available_permits() > 0;
        let due = |l: &Last| now.saturating_duration_since(l.at) >= PERIOD.max(l.cost * PERIODS_OF_COST);
        free && last.as_ref().is_none_or(due)
    }

    /// Counts on a thread of its own.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn count(&self, uplinks: Uplinks) -> Result<Arc<Counts>> {
        let _turn = self.turn.acquire().await?;
        let (begun, pin) = (Instant::now(), self.pin.clone());
        let counting = tokio::task::spawn_blocking(move || {
            let now_s = flow_map::now_s();
            let mut counts = Counts::default();
            flow_map::read(&pin, |key, pin| counts.add(&uplinks, key, pin, now_s))?;
            anyhow::Ok(Arc::new(counts))
        });
        let counts = counting.await??;
        *self.last() = Some(Last {
            counts: counts.clone(),
            at: Instant::now(),
            cost: begun.elapsed(),
        });
        Ok(counts)
    }

    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
