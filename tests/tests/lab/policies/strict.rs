//! Strict policies: rather an answer than another uplink.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use uplink_lab::daemon::write_config;
use uplink_lab::echo::PORT;
use uplink_lab::topology::servers;
use uplink_lab::traffic::{
    Flow, How, Ongoing, PATIENCE, ask, exchange, fresh_addresses, host_sendto, host_tcp, host_udp, tcp_like,
    udp_flows, udp_like,
};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use super::{config, expect_all, placed, start};
use crate::host::Host;
use crate::icmp::unlimited;
use crate::support::{lab, pause};

const SECOND: Duration = Duration::from_secs(1);
/// The servers by isp2 only.
pub const SERVERS: &str = "[[policy]]\nname = \"servers\"\nuse = \"isp2\"\nstrict = true\n\
                           match = { dst = [\"203.0.113.0/24\", \"2001:db8::/64\"] }\n";
/// The rest of the Internet by isp2 only.
const ELSEWHERE: &str = "[[policy]]\nname = \"elsewhere\"\nuse = \"isp2\"\nstrict = true\n\
                         match = { dst = [\"198.18.0.0/16\", \"2001:db8:18::/112\"] }\n";
const FLOWS: usize = 50;
/// The kernel tells a client of five in a row, then of one a second (`net.ipv4.route.error_burst`). There are eight.
const TOLD: usize = 24;
const CONNECTIONS: usize = 4;

/// A client is told, at once; nothing goes by the other uplink, and all goes on when its own is back.
pub fn clients() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, SERVERS)?;
    all_ways(&lab, "isp2 is up", Isp::Two)?;
    unlimited(&lab)?;
    watch(&lab)?;
    new_flows(&lab, &daemon)?;
    live_flows(&lab, &daemon)?;
    ensure!(leaked(&lab)? == 0, "isp1 carried {} packets", leaked(&lab)?);
    daemon.stop()
}

fn new_flows(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    dies(lab, daemon)?;
    let (before, _) = placed(daemon, "servers")?;
    for family in Family::ALL {
        refused(lab, family)?;
        others(lab, family, Isp::One)?;
    }
    let (after, _) = placed(daemon, "servers")?;
    println!("    status counts {} refused", after - before);
    ensure!(
        after - before >= 2 * (TOLD + CONNECTIONS) as u64,
        "not all are counted"
    );
    comes_back(lab, daemon)?;
    all_ways(lab, "isp2 is back", Isp::Two)
}

/// Flows of before wait until it is back.
fn live_flows(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    let streams = Family::ALL.map(|family| Ongoing::udp_stream(lab, family));
    let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
    dies(lab, daemon)?;
    pause(0.5);
    let healed = comes_back(lab, daemon)?;
    pause(1.0);
    streams
        .into_iter()
        .try_for_each(|stream| went_on("a stream of before", stream, healed))
}

fn dies(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    lab.blackhole(Isp::Two)?;
    daemon.await_state(Isp::Two, "down", 10 * SECOND)?;
    // Both families.
    pause(0.3);
    Ok(())
}

/// When it was healed.
fn comes_back(lab: &Lab, daemon: &Daemon<'_>) -> Result<Instant> {
    lab.heal(Isp::Two)?;
    let healed = Instant::now();
    daemon.await_state(Isp::Two, "up", 20 * SECOND)?;
    pause(0.3);
    Ok(healed)
}

fn all_ways(lab: &Lab, what: &str, isp: Isp) -> Result<()> {
    for family in Family::ALL {
        expect_all(what, &udp_flows(lab, 200, family)?, isp)?;
        let tcp = tcp_like(&lab.client, 20, |_| Flow::fresh(family))?;
        expect_all(what, &tcp, isp)?;
    }
    Ok(())
}

/// Flows that no policy matches fail over.
fn others(lab: &Lab, family: Family, isp: Isp) -> Result<()> {
    let to = fresh_addresses(family, FLOWS);
    let tally = udp_like(&lab.client, FLOWS, |n| Flow::fresh(family).to_address(to[n]))?;
    expect_all("others", &tally, isp)
}

/// isp1 counts what it gets for the servers from now on.
pub fn watch(lab: &Lab) -> Result<()> {
    lab.isp(Isp::One).nft(
        "table inet leak { counter leak {}\n chain forward { type filter hook forward priority -5;\n\
         iifname \"eth0\" ip daddr 203.0.113.0/24 counter name leak\n\
         iifname \"eth0\" ip6 daddr 2001:db8::/64 counter name leak\n }\n}\n",
    )
}

/// How many packets that were.
pub fn leaked(lab: &Lab) -> Result<u64> {
    let text = lab.isp(Isp::One).run("nft list counter inet leak leak")?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    let count = words.nth(1).with_context(|| text.clone())?;
    Ok(count.parse()?)
}

/// Every new flow is told that the host, or its network, is unreachable.
fn refused(lab: &Lab, family: Family) -> Result<()> {
    let begun = Instant::now();
    let udp = |n: usize| -> Result<()> {
        let socket = Flow::fresh(family).udp()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Linux tells UDP programs of this error only when they ask.
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        socket.send(&[0; 8])?;
        unreachable(&format!("UDP {family:?} {n}"), socket.recv(&mut [0; 8]).map(drop))
    };
    lab.client.enter(|| (0..TOLD).try_for_each(udp))??;
    println!("    {family:?}: {TOLD} UDP flows told in {:?}", begun.elapsed());
    let begun = Instant::now();
    // On a wire without delay the answer meets a socket that is still busy with its SYN; then the next one counts.
    let tcp = |n: usize| {
        let connected = Flow::fresh(family).tcp_within(3 * SECOND);
        unreachable(&format!("TCP {family:?} {n}"), connected.map(drop))
    };
    lab.client.enter(|| (0..CONNECTIONS).try_for_each(tcp))??;
    println!(
        "    {family:?}: {CONNECTIONS} connections told in {:?}",
        begun.elapsed()
    );
    Ok(())
}

