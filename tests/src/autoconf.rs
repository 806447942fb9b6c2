//! Addresses and routes by DHCP and router advertisements, as an ISP's modem gives them.

use std::process::Child;

use anyhow::{Context, Result};

use crate::isolate::LAB_DIR;
use crate::topology::{Isp, Lab};

/// What an ISP tells the router.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The router's IPv4 address.
    pub address: &'static str,
    /// The gateway's IPv4 address, which the ISP has from then on.
    pub gateway: &'static str,
    /// The IPv6 prefix of the link, of 64 bits, without its length: `fd00:1::`.
    pub prefix: &'static str,
}

impl Offer {
    /// Two offers of each ISP that differ in everything. The servers know the ISP by both.
    #[must_use]
    pub const fn of(isp: Isp, second: bool) -> Self {
        match (isp, second) {
            (Isp::One, false) => Self {
                address: "192.168.1.100",
                gateway: "192.168.1.1",
                prefix: "fd00:1::",
            },
            (Isp::One, true) => Self {
                address: "192.168.1.77",
                gateway: "192.168.1.254",
                prefix: "2001:db8:a::",
            },
            (Isp::Two, false) => Self {
                address: "10.0.0.100",
                gateway: "10.0.0.1",
                prefix: "fd00:2::",
            },
            (Isp::Two, true) => Self {
                address: "10.0.0.77",
                gateway: "10.0.0.254",
                prefix: "2001:db8:b::",
            },
        }
    }
}

/// An ISP's server for DHCPv4 and its router advertisements (dnsmasq), until dropped.
#[derive(Debug)]
pub struct Autoconf {
    server: Child,
}

impl Autoconf {
    /// The ISP takes the addresses of the offer, and no others toward the router, and makes it.
    ///
    /// # Errors
    /// When ip fails, or dnsmasq does not start.
    pub fn start(lab: &Lab, isp: Isp, offer: &Offer) -> Result<Self> {
        let Offer { gateway, prefix, .. } = offer;
        lab.isp(isp).run("ip addr flush dev eth0 scope global")?;
        lab.isp(isp).ip(&format!(
            "addr add {gateway}/24 dev eth0\naddr add {prefix}1/64 dev eth0 nodad\n"
        ))?;
        let [.., transit] = isp.addresses();
        lab.internet
            .ip(&format!("route replace {prefix}/64 via {transit}\n"))?;
        let server = dnsmasq(lab, isp, offer)?;
        Ok(Self { server })
    }
}

impl Drop for Autoconf {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn dnsmasq(lab: &Lab, isp: Isp, offer: &Offer) -> Result<Child> {
    let Offer { address, gateway, .. } = offer;
    let leases = format!("--dhcp-leasefile={LAB_DIR}/leases-{}", isp.name());
    let range = format!("--dhcp-range={address},{address},2m");
    let router = format!("--dhcp-option=option:router,{gateway}");
    let mut command = lab.isp(isp).command("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="])
        .args(["--user=root", "--port=0", "--no-ping", "--dhcp-authoritative"])
        .args(["--log-facility=-", "--interface=eth0", "--enable-ra"])
        .args([
            "--ra-param=eth0,4,60",
            "--dhcp-range=::,constructor:eth0,ra-only,64,2m",
        ])
        .args([leases, range, router]);
    let log = std::fs::File::create(format!("{LAB_DIR}/dnsmasq-{}.log", isp.name()))?;
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().context("dnsmasq (package dnsmasq-base)")
}

/// What udhcpc runs: sets what it was given, as a distribution's script does.
const SCRIPT: &str = "#!/bin/sh\n\
    case $1 in\n\
    deconfig) ip -4 addr flush dev $interface;;\n\
    bound|renew)\n\
      ip -4 addr flush dev $interface\n\
      ip addr add $ip/$mask dev $interface\n\
      ip route replace default via $router dev $interface proto dhcp metric $IF_METRIC;;\n\
    esac\n";

impl Lab {
    /// The router has neither addresses nor routes by this ISP, and listens to its router
    /// advertisements from now on.
    ///
    /// # Errors
    /// When ip fails.
    pub fn forget(&self, isp: Isp) -> Result<()> {
        let device = isp.interface(self.shape);
        let ((v4, v6), (gateway4, gateway6)) = (isp.sources(), isp.gateways());
        for (address, length) in [(v4, 24), (v6, 64)] {
            self.router
                .run(&format!("ip addr del {address}/{length} dev {device}"))?;
        }
        for gateway in [gateway4, gateway6] {
            // The default route of only one ISP is there.
            let _ = self.router.run(&format!("ip route del default via {gateway}"));
        }
        // 2: although it forwards.
        self.router.sysctl(&format!("ipv6/conf/{device}/accept_ra"), "2")
    }

    /// The router asks for an address by DHCP, once, and takes what it gets. With every ISP its
    /// own metric, both default routes stand.
    ///
    /// # Errors
    /// When nobody answers within some seconds.
    pub fn lease(&self, isp: Isp) -> Result<()> {
        let (script, device) = (format!("{LAB_DIR}/lease.sh"), isp.interface(self.shape));
        std::fs::write(&script, SCRIPT)?;
        self.router.run(&format!("chmod +x {script}"))?;
        let metric = 100 + isp.index();
        self.router
            .run(&format!(
                "env IF_METRIC={metric} busybox udhcpc -n -q -f -t 5 -T 1 -i {device} -s {script}"
            ))
            .map(drop)
    }
}
