//! The interface that stands for all uplinks: what is routed into it goes by them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::{How, Ongoing, host_tcp, host_udp, tcp_connects, udp_flows};
use uplink_lab::{Config, Daemon, Echo, Family, Isp, Lab, Shape, Snapshot};

use crate::support::{await_within, expect_share, expect_unharmed, lab, pause, repairs, warned};

const SECOND: Duration = Duration::from_secs(1);
const MPATH: &str = "[mpath]\ninterface = \"mpath0\"\n";
/// Routes all that the client sends into the interface. The rules get a priority in front of all
/// others. The table has the way back, too, since the router's own answers match the rule.
const INTO: [&str; 6] = [
    "ip route add 172.16.0.0/24 dev lan0 table 100",
    "ip route add default dev mpath0 table 100",
    "ip rule add from 172.16.0.0/24 lookup 100",
    "ip -6 route add fd00:10::/64 dev lan0 table 100",
    "ip -6 route add default dev mpath0 table 100",
    "ip -6 rule add from fd00:10::/64 lookup 100",
];

/// The file. Nothing steers where the lab's client enters, so that it is like a container.
fn file(lab: &Lab, mpath: &str) -> String {
    let more = mpath.to_owned();
    let text = Config {
        more,
        ..Config::default()
    }
    .text(lab);
    text.replace("interfaces = [\"lan0\"]", "interfaces = [\"wan1\"]")
}

fn build() -> Result<(Lab, Echo)> {
    lab(Shape::NicEach)
}

/// A daemon with the interface, and the client's traffic routed into it.
fn daemon(lab: &Lab) -> Result<Daemon<'_>> {
    write_config(&file(lab, MPATH))?;
    let daemon = Daemon::restart(lab)?;
    daemon.await_up()?;
    route(lab)?;
    Ok(daemon)
}

fn route(lab: &Lab) -> Result<()> {
    for line in INTO {
        lab.router.run(line)?;
    }
    // Our rules move in front of the new ones.
    pause(0.5);
    Ok(())
}

/// Packets that went into the interface so far.
fn entered(lab: &Lab) -> Result<u64> {
    let text = lab.router.run("ip -j -s link show mpath0")?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    json[0]["stats64"]["tx"]["packets"]
        .as_u64()
        .context("no count of packets")
}

fn exists(lab: &Lab, name: &str) -> bool {
    lab.router.run(&format!("ip link show {name}")).is_ok()
}

pub fn shares() -> Result<()> {
    let (lab, _echo) = build()?;
    lab.bcp38()?;
    let daemon = daemon(&lab)?;
    for (family, flows) in [(Family::V4, 12_000), (Family::V6, 6_000)] {
        let before = entered(&lab)?;
        expect_share("UDP", &udp_flows(&lab, flows, family)?, 75.0)?;
        let packets = entered(&lab)? - before;
        ensure!(
            packets >= 3 * flows as u64,
            "only {packets} packets went by mpath0"
        );
        expect_share("TCP", &tcp_connects(&lab, 1_300, family)?, 75.0)?;
    }
    ensure!(
        !warned(&daemon, "shadowed")?,
        "a rule into mpath0 is said to shadow ours"
    );
    lab.expect_right_isps("through mpath0")?;
    daemon.stop()
}

/// This host's own traffic, by one route.
pub fn host() -> Result<()> {
    let (lab, _echo) = build()?;
    lab.bcp38()?;
    // As distributions have it: such filters would ask for the way back.
    for interface in ["all", "wan1", "wan2"] {
        lab.router
            .sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "1")?;
    }
    write_config(&file(&lab, MPATH))?;
    let daemon = Daemon::restart(&lab)?;
    daemon.await_up()?;
    lab.router.run("ip route add 198.18.0.0/16 dev mpath0")?;
    lab.router.run("ip -6 route add 2001:db8:18::/112 dev mpath0")?;
    pause(0.3);
    for family in Family::ALL {
        let udp = host_udp(&lab, 6_000, family, How::Free)?;
        expect_share("UDP of this host", &udp, 75.0)?;
        expect_share("TCP of this host", &host_tcp(&lab, 800, family, How::Free)?, 75.0)?;
    }
    lab.expect_right_isps("this host through mpath0")?;
    daemon.stop()
}

