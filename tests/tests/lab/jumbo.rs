//! Frames longer than Ethernet's usual ones, in every mode.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use uplink_lab::topology::elsewhere;
use uplink_lab::{Config, Daemon, Family, Lab, Shape};

use crate::balance::route_back;
use crate::mtu::{headers, undivided};
use crate::nexthop::both_ways;
use crate::pair::udp_server;
use crate::support::lab;

const PORT: u16 = 7640;
const JUMBO: usize = 9_000;
/// Of both uplinks there are some among so many.
const FLOWS: usize = 10;

pub fn frames() -> Result<()> {
    mode("pinned", "[kernel]\nmode = \"mark\"\n")?;
    mode("forwarded", "[nat]\nmode = \"off\"\n")?;
    mode("fast", "[kernel]\nattach = \"xdp\"\n")
}

/// Long datagrams and transfers arrive whole, and most packets have this outcome.
fn mode(outcome: &str, more: &str) -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    route_back(&lab)?;
    let _ends = (outcome == "fast").then(|| lab.fast_wires()).transpose()?;
    lab.set_mtu(JUMBO)?;
    let config = Config {
        more: more.into(),
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    daemon.await_up()?;
    for family in Family::ALL {
        let [done, kernel] = carried(&lab, &daemon, family, outcome)?;
        // In mark mode all of them are the kernel's.
        let least = if outcome == "pinned" { 100 } else { 20 * kernel };
        ensure!(done > least, "{done} packets {outcome}, {kernel} by the kernel");
    }
    daemon.stop()
}

fn carried(lab: &Lab, daemon: &Daemon<'_>, family: Family, outcome: &str) -> Result<[u64; 2]> {
    let long = vec![7; JUMBO - headers(family) - 8];
    for n in 0..FLOWS {
        let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
        let client = undivided(lab, family, n, server.local_addr()?)?;
        for _ in 0..3 {
            client.send(&long)?;
            let (length, from) = server.recv_from(&mut vec![0; JUMBO])?;
            server.send_to(&long, from)?;
            let back = client.recv(&mut vec![0; JUMBO])?;
            ensure!(
                [length, back] == [long.len(); 2],
                "{length} and {back} bytes of {}",
                long.len()
            );
        }
    }
    both_ways(lab, daemon, family, outcome).with_context(|| format!("{family:?}, {outcome}"))
}
