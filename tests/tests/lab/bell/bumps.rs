//! The bell: every change that counts rings it within a second, and nothing else does.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use uplink_userspace::fast::watch::{Bump, Cause, watch};

use super::{host, inside};

/// Longer than between two rings.
const QUIET: Duration = Duration::from_millis(150);
const SECOND: Duration = Duration::from_secs(1);

/// What a command rings for.
enum Rings {
    Never,
    /// For all flows.
    All(Cause),
    /// For those to the neighbour with this last byte of its MAC address alone.
    Lost(u8),
}
use Rings::{All, Lost, Never};

/// Commands, and what they ring for.
const CHANGES: &[(&str, Rings)] = &[
    (
        "ip neigh change 10.0.0.9 lladdr 02:00:00:00:00:19 nud reachable dev eth0",
        Lost(0x09),
    ),
    ("nft add table ip t", All(Cause::Firewall)),
    (
        "nft add chain ip t c { type filter hook forward priority 0 ; }",
        All(Cause::Firewall),
    ),
    ("nft add set ip t s { type ipv4_addr ; }", All(Cause::Firewall)),
    ("nft add rule ip t c ip saddr @s drop", All(Cause::Firewall)),
    ("nft add element ip t s { 10.0.0.9 }", All(Cause::Firewall)),
    ("nft delete element ip t s { 10.0.0.9 }", All(Cause::Firewall)),
    ("nft list ruleset", Never),
    ("nft delete table ip t", All(Cause::Firewall)),
    (
        "ip route add 192.0.2.0/24 via 10.0.0.9 table 77",
        All(Cause::Route),
    ),
    ("ip route del 192.0.2.0/24 table 77", All(Cause::Route)),
    ("ip -6 route add 2001:db8::/32 via fd00::9", All(Cause::Route)),
    ("ip rule add fwmark 7 lookup 77", All(Cause::Rule)),
    ("ip -6 rule add fwmark 7 lookup 77", All(Cause::Rule)),
    ("ip nexthop add id 5 via 10.0.0.9 dev eth0", All(Cause::NextHop)),
    ("ip addr add 10.0.1.1/24 dev eth0", All(Cause::Address)),
    ("ip addr del 10.0.1.1/24 dev eth0", All(Cause::Address)),
    ("ip link set eth0 mtu 1400", All(Cause::Link)),
    ("ip link set eth0 txqueuelen 77", Never),
    ("ip link add br0 type bridge", All(Cause::Link)),
    ("ip link set eth1 master br0", All(Cause::Link)),
    ("ip link set eth1 down", All(Cause::Link)),
    ("ip link set eth1 up", All(Cause::Link)),
    (
        "ip neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 nud reachable dev eth0",
        Never,
    ),
    (
        "ip neigh change 10.0.0.8 lladdr 02:00:00:00:00:08 nud stale dev eth0",
        Never,
    ),
    (
        "ip neigh change 10.0.0.8 lladdr 02:00:00:00:00:08 nud delay dev eth0",
        Never,
    ),
    (
        "ip neigh change 10.0.0.8 lladdr 02:00:00:00:00:18 nud reachable dev eth0",
        Lost(0x08),
    ),
    ("ip neigh del 10.0.0.8 dev eth0", Lost(0x18)),
    (
        "tc qdisc add dev eth0 root tbf rate 1mbit burst 10kb latency 50ms",
        All(Cause::Queue),
    ),
    ("tc qdisc add dev eth0 clsact", All(Cause::Queue)),
    (
        "tc filter add dev eth0 ingress protocol ip u32 match u32 0 0 classid 1:1",
        All(Cause::Queue),
    ),
    ("tc filter del dev eth0 ingress", All(Cause::Queue)),
    (
        "ip xfrm policy add src 10.8.0.0/24 dst 10.9.0.0/24 dir fwd",
        All(Cause::Ipsec),
    ),
    ("ip xfrm policy flush", All(Cause::Ipsec)),
    (
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
        All(Cause::Forwarding),
    ),
    (
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
        All(Cause::Forwarding),
    ),
];

pub fn changes() -> Result<()> {
    let ns = host()?;
    inside(&ns, || async {
        let mut bell = watch().await?;
        let first = timeout(SECOND, bell.recv()).await?.context("the bell broke")?;
        ensure!(first.of_rules(), "the first ring says {first:?}");
        calm(&mut bell).await?;
        let mut slowest = Duration::ZERO;
        for (command, expected) in CHANGES {
            ns.run(command)?;
            match expected {
                All(cause) => slowest = slowest.max(heard(&mut bell, *cause).await.context(*command)?),
                Lost(last) => slowest = slowest.max(lost(&mut bell, *last).await.context(*command)?),
                Never => silent(&mut bell).await.context(*command)?,
            }
            calm(&mut bell).await?;
        }
        println!(
            "    {} changes, the slowest told after {slowest:?}",
            CHANGES.len()
        );
        Ok(())
    })
}

