//! Long TCP transfers, which veth carries as segments of 64 KiB with unfinished checksums.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use uplink_lab::topology::servers;
use uplink_lab::{Daemon, Family, Lab, Shape};

use super::{daemon, packets, routed};
use crate::pair::{self, tcp_server};

const PORT: u16 = 7620;
const LENGTH: usize = 50 << 20;
/// Bound of a transfer that stands still.
const STALLED: Duration = Duration::from_secs(10);

/// Every byte arrives where it belongs, both ways at once, whatever the MTU.
pub fn whole() -> Result<()> {
    for (shape, more) in [
        (Shape::OneNic, ""),
        (Shape::NicEach, ""),
        (Shape::NicEach, "mtu = 1280"),
    ] {
        let (lab, _echo) = routed(shape)?;
        let daemon = daemon(&lab, more)?;
        for family in Family::ALL {
            let done = both_ways(&lab, &daemon, family, "forwarded");
            let [passed, kernel] = done.with_context(|| format!("{shape:?} {family:?} {more}"))?;
            ensure!(
                passed > 20 * kernel,
                "too few passed: {passed}, {kernel} by the kernel"
            );
        }
        daemon.stop()?;
    }
    Ok(())
}

/// A long transfer each way at once, byte by byte. How many packets had this outcome meanwhile, and how many were marked for the
/// kernel.
pub fn both_ways(lab: &Lab, daemon: &Daemon<'_>, family: Family, outcome: &str) -> Result<[u64; 2]> {
    let server = tcp_server(lab, SocketAddr::new(servers(family)[0], PORT))?;
    let (near, far, _) = pair::tcp(lab, family, 0, &server)?;
    let before = [packets(daemon, outcome)?, packets(daemon, "pinned")?];
    let begun = Instant::now();
    let transfers = [(near.try_clone()?, far.try_clone()?, 1_u8), (far, near, 2)];
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (from, to, salt) in transfers {
            threads.push(scope.spawn(move || send(from, salt)));
            threads.push(scope.spawn(move || receive(to, salt)));
        }
        let mut done = threads.into_iter().map(|t| t.join().expect("no panic"));
        done.try_for_each(|done| done)
    })?;
    let took = begun.elapsed();
    let passed = packets(daemon, outcome)? - before[0];
    let kernel = packets(daemon, "pinned")? - before[1];
    println!(
        "    {family:?}: {} MiB each way in {took:?}; {passed} packets {outcome}, {kernel} went the kernel's way",
        LENGTH >> 20
    );
    Ok([passed, kernel])
}

/// What stands at a place of the stream.
const fn byte(at: usize, salt: u8) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8 ^ salt
}

fn send(mut stream: TcpStream, salt: u8) -> Result<()> {
    stream.set_write_timeout(Some(STALLED))?;
    let mut at = 0;
    while at < LENGTH {
        let chunk: Vec<u8> = (at..LENGTH.min(at + 65_536)).map(|at| byte(at, salt)).collect();
        stream.write_all(&chunk).context("sending")?;
        at += chunk.len();
    }
    Ok(())
}

fn receive(mut stream: TcpStream, salt: u8) -> Result<()> {
    stream.set_read_timeout(Some(STALLED))?;
    let (mut at, mut buffer) = (0, vec![0; 65_536]);
    while at < LENGTH {
        let length = stream.read(&mut buffer).context("receiving")?;
        ensure!(length > 0, "the stream ends after {at} bytes");
        let wrong = (0..length).find(|i| buffer[*i] != byte(at + i, salt));
        ensure!(wrong.is_none(), "another byte at {}", at + wrong.unwrap_or(0));
        at += length;
    }
    Ok(())
}
