//! What stands in the way, as the kernel has it.

use anyhow::{Context, Result, ensure};
use uplink_lab::Namespace;
use uplink_userspace::fast::look::Looker;
use uplink_userspace::loader::{Attached, Hook, Port};

use super::{host, inside};

/// None of ours is at an interface.
const NOTHING: Attached = Attached {
    hook: Hook::Tcx,
    programs: Vec::new(),
};

/// What makes an obstacle, what it is called, and what takes it away.
const OBSTACLES: &[(&str, &str, &str)] = &[
    (
        "tc qdisc add dev eth0 root tbf rate 1mbit burst 10kb latency 50ms",
        "qdisc tbf at eth0",
        "tc qdisc del dev eth0 root",
    ),
    (
        "ip link set eth0 master br0",
        "eth0 is a port of br0",
        "ip link set eth0 nomaster",
    ),
    (
        "tc filter add dev eth0 ingress pref 9 protocol ip u32 match u32 0 0 classid 1:1",
        "the tc filter with preference 9 (ingress) at eth0",
        "tc filter del dev eth0 ingress",
    ),
    (
        "tc filter add dev eth0 egress pref 3 protocol ip u32 match u32 0 0 classid 1:1",
        "the tc filter with preference 3 (egress) at eth0",
        "tc filter del dev eth0 egress",
    ),
    (
        "ip xfrm policy add src 10.8.0.0/24 dst 10.9.0.0/24 dir fwd",
        "IPsec policies",
        "ip xfrm policy flush",
    ),
    (
        "sysctl -qw net.netfilter.nf_conntrack_events=0",
        "conntrack tells nobody what it destroys (net.netfilter.nf_conntrack_events = 0)",
        "sysctl -qw net.netfilter.nf_conntrack_events=2",
    ),
    (
        "nft add rule ip t c limit rate 5/second accept",
        "a rate limit in chain c of table ip t",
        "nft flush chain ip t c",
    ),
];

pub fn obstacles() -> Result<()> {
    let ns = host()?;
    ns.ip("link add br0 type bridge
        link add mac0 link eth1 type macvlan\n")?;
    ns.nft("table ip t { chain c { type filter hook forward priority 0; tcp dport 22 counter accept; }; }")?;
    ns.run("tc qdisc add dev eth0 clsact")?;
    let (eth0, above) = (port(&ns, "eth0")?, port(&ns, "mac0")?);
    inside(&ns, || async {
        let mut looker = Looker::default();
        let free = looker.look(&NOTHING, std::slice::from_ref(&eth0)).await;
        ensure!(free.obstacles == Ok(Vec::new()), "{:?}", free.obstacles);
        let missed = ["counters of table ip t (1) miss the packets of fast flows"];
        ensure!(free.warnings == missed, "{:?}", free.warnings);
        ensure!(free.look_again_s == 30, "every {} s", free.look_again_s);
        for (make, what, undo) in OBSTACLES {
            ns.run(make)?;
            expect(&mut looker, &eth0, &[what]).await.context(*make)?;
            ns.run(undo)?;
            expect(&mut looker, &eth0, &[]).await.context(*undo)?;
        }
        expect(
            &mut looker,
            &above,
            &["mac0 is a macvlan, which has no XDP of its own"],
        )
        .await?;
        ns.run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=8")?;
        let soon = looker.look(&NOTHING, std::slice::from_ref(&eth0)).await;
        ensure!(soon.look_again_s == 2, "every {} s", soon.look_again_s);
        Ok(())
    })
}

async fn expect(looker: &mut Looker, port: &Port, expected: &[&str]) -> Result<()> {
    looker.rules_changed();
    let found = looker.look(&NOTHING, std::slice::from_ref(port)).await;
    let found = found.obstacles.map_err(anyhow::Error::msg)?;
    let found: Vec<&str> = found.iter().map(|o| o.what.as_str()).collect();
    ensure!(found == expected, "found {found:?}");
    Ok(())
}

pub(super) fn port(ns: &Namespace, name: &str) -> Result<Port> {
    let link = ns.run(&format!("ip -j link show {name}"))?;
    let link: serde_json::Value = serde_json::from_str(&link)?;
    let ifindex = link[0]["ifindex"].as_u64().context("no index")?;
    Ok(Port {
        name: name.to_owned(),
        ifindex: u32::try_from(ifindex)?,
        steers: true,
    })
}
