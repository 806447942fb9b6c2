//! ICMP errors find the client that they are meant for; redirects never do.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use uplink_lab::topology::{CLIENTS, client, elsewhere, servers};
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Family, Isp, Lab, Shape};

use crate::balance::route_back;
use crate::pair::{udp_client, udp_server};
use crate::support::{daemon, lab, pause};

/// Nobody listens here.
const CLOSED: u16 = 7999;
const FLOWS: usize = 200;
const SECOND: Duration = Duration::from_secs(1);

/// A closed port, and a TTL that ends at the ISP.
pub fn errors() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    unlimited(&lab)?;
    lab.bcp38()?;
    for family in Family::ALL {
        expect_refused(&lab, family, FLOWS)?;
        expect_expired(&lab, family)?;
    }
    let carried = lab.carried()?;
    ensure!(carried.iter().all(|c| c.own > 0), "one ISP only: {carried:?}");
    lab.expect_right_isps("what was answered by errors")?;
    daemon.stop()
}

/// A client's socket is gone while its server still speaks: the client's error finds the server, by the connection's ISP.
pub fn of_clients() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    unlimited(&lab)?;
    lab.bcp38()?;
    for family in Family::ALL {
        let mut told = [0; 2];
        for n in 0..FLOWS / 2 {
            let server = udp_server(&lab, SocketAddr::new(elsewhere(family, n as u16), CLOSED + 1))?;
            let client = udp_client(&lab, family, n, server.local_addr()?)?;
            client.send(&[1])?;
            let (_, from) = server.recv_from(&mut [0])?;
            let isp = Isp::of(from.ip()).with_context(|| format!("seen from {from}"))?;
            drop(client);
            server.connect(from)?;
            server.send(&[2])?;
            let answer = server.recv(&mut [0]).map_err(|e| e.kind());
            ensure!(
                answer == Err(ErrorKind::ConnectionRefused),
                "{family:?} by {isp:?}: the server is told {answer:?}"
            );
            told[isp.index()] += 1;
        }
        println!("    {family:?}: {told:?} servers told that the client has gone");
        ensure!(told.iter().all(|n| *n > 0), "{family:?}: one ISP only: {told:?}");
    }
    lab.expect_right_isps("errors of clients")?;
    daemon.stop()
}

/// A host sends so many errors only as the kernel's limits allow: one a second to each peer.
///
/// `icmp_ratemask`, since a rate of 0 is a trap: a peer's tokens are those of unreachable routes, too (`ip_error`), and
/// where the clock ticks between the two, a rate of 0 takes them all (3 of 4,000 errors were silenced so).
pub fn unlimited(lab: &Lab) -> Result<()> {
    for ns in [
        &lab.router,
        &lab.client,
        &lab.internet,
        lab.isp(Isp::One),
        lab.isp(Isp::Two),
    ] {
        ns.sysctl("ipv4/icmp_ratemask", "0")?;
        ns.sysctl("ipv4/icmp_msgs_per_sec", "100000")?;
        ns.sysctl("ipv4/icmp_msgs_burst", "10000")?;
        ns.sysctl("ipv6/icmp/ratelimit", "0")?;
    }
    Ok(())
}

/// Every one of `n` connected sockets learns that the port is closed.
pub fn expect_refused(lab: &Lab, family: Family, n: usize) -> Result<()> {
    let mut refused = 0;
    let begun = Instant::now();
    for flow in 0..n {
        let to = SocketAddr::new(servers(family)[flow % 2], CLOSED);
        let socket = udp_client(lab, family, flow, to)?;
        socket.send(&[1])?;
        let answer = socket.recv(&mut [0]).map_err(|e| e.kind());
        refused += usize::from(answer == Err(ErrorKind::ConnectionRefused));
        ensure!(flow < 10 || refused > 0, "{family:?}: no error comes back");
    }
    println!(
        "    {family:?}: {refused} of {n} flows refused in {:?}",
        begun.elapsed()
    );
    ensure!(refused == n, "{family:?}: {refused} of {n} flows refused");
    Ok(())
}

/// The ISP says that the packet expired, and quotes it as the client sent it.
pub fn expect_expired(lab: &Lab, family: Family) -> Result<()> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let raw = || Socket::new(domain, Type::RAW, Some(protocol));
    let mut raw = lab.client.enter(raw)?.context("a raw socket")?;
    raw.set_read_timeout(Some(Duration::from_millis(50)))?;
    for flow in 0..40 {
        let to = SocketAddr::new(servers(family)[flow % 2], CLOSED);
        let socket = udp_client(lab, family, flow, to)?;
        two_hops(&socket, family)?;
        socket.send(&[1])?;
        let quoted = quotation(&socket)?;
        expires(&mut raw, family, &quoted).with_context(|| format!("flow {flow}"))?;
    }
    println!("    {family:?}: 40 of 40 expired at the ISP, quoted as sent");
    Ok(())
}

