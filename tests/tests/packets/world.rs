//! What is around the programs under test: a router's network, and the uplinks on it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use uplink_common::Station;
use uplink_common::mark::Mask;
use uplink_userspace::resolve::{self, Leg};

use crate::bench::MASK;

const NAMES: [&str; 2] = ["isp1", "isp2"];

/// Key of the map `stations`.
pub fn station(ifindex: u32, mac: [u8; 6]) -> Station {
    Station {
        ifindex,
        mac,
        pad: [0; 2],
    }
}

/// One of the article's two.
pub fn uplink(id: u8, weight: u32, ifindex: u32) -> resolve::Uplink {
    let leg = |gateway: &str, source: &str, prefix: &str| Leg {
        gateway: gateway.parse().expect("an address"),
        source: source.parse().expect("an address"),
        prefix: prefix.parse().expect("a prefix"),
    };
    let v4 = match id {
        1 => leg("192.168.1.1", "192.168.1.100", "192.168.1.0/24"),
        _ => leg("10.0.0.1", "10.0.0.100", "10.0.0.0/24"),
    };
    let v6 = leg(
        &format!("fd00:{id}::1"),
        &format!("fd00:{id}::100"),
        &format!("fd00:{id}::/64"),
    );
    resolve::Uplink {
        id,
        name: NAMES[usize::from(id) - 1].into(),
        interface: "eth0".into(),
        ifindex,
        v4: Some(v4),
        v6: Some(v6),
        weight,
        tier: 1,
        mtu: None,
        table: 20_000 + u32::from(id),
        mark: u32::from(id) << 24,
        host_mark: Mask::new(MASK).expect("a valid mask").of_host(id, 2),
        translation: None,
    }
}

/// A router as the article has it, without anybody else.
pub fn network() -> Result<()> {
    const COMMANDS: &str = "link set lo up
link add eth0 address 02:00:00:00:00:01 type veth peer name peer
link set peer up
link set eth0 up
address add 192.168.1.100/24 dev eth0
address add 10.0.0.100/24 dev eth0
address add 172.16.0.1/24 dev eth0
address add 172.16.9.1/32 dev lo
address add fd00:1::100/64 dev eth0 nodad
address add fd00:2::100/64 dev eth0 nodad
address add fd00:10::1/64 dev eth0 nodad
route add default via 192.168.1.1
route add 198.18.0.0/24 via 172.16.0.9
route add unreachable 198.19.0.0/24
route add default via fd00:1::1
route add default via 192.168.1.1 src 192.168.1.100 table 20001
route add default via 10.0.0.1 src 10.0.0.100 table 20002
route add default via fd00:1::1 src fd00:1::100 table 20001
route add default via fd00:2::1 src fd00:2::100 table 20002
-4 rule add fwmark 0x7e000000/0x7f000000 lookup 20001
-4 rule add fwmark 0x7d000000/0x7f000000 lookup 20002
-6 rule add fwmark 0x7e000000/0x7f000000 lookup 20001
-6 rule add fwmark 0x7d000000/0x7f000000 lookup 20002";
    for line in COMMANDS.lines() {
        let status = Command::new("ip")
            .args(line.split_whitespace())
            .status()
            .context("running ip")?;
        ensure!(status.success(), "ip {line}");
    }
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/{path}"), "1").with_context(|| path.to_owned())?;
    }
    Ok(())
}
