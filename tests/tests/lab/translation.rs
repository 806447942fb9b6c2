//! IPv6 prefix translation: every host behind the router has an address of its own at each ISP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use uplink_common::{Addr, Translation};
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::topology::{CLIENTS, client, servers};
use uplink_lab::traffic::{How, Ongoing, ask_tcp, ask_udp, host_tcp, host_udp, tcp_connects, udp_flows};
use uplink_lab::{Cgroup, Config, Daemon, Echo, Family, Isp, Lab, Shape, Snapshot};

use crate::fragments::expect_whole;
use crate::icmp::{expect_expired, expect_refused, unlimited};
use crate::pair::{self, tcp_server, udp_client, udp_server};
use crate::support::{await_packets, expect_share, expect_unharmed, lab};

const INSIDE: &str = "fd00:10::";
const LENGTH: u32 = 64;
const PORT: u16 = 7500;
const WEB: u16 = 8080;
/// By UDP and TCP 60 of each client: that chance sends one of the eight by one ISP alone happens once in four million.
const FLOWS: usize = 240;

pub fn prefixes() -> Result<()> {
    let cgroup = Cgroup::join()?;
    let (lab, _echo) = lab(Shape::OneNic)?;
    lab.delegate_prefixes()?;
    lab.bcp38()?;
    unlimited(&lab)?;
    let before = Snapshot::take(&lab)?;
    let daemon = Daemon::start(&lab, &config(&cgroup, 0))?;
    daemon.await_up()?;
    outward(&lab, 0)?;
    inward(&lab)?;
    expect_refused(&lab, Family::V6, FLOWS)?;
    expect_expired(&lab, Family::V6)?;
    expect_whole(&lab, Family::V6)?;
    own(&lab)?;
    expect_share("IPv4 beside it", &udp_flows(&lab, 1_500, Family::V4)?, 75.0)?;
    other_prefix(&lab, &cgroup)?;
    lab.expect_right_isps("translated")?;
    daemon.stop()?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

/// `first` is which of the first ISP's prefixes is in use.
fn config(cgroup: &Cgroup, first: usize) -> Config {
    let line = |prefix: &str| format!("prefix6 = \"{prefix}\"");
    Config {
        uplink_more: [line(Isp::One.prefixes()[first]), line(Isp::Two.prefixes()[0])],
        more: format!("[nat]\nprefix6 = \"{INSIDE}/{LENGTH}\"\n"),
        local: Some(cgroup.path().to_owned()),
        ..Config::default()
    }
}

/// The address that a client has at an ISP.
fn outside(isp: Isp, which: usize, n: u8) -> Result<IpAddr> {
    let (prefix, _) = isp.prefixes()[which].split_once('/').context("no prefix")?;
    let addr = |ip: IpAddr| Addr::from(ip);
    let translation = Translation::new(addr(INSIDE.parse()?), addr(prefix.parse()?), LENGTH);
    let mut address = addr(client(Family::V6, n));
    ensure!(translation.outward(&mut address), "{address:?} stays");
    Ok(address.into())
}

/// Clients are seen with the ISP's prefix, told apart by their addresses, ports as they are.
fn outward(lab: &Lab, first: usize) -> Result<()> {
    let udp = udp_server(lab, SocketAddr::new(servers(Family::V6)[0], PORT))?;
    let tcp = tcp_server(lab, udp.local_addr()?)?;
    let mut hosts = BTreeMap::new();
    for n in 0..FLOWS {
        let socket = udp_client(lab, Family::V6, n, udp.local_addr()?)?;
        socket.send(&[1])?;
        let (_, from) = udp.recv_from(&mut [0]).with_context(|| format!("UDP flow {n}"))?;
        expect_translated(socket.local_addr()?, from, n, first)?;
        udp.send_to(&[2], from)?;
        socket
            .recv(&mut [0])
            .with_context(|| format!("the reply to {from}"))?;
        hosts.insert(from.ip(), socket.local_addr()?.ip());
        let (near, _far, from) = pair::tcp(lab, Family::V6, n, &tcp)?;
        expect_translated(near.local_addr()?, from, n, first)?;
        hosts.insert(from.ip(), near.local_addr()?.ip());
    }
    println!("    {FLOWS} UDP and TCP flows, hosts seen as {hosts:?}");
    ensure!(
        hosts.len() == 2 * usize::from(CLIENTS),
        "{} addresses of {CLIENTS} hosts",
        hosts.len()
    );
    expect_share("UDP", &udp_flows(lab, 3_000, Family::V6)?, 75.0)?;
    expect_share("TCP", &tcp_connects(lab, 750, Family::V6)?, 75.0)
}

fn expect_translated(client: SocketAddr, seen: SocketAddr, n: usize, first: usize) -> Result<()> {
    let isp = Isp::of(seen.ip()).with_context(|| format!("{client} seen as {seen}"))?;
    let which = if isp == Isp::One { first } else { 0 };
    let right = SocketAddr::new(outside(isp, which, n as u8)?, client.port());
    ensure!(seen == right, "{client} seen as {seen}, not as {right}");
    // Reckoned anew: the line above believes the product's own arithmetic.
    let (a, b) = (sum(client.ip())?, sum(seen.ip())?);
    ensure!(a == b, "{client} as {seen}: sums {a:#x} and {b:#x}");
    Ok(())
}

/// The one's complement sum of an address.
fn sum(ip: IpAddr) -> Result<u32> {
    let ip: Ipv6Addr = match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => anyhow::bail!("{ip} is not IPv6"),
    };
    Ok(ip.segments().iter().map(|word| u32::from(*word)).sum::<u32>() % 0xffff)
}