fn two_hops(socket: &UdpSocket, family: Family) -> Result<()> {
    match family {
        Family::V4 => socket.set_ttl(2)?,
        Family::V6 => SockRef::from(socket).set_unicast_hops_v6(2)?,
    }
    Ok(())
}

/// Addresses and ports of a sent packet, as a quotation has them.
fn quotation(socket: &UdpSocket) -> Result<Vec<u8>> {
    let (from, to) = (socket.local_addr()?, socket.peer_addr()?);
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Ok([octets(from.ip()), octets(to.ip()), ports].concat())
}

/// Waits for the error. Neither header has options, so all offsets are known.
fn expires(raw: &mut Socket, family: Family, quoted: &[u8]) -> Result<()> {
    // The raw socket gives the outer header in IPv4 only; then 8 bytes of ICMP and the quotation.
    let (icmp, addresses, expired) = match family {
        Family::V4 => (20, 20 + 8 + 12, 11),
        Family::V6 => (0, 8 + 8, 3),
    };
    let (begun, mut packet) = (Instant::now(), [0; 512]);
    while begun.elapsed() < SECOND {
        let Ok(length) = raw.read(&mut packet) else {
            continue;
        };
        let quotation = packet[..length].get(addresses..addresses + quoted.len());
        if packet[icmp] == expired && quotation == Some(quoted) {
            return Ok(());
        }
    }
    anyhow::bail!("no time exceeded that quotes the packet")
}

/// The client would leave the router alone if the kernel had its way. NAT swallows redirects for
/// what it translates, so the case without it says more.
pub fn no_redirects() -> Result<()> {
    ["masquerade", "off"].into_iter().try_for_each(none_with)
}

fn none_with(mode: &str) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    route_back(&lab)?;
    count_redirects(&lab)?;
    tempt(&lab, CLIENTS - 1)?;
    let without = redirects(&lab)?;
    println!("    redirects without the daemon: {without:?}");
    ensure!(
        without.iter().all(|n| *n > 0),
        "the lab provokes no redirect: {without:?}"
    );
    let daemon = daemon(&lab, &format!("[nat]\nmode = \"{mode}\"\n"))?;
    count_redirects(&lab)?;
    for family in Family::ALL {
        let tally = udp_flows(&lab, 500, family)?;
        ensure!(tally.lost + tally.split == 0, "{family:?}: {tally:?}");
    }
    for n in 0..3 {
        // The kernel spends redirects on one peer, and for one target, seldom.
        pause(1.1);
        tempt(&lab, n)?;
    }
    let with = redirects(&lab)?;
    println!("    redirects with the daemon, NAT {mode}: {with:?}");
    ensure!(
        with == [0, 0],
        "NAT {mode}: redirects reached the client: {with:?}"
    );
    daemon.stop()
}

/// Packets for which a router with one NIC knows a shorter way: to the Internet by a gateway, and
/// to a gateway itself. The latter is the only kind that IPv6 knows for such addresses.
fn tempt(lab: &Lab, n: u8) -> Result<()> {
    for isp in Isp::ALL {
        for target in [isp.gateways().0, isp.gateways().1] {
            send(lab, n, target.parse()?)?;
        }
    }
    Family::ALL
        .into_iter()
        .try_for_each(|family| send(lab, n, elsewhere(family, n.into())))
}

fn send(lab: &Lab, n: u8, to: IpAddr) -> Result<()> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let from = client(family, n);
    let send = || UdpSocket::bind((from, 0))?.send_to(&[1], (to, CLOSED));
    lab.client.enter(send)??;
    // What comes back comes within a millisecond; an error that is under way is none of ours.
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Counts from zero; the client notes a redirect and does not follow it.
fn count_redirects(lab: &Lab) -> Result<()> {
    for device in ["all", "eth0"] {
        for family in ["ipv4", "ipv6"] {
            let key = format!("{family}/conf/{device}/accept_redirects");
            lab.client.sysctl(&key, "0")?;
        }
    }
    lab.client.nft(
        "table inet redirects\ndelete table inet redirects\ntable inet redirects {\n\
         counter v4 {}\ncounter v6 {}\n\
         chain input { type filter hook input priority 0;\n\
           icmp type redirect counter name v4\n\
           icmpv6 type nd-redirect counter name v6\n\
         }\n}\n",
    )
}

fn redirects(lab: &Lab) -> Result<[u64; 2]> {
    let text = lab.client.run("nft -j list counters table inet redirects")?;
    let json: Value = serde_json::from_str(&text)?;
    let count = |name: &str| {
        let mut all = json["nftables"].as_array()?.iter().map(|o| &o["counter"]);
        all.find(|c| c["name"] == name)?["packets"].as_u64()
    };
    let both = || Some([count("v4")?, count("v6")?]);
    both().context("no counters of redirects")
}
