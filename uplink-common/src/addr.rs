//! One 16-byte form for IPv4 and IPv6 addresses.

/// An IP address in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addr(pub [u8; 16]);

const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The address family of a packet, and the index of its bank in a [`crate::Slot`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, v4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl Addr {
    /// From the four bytes of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(b: [u8; 4]) -> Self {
        let p = V4_PREFIX;
        Self([
            p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], b[0], b[1], b[2], b[3],
        ])
    }

    /// From the sixteen bytes of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self(b)
    }

    /// The last four bytes, which are the address itself for IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn last4(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// As two words, for hashes.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        let b = &self.0;
        [
            u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        ]
    }

    /// Unicast beyond the link: not multicast, broadcast, unspecified, loopback or link-local.
    /// Addresses that are local to this host are not known here.
    #[inline(always)]
    #[must_use]
    pub const fn is_routable(&self, family: Family) -> bool {
        match family {
            Family::V4 => {
                let [a, b, _, _] = self.last4();
                a != 0 && a != 127 && a < 224 && !(a == 169 && b == 254)
            }
            Family::V6 => {
                let a = self.0[0];
                let b = self.0[1];
                a != 0xff && !(a == 0xfe && b & 0xc0 == 0x80) && !self.is_v6_reserved()
            }
        }
    }

    /// Whether the Internet knows no way back to it: private (RFC 1918), shared (RFC 6598) and
    /// unique local (RFC 4193) addresses.
    #[inline(always)]
    #[must_use]
    pub const fn is_private(&self, family: Family) -> bool {
        match family {
            Family::V4 => {
                let [a, b, _, _] = self.last4();
                a == 10
                    || (a == 172 && b & 0xf0 == 16)
                    || (a == 192 && b == 168)
                    || (a == 100 && b & 0xc0 == 64)
            }
            Family::V6 => self.0[0] & 0xfe == 0xfc,
        }
    }

    /// IPv4 where the address is a mapped one.
    #[inline(always)]
    #[must_use]
    pub fn family(&self) -> Family {
        let mut i = 0;
        while i < V4_PREFIX.len() {
            if self.0[i] != V4_PREFIX[i] {
                return Family::V6;
            }
            i += 1;
        }
        Family::V4
    }

    /// Within `::/96`, where the unspecified and the loopback address are.
    #[inline(always)]
    const fn is_v6_reserved(&self) -> bool {
        let mut i = 0;
        let mut or = 0;
        while i < 12 {
            or |= self.0[i];
            i += 1;
        }
        or == 0
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(a) => Self::v4(a.octets()),
            core::net::IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    fn from(a: Addr) -> Self {
        core::net::Ipv6Addr::from(a.0).to_canonical()
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::IpAddr::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn routable(s: &str) -> bool {
        let ip: IpAddr = s.parse().unwrap();
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        Addr::from(ip).is_routable(family)
    }

    #[test]
    fn addresses_survive_the_round_trip() {
        for s in ["192.168.1.1", "0.0.0.0", "2001:db8::1", "fe80::1"] {
            let ip: IpAddr = s.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
        }
    }

    #[test]
    fn private_addresses_and_families_are_told_apart() {
        for (s, private) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.9.9", true),
            ("100.127.0.1", true),
            ("100.128.0.1", false),
            ("fd00::1", true),
            ("fe00::1", false),
        ] {
            let ip: IpAddr = s.parse().unwrap();
            let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
            assert_eq!(Addr::from(ip).family(), family, "{s}");
            assert_eq!(Addr::from(ip).is_private(family), private, "{s}");
        }
    }

    #[test]
    fn only_unicast_beyond_the_link_is_routable() {
        for s in ["1.1.1.1", "10.0.0.1", "223.255.255.255", "2001:db8::1", "fd00::1"] {
            assert!(routable(s), "{s}");
        }
        for s in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
        ] {
            assert!(!routable(s), "{s}");
        }
    }
}
