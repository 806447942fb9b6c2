//! `uplink events`: what happened is told in order, to whoever listens and whenever they do.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use uplink_lab::daemon::{command, run, said};
use uplink_lab::isolate::LAB_DIR;
use uplink_lab::{Daemon, Isp, Lab, Shape};

use crate::support::{await_within, daemon, lab, pause, warned};

const SECOND: Duration = Duration::from_secs(1);

/// A subcommand that goes on, and what it writes.
struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let file = |name: &str| Path::new(LAB_DIR).join(format!("running-{name}"));
        let (out, err) = (file("out"), file("err"));
        let mut command = command(lab, arguments)?;
        command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        let child = command.stdin(Stdio::null()).spawn()?;
        Ok(Self { child, out, err })
    }

    fn events(&self) -> Result<Vec<Value>> {
        let lines = BufReader::new(File::open(&self.out)?).lines();
        lines
            .map(|line| serde_json::from_str(&line?).context("an event"))
            .collect()
    }

    fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.err)?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Ends it as Ctrl-C does.
    fn end(mut self) -> Result<()> {
        self.signal(Signal::SIGINT)?;
        let begun = Instant::now();
        while begun.elapsed() < 3 * SECOND {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "Ctrl-C: {status}: {}", self.said()?);
                return Ok(());
            }
            pause(0.02);
        }
        anyhow::bail!("Ctrl-C does not end it")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn order(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let output = run(lab, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(())
}

/// The first event from `from` on that has these fields, and where the next one begins.
fn find(events: &[Value], from: usize, fields: &[(&str, &str)]) -> Result<usize> {
    let has = |e: &Value| {
        let mut fields = fields.iter();
        fields.all(|(key, value)| e[key].as_str().is_some_and(|v| v.contains(value)))
    };
    let at = events[from..].iter().position(has);
    let at = at.with_context(|| format!("no {fields:?} from number {from} on: {events:#?}"))?;
    Ok(from + at + 1)
}

/// A failover, an order, a reload and a repair, followed over a restart of the daemon.
pub fn told() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    // While a share grows step by step, each step would put the rule back, too, without a word.
    let daemon = daemon(&lab, "[health]\nslow_start = \"0s\"\n")?;
    let follower = Running::start(&lab, &["events", "--json", "--follow"])?;
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    lab.heal(Isp::One)?;
    daemon.await_state(Isp::One, "up", 30 * SECOND)?;
    // A state is told once it has lasted for a moment.
    await_within("the recovery is told", Instant::now(), 3 * SECOND, || {
        let events = follower.events()?;
        let at = find(&events, 0, &[("kind", "failover")])?;
        Ok(find(
            &events,
            at,
            &[("kind", "state"), ("uplink", "isp1"), ("new", "up")],
        )
        .is_ok())
    })?;
    order(&lab, &["drain", "isp2"])?;
    order(&lab, &["enable", "isp2"])?;
    order(&lab, &["reload"])?;
    lab.router.run("ip rule del priority 20001")?;
    await_within("everything is told", Instant::now(), 10 * SECOND, || {
        Ok(find(&follower.events()?, 0, &[("kind", "repair")]).is_ok())
    })?;
    in_order(&follower.events()?)?;
    let text = run(&lab, &["events"])?;
    let text = String::from_utf8(text.stdout)?;
    println!(
        "{}",
        text.lines().map(|l| format!("    {l}\n")).collect::<String>()
    );
    ensure!(
        text.lines()
            .any(|l| l.contains("state") && l.contains("isp1 is down")),
        "{text}"
    );
    restarted(&lab, daemon, &follower)?.stop()?;
    follower.end()
}

fn in_order(events: &[Value]) -> Result<()> {
    let numbers: Vec<u64> = events.iter().filter_map(|e| e["seq"].as_u64()).collect();
    let from = numbers.first().copied().unwrap_or(0);
    ensure!(
        numbers == (from..from + events.len() as u64).collect::<Vec<_>>(),
        "{numbers:?}"
    );
    // One family may die some time before the other: then it was degraded in between.
    let down = [("kind", "state"), ("uplink", "isp1"), ("new", "down")];
    let up = [("kind", "state"), ("uplink", "isp1"), ("new", "up")];
    let mut at = find(events, 0, &down)?;
    find(events, 0, &[("kind", "failover"), ("uplink", "isp1")])?;
    at = find(events, at, &up)?;
    at = find(
        events,
        at,
        &[
            ("kind", "order"),
            ("uplink", "isp2"),
            ("text", "takes no new flows"),
        ],
    )?;
    at = find(
        events,
        at,
        &[
            ("kind", "order"),
            ("uplink", "isp2"),
            ("text", "takes new flows again"),
        ],
    )?;
    at = find(events, at, &[("kind", "reload")])?;
    find(events, at, &[("kind", "repair"), ("text", "rule")]).map(drop)
}