/// The Internet reaches a host at each of its addresses; replies leave by that ISP.
fn inward(lab: &Lab) -> Result<()> {
    let host = SocketAddr::new(client(Family::V6, 3), WEB);
    let _server = Echo::serve(&lab.client, &[host])?;
    for isp in Isp::ALL {
        let to = SocketAddr::new(outside(isp, 0, 3)?, WEB);
        let before = lab.carried()?[isp.index()].own;
        for (what, tally) in [("UDP", ask_udp(lab, to, 100)?), ("TCP", ask_tcp(lab, to, 50)?)] {
            println!("    {to}: {} of {} {what} flows lost", tally.lost, tally.total());
            ensure!(tally.elsewhere == tally.total(), "{to}: {what}: {tally:?}");
        }
        let carried = lab.carried()?[isp.index()].own - before;
        ensure!(carried > 400, "{isp:?} carried {carried} replies only");
    }
    lab.expect_right_isps("asked at the translated addresses")
}

/// What the router sends itself has its own addresses, which no prefix covers.
fn own(lab: &Lab) -> Result<()> {
    let udp = host_udp(lab, 800, Family::V6, How::Free)?;
    expect_share("the router's own UDP", &udp, 75.0)?;
    let tcp = host_tcp(lab, 330, Family::V6, How::Free)?;
    expect_share("the router's own TCP", &tcp, 75.0)
}

/// The first ISP delegates another prefix: new flows have it, the other ISP's do not notice.
fn other_prefix(lab: &Lab, cgroup: &Cgroup) -> Result<()> {
    let stream = Ongoing::udp_stream_on(lab, Family::V6, Isp::Two)?;
    write_config(&config(cgroup, 1).text(lab))?;
    let output = run(lab, &["reload"])?;
    ensure!(output.status.success(), "reload: {}", said(&output));
    println!("    {}", said(&output));
    outward(lab, 1)?;
    expect_refused(lab, Family::V6, FLOWS)?;
    await_packets(&stream, 50)?;
    expect_unharmed("a stream by the other ISP", &stream.stop()?, Isp::Two)
}
