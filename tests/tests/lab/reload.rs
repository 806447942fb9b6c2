//! What a reload has to carry over, and what it must not take over.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::snapshot::attached_at;
use uplink_lab::traffic::{Ongoing, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape, Snapshot};

use crate::support::{await_within, daemon, expect_share, expect_unharmed, lab, pause, repairs, warned};

const SECOND: Duration = Duration::from_secs(1);
const OLD: &str = "192.168.1.100";
const NEW: &str = "192.168.1.150";

fn reload(lab: &Lab) -> Result<std::process::Output> {
    run(lab, &["reload"])
}

fn from(source: &str) -> Config {
    Config {
        uplink_more: [format!("source = \"{source}\""), String::new()],
        ..Config::default()
    }
}

/// Nothing answers to the address that an uplink had: flows that have it begin anew, by a reload and by a start.
pub fn new_source() -> Result<()> {
    for by_reload in [true, false] {
        let (lab, _echo) = lab(Shape::OneNic)?;
        lab.router.ip(&format!("addr add {NEW}/24 dev eth0\n"))?;
        let mut daemon = Daemon::start(&lab, &from(OLD))?;
        daemon.await_up()?;
        let streams = Isp::ALL.map(|isp| Ongoing::udp_stream_on(&lab, Family::V4, isp));
        let [one, two] = streams;
        let (one, two) = (one?, two?);
        pause(0.3);
        ensure!(connections(&lab, OLD)? > 0, "no connection has the old address");
        write_config(&from(NEW).text(&lab))?;
        if by_reload {
            let output = reload(&lab)?;
            ensure!(output.status.success(), "{}", said(&output));
        } else {
            daemon.end(Signal::SIGUSR1, 5 * SECOND)?;
            daemon = Daemon::restart(&lab)?;
        }
        let changed = Instant::now();
        await_within("no connection has the old address", changed, SECOND, || {
            Ok(connections(&lab, OLD)? == 0)
        })?;
        pause(0.5);
        let report = one.stop()?;
        let lost = report.lost_since(changed + Duration::from_millis(300));
        println!(
            "    by reload {by_reload}: {lost} lost since then, seen from {:?}",
            report.isps()
        );
        ensure!(lost == 0, "{lost} packets were lost with the new address");
        ensure!(connections(&lab, NEW)? > 0, "no connection has the new address");
        expect_unharmed("the other uplink's stream", &two.stop()?, Isp::Two)?;
        daemon.stop()?;
    }
    Ok(())
}

/// Translated to this address.
fn connections(lab: &Lab, address: &str) -> Result<usize> {
    let all = lab.router.run("conntrack -L -p udp --dport 7000")?;
    let to = format!("dst={address} ");
    Ok(all.lines().filter(|line| line.contains(&to)).count())
}

