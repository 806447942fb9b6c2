//! The lab without the daemon: what is inbound or the router's own, steered by hand. The same
//! checks fail where nothing steers.

use std::time::Instant;

use anyhow::{Result, ensure};
use uplink_lab::traffic::{Fleet, How, Swarm, Tally, ask_udp, host_sendto, host_tcp, host_udp, udp_flows};
use uplink_lab::{Family, Isp, Lab, Shape};

use crate::host::Host;
use crate::inbound::{ask_box, ask_forwarded, box_servers, forwards};
use crate::selftest::{masquerade, route_by};
use crate::support::{lab, pause};

/// Replies by source address and by the gateway's MAC, and what happens without.
pub fn inbound() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    let _servers = (box_servers(&lab)?, forwards(&lab)?);
    lab.bcp38()?;
    for port in [7000, 7001, 8080] {
        let to = (Isp::Two.source(Family::V4), port).into();
        let tally = ask_udp(&lab, to, 20)?;
        ensure!(tally.lost == 20, "nothing steers, yet {to} answers: {tally:?}");
    }
    let carried = lab.carried()?;
    println!("    without steering: {carried:?}");
    ensure!(carried[0].foreign >= 60 && carried[1].violations() == 0);
    ensure!(lab.expect_right_isps("as it must fail").is_err());
    steer_replies(&lab)?;
    lab.bcp38()?;
    for family in Family::ALL {
        for isp in Isp::ALL {
            ask_box(&lab, isp.source(family))?;
            ask_forwarded(&lab, isp.source(family))?;
        }
    }
    lab.expect_right_isps("steered by hand")
}

/// Rules by source address for the box, by a connection mark for what is forwarded.
fn steer_replies(lab: &Lab) -> Result<()> {
    let mut marks = String::new();
    for isp in Isp::ALL {
        let (table, mac) = (101 + isp.index(), mac(lab, isp)?);
        let ((via, via6), (from, from6)) = (isp.gateways(), isp.sources());
        lab.router.ip(&format!(
            "route add default via {via} table {table}\nroute add default via {via6} src {from6} table {table}\n"
        ))?;
        for (version, from) in [(4, from), (6, from6)] {
            for which in [format!("from {from}"), format!("fwmark {table}")] {
                let line = format!("ip -{version} rule add {which} lookup {table}");
                lab.router.run(&line)?;
            }
        }
        marks += &format!("ct state new ether saddr {mac} ct mark set {table}\n");
    }
    lab.router.nft(&format!(
        "table inet marks {{ chain pre {{ type filter hook prerouting priority mangle;\n{marks}\
           ct direction reply meta mark set ct mark\n\
         }}\n}}\n"
    ))
}

fn mac(lab: &Lab, isp: Isp) -> Result<String> {
    let text = lab.isp(isp).run("ip -o link show eth0")?;
    let mut words = text.split_whitespace().skip_while(|w| *w != "link/ether");
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

/// Sockets of the router with each kind of will, by the kernel's routes alone.
pub fn host() -> Result<()> {
    let host = Host::build()?;
    let lab = &host.lab;
    println!("    in {}", host.cgroup.path());
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    ensure!(own.contains(host.cgroup.path()), "not in the cgroup: {own}");
    ensure!(host.cgroup.programs()?.is_empty(), "programs at a new cgroup");
    steer_replies(lab)?;
    for isp in Isp::ALL {
        route_as(lab, isp)?;
        for family in Family::ALL {
            for how in [How::Free, How::Device("eth0")] {
                all(isp, host_udp(lab, 200, family, how)?, 200)?;
                all(isp, host_tcp(lab, 50, family, how)?, 50)?;
            }
            all(isp, host_sendto(lab, 500, family)?, 500)?;
            let bound = How::Bound(isp.other().source(family));
            all(isp.other(), host_udp(lab, 200, family, bound)?, 200)?;
            // The mark is there before the source address is chosen.
            let marked = How::Marked(101 + isp.other().index() as u32);
            all(isp.other(), host_tcp(lab, 50, family, marked)?, 50)?;
        }
    }
    lab.expect_right_isps("the router's own")
}

/// As [`route_by`]; with addresses of both ISPs on one NIC, IPv6 needs to be told the source.
fn route_as(lab: &Lab, isp: Isp) -> Result<()> {
    route_by(lab, isp)?;
    let (via, from) = (isp.gateways().1, isp.sources().1);
    lab.router
        .ip(&format!("route replace default via {via} src {from}\n"))
}

fn all(isp: Isp, tally: Tally, n: usize) -> Result<()> {
    ensure!(tally.by_isp[isp.index()] == n, "{n} by {isp:?}: {tally:?}");
    Ok(())
}

/// The fleet sees loss, moves and broken connections, and none where there are none.
pub fn fleet() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    let fleet = Fleet::start(&lab, 1_500, 500)?;
    pause(3.0);
    let report = fleet.report()?;
    println!("    nothing happens: {report:?}");
    ensure!(report.by_isp == [2_000, 0] && report.requests > 10_000);
    ensure!(report.lost + report.moved + report.broken == 0);
    lab.lossy(Isp::One, 10)?;
    pause(1.0);
    lab.heal(Isp::One)?;
    pause(1.5);
    let lossy = fleet.report()?;
    println!("    loss: {lossy:?}");
    ensure!(lossy.lost > 100 && lossy.resent > report.resent && lossy.moved == 0);
    // Forgotten by conntrack, flows get a new address: UDP moves, TCP breaks.
    route_by(&lab, Isp::Two)?;
    lab.router.run("conntrack -F")?;
    pause(2.0);
    let moved = fleet.stop()?;
    println!("    moved: {moved:?}");
    ensure!(moved.moved == 1_500 && moved.broken == 500);
    Ok(())
}

/// Nobody tells the router: until its own entry goes, nothing comes through.
pub fn silent_mac() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    route_by(&lab, Isp::One)?;
    for family in Family::ALL {
        ensure!(udp_flows(&lab, 20, family)?.by_isp == [20, 0]);
    }
    lab.change_mac_silently(Isp::One)?;
    for family in Family::ALL {
        let tally = udp_flows(&lab, 20, family)?;
        ensure!(tally.lost == 20, "{family:?} with the old MAC: {tally:?}");
    }
    let (v4, v6) = Isp::One.gateways();
    for gateway in [v4, v6] {
        lab.router.run(&format!("ip neigh del {gateway} dev eth0"))?;
    }
    for family in Family::ALL {
        let tally = udp_flows(&lab, 20, family)?;
        println!("    {family:?} after the entry was deleted: {tally:?}");
        ensure!(tally.by_isp == [20, 0], "{family:?} with the new MAC: {tally:?}");
    }
    lab.end_silence(Isp::One)
}

/// Each flow of a swarm is seen where it goes, and is not seen where it cannot go.
pub fn swarm() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    masquerade(&lab)?;
    let swarm = Swarm::new(&lab, 20_000)?;
    for isp in Isp::ALL {
        route_by(&lab, isp)?;
        // What conntrack knows keeps its address, whichever way it goes.
        lab.router.run("conntrack -F")?;
        let begun = Instant::now();
        let seen = swarm.round()?;
        println!("    20,000 flows by {isp:?} in {:?}", begun.elapsed());
        ensure!(seen.iter().all(|via| *via == Some(isp)), "not all by {isp:?}");
    }
    lab.blackhole(Isp::Two)?;
    ensure!(
        swarm.round()?.iter().all(Option::is_none),
        "seen through a blackhole"
    );
    Ok(())
}
