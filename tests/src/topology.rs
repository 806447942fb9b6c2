//! The networks of the lab: router, two ISPs, an Internet, a client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::ns::Namespace;

/// How the router is wired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Both ISPs and the clients behind the router's only NIC, `eth0`.
    OneNic,
    /// `wan1`, `wan2` and `lan0`.
    NicEach,
}

/// One of the two ISPs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Isp {
    /// 192.168.1.0/24 and fd00:1::/64.
    One,
    /// 10.0.0.0/24 and fd00:2::/64.
    Two,
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl Isp {
    /// Both.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of its uplink in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["isp1", "isp2"][self as usize]
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }

    /// The ISP that a packet came by, known from the source address which the server sees.
    #[must_use]
    pub fn of(source: IpAddr) -> Option<Self> {
        match source {
            IpAddr::V4(a) if a.octets()[..3] == [192, 168, 1] => Some(Self::One),
            IpAddr::V4(a) if a.octets()[..3] == [10, 0, 0] => Some(Self::Two),
            IpAddr::V6(a) if a.segments()[..4] == [0xfd00, 1, 0, 0] => Some(Self::One),
            IpAddr::V6(a) if a.segments()[..4] == [0xfd00, 2, 0, 0] => Some(Self::Two),
            IpAddr::V6(a) => Self::of_prefix(a),
            IpAddr::V4(_) => None,
        }
    }

    /// The router's interface toward it.
    #[must_use]
    pub const fn interface(self, shape: Shape) -> &'static str {
        match shape {
            Shape::OneNic => "eth0",
            Shape::NicEach => ["wan1", "wan2"][self as usize],
        }
    }

    /// Its gateway addresses.
    #[must_use]
    pub const fn gateways(self) -> (&'static str, &'static str) {
        [("192.168.1.1", "fd00:1::1"), ("10.0.0.1", "fd00:2::1")][self as usize]
    }

    /// The router's addresses in its networks.
    #[must_use]
    pub const fn sources(self) -> (&'static str, &'static str) {
        [("192.168.1.100", "fd00:1::100"), ("10.0.0.100", "fd00:2::100")][self as usize]
    }

    /// The router's address in its network.
    #[must_use]
    pub fn source(self, family: Family) -> IpAddr {
        let net = self as u8 + 1;
        match (family, self) {
            (Family::V4, Self::One) => Ipv4Addr::new(192, 168, 1, 100).into(),
            (Family::V4, Self::Two) => Ipv4Addr::new(10, 0, 0, 100).into(),
            (Family::V6, _) => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, 0x100).into(),
        }
    }

    /// Its customers' networks.
    #[must_use]
    pub const fn networks(self) -> (&'static str, &'static str) {
        [("192.168.1.0/24", "fd00:1::/64"), ("10.0.0.0/24", "fd00:2::/64")][self as usize]
    }

    /// Its own addresses toward the Internet, and the Internet's toward it.
    pub(crate) const fn transit(self) -> [&'static str; 4] {
        [
            ["198.51.100.2", "198.51.100.1", "fd00:ff:1::2", "fd00:ff:1::1"],
            ["198.51.100.6", "198.51.100.5", "fd00:ff:2::2", "fd00:ff:2::1"],
        ][self as usize]
    }

    /// Every address that is its own.
    #[must_use]
    pub const fn addresses(self) -> [&'static str; 4] {
        let [v4, _, v6, _] = self.transit();
        [self.gateways().0, v4, self.gateways().1, v6]
    }
}

/// How many addresses the client has per family.
pub const CLIENTS: u8 = 8;

/// The client's address number `n`.
#[must_use]
pub fn client(family: Family, n: u8) -> IpAddr {
    let host = 2 + n % CLIENTS;
    match family {
        Family::V4 => Ipv4Addr::new(172, 16, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// The servers' addresses.
#[must_use]
pub fn servers(family: Family) -> [IpAddr; 2] {
    match family {
        Family::V4 => [[203, 0, 113, 10].into(), [203, 0, 113, 11].into()],
        Family::V6 => [0x10, 0x11].map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into()),
    }
}

/// One of 65,536 further addresses of the Internet, where the servers listen, too.
#[must_use]
pub fn elsewhere(family: Family, n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, high, low).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, n).into(),
    }
}

