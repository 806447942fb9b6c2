//! A machine whose processors are busy with something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Threads that only spin, at normal priority and spread over all processors, until dropped.
/// They are in the lab's cgroup, as the daemon is, and end with the process at the latest.
#[derive(Debug)]
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Starts `n` of them on each processor that the process may use.
    ///
    /// # Errors
    /// When the processors cannot be told, or a thread cannot be had.
    pub fn start(n: usize) -> Result<Self> {
        let mut busy = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for cpu in processors()? {
            for _ in 0..n {
                let stop = busy.stop.clone();
                let spin = move || {
                    // Not tied to it, it still is one more that is always ready to run.
                    let _ = tie_to(cpu);
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                };
                let thread = std::thread::Builder::new().name("busy".into());
                busy.threads.push(thread.spawn(spin).context("a busy thread")?);
            }
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn processors() -> Result<Vec<usize>> {
    let ours = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    Ok((0..CpuSet::count())
        .filter(|cpu| ours.is_set(*cpu).unwrap_or(false))
        .collect())
}

fn tie_to(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
