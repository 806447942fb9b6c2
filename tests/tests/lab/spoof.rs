//! Packets from outside that say they come from the router itself.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use uplink_lab::daemon::{run, said};
use uplink_lab::{Config, Daemon, Isp, Lab, Shape, Snapshot};

use crate::support::{daemon, lab, pause};

const ACCEPT: &str = "/proc/sys/net/ipv4/conf/eth0/accept_local";
/// The router's address that the ISP pretends to have, and another one of its own.
const ROUTER: &str = "192.168.1.100";
const OTHER: &str = "192.168.1.77";
/// A client of the router's.
const CLIENT: &str = "172.16.0.2:7777";

/// Nobody passes for the router, although the kernel is told not to look; what the user has set counts as before.
pub fn refused() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    pretend(&lab)?;
    let before = Snapshot::take(&lab)?;
    ensure!(!arrives(&lab, ROUTER)?, "the kernel alone lets it in");
    let guarded = daemon(&lab, "")?;
    ensure!(accepts(&lab)? == "2", "accept_local is {}", accepts(&lab)?);
    ensure!(!arrives(&lab, ROUTER)?, "the router's address was let in");
    ensure!(arrives(&lab, OTHER)?, "an honest neighbour was not");
    guarded.stop()?;
    let left = before.diff(&Snapshot::take(&lab)?);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    ensure!(!arrives(&lab, ROUTER)?, "let in after the daemon");
    as_the_user_wants(&lab)
}

fn as_the_user_wants(lab: &Lab) -> Result<()> {
    lab.router.sysctl("ipv4/conf/eth0/rp_filter", "1")?;
    let filtered = Daemon::start(lab, &Config::default())?;
    ensure!(accepts(lab)? == "0", "set beside a filter, which looks anyway");
    lab.router.sysctl("ipv4/conf/eth0/rp_filter", "0")?;
    // Longer than it takes until everything is looked at again.
    pause(6.0);
    ensure!(accepts(lab)? == "0", "set while the programs do not look");
    ensure!(!arrives(lab, ROUTER)?, "let in once the filter was gone");
    for (filter, accept) in [("0", "2"), ("1", "0"), ("0", "2")] {
        lab.router.sysctl("ipv4/conf/eth0/rp_filter", filter)?;
        let reloaded = run(lab, &["reload"])?;
        ensure!(reloaded.status.success(), "{}", said(&reloaded));
        ensure!(
            accepts(lab)? == accept,
            "rp_filter {filter}, reloaded: {}",
            accepts(lab)?
        );
        ensure!(
            !arrives(lab, ROUTER)?,
            "let in after a reload with rp_filter {filter}"
        );
    }
    filtered.stop()?;
    lab.router.sysctl("ipv4/conf/eth0/accept_local", "1")?;
    ensure!(arrives(lab, ROUTER)?, "the lab's packet never arrives");
    let daemon = daemon(lab, "")?;
    ensure!(accepts(lab)? == "1", "the user's own setting was changed");
    ensure!(arrives(lab, ROUTER)?, "what the user lets in was dropped");
    daemon.stop()?;
    ensure!(
        accepts(lab)? == "1",
        "the user's own setting was changed by the stop"
    );
    Ok(())
}

/// The first ISP has the router's address as well, and does not tell the wire.
fn pretend(lab: &Lab) -> Result<()> {
    let isp = lab.isp(Isp::One);
    isp.sysctl("ipv4/conf/all/arp_ignore", "1")?;
    let links = lab.router.run("ip -o link show dev eth0")?;
    let mac = links.split_once("link/ether ").context("no MAC address")?.1;
    let mac = mac.split_whitespace().next().context("no MAC address")?;
    isp.ip(&format!(
        "addr add {ROUTER}/32 dev lo\naddr add {OTHER}/32 dev lo\n\
         neigh add 192.168.1.200 lladdr {mac} dev eth0 nud permanent\n\
         route add 172.16.0.0/24 via 192.168.1.200 dev eth0\n"
    ))
}

/// Whether a packet with this source gets to the client behind the router.
fn arrives(lab: &Lab, source: &str) -> Result<bool> {
    let client = lab.client.enter(|| UdpSocket::bind(CLIENT))??;
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    let source: SocketAddr = format!("{source}:0").parse()?;
    lab.isp(Isp::One)
        .enter(|| UdpSocket::bind(source)?.send_to(b"hello", CLIENT))??;
    Ok(client.recv(&mut [0; 16]).is_ok())
}

fn accepts(lab: &Lab) -> Result<String> {
    let text = lab.router.enter(|| std::fs::read_to_string(ACCEPT))??;
    Ok(text.trim().to_owned())
}
