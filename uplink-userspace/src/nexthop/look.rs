//! Looks what the kernel does with forwarded packets. Reads only.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use uplink_common::Family;

use super::{Found, Obstacle, chains, legacy, xfrm};
use crate::loader::{self, Attached, Port};
use crate::{nat, sysctl};

/// What stands in the way of packets that come in at `ports`, where `ours` is not in the way.
pub async fn look(ours: &Attached, ports: &[Port]) -> Found {
    let obstacles = obstacles(ours, ports).await;
    Found {
        obstacles: obstacles.map_err(|e| format!("{e:#}")),
        forwards: forwards(ports),
    }
}

async fn obstacles(ours: &Attached, ports: &[Port]) -> Result<Vec<Obstacle>> {
    let listing = nat::chains().await.context("asking nft for chains")?;
    let mut found = chains(&listing).map_err(anyhow::Error::msg)?;
    found.extend(tables()?);
    if xfrm::policies()? > 0 {
        found.push(everybody("IPsec policies".into()));
    }
    for port in ports.iter().filter(|p| p.steers) {
        let behind = loader::behind(ours, port).await?;
        found.extend(behind.into_iter().map(everybody));
    }
    Ok(found)
}

/// What sees the packets of both families.
pub(crate) const fn everybody(what: String) -> Obstacle {
    Obstacle {
        what,
        sees: [true; 2],
    }
}

/// Tables of the old iptables.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn tables() -> Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    for (family, path) in [
        (Family::V4, "/proc/net/ip_tables_names"),
        (Family::V6, "/proc/net/ip6_tables_names"),
    ] {
        match fs::read_to_string(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => found.extend(legacy(family, &other.with_context(|| path.to_owned())?)),
        }
    }
    Ok(found)
}

/// By family, whether the kernel forwards what comes in at `ports`. IPv4 minds the interface, IPv6 all of them.
pub fn forwards(ports: &[Port]) -> [bool; 2] {
    let is_on = |path: &str| sysctl::read(path).is_some_and(|v| v != "0");
    let mut steering = ports.iter().filter(|p| p.steers);
    [
        steering.all(|p| is_on(&format!("net/ipv4/conf/{}/forwarding", p.name))),
        is_on("net/ipv6/conf/all/forwarding"),
    ]
}