fn unreachable(what: &str, result: io::Result<()>) -> Result<()> {
    let told = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
    let error = result.err().with_context(|| format!("{what}: no error"))?;
    ensure!(told.contains(&error.kind()), "{what}: {error:?}");
    Ok(())
}

/// An uplink without IPv6 has nobody to give IPv6 to: that is refused, and IPv4 is not.
pub fn one_family() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let text = config(SERVERS).text(&lab);
    let (_, gateway6) = Isp::Two.gateways();
    write_config(&text.replace(&format!("gateway6 = \"{gateway6}\"\n"), ""))?;
    let daemon = Daemon::restart(&lab)?;
    daemon.await_up()?;
    unlimited(&lab)?;
    watch(&lab)?;
    expect_all("IPv4", &udp_flows(&lab, 200, Family::V4)?, Isp::Two)?;
    refused(&lab, Family::V6)?;
    others(&lab, Family::V6, Isp::One)?;
    ensure!(leaked(&lab)? == 0, "isp1 carried {} packets", leaked(&lab)?);
    daemon.stop()
}

/// The stream was silent and goes on, by isp2 alone.
fn went_on(what: &str, stream: Ongoing, healed: Instant) -> Result<()> {
    let report = stream.stop()?;
    let after = report.recovered_after(healed);
    println!(
        "    {what}: {} of {} lost, seen from {:?}, back {after:?} after healing",
        report.lost(),
        report.beats.len(),
        report.isps()
    );
    ensure!(
        report.isps() == [Isp::Two],
        "{what}: seen from {:?}",
        report.isps()
    );
    ensure!(after.is_some(), "{what}: did not come back");
    Ok(())
}

/// This host's sockets are told, too: when they connect, and when they send.
pub fn sockets() -> Result<()> {
    let host = Host::build()?;
    let lab = &host.lab;
    let config = Config {
        local: Some(host.cgroup.path().to_owned()),
        ..config(ELSEWHERE)
    };
    let daemon = Daemon::start(lab, &config)?;
    daemon.await_up()?;
    from_here(lab, "isp2 is up")?;
    for family in Family::ALL {
        connected_anew(lab, family)?;
    }
    let streams = Family::ALL.map(|family| Ongoing::host_stream(lab, family));
    let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
    lab.note_passage()?;
    dies(lab, &daemon)?;
    for family in Family::ALL {
        let to = fresh_addresses(family, 3 * FLOWS);
        lab.router.enter(|| to.iter().try_for_each(|to| told(*to)))??;
        let server = SocketAddr::new(servers(family)[0], PORT);
        let mut other = lab
            .router
            .enter(|| TcpStream::connect_timeout(&server, PATIENCE))??;
        other.set_read_timeout(Some(PATIENCE))?;
        let by = exchange(&mut other);
        ensure!(by.and_then(|r| r.via()) == Some(Isp::One), "others: {by:?}");
    }
    let healed = comes_back(lab, &daemon)?;
    pause(1.0);
    from_here(lab, "isp2 is back")?;
    for stream in streams {
        went_on("a socket of before", stream, healed)?;
    }
    for family in Family::ALL {
        let [one, _] = lab.passed(family)?;
        ensure!(one.is_empty(), "by isp1 went {one:?}");
    }
    lab.expect_right_isps("strict sockets")?;
    daemon.stop()
}

fn from_here(lab: &Lab, what: &str) -> Result<()> {
    for family in Family::ALL {
        expect_all(what, &host_tcp(lab, FLOWS, family, How::Free)?, Isp::Two)?;
        expect_all(what, &host_udp(lab, FLOWS, family, How::Free)?, Isp::Two)?;
        expect_all(what, &host_sendto(lab, FLOWS, family)?, Isp::Two)?;
    }
    Ok(())
}

/// A datagram socket that goes elsewhere now goes by what is said of there.
fn connected_anew(lab: &Lab, family: Family) -> Result<()> {
    for to in fresh_addresses(family, FLOWS) {
        let by = lab.router.enter(|| -> Result<_> {
            let socket = UdpSocket::bind((any(to), 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect((servers(family)[0], PORT))?;
            ensure!(ask(&socket).is_some(), "no answer");
            socket.connect((to, PORT))?;
            Ok(ask(&socket).and_then(|r| r.via()))
        })??;
        ensure!(by == Some(Isp::Two), "connected anew: by {by:?}");
    }
    Ok(())
}

fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// An error for each way of sending.
fn told(to: IpAddr) -> Result<()> {
    let any = any(to);
    let to = SocketAddr::new(to, PORT);
    let tcp = TcpStream::connect_timeout(&to, PATIENCE);
    unreachable("TCP", tcp.map(drop))?;
    let udp = UdpSocket::bind((any, 0))?;
    unreachable("UDP", udp.connect(to))?;
    let udp = UdpSocket::bind((any, 0))?;
    unreachable("sendto", udp.send_to(&[0; 8], to).map(drop))
}
