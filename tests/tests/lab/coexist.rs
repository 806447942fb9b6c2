//! Other people's rules beside ours: those of VPNs keep what is theirs, those of containers and firewalls are
//! served. docs/coexistence.md tells what was tried with the programs themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use uplink_lab::echo::PORT;
use uplink_lab::traffic::{
    How, Tally, ask_tcp, ask_udp, fresh_addresses, host_tcp, host_udp, tcp_connects, udp_flows,
};
use uplink_lab::{Cgroup, Config, Daemon, Echo, Family, Isp, Lab, Namespace, Shape};

use crate::support::{daemon, expect_share, lab};

const WG_MARK: u32 = 0xca6c;
const TAILSCALE_MARK: u32 = 0x8_0000;

/// The other end of a tunnel that leads to the whole Internet, as `dev` of the router. A veth stands for the tunnel's
/// device; the rules are what matters.
fn tunnel(lab: &Lab, dev: &str) -> Result<(Namespace, Echo)> {
    let far = Namespace::new("tunnel")?;
    far.sysctl("ipv6/conf/default/accept_dad", "0")?;
    far.sysctl("ipv6/ip_nonlocal_bind", "1")?;
    far.sysctl("ipv4/conf/all/rp_filter", "0")?;
    let path = far.path();
    lab.router.ip(&format!(
        "link add {dev} type veth peer name eth0 netns {path}\nlink set {dev} up\n\
         addr add 10.66.0.2/24 dev {dev}\naddr add fd66::2/64 dev {dev} nodad\n"
    ))?;
    far.ip(
        "link set eth0 up\naddr add 10.66.0.1/24 dev eth0\naddr add fd66::1/64 dev eth0 nodad\n\
         route add default via 10.66.0.2\nroute add default via fd66::2\nroute add local 203.0.113.0/24 dev lo\n\
         route add local 198.18.0.0/16 dev lo\nroute add local 100.64.0.0/10 dev lo\n\
         route add local 2001:db8::/32 dev lo\n",
    )?;
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let echo = Echo::serve(&far, &any.map(|ip| SocketAddr::new(ip, PORT)))?;
    Ok((far, echo))
}

/// What `wg-quick` does for AllowedIPs 0.0.0.0/0 and ::/0; only the gateway of a route is ours, since a veth asks for
/// MAC addresses.
fn wg_quick(lab: &Lab) -> Result<()> {
    for (family, gateway) in [("-4", "10.66.0.1"), ("-6", "fd66::1")] {
        for line in [
            format!("route add default via {gateway} dev wg0 table 51820"),
            "rule add not fwmark 51820 table 51820".into(),
            "rule add table main suppress_prefixlength 0".into(),
        ] {
            lab.router.run(&format!("ip {family} {line}"))?;
        }
    }
    for (family, own) in [("ip", "10.66.0.2"), ("ip6", "fd66::2")] {
        lab.router.nft(&format!(
            "table {family} wg-quick-wg0 {{\n\
             chain preraw {{ type filter hook prerouting priority -300;\n\
               iifname != \"wg0\" {family} daddr {own} fib saddr type != local drop\n }}\n\
             chain premangle {{ type filter hook prerouting priority -150;\n\
               meta l4proto udp meta mark set ct mark\n }}\n\
             chain postmangle {{ type filter hook postrouting priority -150;\n\
               meta l4proto udp mark 51820 ct mark set mark\n }}\n}}\n"
        ))?;
    }
    lab.router.sysctl("ipv4/conf/all/src_valid_mark", "1")
}

