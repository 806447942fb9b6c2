//! The end of connections, as conntrack tells it.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use uplink_common::{Addr, Family, FlowKey};
use uplink_lab::Namespace;
use uplink_userspace::conntrack::{self, Connection};
use uplink_userspace::fast::closed::{Closed, watch};

use super::{host, inside};

const MARK: u32 = 0x100_0000;
const NAT: &str = "table ip t {
    chain m { type filter hook output priority mangle; ct mark set 0x1000000; }
    chain n { type nat hook postrouting priority srcnat; ip daddr 10.0.0.9 snat to 10.0.0.77; }
}
table ip6 t {
    chain m { type filter hook output priority mangle; ct mark set 0x1000000; }
}";
/// Connections of one flush: 50,000 ports at each of two addresses.
const MANY: usize = 100_000;

fn tracked() -> Result<Namespace> {
    let ns = host()?;
    ns.ip("neigh add fd00::9 lladdr 02:00:00:00:00:09 nud permanent dev eth0
        neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0
        neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 nud permanent dev eth0\n")?;
    ns.nft(NAT)?;
    Ok(ns)
}

/// Both directions, after translation, v4 and v6; and each that is deleted, once.
pub fn told() -> Result<()> {
    let ns = tracked()?;
    inside(&ns, || async {
        let mut told = watch()?;
        let v4 = send("10.0.0.1", "10.0.0.9", 1..=3)?;
        let v6 = send("fd00::1", "fd00::9", 4..=4)?;
        ensure!(conntrack::delete_flows(&[v4[1], v6[0]]).await? == 2);
        let mut gone = next(&mut told, 2).await?;
        gone.sort_by_key(|c| c.original.dport);
        ensure!(gone[0].original == v4[1] && gone[1].original == v6[0], "{gone:?}");
        let mut answer = v4[1].reversed();
        answer.dst = address("10.0.0.77")?;
        ensure!(gone[0].reply == answer, "{gone:?} is not answered by {answer:?}");
        ensure!(gone[1].reply == v6[0].reversed(), "{gone:?}");
        conntrack::delete_by_mark(MARK, MARK, Family::V4).await?;
        let rest: HashSet<[u8; 2]> = next(&mut told, 2)
            .await?
            .iter()
            .map(|c| c.original.dport)
            .collect();
        ensure!(rest == HashSet::from([v4[0].dport, v4[2].dport]), "{rest:?}");
        Ok(())
    })
}

/// As many at once as a flush of a full table.
pub fn flushed() -> Result<()> {
    let ns = tracked()?;
    inside(&ns, || async {
        let mut told = watch()?;
        for to in ["10.0.0.8", "10.0.0.9"] {
            send("10.0.0.1", to, 1..=50_000)?;
        }
        let begun = Instant::now();
        conntrack::delete_by_mark(MARK, MARK, Family::V4).await?;
        let deleted = begun.elapsed();
        let gone = next(&mut told, MANY).await?;
        let took = begun.elapsed();
        let different: HashSet<([u8; 2], Addr)> =
            gone.iter().map(|c| (c.original.dport, c.original.dst)).collect();
        println!("    {MANY} connections deleted in {deleted:?}, all told in {took:?}");
        ensure!(different.len() == MANY, "{} of {MANY} told", different.len());
        Ok(())
    })
}

/// One packet to each port, and the keys of those flows.
fn send(from: &str, to: &str, ports: std::ops::RangeInclusive<u16>) -> Result<Vec<FlowKey>> {
    let from = address(from)?;
    let socket = UdpSocket::bind((std::net::IpAddr::from(from), 0))?;
    let sport = socket.local_addr()?.port();
    let to = address(to)?;
    ports
        .map(|port| {
            socket.send_to(b"x", (std::net::IpAddr::from(to), port))?;
            Ok(FlowKey {
                src: from,
                dst: to,
                sport: sport.to_be_bytes(),
                dport: port.to_be_bytes(),
                proto: 17,
                pad: [0; 3],
            })
        })
        .collect()
}

fn address(text: &str) -> Result<Addr> {
    Ok(Addr::from(text.parse::<std::net::IpAddr>()?))
}

/// So many connections, and not one more.
async fn next(told: &mut Receiver<Closed>, number: usize) -> Result<Vec<Connection>> {
    let mut gone = Vec::new();
    while gone.len() < number {
        let closed = timeout(Duration::from_secs(5), told.recv()).await;
        let closed = closed.with_context(|| format!("{} of {number} told", gone.len()))?;
        match closed.context("nobody tells any more")? {
            Closed::Gone(more) => gone.extend(more),
            Closed::Lost => anyhow::bail!("some were lost after {}", gone.len()),
        }
    }
    let more = timeout(Duration::from_millis(100), told.recv()).await;
    ensure!(
        more.is_err() && gone.len() == number,
        "{} told, and {more:?}",
        gone.len()
    );
    Ok(gone)
}