pub fn failover() -> Result<()> {
    for family in Family::ALL {
        let (lab, _echo) = build()?;
        let daemon = daemon(&lab)?;
        let healthy = Ongoing::udp_stream_on(&lab, family, Isp::Two)?;
        let doomed = Ongoing::udp_stream_on(&lab, family, Isp::One)?;
        let pulse = Ongoing::new_flows(&lab, family, Duration::from_millis(10))?;
        pause(0.5);
        let fault = Instant::now();
        lab.blackhole(Isp::One)?;
        daemon.await_state(Isp::One, "down", 10 * SECOND)?;
        pause(1.5);
        for (what, stream) in [("new flows", pulse), ("the flow on the dead uplink", doomed)] {
            let report = stream.stop()?;
            let took = report
                .recovered_after(fault)
                .with_context(|| format!("{what}: silent"))?;
            println!("    {family:?} {what} work again after {took:?}");
            ensure!(took < 3 * SECOND, "{what}: {took:?}");
        }
        expect_unharmed("the flow on the healthy uplink", &healthy.stop()?, Isp::Two)?;
        daemon.stop()?;
    }
    Ok(())
}

/// kill -9 leaves it, the next start takes it over, and no packet is lost.
pub fn adopted() -> Result<()> {
    let (lab, _echo) = build()?;
    let first = daemon(&lab)?;
    let before = lab.router.run("ip -o link show mpath0-in")?;
    let streams = Family::ALL.map(|family| Ongoing::udp_stream_on(&lab, family, Isp::Two));
    let pulse = Ongoing::new_flows(&lab, Family::V4, Duration::from_millis(10))?;
    pause(0.3);
    first.end(Signal::SIGKILL, SECOND)?;
    pause(0.5);
    let second = Daemon::restart(&lab)?;
    second.await_up()?;
    pause(0.5);
    for stream in streams {
        expect_unharmed("a stream across kill -9", &stream?.stop()?, Isp::Two)?;
    }
    let report = pulse.stop()?;
    ensure!(
        report.lost() == 0,
        "{} of {} new flows lost",
        report.lost(),
        report.beats.len()
    );
    ensure!(
        before == lab.router.run("ip -o link show mpath0-in")?,
        "another interface"
    );
    second.stop()
}

/// It goes with the daemon, or with `down`; a reload adds, renames and removes it.
pub fn comes_and_goes() -> Result<()> {
    let (lab, _echo) = build()?;
    let before = Snapshot::take(&lab)?;
    write_config(&file(&lab, ""))?;
    let mut daemon = Daemon::restart(&lab)?;
    daemon.await_up()?;
    for name in ["mpath0", "ways", ""] {
        let section = format!("[mpath]\ninterface = \"{name}\"\n");
        let section = if name.is_empty() { "" } else { &section };
        write_config(&file(&lab, section))?;
        daemon.signal(Signal::SIGHUP)?;
        let all = ["mpath0", "mpath0-in", "ways", "ways-in"];
        let right = || {
            Ok(all
                .iter()
                .all(|n| exists(&lab, n) == (!name.is_empty() && n.starts_with(name))))
        };
        await_within(&format!("interface {name:?}"), Instant::now(), 2 * SECOND, right)?;
    }
    write_config(&file(&lab, MPATH))?;
    daemon.signal(Signal::SIGHUP)?;
    await_within("mpath0 again", Instant::now(), 2 * SECOND, || {
        Ok(exists(&lab, "mpath0"))
    })?;
    daemon.stop()?;
    unchanged(&lab, &before)?;
    Daemon::restart(&lab)?.end(Signal::SIGKILL, SECOND)?;
    ensure!(exists(&lab, "mpath0"), "kill -9 took it away");
    let down = run(&lab, &["down"])?;
    ensure!(down.status.success(), "down: {}", said(&down));
    unchanged(&lab, &before)
}

