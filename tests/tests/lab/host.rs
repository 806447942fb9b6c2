//! What the router itself sends: by weight, with the uplink's own address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::{How, Ongoing, Tally, host_sendto, host_tcp, host_udp, udp_flows};
use uplink_lab::{Cgroup, Config, Daemon, Echo, Family, Isp, Lab, Shape};

use crate::support::{expect_share, lab, pause};

/// A lab whose process is in a cgroup of its own. Fields drop in order: the cgroup last.
pub struct Host {
    pub lab: Lab,
    _echo: Echo,
    pub cgroup: Cgroup,
}

impl Host {
    pub fn build() -> Result<Self> {
        let cgroup = Cgroup::join()?;
        let (lab, _echo) = lab(Shape::OneNic)?;
        lab.bcp38()?;
        Ok(Self { lab, _echo, cgroup })
    }

    fn config(&self) -> Config {
        Config {
            local: Some(self.cgroup.path().to_owned()),
            ..Config::default()
        }
    }

    fn daemon(&self) -> Result<Daemon<'_>> {
        let daemon = Daemon::start(&self.lab, &self.config())?;
        daemon.await_up()?;
        println!("    attached:\n{}", self.cgroup.programs()?);
        ensure!(!self.cgroup.programs()?.is_empty(), "no program at the cgroup");
        Ok(daemon)
    }

    fn stop(&self, daemon: Daemon<'_>) -> Result<()> {
        daemon.stop()?;
        let left = self.cgroup.programs()?;
        ensure!(left.is_empty(), "left at the cgroup: {left}");
        Ok(())
    }
}

pub fn tcp() -> Result<()> {
    shares("TCP", |lab, family| host_tcp(lab, 2_000, family, How::Free))
}

pub fn udp_connected() -> Result<()> {
    shares("connected UDP", |lab, family| {
        host_udp(lab, 3_000, family, How::Free)
    })
}

pub fn udp_sendto() -> Result<()> {
    shares("UDP from one socket", |lab, family| {
        host_sendto(lab, 3_000, family)
    })
}

fn shares(what: &str, traffic: impl Fn(&Lab, Family) -> Result<Tally>) -> Result<()> {
    let host = Host::build()?;
    let daemon = host.daemon()?;
    for family in Family::ALL {
        expect_share(&format!("{what} {family:?}"), &traffic(&host.lab, family)?, 75.0)?;
    }
    // The clients are in the same cgroup, but in another network namespace.
    expect_share("clients", &udp_flows(&host.lab, 1_500, Family::V4)?, 75.0)?;
    host.lab.expect_right_isps(what)?;
    host.stop(daemon)
}

/// A program is loaded when there is work for it: those of this host's sockets by a reload that wants them.
pub fn by_reload() -> Result<()> {
    let host = Host::build()?;
    let mut daemon = Daemon::start(&host.lab, &Config::default())?;
    daemon.await_up()?;
    let here = loaded(&mut daemon)?;
    ensure!(here == ["uplink_egress", "uplink_ingress"], "loaded: {here:?}");
    write_config(&host.config().text(&host.lab))?;
    let reloaded = run(&host.lab, &["reload"])?;
    ensure!(reloaded.status.success(), "reload: {}", said(&reloaded));
    let here = loaded(&mut daemon)?;
    ensure!(here.len() == 6, "loaded after the reload: {here:?}");
    for family in Family::ALL {
        let tally = host_udp(&host.lab, 1_000, family, How::Free)?;
        expect_share(&format!("{family:?}"), &tally, 75.0)?;
    }
    host.stop(daemon)
}

/// The programs that a daemon has loaded, by their names in order.
fn loaded(daemon: &mut Daemon<'_>) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for file in std::fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()?))? {
        let text = std::fs::read_to_string(file?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    let all = loaded_programs().filter_map(Result::ok);
    let ours = all.filter(|program| ids.contains(&program.id()));
    let mut names: Vec<_> = ours.filter_map(|p| p.name_as_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// An application that chose its address, mark or device knows what it wants.
pub fn bound_left_alone() -> Result<()> {
    let host = Host::build()?;
    let daemon = host.daemon()?;
    for (isp, family) in Isp::ALL.into_iter().zip([Family::V4, Family::V6]) {
        for isp in [isp, isp.other()] {
            let how = How::Bound(isp.source(family));
            all_by(isp, &format!("{how:?}"), &host_udp(&host.lab, 200, family, how)?)?;
            all_by(isp, &format!("{how:?}"), &host_tcp(&host.lab, 50, family, how)?)?;
        }
    }
    // Only marks of somebody else's: bits outside of our mask, and a rule of theirs.
    host.lab
        .router
        .ip("route add default via 10.0.0.1 table 77\nrule add pref 77 fwmark 0x77/0xff lookup 77\n")?;
    let how = How::Marked(0x77);
    all_by(Isp::Two, "own mark", &host_udp(&host.lab, 200, Family::V4, how)?)?;
    all_by(Isp::Two, "own mark", &host_tcp(&host.lab, 50, Family::V4, how)?)?;
    let tally = host_udp(&host.lab, 200, Family::V4, How::Device("eth0"))?;
    println!("    bound to eth0: {tally:?}");
    ensure!(tally.clean() == 200, "bound to eth0: {tally:?}");
    host.lab.expect_right_isps("sockets with a will of their own")?;
    host.stop(daemon)
}

fn all_by(isp: Isp, what: &str, tally: &Tally) -> Result<()> {
    println!("    {what}: {tally:?}");
    ensure!(
        tally.by_isp[isp.index()] == tally.total(),
        "{what}: not all by {isp:?}: {tally:?}"
    );
    Ok(())
}

/// A connected socket lives on when its uplink dies: the same socket, another source address.
pub fn udp_follows_failover() -> Result<()> {
    let host = Host::build()?;
    let daemon = host.daemon()?;
    let mut streams = Vec::new();
    for family in Family::ALL {
        for _ in 0..40 {
            streams.push(Ongoing::host_stream(&host.lab, family)?);
        }
    }
    let on_one = |s: &&Ongoing| s.report().isps() == [Isp::One];
    let doomed = streams.iter().filter(on_one).count();
    ensure!(doomed > 0 && doomed < streams.len(), "{doomed} on isp1");
    host.lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", Duration::from_secs(10))?;
    let switched = Instant::now();
    pause(0.5);
    // Until then some may leave with the old address.
    let between = host.lab.violations()?;
    pause(1.0);
    for stream in streams {
        let report = stream.stop()?;
        let back = report.recovered_after(switched);
        let took = back.with_context(|| format!("silent after the switch, seen {:?}", report.isps()))?;
        println!(
            "    seen from {:?}, works {took:?} after the switch",
            report.isps()
        );
        ensure!(took < Duration::from_millis(500), "{took:?} after the switch");
        ensure!(
            report.isps().last() == Some(&Isp::Two),
            "seen from {:?}",
            report.isps()
        );
        if report.isps() == [Isp::Two] {
            ensure!(report.lost() == 0, "a flow on the healthy uplink lost packets");
        }
    }
    host.lab.expect_right_isps_since("after the failover", between)?;
    host.stop(daemon)
}