/// At boot one line has no address yet, and a bridge for clients is not there: the other line is balanced, and both are
/// taken in when they come. So may the first be missing at a reload.
pub fn late() -> Result<()> {
    const LATE: &str = "late0";
    let (lab, _echo) = lab(Shape::NicEach)?;
    let before = Snapshot::take(&lab)?;
    let config = |weights: [u32; 2]| Config {
        weights,
        ipv6: false,
        lans: vec![LATE.into()],
        ..Config::default()
    };
    let (own, other) = ("10.0.0.100/24", "10.0.0.100");
    let addresses = lab.router.run("ip -o -4 addr show dev wan2")?;
    ensure!(addresses.contains(other), "{addresses}");
    lab.router.ip(&format!("addr del {own} dev wan2\n"))?;
    write_config(&config([1, 1]).text(&lab))?;
    for arguments in [&["check"][..], &["run"]] {
        let output = run(&lab, arguments)?;
        ensure!(
            output.status.code() == Some(2),
            "{arguments:?}: {}",
            said(&output)
        );
        for what in [LATE, "10.0.0.1"] {
            ensure!(said(&output).contains(what), "{arguments:?}: {}", said(&output));
        }
    }
    let daemon = Daemon::restart_waiting(&lab)?;
    daemon.await_state(Isp::One, "up", 5 * SECOND)?;
    await_within("it is warned of", Instant::now(), 2 * SECOND, || {
        warned(&daemon, "unusable")
    })?;
    let tally = udp_flows(&lab, 200, Family::V4)?;
    ensure!(tally.by_isp == [200, 0], "without isp2: {tally:?}");
    write_config(&config([1, 3]).text(&lab))?;
    let output = reload(&lab)?;
    ensure!(output.status.success(), "without isp2: {}", said(&output));
    lab.router.ip(&format!("addr add {own} dev wan2\n"))?;
    daemon.await_state(Isp::Two, "up", 10 * SECOND)?;
    await_within("nothing is missing", Instant::now(), 2 * SECOND, || {
        Ok(!warned(&daemon, "unusable")?)
    })?;
    // Its weight grows for five seconds.
    pause(6.0);
    expect_share("both", &udp_flows(&lab, 2_000, Family::V4)?, 25.0)?;
    ensure!(attached_at(&lab, LATE)?.is_empty());
    lab.router.ip(&format!(
        "link add {LATE} type veth peer name {LATE}x\nlink set {LATE} up\n"
    ))?;
    await_within("programs at the late one", Instant::now(), 2 * SECOND, || {
        Ok(!attached_at(&lab, LATE)?.is_empty())
    })?;
    // What was there may go and come, and the file is still good.
    lab.router.ip(&format!("addr del {own} dev wan2\n"))?;
    daemon.await_state(Isp::Two, "down", 5 * SECOND)?;
    write_config(&config([3, 1]).text(&lab))?;
    let output = reload(&lab)?;
    ensure!(output.status.success(), "without isp2 again: {}", said(&output));
    lab.router.ip(&format!("addr add {own} dev wan2\n"))?;
    daemon.await_state(Isp::Two, "up", 20 * SECOND)?;
    daemon.stop()?;
    lab.router.ip(&format!("link del {LATE}\n"))?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// What the probes need is not there: a start and a reload refuse the file, and nothing is touched.
pub fn no_authority() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    let wrong = Config {
        more: "[probe]\ntype = \"https\"\nca = \"/nowhere/ca.pem\"\n".into(),
        ..Config::default()
    };
    let refuses = |arguments: &[&str]| -> Result<()> {
        let output = run(&lab, arguments)?;
        println!("    {arguments:?}: {}", said(&output));
        ensure!(
            output.status.code() == Some(2),
            "{arguments:?}: {}",
            said(&output)
        );
        ensure!(said(&output).contains("/nowhere/ca.pem"), "{}", said(&output));
        Ok(())
    };
    write_config(&wrong.text(&lab))?;
    refuses(&["check"])?;
    refuses(&["run"])?;
    let changed = before.diff(&Snapshot::take(&lab)?);
    ensure!(changed.is_empty(), "{changed:#?}");
    let daemon = daemon(&lab, "")?;
    let running = Snapshot::take(&lab)?;
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    write_config(&wrong.text(&lab))?;
    refuses(&["reload"])?;
    let changed = running.diff(&Snapshot::take(&lab)?);
    ensure!(changed.is_empty(), "{changed:#?}");
    // Nor a start over what is there.
    daemon.end(Signal::SIGKILL, SECOND)?;
    refuses(&["run"])?;
    let tally = udp_flows(&lab, 200, Family::V4)?;
    ensure!(
        tally.clean() == 200 && tally.by_isp.iter().all(|n| *n > 0),
        "what was there does not steer any more: {tally:?}"
    );
    expect_unharmed("a stream all the while", &stream.stop()?, Isp::Two)?;
    let down = run(&lab, &["down"])?;
    ensure!(down.status.success(), "{}", said(&down));
    Ok(())
}

/// A reload fails in the middle, where an interface cannot have its programs: the old configuration is whole.
pub fn half_way() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let config = |lans: &[&str], more: &str| Config {
        lans: lans.iter().map(|&lan| lan.into()).collect(),
        more: format!("[kernel]\nattach = \"clsact\"\n{more}"),
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config(&[], ""))?;
    daemon.await_up()?;
    let _second = lab.second_lan()?;
    lab.router.run("tc qdisc add dev lan1 ingress")?;
    let stream = Ongoing::udp_stream_on(&lab, Family::V4, Isp::Two)?;
    write_config(&config(&["lan1"], "stale_after = \"77s\"\n").text(&lab))?;
    let output = reload(&lab)?;
    println!("    {}", said(&output));
    ensure!(output.status.code() == Some(1), "{}", said(&output));
    let dump = lab
        .router
        .run("bpftool map dump pinned /sys/fs/bpf/uplink/config")?;
    ensure!(
        dump.contains("\"stale_after_s\": 0"),
        "the programs go by what was refused: {dump}"
    );
    let filters = lab.router.run("tc filter show dev lan1 egress")?;
    ensure!(!filters.contains("uplink"), "programs are left: {filters}");
    let tally = udp_flows(&lab, 200, Family::V4)?;
    ensure!(
        tally.clean() == 200 && tally.by_isp.iter().all(|n| *n > 0),
        "the old configuration does not steer: {tally:?}"
    );
    expect_unharmed("a stream all the while", &stream.stop()?, Isp::Two)?;
    ensure!(
        repairs(&daemon, "nft")? == 0,
        "what we changed ourselves was told as a repair"
    );
    daemon.stop()
}
