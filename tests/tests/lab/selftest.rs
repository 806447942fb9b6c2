//! The lab by itself, without the daemon: what the other scenarios take for granted.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uplink_lab::traffic::{Ongoing, Tally, tcp_connects, udp_flows};
use uplink_lab::{Family, Isp, Lab, Shape, Snapshot};

use crate::support::{lab, pause};

pub fn one_nic() -> Result<()> {
    reaches_by_both(Shape::OneNic)
}

pub fn nic_each() -> Result<()> {
    reaches_by_both(Shape::NicEach)
}

/// A blackhole takes what is forwarded, leaves the gateway reachable, and can be healed.
pub fn faults() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    let pulse = Ongoing::new_flows(&lab, Family::V4, Duration::from_millis(10))?;
    pause(0.3);
    lab.blackhole(Isp::One)?;
    for family in [Family::V4, Family::V6] {
        let tally = udp_flows(&lab, 50, family)?;
        ensure!(tally.lost == 50, "{family:?} through a blackhole: {tally:?}");
    }
    for gateway in ["192.168.1.1:9", "[fd00:1::1]:9"] {
        let gateway = gateway.parse()?;
        let answer = lab.router.enter(|| refusal(gateway))?;
        ensure!(
            answer.is_ok_and(|e| e == ErrorKind::ConnectionRefused),
            "{gateway} does not answer"
        );
    }
    lab.heal(Isp::One)?;
    let healed = Instant::now();
    pause(0.5);
    expect(udp_flows(&lab, 50, Family::V6)?, Isp::One, 50)?;
    let report = pulse.stop()?;
    let outage = report.recovered_after(healed);
    println!(
        "    {} of {} lost, works {outage:?} after healing",
        report.lost(),
        report.beats.len()
    );
    ensure!(report.lost() > 50 && outage.is_some() && report.lost_since(healed) == 0);
    lab.link_down(Isp::One)?;
    ensure!(udp_flows(&lab, 10, Family::V4)?.lost == 10);
    lab.link_up(Isp::One)?;
    pause(0.2);
    [Family::V4, Family::V6]
        .into_iter()
        .try_for_each(|f| expect(udp_flows(&lab, 10, f)?, Isp::One, 10))
}

/// A snapshot equals the next one, and shows what changed.
pub fn snapshot() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let before = Snapshot::take(&lab)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    udp_flows(&lab, 10, Family::V4)?;
    let changed = before.diff(&Snapshot::take(&lab)?);
    ensure!(
        changed.iter().any(|line| line.contains("masquerade")),
        "{changed:?}"
    );
    ensure!(
        changed.iter().any(|line| line.contains("send_redirects")),
        "{changed:?}"
    );
    lab.router.nft("delete table inet by_hand\n")?;
    lab.router.sysctl("ipv4/conf/all/send_redirects", "1")?;
    lab.router.sysctl("ipv4/conf/eth0/send_redirects", "1")?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

fn reaches_by_both(shape: Shape) -> Result<()> {
    let begun = Instant::now();
    let (lab, echo) = lab(shape)?;
    println!("    built in {:?}", begun.elapsed());
    masquerade(&lab)?;
    for isp in Isp::ALL {
        route_by(&lab, isp)?;
        for family in [Family::V4, Family::V6] {
            expect(udp_flows(&lab, 1000, family)?, isp, 1000)?;
            expect(tcp_connects(&lab, 100, family)?, isp, 100)?;
        }
    }
    ensure!(echo.new_flows() == [2200, 2200, 0], "{:?}", echo.new_flows());
    println!("    8,800 packets and 400 connections in {:?}", begun.elapsed());
    Ok(())
}

pub fn expect(tally: Tally, isp: Isp, n: usize) -> Result<()> {
    ensure!(tally.by_isp[isp.index()] == n, "{n} by {isp:?}: {tally:?}");
    Ok(())
}

pub fn masquerade(lab: &Lab) -> Result<()> {
    lab.router.sysctl("ipv4/conf/all/send_redirects", "0")?;
    for device in ["eth0", "wan1"] {
        let _ = lab
            .router
            .sysctl(&format!("ipv4/conf/{device}/send_redirects"), "0");
    }
    // By gateway, because masquerading chooses an IPv6 source by the destination.
    lab.router.nft(
        "table inet by_hand { chain post { type nat hook postrouting priority srcnat;\n\
           ip saddr 172.16.0.0/24 masquerade\n\
           ip6 saddr fd00:10::/64 rt ip6 nexthop fd00:1::1 snat ip6 to fd00:1::100\n\
           ip6 saddr fd00:10::/64 rt ip6 nexthop fd00:2::1 snat ip6 to fd00:2::100\n\
         }\n chain out { type filter hook output priority 0; icmpv6 type nd-redirect drop; }\n}\n",
    )
}

pub fn route_by(lab: &Lab, isp: Isp) -> Result<()> {
    let (v4, v6) = isp.gateways();
    lab.router.ip(&format!(
        "route replace default via {v4}\nroute replace default via {v6}\n"
    ))
}

/// A closed port answers by an ICMP error, which shows that the host is there.
pub fn refusal(to: SocketAddr) -> std::io::Result<ErrorKind> {
    let any: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send(b"?")?;
    Ok(socket
        .recv(&mut [0; 8])
        .err()
        .map_or(ErrorKind::Other, |e| e.kind()))
}
