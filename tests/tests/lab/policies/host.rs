//! Policies for this host's own sockets: by their owner, and by where they go.

use anyhow::Result;
use uplink_lab::traffic::{How, Tally, host_sendto, host_sendto_as, host_tcp, host_udp, udp_flows};
use uplink_lab::{Config, Daemon, Family, Isp, Lab};

use super::{config, expect_all, expect_balanced, placed, reload};
use crate::host::Host;
use crate::support::pause;

const FLOWS: usize = 200;
const USER: u32 = 4711;
const RANGE: u32 = 5_050;
const OTHER: u32 = 4712;

fn with(host: &Host, sections: &str) -> Config {
    Config {
        local: Some(host.cgroup.path().to_owned()),
        ..config(sections)
    }
}

fn only(host: &Host, line: &str) -> Result<()> {
    let section = format!("[[policy]]\nname = \"only\"\nmatch = {{ {line} }}\nuse = \"isp2\"\n");
    reload(&host.lab, &with(host, &section))
}

fn start(host: &Host) -> Result<Daemon<'_>> {
    let daemon = Daemon::start(&host.lab, &with(host, ""))?;
    daemon.await_up()?;
    Ok(daemon)
}

/// All three ways of sending, of both families, go by isp2 only, or by both.
fn expect(lab: &Lab, what: &str, how: How, only: bool) -> Result<()> {
    for family in Family::ALL {
        let ways = [
            ("TCP", host_tcp(lab, FLOWS, family, how)?),
            ("UDP", host_udp(lab, FLOWS, family, how)?),
            ("sendto", host_sendto_as(lab, FLOWS, family, how)?),
        ];
        for (way, tally) in ways {
            let what = format!("{what}: {how:?} {way} {family:?}");
            judge(&what, &tally, only)?;
        }
    }
    Ok(())
}

fn judge(what: &str, tally: &Tally, only: bool) -> Result<()> {
    match only {
        true => expect_all(what, tally, Isp::Two),
        false => expect_balanced(what, tally),
    }
}

/// Users and cgroups. A client's flows have neither.
pub fn owners() -> Result<()> {
    let host = Host::build()?;
    let lab = &host.lab;
    let daemon = start(&host)?;
    only(&host, &format!("uid = [{USER}, \"5000-5999\"]"))?;
    expect(lab, "uid", How::User(USER), true)?;
    expect(lab, "uid", How::User(RANGE), true)?;
    expect(lab, "uid", How::User(OTHER), false)?;
    expect(lab, "uid", How::Free, false)?;
    expect_balanced("clients", &udp_flows(lab, FLOWS, Family::V4)?)?;
    only(&host, &format!("iif = \"lo\", not = {{ uid = [0, {USER}] }}"))?;
    expect(lab, "not uid", How::User(OTHER), true)?;
    expect(lab, "not uid", How::User(USER), false)?;
    expect(lab, "not uid", How::Free, false)?;
    expect_balanced("clients", &udp_flows(lab, FLOWS, Family::V4)?)?;
    cgroups(&host)?;
    lab.expect_right_isps("policies by owner")?;
    daemon.stop()
}

/// The cgroup comes when the policy is there already, and counts with all below it.
fn cgroups(host: &Host) -> Result<()> {
    let lab = &host.lab;
    only(host, &format!("cgroup = \"{}/inner\"", host.cgroup.path()))?;
    expect(lab, "no such cgroup", How::Free, false)?;
    let inner = host.cgroup.descend("inner")?;
    pause(1.2);
    expect(lab, "in the cgroup", How::Free, true)?;
    let deeper = host.cgroup.descend("inner/deep/deeper")?;
    expect(lab, "further down", How::Free, true)?;
    expect_balanced("clients", &udp_flows(lab, FLOWS, Family::V4)?)?;
    drop(deeper);
    expect(lab, "back above", How::Free, false)?;
    drop(inner);
    Ok(())
}

/// Where they go, by what, and that they are this host's.
pub fn flows() -> Result<()> {
    let host = Host::build()?;
    let lab = &host.lab;
    let daemon = start(&host)?;
    only(&host, "iif = \"lo\"")?;
    expect(lab, "this host", How::Free, true)?;
    expect_balanced("clients", &udp_flows(lab, FLOWS, Family::V4)?)?;
    let (flows, _) = placed(&daemon, "only")?;
    println!("    status counts {flows} flows");
    anyhow::ensure!(flows >= 6 * FLOWS as u64, "status counts {flows} flows only");
    only(
        &host,
        "dst = [\"198.18.0.0/16\", \"2001:db8:18::/112\"], dport = 7000",
    )?;
    expect(lab, "destination", How::Free, true)?;
    only(&host, "dport = \"7001-7002\"")?;
    expect(lab, "other ports", How::Free, false)?;
    only(&host, "proto = \"tcp\"")?;
    for family in Family::ALL {
        judge("TCP", &host_tcp(lab, FLOWS, family, How::Free)?, true)?;
        judge("not UDP", &host_udp(lab, FLOWS, family, How::Free)?, false)?;
        judge("not sendto", &host_sendto(lab, FLOWS, family)?, false)?;
    }
    lab.expect_right_isps("policies by destination")?;
    daemon.stop()
}