fn restarted<'a>(lab: &'a Lab, daemon: Daemon<'a>, follower: &Running) -> Result<Daemon<'a>> {
    let before = follower.events()?.len();
    daemon.end(Signal::SIGUSR1, 5 * SECOND)?;
    let daemon = Daemon::restart(lab)?;
    let starts = || Ok(find(&follower.events()?, before, &[("kind", "start")]).is_ok());
    await_within(
        "the next daemon's start is told",
        Instant::now(),
        5 * SECOND,
        starts,
    )?;
    let said = follower.said()?;
    ensure!(
        said.contains("waiting for it") && said.contains("there again"),
        "{said}"
    );
    Ok(daemon)
}

/// One who stops reading loses nothing that is still kept, is told what is not, and harms nobody.
pub fn stalled() -> Result<()> {
    const ORDERS: usize = 1600;
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let follower = Running::start(&lab, &["events", "--json", "--follow"])?;
    let told = || Ok(!follower.events()?.is_empty());
    await_within("the follower follows", Instant::now(), 5 * SECOND, told)?;
    follower.signal(Signal::SIGSTOP)?;
    let took = drain_and_enable(ORDERS)?;
    println!("    {ORDERS} orders in {took:?}");
    let begun = Instant::now();
    daemon.status()?;
    ensure!(begun.elapsed() < SECOND, "status takes {:?}", begun.elapsed());
    follower.signal(Signal::SIGCONT)?;
    let last = || Ok(last_seq(&follower.events()?) >= ORDERS as u64);
    await_within("the follower is up to date", Instant::now(), 10 * SECOND, last)?;
    let (events, said) = (follower.events()?, follower.said()?);
    let missed = missed(&said);
    println!("    {} events, {missed} missed", events.len());
    ensure!(missed > 0, "nothing was missed: {said}");
    let gaps = last_seq(&events) - events.len() as u64;
    ensure!(
        gaps == missed,
        "{gaps} events are not there, {missed} were told as missed: {said}"
    );
    ensure!(!warned(&daemon, "hook")?, "a warning");
    follower.end()?;
    daemon.stop()
}

fn last_seq(events: &[Value]) -> u64 {
    events.last().and_then(|e| e["seq"].as_u64()).unwrap_or(0)
}

fn missed(said: &str) -> u64 {
    let numbers = said.lines().filter_map(|l| l.strip_suffix(" events were missed"));
    numbers
        .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Orders by a connection of our own: a process for each would take too long.
fn drain_and_enable(n: usize) -> Result<Duration> {
    use std::io::Write as _;
    let begun = Instant::now();
    let mut stream = std::os::unix::net::UnixStream::connect("/run/uplink/uplink.sock")?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for n in 0..n {
        let method = ["Drain", "Enable"][n % 2];
        let call = format!("{{\"method\":\"org.uplink.{method}\",\"parameters\":{{\"name\":\"isp2\"}}}}\0");
        stream.write_all(call.as_bytes())?;
        let mut answer = Vec::new();
        answers.read_until(0, &mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.contains("\"changed\":true"), "{method}: {answer}");
    }
    Ok(begun.elapsed())
}

/// `status --watch` goes on when the daemon does not, and says so.
pub fn watched() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let watch = Running::start(&lab, &["status", "--json", "--watch", "1"])?;
    let at_least = |n: usize| {
        await_within("documents", Instant::now(), 8 * SECOND, || {
            Ok(watch.events()?.len() >= n)
        })
    };
    at_least(2)?;
    daemon.end(Signal::SIGUSR1, 5 * SECOND)?;
    await_within("the watcher says so", Instant::now(), 5 * SECOND, || {
        Ok(watch.said()?.contains("waiting for it"))
    })?;
    let before = watch.events()?.len();
    let daemon = Daemon::restart(&lab)?;
    at_least(before + 2)?;
    ensure!(
        watch.events()?.iter().all(|d| d["version"] == 1),
        "{:?}",
        watch.events()?
    );
    watch.end()?;
    let text = String::from_utf8(run(&lab, &["status"])?.stdout)?;
    println!(
        "{}",
        text.lines().map(|l| format!("    {l}\n")).collect::<String>()
    );
    ensure!(text.contains("of 2 uplinks up"), "{text}");
    ensure!(!text.contains('\u{1b}'), "colours without a terminal: {text:?}");
    daemon.stop()
}
