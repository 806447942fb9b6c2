//! What happens in `uplink-lab run`: traffic, a fault, its end, over and over.

use std::time::{Duration, Instant};

use anyhow::Result;
use uplink_lab::traffic::Ongoing;
use uplink_lab::{Config, Daemon, Echo, Family, Isp, Lab, Shape};

use crate::stopping;
use crate::view::{Frame, View};

const TICK: Duration = Duration::from_secs(1);
const PHASE: Duration = Duration::from_secs(10);
const WEIGHTS: [u32; 2] = [3, 1];
/// The first uplink's share by these weights, in percent.
const WANTED: f64 = 75.0;
/// New flows must work again within this time of a fault.
const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
/// Points by which the share of the first uplink may differ over a whole run.
const SHARE_LIMIT: f64 = 5.0;

/// Runs until `limit`, or until a signal. Whether balance and failover were as expected.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(limit: Option<Duration>) -> Result<bool> {
    let lab = Lab::build(Shape::OneNic)?;
    let echo = Echo::start(&lab)?;
    let mut daemon = Daemon::start(
        &lab,
        &Config {
            weights: WEIGHTS,
            ..Config::default()
        },
    )?;
    let mut view = View::new(daemon.pid()?);
    view.event(format!(
        "the daemon answered {} ms after its start",
        daemon.ready.as_millis()
    ));
    let mut show = Show::begin(&lab, &echo, &daemon)?;
    while !stopping() && limit.is_none_or(|limit| show.begun.elapsed() < limit) {
        show.tick(&mut view)?;
    }
    let verdict = show.verdict();
    // A run that was interrupted is not judged.
    let verdict = limit
        .filter(|limit| show.begun.elapsed() >= *limit)
        .map(|_| verdict);
    view.summary(show.balanced, show.share(), &show.failovers, verdict);
    drop(show);
    daemon.stop()?;
    Ok(verdict.unwrap_or(true))
}

struct Show<'a> {
    lab: &'a Lab,
    echo: &'a Echo,
    daemon: &'a Daemon<'a>,
    begun: Instant,
    phase_end: Instant,
    /// New UDP flows, the measure of failover.
    pulses: Vec<Ongoing>,
    /// TCP connections, one after the other.
    _connections: [Ongoing; 2],
    fault: Option<Fault>,
    window: Vec<[u64; 3]>,
    /// Both uplinks were up a second ago, and are not about to change.
    steady: bool,
    balanced: [u64; 2],
    failovers: Vec<Option<Duration>>,
}

struct Fault {
    at: Instant,
    failover: Option<Duration>,
}

impl<'a> Show<'a> {
    fn begin(lab: &'a Lab, echo: &'a Echo, daemon: &'a Daemon<'a>) -> Result<Self> {
        let begun = Instant::now();
        Ok(Self {
            lab,
            echo,
            daemon,
            begun,
            phase_end: begun + PHASE,
            pulses: pulses(lab)?,
            _connections: [connections(lab, Family::V4)?, connections(lab, Family::V6)?],
            fault: None,
            window: vec![echo.new_flows()],
            steady: false,
            balanced: [0; 2],
            failovers: Vec::new(),
        })
    }

    fn tick(&mut self, view: &mut View) -> Result<()> {
        let next = Instant::now() + TICK;
        while Instant::now() < next && !stopping() {
            self.look_for_failover(view);
            std::thread::sleep(Duration::from_millis(50).min(next.saturating_duration_since(Instant::now())));
        }
        self.measure(view);
        if Instant::now() >= self.phase_end && !stopping() {
            self.turn(view)?;
        }
        Ok(())
    }

    /// The next phase: breaks what works, mends what is broken.
    fn turn(&mut self, view: &mut View) -> Result<()> {
        self.phase_end = Instant::now() + PHASE;
        if let Some(fault) = self.fault.take() {
            self.failovers.push(fault.failover);
            self.lab.heal(Isp::One)?;
            view.event("isp1 healed".into());
            // Afresh, so that what is remembered of it stays small.
            self.pulses = pulses(self.lab)?;
        } else {
            self.steady = false;
            let at = Instant::now();
            self.lab.blackhole(Isp::One)?;
            self.fault = Some(Fault { at, failover: None });
            view.event("isp1 blackholed: its gateway answers, nothing behind it does".into());
        }
        Ok(())
    }

    fn look_for_failover(&mut self, view: &mut View) {
        let Some(fault) = self.fault.as_mut().filter(|fault| fault.failover.is_none()) else {
            return;
        };
        // Until the first loss nothing has failed over; what is in flight is no sign.
        let reports = self.pulses.iter().map(Ongoing::report);
        let recovered: Option<Vec<_>> = reports
            .map(|report| {
                report
                    .recovered_after(fault.at)
                    .filter(|_| report.lost_since(fault.at) > 0)
            })
            .collect();
        let Some(worst) = recovered.and_then(|all| all.into_iter().max()) else {
            return;
        };
        fault.failover = Some(worst);
        view.event(format!(
            "every new flow works again {} ms after the fault",
            worst.as_millis()
        ));
    }

    fn measure(&mut self, view: &mut View) {
        let seen = self.echo.new_flows();
        let last = *self.window.last().unwrap_or(&seen);
        self.window.push(seen);
        if self.window.len() > 6 {
            self.window.remove(0);
        }
        let status = self.daemon.status().unwrap_or_default();
        let both_up = Isp::ALL
            .iter()
            .all(|isp| uplink_lab::daemon::find(&status, *isp).is_some_and(|u| u["state"] == "up"));
        if both_up && self.steady {
            self.balanced[0] += seen[0] - last[0];
            self.balanced[1] += seen[1] - last[1];
        }
        // The second in which it came up belongs to neither state.
        self.steady = both_up && self.fault.is_none();
        let first = self.window[0];
        let window = [seen[0] - first[0], seen[1] - first[1]];
        view.show(&Frame {
            elapsed: self.begun.elapsed(),
            window,
            rate: sum(&seen) - sum(&last),
            status,
        });
    }

    /// Whether the shares and every failover were as they should be.
    fn verdict(&mut self) -> bool {
        let judged = |f: &Fault| f.failover.is_some() || f.at.elapsed() > FAILOVER_LIMIT;
        self.failovers
            .extend(self.fault.take().filter(judged).map(|fault| fault.failover));
        let balanced = self.balanced != [0; 2] && (self.share() - WANTED).abs() <= SHARE_LIMIT;
        let in_time = |t: &Option<Duration>| t.is_some_and(|t| t <= FAILOVER_LIMIT);
        balanced && !self.failovers.is_empty() && self.failovers.iter().all(in_time)
    }

    /// Of the first uplink in what came while both were up, in percent.
    fn share(&self) -> f64 {
        100.0 * self.balanced[0] as f64 / sum(&self.balanced).max(1) as f64
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().sum()
}

/// New UDP flows, 100 a second over IPv4 and 50 over IPv6.
fn pulses(lab: &Lab) -> Result<Vec<Ongoing>> {
    [(Family::V4, 10), (Family::V6, 20)]
        .into_iter()
        .map(|(family, ms)| Ongoing::new_flows(lab, family, Duration::from_millis(ms)))
        .collect()
}

/// New TCP connections, about 30 a second.
fn connections(lab: &Lab, family: Family) -> Result<Ongoing> {
    Ongoing::new_connections(lab, family, Duration::from_millis(30))
}
