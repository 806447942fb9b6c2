//! Connections from the Internet: every reply leaves by the uplink that the request came in by.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uplink_lab::traffic::{Tally, ask_tcp, ask_udp, ping, udp_flows};
use uplink_lab::{Echo, Family, Isp, Lab, Shape};

use crate::support::{await_within, daemon, expect_share, lab, warned};

/// Servers of the router that answer from the address asked, though bound to none.
const ANY: u16 = 7000;
/// Servers of the router bound to one address each.
const BOUND: u16 = 7001;
/// Forwarded to a server in the LAN.
const FORWARDED: u16 = 8080;

pub fn the_box() -> Result<()> {
    box_answers(Family::V4)
}

pub fn the_box_v6() -> Result<()> {
    box_answers(Family::V6)
}

fn box_answers(family: Family) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _servers = box_servers(&lab)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    for isp in Isp::ALL {
        let before = lab.carried()?[isp.index()].own;
        ask_box(&lab, isp.source(family))?;
        let carried = lab.carried()?[isp.index()].own - before;
        ensure!(carried > 400, "{isp:?} carried {carried} replies only");
    }
    lab.expect_right_isps("asked at both addresses")?;
    daemon.stop()
}

pub fn port_forward() -> Result<()> {
    forwarded(Family::V4)
}

pub fn port_forward_v6() -> Result<()> {
    forwarded(Family::V6)
}

fn forwarded(family: Family) -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _servers = forwards(&lab)?;
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    for isp in Isp::ALL {
        let before = lab.carried()?[isp.index()].own;
        ask_forwarded(&lab, isp.source(family))?;
        let carried = lab.carried()?[isp.index()].own - before;
        ensure!(carried > 400, "{isp:?} carried {carried} replies only");
    }
    lab.expect_right_isps("asked through both port-forwards")?;
    daemon.stop()
}

/// With a NIC for each ISP the way in is plain, and the way back must be the same.
pub fn nic_each() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let _servers = (box_servers(&lab)?, forwards(&lab)?);
    let daemon = daemon(&lab, "")?;
    lab.bcp38()?;
    for family in Family::ALL {
        for isp in Isp::ALL {
            let before = lab.carried()?[isp.index()].own;
            ask_box(&lab, isp.source(family))?;
            ask_forwarded(&lab, isp.source(family))?;
            let carried = lab.carried()?[isp.index()].own - before;
            ensure!(carried > 800, "{isp:?} carried {carried} replies only");
        }
    }
    lab.expect_right_isps("asked through NICs of their own")?;
    daemon.stop()
}

/// Where both gateways have one MAC, the address asked tells the uplinks apart; the user is told.
pub fn shared_mac() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    lab.share_gateway()?;
    let _servers = (box_servers(&lab)?, forwards(&lab)?);
    let daemon = daemon(&lab, "")?;
    let warn = || warned(&daemon, "shared-mac");
    await_within("warned", Instant::now(), Duration::from_secs(1), warn)?;
    for family in Family::ALL {
        expect_share("clients", &udp_flows(&lab, 1_500, family)?, 75.0)?;
        for isp in Isp::ALL {
            ask_box(&lab, isp.source(family))?;
            ask_forwarded(&lab, isp.source(family))?;
        }
    }
    daemon.stop()
}

/// TCP and UDP servers on the router.
pub fn box_servers(lab: &Lab) -> Result<[Echo; 2]> {
    let any = [[0; 4].into(), [0u16; 8].into()].map(|ip: IpAddr| SocketAddr::new(ip, ANY));
    let own = |family| Isp::ALL.map(|isp| SocketAddr::new(isp.source(family), BOUND));
    let bound = [own(Family::V4), own(Family::V6)].concat();
    Ok([Echo::serve(&lab.router, &any)?, Echo::serve(&lab.router, &bound)?])
}

/// A server in the LAN, and a table of the user's that forwards to it.
pub fn forwards(lab: &Lab) -> Result<Echo> {
    let server = ["172.16.0.2:8080".parse()?, "[fd00:10::2]:8080".parse()?];
    lab.router.nft(
        "table inet forwards { chain pre { type nat hook prerouting priority dstnat;\n\
           meta l4proto { tcp, udp } th dport 8080 ip daddr { 192.168.1.100, 10.0.0.100 } \
             dnat ip to 172.16.0.2\n\
           meta l4proto { tcp, udp } th dport 8080 ip6 daddr { fd00:1::100, fd00:2::100 } \
             dnat ip6 to fd00:10::2\n\
         }\n}\n",
    )?;
    Echo::serve(&lab.client, &server)
}

/// Asks the router's own servers.
pub fn ask_box(lab: &Lab, ip: IpAddr) -> Result<()> {
    for port in [ANY, BOUND] {
        let to = SocketAddr::new(ip, port);
        all_answered(to, "UDP", ask_udp(lab, to, 100)?)?;
        all_answered(to, "TCP", ask_tcp(lab, to, 50)?)?;
    }
    let pings = ping(lab, ip, 50)?;
    println!("    {ip}: {pings} of 50 pings answered");
    ensure!(pings == 50, "{ip}: {pings} of 50 pings answered");
    Ok(())
}

/// Asks the server behind the port-forward.
pub fn ask_forwarded(lab: &Lab, ip: IpAddr) -> Result<()> {
    let to = SocketAddr::new(ip, FORWARDED);
    all_answered(to, "UDP", ask_udp(lab, to, 100)?)?;
    all_answered(to, "TCP", ask_tcp(lab, to, 50)?)
}

fn all_answered(to: SocketAddr, what: &str, tally: Tally) -> Result<()> {
    let (all, lost) = (tally.total(), tally.lost);
    println!("    {to}: {lost} of {all} {what} flows lost");
    // The server sees an address of the Internet, so of neither ISP.
    ensure!(tally.elsewhere == all, "{to}: {what}: {tally:?}");
    Ok(())
}
