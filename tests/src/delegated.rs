//! IPv6 prefixes that the ISPs delegate to the router, for hosts behind it.

use std::net::Ipv6Addr;

use anyhow::Result;

use crate::topology::{Isp, Lab};

impl Isp {
    /// The prefixes: the first is in use, the first ISP has another one for later.
    #[must_use]
    pub const fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::One => &["2001:db8:a::/64", "2001:db8:c::/64"],
            Self::Two => &["2001:db8:b::/64"],
        }
    }

    /// The ISP whose delegated prefix an address is in.
    pub(crate) const fn of_prefix(address: Ipv6Addr) -> Option<Self> {
        match address.segments() {
            [0x2001, 0xdb8, 0xa | 0xc, 0, ..] => Some(Self::One),
            [0x2001, 0xdb8, 0xb, 0, ..] => Some(Self::Two),
            _ => None,
        }
    }
}

impl Lab {
    /// Routes the prefixes of both ISPs to the router.
    ///
    /// # Errors
    /// When ip fails.
    pub fn delegate_prefixes(&self) -> Result<()> {
        for isp in Isp::ALL {
            let [.., transit] = isp.addresses();
            for prefix in isp.prefixes() {
                let router = isp.sources().1;
                self.isp(isp).ip(&format!("route add {prefix} via {router}\n"))?;
                self.internet.ip(&format!("route add {prefix} via {transit}\n"))?;
            }
        }
        Ok(())
    }
}
