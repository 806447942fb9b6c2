//! Other policies, and a daemon that is killed: flows stay where they are, and what is strict stays so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::topology::servers;
use uplink_lab::traffic::{Fleet, FleetReport, Flow, Ongoing, udp_flows, udp_like};
use uplink_lab::{Daemon, Family, Isp, Lab, Shape, Snapshot};

use super::strict::{SERVERS, leaked, watch};
use super::{config, expect_all, expect_balanced, placed, policy, reload, start};
use crate::support::{lab, pause};

const SECOND: Duration = Duration::from_secs(1);
const FLOWS: usize = 200;

/// The first server by one uplink.
fn first_server(isp: Isp) -> String {
    format!(
        "[[policy]]\nname = \"first-server\"\nuse = \"{}\"\n\
         match = {{ dst = [\"203.0.113.10\", \"2001:db8::10\"] }}\n",
        isp.name()
    )
}

const FRONT: &str = "[[policy]]\nname = \"front\"\nuse = \"isp1\"\nmatch = { proto = \"udp\" }\n";

/// 200 flows under way, and everything that must not touch them.
pub fn keeps_flows() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, &first_server(Isp::Two))?;
    let fleet = Fleet::start(&lab, FLOWS, 20)?;
    let begun = fleet.report()?;
    let undisturbed = |what: &str| -> Result<()> {
        pause(1.2);
        let now = fleet.report()?;
        println!("    {what}: {now:?}");
        let harm = |r: &FleetReport| (r.lost, r.moved, r.broken, r.by_isp);
        ensure!(harm(&now) == harm(&begun), "{what}: {now:?}, before {begun:?}");
        Ok(())
    };
    undisturbed("nothing happens")?;
    to_server(&lab, 0, Isp::Two)?;
    reload(&lab, &config(&first_server(Isp::One)))?;
    undisturbed("the policy sends elsewhere")?;
    to_server(&lab, 0, Isp::One)?;
    let both = [FRONT.to_owned(), first_server(Isp::Two)].concat();
    reload(&lab, &config(&both))?;
    undisturbed("one in front")?;
    to_server(&lab, 0, Isp::One)?;
    to_server(&lab, 1, Isp::One)?;
    broken(&lab)?;
    undisturbed("a bad reload")?;
    to_server(&lab, 1, Isp::One)?;
    reload(&lab, &config(&first_server(Isp::Two)))?;
    undisturbed("none in front")?;
    to_server(&lab, 0, Isp::Two)?;
    reload(&lab, &config(""))?;
    undisturbed("no policies")?;
    expect_balanced("new flows", &udp_flows(&lab, FLOWS, Family::V4)?)?;
    fleet.stop()?.expect_unharmed("all in all")?;
    daemon.stop()
}

/// New flows to this server, by this ISP.
fn to_server(lab: &Lab, n: usize, isp: Isp) -> Result<()> {
    for family in Family::ALL {
        let to = servers(family)[n];
        let tally = udp_like(&lab.client, FLOWS, |_| Flow::fresh(family).to_address(to))?;
        expect_all(&format!("new flows to {to}"), &tally, isp)?;
    }
    Ok(())
}

/// A reload that fails changes nothing, and says why.
fn broken(lab: &Lab) -> Result<()> {
    for (wrong, said_of) in [
        ("[[policy]]\nname = \"bad\"\nuse = \"isp9\"\n", "isp9"),
        (
            "[[policy]]\nname = \"bad\"\nmatch = { dport = \"70000\" }\n",
            "70000",
        ),
        (
            "[[policy]]\nname = \"bad\"\nmatch = { dst_file = \"nowhere\" }\n",
            "nowhere",
        ),
    ] {
        write_config(&config(wrong).text(lab))?;
        let output = run(lab, &["reload"])?;
        let text = said(&output);
        ensure!(output.status.code() == Some(2), "a bad reload: {text}");
        ensure!(text.contains(said_of), "it does not name {said_of}: {text}");
    }
    Ok(())
}

