//! What several scenarios need.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use uplink_lab::traffic::{Ongoing, Report, Tally};
use uplink_lab::{Config, Daemon, Echo, Isp, Lab, Shape};

/// A lab with its servers.
pub fn lab(shape: Shape) -> Result<(Lab, Echo)> {
    let lab = Lab::build(shape)?;
    let echo = Echo::start(&lab)?;
    Ok((lab, echo))
}

/// A daemon with weights 3:1 whose uplinks are up.
pub fn daemon<'a>(lab: &'a Lab, more: &str) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(
        lab,
        &Config {
            more: more.to_owned(),
            ..Config::default()
        },
    )?;
    daemon.await_up()?;
    Ok(daemon)
}

/// How far the share of flows drawn at random may be off, in standard deviations of the binomial distribution: chance
/// is beyond five once in 1.7 million times, and there are some 200 shares in a run. More flows look more closely.
const SIGMAS: f64 = 5.0;

/// Every flow was answered by one ISP, and the first one's share is as expected of so many.
pub fn expect_share(what: &str, tally: &Tally, percent: f64) -> Result<()> {
    let (flows, share) = (tally.total(), tally.percent(Isp::One));
    let within = SIGMAS * (percent * (100.0 - percent) / flows as f64).sqrt();
    println!(
        "    {what}: {flows} flows, isp1 {share:.2} %, {percent:.2} +- {within:.2} % expected, {tally:?}"
    );
    ensure!(flows > 0, "{what}: there were no flows");
    ensure!(
        tally.clean() == flows,
        "{what}: flows lost, split or not steered: {tally:?}"
    );
    ensure!(
        (share - percent).abs() <= within,
        "{what}: isp1 has {share:.2} % of {flows} flows, not {percent:.2} +- {within:.2} %"
    );
    Ok(())
}

/// The stream stayed on `isp` and lost nothing.
pub fn expect_unharmed(what: &str, report: &Report, isp: Isp) -> Result<()> {
    let (sent, lost, isps) = (report.beats.len(), report.lost(), report.isps());
    println!("    {what}: {sent} packets, {lost} lost, seen from {isps:?}");
    ensure!(lost == 0, "{what}: {lost} of {sent} packets lost");
    ensure!(isps == [isp], "{what}: seen from {isps:?}, not only from {isp:?}");
    Ok(())
}

/// Sleeps.
pub fn pause(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

/// A known flow's next packet is the kernel's whenever the clock has passed a multiple of these.
const RENEWAL: Duration = Duration::from_secs(16);

/// Waits where that is about to be, so that what takes less than a second has none in between.
///
/// # Errors
/// When there is no such clock.
pub fn between_renewals() -> Result<()> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    let left = RENEWAL - Duration::from_nanos((now.as_nanos() % RENEWAL.as_nanos()) as u64);
    if left < Duration::from_secs(1) {
        // The programs' clock is a tick late.
        std::thread::sleep(left + Duration::from_millis(20));
    }
    Ok(())
}

/// Looks every 15 ms until `done` says so, and returns how long after `since` that was.
pub fn await_within(
    what: &str,
    since: Instant,
    limit: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    while !done()? {
        ensure!(since.elapsed() < limit, "{what}: not within {limit:?}");
        pause(0.015);
    }
    println!("    {what}: after {:?}", since.elapsed());
    Ok(since.elapsed())
}

/// Waits until the stream has sent so many packets.
pub fn await_packets(stream: &Ongoing, n: usize) -> Result<()> {
    let limit = Duration::from_secs(5);
    let sent = || Ok(stream.report().beats.len() >= n);
    await_within("enough packets", Instant::now(), limit, sent).map(drop)
}

/// Times that the daemon repaired this kind, by its status, which has none of those that it never did.
pub fn repairs(daemon: &Daemon<'_>, kind: &str) -> Result<u64> {
    let status = daemon.status()?;
    Ok(status["repairs"][kind]["count"].as_u64().unwrap_or(0))
}

/// Whether a warning with this code stands.
pub fn warned(daemon: &Daemon<'_>, code: &str) -> Result<bool> {
    let status = daemon.status()?;
    let mut warnings = status["warnings"].as_array().context("no warnings")?.iter();
    Ok(warnings.any(|w| w["code"] == code))
}

/// How measured numbers are spread.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile, by nearest rank.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one number; all are infinite without any.
    pub fn of(numbers: &[f64]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(at).copied().unwrap_or(f64::INFINITY)
        };
        Self {
            min: rank(0),
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { min, p50, p99, max } = self;
        write!(f, "min {min:.1}, p50 {p50:.1}, p99 {p99:.1}, max {max:.1}")
    }
}