/// A full tunnel keeps everything but its own packets, whether it comes before uplink or after.
pub fn wg_full_tunnel() -> Result<()> {
    for tunnel_first in [true, false] {
        let cgroup = Cgroup::join()?;
        let (lab, _echo) = lab(Shape::OneNic)?;
        let _far = tunnel(&lab, "wg0")?;
        if tunnel_first {
            wg_quick(&lab)?;
        }
        let config = Config {
            local: Some(cgroup.path().to_owned()),
            ..Config::default()
        };
        let daemon = Daemon::start(&lab, &config)?;
        daemon.await_up()?;
        if !tunnel_first {
            wg_quick(&lab)?;
            crate::support::pause(0.5);
        }
        println!(
            "    the tunnel comes before uplink: {tunnel_first}; {}",
            lab.router.run("ip rule")?
        );
        for family in Family::ALL {
            all_in_the_tunnel(&lab, family)?;
            outside(&lab, family, WG_MARK)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

fn all_in_the_tunnel(lab: &Lab, family: Family) -> Result<()> {
    inside("forwarded UDP", &udp_flows(lab, 300, family)?)?;
    inside("forwarded TCP", &tcp_connects(lab, 100, family)?)?;
    inside("UDP of the router", &host_udp(lab, 100, family, How::Free)?)?;
    inside("TCP of the router", &host_tcp(lab, 100, family, How::Free)?)
}

/// The tunnel's own packets go where `main` says, with the right address.
fn outside(lab: &Lab, family: Family, mark: u32) -> Result<()> {
    let tally = host_udp(lab, 100, family, How::Marked(mark))?;
    println!("    the tunnel's own packets, {family:?}: {tally:?}");
    ensure!(tally.clean() == 100, "the tunnel's own packets: {tally:?}");
    Ok(())
}

/// The far end of the tunnel saw them, with addresses of no ISP.
fn inside(what: &str, tally: &Tally) -> Result<()> {
    println!("    {what}: {tally:?}");
    ensure!(
        tally.elsewhere == tally.total(),
        "{what} left the tunnel: {tally:?}"
    );
    Ok(())
}

/// Tailscale's rules: what is in its table is its own, an exit node takes all, the rest is balanced.
pub fn tailscale() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _far = tunnel(&lab, "tailscale0")?;
    let daemon = daemon(&lab, "")?;
    for family in ["-4", "-6"] {
        for rule in [
            "pref 5210 fwmark 0x80000/0xff0000 table main",
            "pref 5230 fwmark 0x80000/0xff0000 table default",
            "pref 5250 fwmark 0x80000/0xff0000 type unreachable",
            "pref 5270 table 52",
        ] {
            lab.router.run(&format!("ip {family} rule add {rule}"))?;
        }
    }
    lab.router
        .run("ip route add 100.64.0.0/10 via 10.66.0.1 dev tailscale0 table 52")?;
    crate::support::pause(0.5);
    expect_share("beside tailscale", &udp_flows(&lab, 3_000, Family::V4)?, 75.0)?;
    expect_share("beside tailscale", &udp_flows(&lab, 3_000, Family::V6)?, 75.0)?;
    let peers: Vec<IpAddr> = (0..100).map(|n| Ipv4Addr::new(100, 64, 0, n).into()).collect();
    inside("to peers", &uplink_lab::traffic::flows_to(&lab.client, &peers)?)?;
    // As with --exit-node-allow-lan-access.
    lab.router.run("ip route add throw 172.16.0.0/24 table 52")?;
    lab.router.run("ip -6 route add throw fd00:10::/64 table 52")?;
    lab.router
        .run("ip route add default via 10.66.0.1 dev tailscale0 table 52")?;
    lab.router
        .run("ip -6 route add default via fd66::1 dev tailscale0 table 52")?;
    crate::support::pause(0.5);
    for family in Family::ALL {
        inside("by the exit node", &udp_flows(&lab, 300, family)?)?;
        outside(&lab, family, TAILSCALE_MARK)?;
    }
    daemon.stop()
}

/// The rules of Docker's bridge network with a published port, by both kinds of iptables.
pub fn docker() -> Result<()> {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let (lab, _echo) = lab(Shape::OneNic)?;
        let (container, _server) = container(&lab, iptables)?;
        lab.bcp38()?;
        let config = Config {
            lans: vec!["docker0".into()],
            ..Config::default()
        };
        let daemon = Daemon::start(&lab, &config)?;
        daemon.await_up()?;
        let to = fresh_addresses(Family::V4, 1_500);
        let tally = uplink_lab::traffic::flows_to(&container, &to)?;
        expect_share(&format!("{iptables}: a container"), &tally, 75.0)?;
        for isp in Isp::ALL {
            published(&lab, isp)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

fn published(lab: &Lab, isp: Isp) -> Result<()> {
    let before = lab.carried()?[isp.index()].own;
    let to = SocketAddr::new(isp.source(Family::V4), 8080);
    for tally in [ask_udp(lab, to, 100)?, ask_tcp(lab, to, 50)?] {
        println!("    published at {to}: {tally:?}");
        ensure!(tally.elsewhere == tally.total(), "published at {to}: {tally:?}");
    }
    let carried = lab.carried()?[isp.index()].own - before;
    ensure!(carried > 150, "{isp:?} carried {carried} answers only");
    Ok(())
}

fn container(lab: &Lab, iptables: &str) -> Result<(Namespace, Echo)> {
    let container = Namespace::new("container")?;
    let path = container.path();
    lab.router.ip(&format!(
        "link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up\n\
         link add veth0 type veth peer name eth0 netns {path}\nlink set veth0 master docker0\nlink set veth0 up\n"
    ))?;
    container.ip("link set eth0 up\naddr add 172.17.0.2/16 dev eth0\nroute add default via 172.17.0.1\n")?;
    for rule in DOCKER.lines().map(str::trim).filter(|l| !l.is_empty()) {
        lab.router.run(&format!("{iptables} {rule}"))?;
    }
    let server = Echo::serve(&container, &["172.17.0.2:80".parse()?])?;
    Ok((container, server))
}

/// What `docker run -p 8080:80 -p 8080:80/udp` leaves, in the order of its making.
const DOCKER: &str = "
    -P FORWARD DROP
    -N DOCKER
    -N DOCKER-USER
    -N DOCKER-ISOLATION-STAGE-1
    -N DOCKER-ISOLATION-STAGE-2
    -A FORWARD -j DOCKER-USER
    -A FORWARD -j DOCKER-ISOLATION-STAGE-1
    -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A FORWARD -o docker0 -j DOCKER
    -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
    -A FORWARD -i docker0 -o docker0 -j ACCEPT
    -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    -A DOCKER-ISOLATION-STAGE-2 -j RETURN
    -A DOCKER-USER -j RETURN
    -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
    -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp --dport 80 -j ACCEPT
    -t nat -N DOCKER
    -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
    -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    -t nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp --dport 80 -j MASQUERADE
    -t nat -A DOCKER -i docker0 -j RETURN
    -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    -t nat -A DOCKER ! -i docker0 -p udp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
";

/// ufw with its defaults: uplink's probes pass, forwarding is refused until it is allowed, and then balanced.
pub fn ufw() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    // Its settings are this host's; a copy of them is changed.
    shell("cp -a /etc/ufw /run/lab/ufw && mount --bind /run/lab/ufw /etc/ufw")?;
    let daemon = daemon(&lab, "")?;
    lab.router.run("ufw --force enable")?;
    let refused = udp_flows(&lab, 20, Family::V4)?;
    ensure!(
        refused.lost == 20,
        "ufw forwards without being told to: {refused:?}"
    );
    crate::support::pause(3.0);
    daemon.await_up()?;
    lab.router.run("ufw route allow in on eth0 out on eth0")?;
    for family in Family::ALL {
        expect_share("behind ufw", &udp_flows(&lab, 3_000, family)?, 75.0)?;
    }
    lab.router.run("ufw --force disable")?;
    expect_share("after ufw", &udp_flows(&lab, 1_500, Family::V4)?, 75.0)?;
    daemon.stop()
}

fn shell(line: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", line]).output().context("sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {said}");
    Ok(())
}
