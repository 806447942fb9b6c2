//! What a packet costs, here and with what users would pick instead: `cargo xtask bench`.
//!
//! Every sample is taken in fresh namespaces, and all contestants take turns, round by round, so that what changes on
//! the machine meanwhile meets all of them. Compare ratios within a run, never times of two.

mod connect;
mod contestants;
mod control;
mod limits;
mod machine;
mod plot;
mod programs;
mod report;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use uplink_common::load::MOST_FLOWS;

use contestants::{ALL, Case, Contestant};
use report::{Fact, Report, Row};
use wire::{Sample, Wire, on_one_cpu};

/// How often a disturbed sample is taken.
const ATTEMPTS: u32 = 5;

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Debug, clap::ValueEnum)]
enum Part {
    /// Packets through the router, ours and others
    Forwarding,
    /// Each program by itself
    Programs,
    /// A new table
    Swap,
    /// Connecting sockets
    Connect,
    /// A start, and a daemon with nothing to do
    Idle,
    /// Start and reload with many policies
    Policies,
    /// A failover with few flows and many, and memory
    Failover,
}

/// Measure packets, here and with what users would pick instead
#[derive(Parser)]
struct Args {
    /// Rounds; each contestant has one sample a round
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How many flows there are
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000,1000000")]
    flows: Vec<u32>,
    /// Packets of a sample
    #[arg(long, default_value_t = 300_000)]
    packets: u32,
    /// These contestants alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// These cases alone: v4, v4-nat, v6, v6-nat
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// These parts alone
    #[arg(long, value_delimiter = ',', value_enum)]
    part: Vec<Part>,
    /// Where to put the table, as text and as JSON, and the plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.flows.iter().all(|n| (1..=MOST_FLOWS).contains(n)),
        "1 to {MOST_FLOWS} flows"
    );
    uplink_lab::isolate()?;
    let _limits = limits::raise(&args.flows)?;
    let cases: Vec<Case> = Case::ALL
        .into_iter()
        .filter(|case| args.case.is_empty() || args.case.iter().any(|name| name == case.short()))
        .collect();
    let wanted = |c: &&Contestant| args.only.is_empty() || args.only.iter().any(|name| name == c.name);
    let contestants: Vec<&Contestant> = ALL.iter().filter(wanted).collect();
    ensure!(!contestants.is_empty() && !cases.is_empty(), "nothing to measure");
    let mut report = Report::new(&args.flows);
    if args.parts(Part::Forwarding) {
        on_one_cpu(|| forwarding(&mut report, &contestants, &cases, &args))?;
    }
    facts(&mut report, &args)?;
    print!("{}", report.text());
    match &args.out {
        Some(directory) => save(&report, directory, &cases, &args.flows),
        None => Ok(()),
    }
}

impl Args {
    fn parts(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }
}

/// In turns.
fn forwarding(report: &mut Report, contestants: &[&Contestant], cases: &[Case], args: &Args) -> Result<()> {
    for round in 1..=args.rounds {
        for case in cases {
            for contestant in contestants.iter().filter(|c| c.fits(*case)) {
                let samples = sample(contestant, *case, args);
                let samples = samples.with_context(|| format!("{}, {}", contestant.name, case.name()))?;
                report.add(contestant, *case, &samples);
            }
            eprintln!("round {round} of {}: {}", args.rounds, case.name());
        }
    }
    Ok(())
}

type Measure<'a> = &'a dyn Fn() -> Result<Vec<Fact>>;

/// What is no contest.
fn facts(report: &mut Report, args: &Args) -> Result<()> {
    let named = |name| ALL.iter().find(|c| c.name == name).context(name);
    let (ours, fast) = (named("uplink-mark")?, named("uplink-fast")?);
    let most = args.flows.iter().max().copied().unwrap_or(1);
    let parts: [(Part, Measure<'_>); 6] = [
        (Part::Programs, &|| on_one_cpu(|| programs::measure(ours, fast))),
        (Part::Swap, &control::swap),
        (Part::Connect, &|| connect::measure(ours)),
        (Part::Idle, &|| control::idle(ours)),
        (Part::Policies, &|| control::policies(ours)),
        (Part::Failover, &|| {
            let failover = |flows| on_one_cpu(|| control::failover(ours, flows));
            Ok([failover(10)?, failover(most)?].concat())
        }),
    ];
    for (part, measure) in parts {
        if args.parts(part) {
            report.tell(measure().with_context(|| format!("{part:?}"))?);
            eprintln!("{part:?}: done");
        }
    }
    Ok(())
}

fn save(report: &Report, directory: &Path, cases: &[Case], flows: &[u32]) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("speed.json"), report.json()?)?;
    std::fs::write(directory.join("speed.txt"), report.text())?;
    for case in cases {
        let rows: Vec<&Row> = report.rows_of(*case).collect();
        let file = directory.join(format!("forwarding-{}.svg", case.short()));
        let title = format!("{}: {}", case.name(), report.machine());
        plot::bars(&file, &title, flows, &rows)?;
    }
    Ok(())
}

/// One sample for each number of flows.
fn sample(contestant: &Contestant, case: Case, args: &Args) -> Result<Vec<Sample>> {
    let one = |flows: &u32| {
        let one = || sample_of(contestant, case, *flows, args.packets);
        let sample = one().or_else(|e| {
            // A machine that others use has bad minutes.
            eprintln!(
                "{}, {}, {flows} flows: {e:#}; once more",
                contestant.name,
                case.name()
            );
            one()
        });
        sample.with_context(|| format!("{flows} flows"))
    };
    args.flows.iter().map(one).collect()
}

fn sample_of(contestant: &Contestant, case: Case, flows: u32, packets: u32) -> Result<Sample> {
    let mut wire = Wire::build(contestant.driver)?;
    let _guard = contestant.set_up(&wire, case, flows)?;
    let Some(share) = contestant.share else {
        return wire.measure(case.v6, flows, packets);
    };
    if contestant.settles_s != 0 {
        // The daemon has looked at everything by then.
        std::thread::sleep(Duration::from_secs(1));
    }
    let learned = contestant.learned()?;
    wire.warm(case.v6, flows)?;
    if contestant.settles_s != 0 {
        std::thread::sleep(Duration::from_secs(contestant.settles_s));
        wire.spread(case.v6, flows, contestant.period(flows))?;
    }
    let sample = undisturbed(&mut wire, case, flows, packets)?;
    ensure!(
        contestant.learned()? == learned,
        "what was learned of flows became void meanwhile, and a flow's next two packets are too far away; the daemon's log ends:\n{}",
        contestants::log_end(5)
    );
    // One flow has one uplink.
    wire::check(&sample, case.nat, Some(share).filter(|_| flows >= 1000))?;
    Ok(sample)
}

/// Where something else had the CPU for long, rings overflow: such a sample says nothing.
fn undisturbed(wire: &mut Wire, case: Case, flows: u32, packets: u32) -> Result<Sample> {
    let mut sample = wire.measure(case.v6, flows, packets)?;
    for _ in 1..ATTEMPTS {
        if sample.lost == 0 {
            break;
        }
        sample = wire.measure(case.v6, flows, packets)?;
    }
    Ok(sample)
}