fn unchanged(lab: &Lab, before: &Snapshot) -> Result<()> {
    ensure!(
        !exists(lab, "mpath0") && !exists(lab, "mpath0-in"),
        "it is still there"
    );
    let left = before.diff(&Snapshot::take(lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// Somebody deletes it, or sets one end down: it is there again, and works once routes are.
pub fn mended() -> Result<()> {
    let (lab, _echo) = build()?;
    let daemon = daemon(&lab)?;
    let index = |text: String| text.split(':').next().map(str::to_owned);
    for (hurt, again) in [
        ("ip link del mpath0", true),
        ("ip link set mpath0-in down", false),
        ("ip link set mpath0-in address 02:00:00:00:00:09", false),
    ] {
        let before = index(lab.router.run("ip -o link show mpath0")?);
        let count = repairs(&daemon, "aggregate")?;
        lab.router.run(hurt)?;
        let since = Instant::now();
        await_within(hurt, since, SECOND, || Ok(repairs(&daemon, "aggregate")? > count))?;
        let now = index(lab.router.run("ip -o link show mpath0")?);
        ensure!((now != before) == again, "{hurt}: index {before:?}, then {now:?}");
        if again {
            lab.router.run("ip route add default dev mpath0 table 100")?;
            lab.router.run("ip -6 route add default dev mpath0 table 100")?;
        }
        pause(0.7);
        for family in Family::ALL {
            expect_share(hurt, &udp_flows(&lab, 300, family)?, 75.0)?;
        }
    }
    daemon.stop()
}

/// An interface of somebody else with that name is refused with a remedy, and not touched.
pub fn foreign_refused() -> Result<()> {
    let (lab, _echo) = build()?;
    lab.router.run("ip link add mpath0 type veth peer name theirs")?;
    let before = lab.router.run("ip -d link show")?;
    write_config(&file(&lab, MPATH))?;
    for command in ["check", "run"] {
        let output = run(&lab, &[command])?;
        let text = said(&output);
        println!("    {command}: {text}");
        ensure!(output.status.code() == Some(2), "{command}: {text}");
        ensure!(
            text.contains("mpath0 exists") && text.contains("ip link del mpath0"),
            "{text}"
        );
    }
    ensure!(
        before == lab.router.run("ip -d link show")?,
        "something was touched"
    );
    let down = run(&lab, &["down"])?;
    ensure!(down.status.success(), "down: {}", said(&down));
    ensure!(before == lab.router.run("ip -d link show")?, "`down` touched it");
    Ok(())
}

/// Without any uplink a packet goes in once, and its sender is told.
pub fn no_circle() -> Result<()> {
    let (lab, _echo) = build()?;
    let daemon = daemon(&lab)?;
    // Each request is to be answered.
    lab.router.sysctl("ipv4/icmp_ratelimit", "0")?;
    lab.router.run("ip route add 198.18.0.0/16 dev mpath0")?;
    lab.router.run("ip route replace default dev mpath0")?;
    for isp in Isp::ALL {
        lab.router
            .run(&format!("ip link set {} down", isp.interface(lab.shape)))?;
    }
    pause(0.5);
    let before = entered(&lab)?;
    let ping = |to: &str| {
        lab.client
            .command("ping")
            .args(["-c5", "-i0.2", "-W1", to])
            .output()
    };
    for to in ["203.0.113.10", "198.18.0.1"] {
        let said = said(&ping(to)?);
        println!("    {}", said.replace('\n', "\n    "));
        ensure!(said.contains("nreachable"), "{to}: {said}");
    }
    let packets = entered(&lab)? - before;
    println!("    10 requests, {packets} packets into mpath0");
    ensure!(
        (1..40).contains(&packets),
        "{packets} packets for 10 requests: they go round"
    );
    daemon.stop()
}