/// New flows of a strict policy at any moment of kills and starts: none by the other uplink, none lost.
pub fn kill9() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    let mut daemon = start(&lab, SERVERS)?;
    watch(&lab)?;
    let pulse = |family| Ongoing::new_flows(&lab, family, Duration::from_millis(5));
    let pulses = [pulse(Family::V4)?, pulse(Family::V6)?];
    for n in 0..6 {
        daemon.end(Signal::SIGKILL, SECOND)?;
        pause(0.3);
        // Also into the middle of a start.
        let mut victim = Daemon::spawn(&lab)?;
        pause(0.05 * f64::from(n));
        victim.signal(Signal::SIGKILL)?;
        victim.end(Signal::SIGKILL, SECOND)?;
        daemon = Daemon::restart(&lab)?;
        pause(0.3);
        reload(&lab, &config(SERVERS))?;
    }
    daemon.await_up()?;
    ensure!(daemon.end(Signal::SIGUSR1, 5 * SECOND)?.success(), "SIGUSR1");
    let last = Daemon::restart(&lab)?;
    last.await_up()?;
    pause(0.5);
    for pulse in pulses {
        let report = pulse.stop()?;
        let (sent, lost, isps) = (report.beats.len(), report.lost(), report.isps());
        println!("    {sent} new flows, {lost} lost, by {isps:?}");
        ensure!(isps == [Isp::Two], "by {isps:?}");
        ensure!(lost == 0, "{lost} of {sent} lost");
    }
    let dead = killed_while_down(&lab, last)?;
    ensure!(leaked(&lab)? == 0, "isp1 carried {} packets", leaked(&lab)?);
    lab.heal(Isp::Two)?;
    dead.await_state(Isp::Two, "up", 20 * SECOND)?;
    pause(0.3);
    expect_all("isp2 is back", &udp_flows(&lab, FLOWS, Family::V4)?, Isp::Two)?;
    dead.stop()?;
    nothing_left(&lab, &before)?;
    start(&lab, SERVERS)?.end(Signal::SIGKILL, SECOND)?;
    let down = run(&lab, &["down"])?;
    ensure!(down.status.success(), "down: {}", said(&down));
    nothing_left(&lab, &before)
}

/// Its flows are sent by nobody else while it is dead and daemons come and go.
fn killed_while_down<'a>(lab: &'a Lab, daemon: Daemon<'a>) -> Result<Daemon<'a>> {
    let pulses = Family::ALL.map(|family| Ongoing::new_flows(lab, family, Duration::from_millis(5)));
    lab.blackhole(Isp::Two)?;
    daemon.await_state(Isp::Two, "down", 10 * SECOND)?;
    pause(0.3);
    daemon.end(Signal::SIGKILL, SECOND)?;
    pause(0.3);
    let next = Daemon::restart(lab)?;
    next.await_state(Isp::Two, "down", 10 * SECOND)?;
    pause(0.5);
    for pulse in pulses {
        let report = pulse?.stop()?;
        let isps = report.isps();
        println!("    {} new flows, seen from {isps:?}", report.beats.len());
        ensure!(!isps.contains(&Isp::One), "seen from {isps:?}");
    }
    Ok(next)
}

fn nothing_left(lab: &Lab, before: &Snapshot) -> Result<()> {
    let left = before.diff(&Snapshot::take(lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// What status, check and bpftool say.
pub fn shown() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let shadowed = "[[policy]]\nname = \"shadowed\"\nuse = \"isp1\"\nmatch = { dst = \"203.0.113.10\" }\n";
    let text = [SERVERS, shadowed, &first_server(Isp::One)].concat();
    let daemon = start(&lab, &text)?;
    expect_all("to the servers", &udp_flows(&lab, FLOWS, Family::V4)?, Isp::Two)?;
    let (flows, packets) = placed(&daemon, "servers")?;
    println!("    servers: {flows} flows, {packets} packets");
    ensure!(
        (flows, packets) == (FLOWS as u64, 3 * FLOWS as u64),
        "status counts {flows} flows and {packets} packets"
    );
    let says = policy(&daemon, "servers")?;
    ensure!(
        says["use"][0] == "isp2" && says["strict"] == true && says["active"] == true,
        "{says}"
    );
    let none = policy(&daemon, "shadowed")?;
    ensure!(none["use"][0] == "isp1" && none["flows"] == 0, "{none}");
    let file = std::fs::read_to_string("/run/lab/uplink.toml")?;
    let line = |name: &str| -> Result<usize> {
        let at = file
            .find(&format!("name = \"{name}\""))
            .context("not in the file")?;
        Ok(file.get(..at).unwrap_or_default().lines().count())
    };
    let checked = said(&run(&lab, &["check"])?);
    println!("    {checked}");
    for name in ["servers", "shadowed", "first-server"] {
        let (at, policy) = (line(name)?, policy(&daemon, name)?);
        ensure!(policy["line"] == at, "{name} is in line {at}: {policy}");
        ensure!(
            checked.contains(&format!("line {at}")),
            "check does not name line {at}: {checked}"
        );
    }
    in_kernel(&lab)?;
    daemon.stop()
}

/// bpftool shows the choices by name, in the order of the file.
fn in_kernel(lab: &Lab) -> Result<()> {
    let dump = lab
        .router
        .run("bpftool -j map dump pinned /sys/fs/bpf/uplink/choices")?;
    let dump: Value = serde_json::from_str(&dump)?;
    let entries = dump.as_array().context("no array")?.iter();
    let name = |entry: &Value| -> Option<String> {
        let bytes = entry["formatted"]["value"]["name"].as_array()?.iter();
        let bytes = bytes.map_while(|b| b.as_u64().filter(|b| *b != 0));
        Some(
            bytes
                .filter_map(|b| u8::try_from(b).ok())
                .map(char::from)
                .collect(),
        )
    };
    let names: Vec<_> = entries.filter_map(name).filter(|n| !n.is_empty()).collect();
    println!("    bpftool: {names:?}");
    ensure!(
        names == ["servers", "shadowed", "first-server"],
        "bpftool: {names:?}"
    );
    Ok(())
}
