//! Policies and flows drawn from small universes, so that everything meets everything.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use uplink_userspace::config::{Domain, Field, Match, Policy};

use super::by;
use super::reference::Flow;
use crate::garbage::Random;

const SOURCES: [&str; 7] = [
    "172.16.0.2",
    "172.16.0.3",
    "172.16.7.1",
    "100.64.0.9",
    "fd00:10::2",
    "fd00:10::3",
    "fd00:11::2",
];
const SOURCE_NETS: [&str; 9] = [
    "0.0.0.0/0",
    "172.16.0.0/12",
    "172.16.0.0/24",
    "172.16.0.2/32",
    "100.64.0.0/10",
    "::/0",
    "fd00::/8",
    "fd00:10::/64",
    "fd00:10::3/128",
];
pub const DESTINATIONS: [&str; 10] = [
    "203.0.113.10",
    "203.0.113.11",
    "203.0.113.200",
    "203.0.114.1",
    "8.8.8.8",
    "198.51.100.7",
    "2001:db8::10",
    "2001:db8:1::5",
    "2001:db8:1::6",
    "2001:4860::8888",
];
const DESTINATION_NETS: [&str; 13] = [
    "203.0.112.0/20",
    "203.0.113.0/24",
    "203.0.113.8/29",
    "203.0.113.10/32",
    "203.0.113.11/32",
    "8.0.0.0/7",
    "198.51.100.0/24",
    "::/0",
    "::/64",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::5/128",
    "2001:4000::/18",
];
pub const PORTS: [u16; 8] = [1, 79, 80, 81, 443, 8080, 40_000, 65_535];
const PROTOCOLS: [u8; 7] = [6, 17, 132, 136, 1, 47, 50];
const STATIONS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 9, 9]];
const INTERFACES: [&str; 4] = ["eth0", "peer", "lo", "missing"];
pub const UIDS: [u32; 5] = [0, 1, 1000, 1001, 65_534];
pub const CGROUPS: [&str; 6] = ["", "/a", "/a/b", "/a/b/c", "/d", "/missing"];
pub const NAMES: [&str; 6] = ["a.org", "x.a.org", "y.x.a.org", "xa.org", "org", "b.net"];
const USES: [&[&str]; 3] = [&["isp1"], &["isp2"], &["isp1", "isp2"]];

/// What the draws may be.
pub struct Universe {
    pub random: Random,
    /// Where the cgroups of policies are, below the mount.
    pub cgroups: String,
    /// Protocols of flows.
    pub protocols: &'static [u8],
    /// Fields that a policy asks for, at least and beyond that.
    pub fields: (usize, usize),
}

impl Universe {
    pub fn packets(seed: u64) -> Self {
        Self {
            random: Random(seed),
            cgroups: String::new(),
            protocols: &PROTOCOLS,
            fields: (6, 3),
        }
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn some<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.random.below(most)).map(|_| draw(self)).collect()
    }

    fn field<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Field<T> {
        let negated = self.chance(25);
        Field {
            any: (!negated || self.chance(30)).then(|| self.some(2, &mut draw)),
            not: if negated { self.some(2, draw) } else { Vec::new() },
        }
    }

    fn net(&mut self, of: &[&str]) -> IpNet {
        self.one(of).parse().expect("a prefix")
    }

    fn ports(&mut self) -> RangeInclusive<u16> {
        let (a, b) = (self.one(&PORTS), self.one(&PORTS));
        if self.chance(50) {
            a..=a
        } else {
            a.min(b)..=a.max(b)
        }
    }

    fn uids(&mut self) -> RangeInclusive<u32> {
        let (a, b) = (self.one(&UIDS), self.one(&UIDS));
        a.min(b)..=a.max(b)
    }

    fn cgroup(&mut self) -> String {
        if self.chance(5) {
            return "/".into();
        }
        let below = self.one(&CGROUPS);
        format!("{}{below}", self.cgroups)
    }

    fn ask(&mut self, m: &mut Match) {
        match self.random.below(13) {
            0 => m.src = self.field(|u| u.net(&SOURCE_NETS)),
            1 | 2 => m.dst = self.field(|u| u.net(&DESTINATION_NETS)),
            3 => m.sport = self.field(Self::ports),
            4 | 5 => m.dport = self.field(Self::ports),
            6 => m.proto = self.field(|u| u.one(&PROTOCOLS)),
            7 => m.dscp = self.field(|u| u.one(&[0, 1, 46, 63])),
            8 => m.iif = self.field(|u| u.one(&INTERFACES).to_owned()),
            9 => m.mac = self.field(|u| u.one(&STATIONS)),
            10 => m.uid = self.field(Self::uids),
            11 => m.cgroup = self.field(Self::cgroup),
            _ => m.domain = self.some(2, Self::domain),
        }
    }

    fn domain(&mut self) -> Domain {
        Domain {
            name: self.one(&NAMES).into(),
            below: self.chance(50),
        }
    }

    /// A policy that asks for some fields.
    pub fn policy(&mut self, n: usize) -> Policy {
        let mut policy = by(&format!("p{n}"), self.one(&USES));
        let (least, more) = self.fields;
        for _ in 0..least + self.random.below(more) {
            self.ask(&mut policy.matches);
        }
        policy
    }

    /// What is known of each destination, and until when.
    pub fn names(&mut self) -> Vec<(IpAddr, Vec<&'static str>, u32)> {
        let mut all = Vec::new();
        for address in DESTINATIONS {
            if self.chance(70) {
                let names = self.some(2, |u| u.one(&NAMES));
                let until = if self.chance(80) { super::FAR_AWAY_S } else { 1 };
                all.push((address.parse().expect("an address"), names, until));
            }
        }
        all
    }

    /// A destination, and where a packet towards it may come from.
    pub fn ends(&mut self) -> (IpAddr, IpAddr) {
        let dst: IpAddr = self.one(&DESTINATIONS).parse().expect("an address");
        loop {
            let src: IpAddr = self.one(&SOURCES).parse().expect("an address");
            if src.is_ipv4() == dst.is_ipv4() {
                return (src, dst);
            }
        }
    }

    /// A flow that crosses this host.
    pub fn forwarded(&mut self) -> Flow {
        let (src, dst) = self.ends();
        let proto = match self.one(self.protocols) {
            1 if dst.is_ipv6() => 58,
            proto => proto,
        };
        let ports = (self.one(&PORTS), self.one(&PORTS));
        Flow {
            src: Some(src),
            dst,
            ports: matches!(proto, 6 | 17 | 132 | 136).then_some(ports),
            proto,
            dscp: Some(self.one(&[0, 1, 46, 63])),
            iif: self.one(&["eth0", "peer"]),
            mac: Some(self.one(&STATIONS)),
            uid: None,
            cgroup: None,
            names: Vec::new(),
        }
    }
}