/// The lab. Dropping it takes every namespace away.
#[derive(Debug)]
pub struct Lab {
    /// How the router is wired.
    pub shape: Shape,
    /// Where the daemon runs.
    pub router: Namespace,
    /// LAN clients.
    pub client: Namespace,
    /// The servers.
    pub internet: Namespace,
    isps: [Namespace; 2],
    /// Where the bridge of the only wire is.
    pub(crate) segment: Namespace,
}

impl Lab {
    /// Builds it. Call [`crate::isolate`] first.
    ///
    /// # Errors
    /// When a command fails.
    pub fn build(shape: Shape) -> Result<Self> {
        let lab = Self {
            shape,
            router: Namespace::new("router")?,
            client: Namespace::new("client")?,
            internet: Namespace::new("internet")?,
            isps: [Namespace::new("isp1")?, Namespace::new("isp2")?],
            segment: Namespace::new("segment")?,
        };
        lab.sysctls()?;
        lab.wires()?;
        lab.internet()?;
        Isp::ALL.into_iter().try_for_each(|isp| lab.provider(isp))?;
        lab.clients()?;
        lab.router()?;
        Ok(lab)
    }

    /// The namespace of an ISP.
    #[must_use]
    pub fn isp(&self, isp: Isp) -> &Namespace {
        &self.isps[isp.index()]
    }

