//! How long users notice that an ISP has died: from the fault until every new flow works again,
//! over many runs with one daemon. Flows begin every 5 ms, of IPv4 and IPv6 in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use uplink_lab::traffic::Ongoing;
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::support::{Spread, daemon, lab, pause};

/// So many in every run of the suite; [`FAULTS`] asks for others, 50 for a 99th percentile.
const RUNS: u32 = 10;
const FAULTS: &str = "UPLINK_LAB_FAULTS";
/// Probes of the last fault are lost for so long after it, and would count in the next one.
const TIMEOUT: Duration = Duration::from_millis(1100);
const SECOND: Duration = Duration::from_secs(1);
/// Back soon, so that 50 runs take minutes. Nothing of it makes detection faster.
const QUICK: &str = "[health]\nhold_down = \"0s\"\nslow_start = \"0s\"\nswitches_per_minute = 60\n";

/// A fault and its end.
type Turn = fn(&Lab, Isp) -> Result<()>;

struct Series {
    shape: Shape,
    /// Keys of `[probe]`.
    probe: &'static str,
    break_it: Turn,
    mend_it: Turn,
    /// Whether there are new connections at 40 per second.
    connections: bool,
    limit: Duration,
    /// Half of the runs are within this.
    usual: Duration,
}

impl Series {
    const BLACKHOLE: Self = Self {
        shape: Shape::OneNic,
        probe: "",
        break_it: Lab::blackhole,
        mend_it: Lab::heal,
        connections: false,
        limit: Duration::from_millis(1500),
        usual: Duration::from_millis(1200),
    };

    fn run(&self) -> Result<()> {
        let (lab, _echo) = lab(self.shape)?;
        let more = format!("[probe]\nrise = 1\n{}{QUICK}", self.probe);
        let daemon = daemon(&lab, &more)?;
        let users = self.connections.then(|| {
            let interval = Duration::from_millis(25);
            Ok::<_, anyhow::Error>(Family::ALL.map(|f| Ongoing::connections(&lab, f, 2 * interval)))
        });
        let users = users.transpose()?;
        let mut times = Vec::new();
        let runs = std::env::var(FAULTS)
            .map_or(Ok(RUNS), |n| n.parse())
            .context(FAULTS)?;
        for n in 0..runs {
            let time = self.once(&lab, &daemon, n).with_context(|| format!("run {n}"))?;
            if time > self.limit {
                let family = Family::ALL[n as usize % 2];
                println!(
                    "    run {n}, {family:?}: {time:?}; the log so far:\n{}",
                    uplink_lab::daemon::log_tail()
                );
            }
            times.push(time.as_secs_f64() * 1e3);
        }
        let times = Spread::of(&times);
        println!("    {runs} faults, milliseconds until new flows work: {times}");
        drop(users);
        let most = most(self.limit);
        ensure!(times.max <= most.as_secs_f64() * 1e3, "longer than {most:?}");
        ensure!(
            times.p50 <= self.usual.min(self.limit).as_secs_f64() * 1e3,
            "usually longer than {:?}",
            self.usual.min(self.limit)
        );
        daemon.stop()
    }

    fn once(&self, lab: &Lab, daemon: &Daemon<'_>, n: u32) -> Result<Duration> {
        let family = Family::ALL[n as usize % 2];
        let begun = Instant::now();
        let pulse = Ongoing::new_flows(lab, family, Duration::from_millis(5))?;
        // The other family may have found its way back first, and the state is `up` by that.
        while pulse.report().shares(begun)[0] == 0 {
            ensure!(begun.elapsed() < 30 * SECOND, "{family:?} does not come back");
            pause(0.02);
        }
        // At any time between two probes.
        std::thread::sleep(TIMEOUT + SECOND * (n * 37 % RUNS) / (2 * RUNS));
        let fault = Instant::now();
        (self.break_it)(lab, Isp::One)?;
        daemon.await_state(Isp::One, "down", 10 * SECOND)?;
        // Until a missing reply is an overdue one.
        pause(0.4);
        let report = pulse.stop()?;
        let time = report
            .recovered_after(fault)
            .context("new flows do not work again")?;
        (self.mend_it)(lab, Isp::One)?;
        daemon.await_state(Isp::One, "up", 30 * SECOND)?;
        Ok(time)
    }
}

/// A busy machine may hold up one run; who measures wants to know.
fn most(limit: Duration) -> Duration {
    match std::env::var(FAULTS) {
        Ok(_) => limit,
        Err(_) => 2 * limit,
    }
}

/// With the default interval, timeout and fall.
pub fn by_default() -> Result<()> {
    Series::BLACKHOLE.run()
}

/// With `interval = "50ms"`.
pub fn at_50ms() -> Result<()> {
    Series {
        probe: "interval = \"50ms\"\n",
        limit: Duration::from_millis(300),
        ..Series::BLACKHOLE
    }
    .run()
}

/// By default, and users open connections.
pub fn passive() -> Result<()> {
    Series {
        connections: true,
        limit: SECOND,
        ..Series::BLACKHOLE
    }
    .run()
}

/// The carrier of the uplink's own NIC goes.
pub fn carrier() -> Result<()> {
    Series {
        shape: Shape::NicEach,
        break_it: Lab::link_down,
        mend_it: Lab::link_up,
        limit: SECOND / 2,
        ..Series::BLACKHOLE
    }
    .run()
}

/// The gateway no longer answers ARP and neighbour solicitations.
pub fn arp() -> Result<()> {
    Series {
        break_it: Lab::mute_neighbours,
        mend_it: Lab::end_mute,
        limit: SECOND / 2,
        ..Series::BLACKHOLE
    }
    .run()
}

/// The ISP's router says that nothing can be reached: that needs no waiting for answers.
pub fn refused() -> Result<()> {
    Series {
        break_it: Lab::refuse,
        mend_it: Lab::heal,
        usual: Duration::from_millis(700),
        ..Series::BLACKHOLE
    }
    .run()
}

/// One packet of five is lost, in both directions or on the way back.
pub fn brownout() -> Result<()> {
    let limit = 15 * SECOND;
    let mut times = Vec::new();
    for n in 0..10 {
        let (lab, _echo) = lab(Shape::OneNic)?;
        let daemon = Daemon::start(&lab, &Config::default())?;
        daemon.await_up()?;
        pause(2.0 + 0.05 * f64::from(n));
        let fault = Instant::now();
        match n % 2 {
            0 => lab.lossy(Isp::One, 20)?,
            _ => lab.lossy_replies(Isp::One, 20)?,
        }
        while daemon.uplinks()?[0].0 == "up" {
            ensure!(
                fault.elapsed() < 2 * limit,
                "run {n}: still up after {:?}",
                2 * limit
            );
            pause(0.05);
        }
        let state = daemon.uplinks()?[0].clone();
        println!("    run {n}: {state:?} after {:?}", fault.elapsed());
        times.push(fault.elapsed().as_secs_f64() * 1e3);
        daemon.stop()?;
    }
    let times = Spread::of(&times);
    println!("    milliseconds until it is not up: {times}");
    let most = most(limit).as_secs_f64() * 1e3;
    ensure!(
        times.p50 <= limit.as_secs_f64() * 1e3 && times.max <= most,
        "longer than {limit:?}"
    );
    Ok(())
}