/// What comes in one burst rings seldom, and for the last of it, too.
pub fn burst() -> Result<()> {
    let ns = host()?;
    inside(&ns, || async {
        let mut bell = watch().await?;
        calm(&mut bell).await?;
        let begun = Instant::now();
        let loading = tokio::task::spawn_blocking({
            let ns = ns.try_clone()?;
            move || ns.ip(&routes(20_000))
        });
        let mut rings = 0;
        while !loading.is_finished() {
            rings += u32::from(timeout(QUIET, bell.recv()).await.is_ok());
        }
        loading.await??;
        let took = begun.elapsed();
        ns.run("ip link set eth0 mtu 1400")?;
        let told = heard(&mut bell, Cause::Link).await?;
        println!("    20,000 routes in {took:?}: {rings} rings, the last change told after {told:?}");
        let most = took.as_millis() / 50 + 3;
        ensure!(
            rings > 0 && u128::from(rings) <= most,
            "{rings} rings in {took:?}"
        );
        Ok(())
    })
}

/// Nobody reads while more happens than the socket holds: that rings, and moved neighbours are still told.
pub fn overrun() -> Result<()> {
    let ns = host()?;
    inside(&ns, || async {
        let mut bell = watch().await?;
        calm(&mut bell).await?;
        // The runtime has one thread, and this blocks it.
        ns.ip(&routes(60_000))?;
        ns.run("ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 nud reachable dev eth0")?;
        heard(&mut bell, Cause::Lost).await?;
        calm(&mut bell).await?;
        ns.run("ip neigh change 10.0.0.7 lladdr 02:00:00:00:00:17 nud reachable dev eth0")?;
        lost(&mut bell, 0x07).await.map(drop)
    })
}

fn routes(number: u32) -> String {
    (0..number).fold(String::new(), |mut all, n| {
        let _ = writeln!(
            all,
            "route add 20.{}.{}.{}/32 dev eth0 table 77",
            n >> 16,
            n >> 8 & 255,
            n & 255
        );
        all
    })
}

/// Waits for a cause; others may ring with it.
async fn heard(bell: &mut Receiver<Bump>, cause: Cause) -> Result<Duration> {
    let begun = Instant::now();
    let mut others = Vec::new();
    while begun.elapsed() < SECOND {
        let Ok(bump) = timeout(SECOND, bell.recv()).await else {
            break;
        };
        let bump = bump.context("the bell broke")?;
        if bump.causes.contains(&cause) {
            return Ok(begun.elapsed());
        }
        others.push(bump);
    }
    anyhow::bail!("no {cause:?} within a second, but {others:?}")
}

/// Waits for the first ring, which is for flows to one neighbour and no others.
async fn lost(bell: &mut Receiver<Bump>, last: u8) -> Result<Duration> {
    let begun = Instant::now();
    let bump = timeout(SECOND, bell.recv())
        .await
        .context("no ring within a second")?;
    let bump = bump.context("the bell broke")?;
    let macs: Vec<u8> = bump.lost.iter().map(|lost| lost.mac[5]).collect();
    ensure!(macs == [last] && bump.causes.is_empty(), "rang: {bump:?}");
    Ok(begun.elapsed())
}

async fn silent(bell: &mut Receiver<Bump>) -> Result<()> {
    match next(bell).await? {
        Some(bump) => anyhow::bail!("rang: {bump:?}"),
        None => Ok(()),
    }
}

/// What it rings for, unless it is quiet. A silence that is noticed late is none: the bell had no processor either.
async fn next(bell: &mut Receiver<Bump>) -> Result<Option<Bump>> {
    loop {
        let begun = Instant::now();
        match timeout(QUIET, bell.recv()).await {
            Ok(bump) => return bump.context("the bell broke").map(Some),
            Err(_) if begun.elapsed() < QUIET + QUIET / 5 => return Ok(None),
            Err(_) => {}
        }
    }
}

/// Until what was done before has been told.
async fn calm(bell: &mut Receiver<Bump>) -> Result<()> {
    let begun = Instant::now();
    while next(bell).await?.is_some() {
        ensure!(begun.elapsed() < 5 * SECOND, "it does not stop ringing");
    }
    Ok(())
}