    /// The interface where clients enter the router.
    #[must_use]
    pub const fn lan(&self) -> &'static str {
        match self.shape {
            Shape::OneNic => "eth0",
            Shape::NicEach => "lan0",
        }
    }

    /// Another network of clients, 172.16.1.0/24 and fd00:11::/64, which enters the router by `lan1`. The host there
    /// has the addresses that end in 2.
    ///
    /// # Errors
    /// When a command fails.
    pub fn second_lan(&self) -> Result<Namespace> {
        let host = Namespace::new("client2")?;
        host.sysctl("ipv6/conf/default/accept_dad", "0")?;
        wire(&self.router, "lan1", &host, "eth0")?;
        self.router
            .ip("addr add 172.16.1.1/24 dev lan1\naddr add fd00:11::1/64 dev lan1 nodad\n")?;
        host.ip(
            "addr add 172.16.1.2/24 dev eth0\naddr add fd00:11::2/64 dev eth0 nodad\n\
             route add default via 172.16.1.1\nroute add default via fd00:11::1\n",
        )?;
        Ok(host)
    }

    fn sysctls(&self) -> Result<()> {
        for ns in [
            &self.router,
            &self.client,
            &self.internet,
            &self.isps[0],
            &self.isps[1],
        ] {
            ns.sysctl("ipv6/conf/default/accept_dad", "0")?;
            ns.sysctl("ipv6/conf/default/router_solicitations", "0")?;
            ns.sysctl("ipv4/conf/all/rp_filter", "0")?;
            ns.sysctl("ipv4/conf/default/rp_filter", "0")?;
        }
        for ns in [&self.router, &self.isps[0], &self.isps[1]] {
            ns.sysctl("ipv4/ip_forward", "1")?;
            ns.sysctl("ipv6/conf/all/forwarding", "1")?;
            ns.sysctl("ipv6/conf/all/keep_addr_on_down", "1")?;
        }
        Ok(())
    }

    fn wires(&self) -> Result<()> {
        match self.shape {
            Shape::OneNic => self.bridge(),
            Shape::NicEach => {
                wire(&self.router, "wan1", &self.isps[0], "eth0")?;
                wire(&self.router, "wan2", &self.isps[1], "eth0")?;
                wire(&self.router, "lan0", &self.client, "eth0")
            }
        }
    }

    fn bridge(&self) -> Result<()> {
        self.segment.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        self.segment
            .ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
        for ns in [&self.router, &self.client, &self.isps[0], &self.isps[1]] {
            wire(&self.segment, ns.name(), ns, "eth0")?;
            self.segment.ip(&format!("link set {} master br0\n", ns.name()))?;
        }
        Ok(())
    }

    fn internet(&self) -> Result<()> {
        for isp in Isp::ALL {
            wire(&self.internet, isp.name(), self.isp(isp), "up0")?;
            self.transit(isp)?;
        }
        let own = ["203.0.113.10/32", "203.0.113.11/32", "1.1.1.1/32", "9.9.9.9/32"];
        let own6 = [
            "2001:db8::10/128",
            "2001:db8::11/128",
            "2606:4700:4700::1111/128",
            "2620:fe::9/128",
            "2620:fe::fe/128",
        ];
        // A server may answer from an address that only a route makes its own.
        self.internet.sysctl("ipv6/ip_nonlocal_bind", "1")?;
        let add = |address: &&str| format!("addr add {address} dev lo\n");
        let more = "route add local 198.18.0.0/16 dev lo\nroute add local 2001:db8:18::/112 dev lo\n";
        self.internet
            .ip(&(own.iter().chain(&own6).map(add).collect::<String>() + more))
    }

    fn provider(&self, isp: Isp) -> Result<()> {
        let (gateway4, gateway6) = isp.gateways();
        self.isp(isp).ip(&format!(
            "addr add {gateway4}/24 dev eth0\naddr add {gateway6}/64 dev eth0 nodad\n"
        ))
    }

    /// Addresses and routes of the wire between the ISP and the Internet.
    pub(crate) fn transit(&self, isp: Isp) -> Result<()> {
        let [isp4, internet4, isp6, internet6] = isp.transit();
        let (name, (net4, net6)) = (isp.name(), isp.networks());
        self.isp(isp).ip(&format!(
            "addr add {isp4}/30 dev up0\naddr add {isp6}/64 dev up0 nodad\n\
             route add default via {internet4}\nroute add default via {internet6}\n",
        ))?;
        self.internet.ip(&format!(
            "addr add {internet4}/30 dev {name}\naddr add {internet6}/64 dev {name} nodad\n\
             route add {net4} via {isp4}\nroute add {net6} via {isp6}\n",
        ))
    }

    fn clients(&self) -> Result<()> {
        let address = |n| {
            let (v4, v6) = (client(Family::V4, n), client(Family::V6, n));
            format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n")
        };
        let routes = "route add default via 172.16.0.1\nroute add default via fd00:10::1\n";
        self.client
            .ip(&((0..CLIENTS).map(address).collect::<String>() + routes))
    }

    fn router(&self) -> Result<()> {
        let mut lines = String::new();
        for isp in Isp::ALL {
            let (dev, (v4, v6)) = (isp.interface(self.shape), isp.sources());
            lines += &format!("addr add {v4}/24 dev {dev}\naddr add {v6}/64 dev {dev} nodad\n");
        }
        let lan = self.lan();
        lines += &format!("addr add 172.16.0.1/24 dev {lan}\naddr add fd00:10::1/64 dev {lan} nodad\n");
        lines += "route add default via 192.168.1.1\nroute add default via fd00:1::1\n";
        self.router.ip(&lines)
    }
}

/// A veth pair between two namespaces, both ends up. Where both have the same index, the kernel takes it for a device that has
/// no other below it, and tells a loss of its carrier up to a second late (`linkwatch_urgent_event`).
pub(crate) fn wire(a: &Namespace, a_dev: &str, b: &Namespace, b_dev: &str) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(100);
    let (index, peer) = (NEXT.fetch_add(1, Ordering::Relaxed), b.path());
    a.ip(&format!(
        "link add {a_dev} type veth peer name {b_dev} index {index} netns {peer}\nlink set {a_dev} up\n"
    ))?;
    b.ip(&format!("link set {b_dev} up\n"))
}
