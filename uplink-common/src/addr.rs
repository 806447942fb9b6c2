//! One 16-byte form for IPv4 and IPv6 addresses.

/// An IP address in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addr(pub [u8; 16]);

/// `::ffff:0.0.0.0`, as it lies in memory.
const V4_PREFIX: u128 = u128::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
/// From an IPv4 address in memory to its place there.
const V4_SHIFT: u32 = if cfg!(target_endian = "little") { 96 } else { 0 };

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
        // As one number: from an array of bytes the BPF compiler makes a loop over them.
        Self((V4_PREFIX | (u32::from_ne_bytes(b) as u128) << V4_SHIFT).to_ne_bytes())
    }

    /// From the sixteen bytes of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(b: [u8; 16]) -> Self {
        // As above.
        Self(u128::from_ne_bytes(b).to_ne_bytes())
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
        let n = u128::from_le_bytes(self.0);
        [n as u64, (n >> 64) as u64]
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
    pub const fn family(&self) -> Family {
        if u128::from_be_bytes(self.0) >> 32 == 0xffff {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// Within `::/96`, where the unspecified and the loopback address are.
    #[inline(always)]
    const fn is_v6_reserved(&self) -> bool {
        u128::from_be_bytes(self.0) >> 32 == 0
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
