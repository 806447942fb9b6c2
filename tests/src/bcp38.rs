//! ISPs that carry only what comes from their own customers' addresses (BCP 38), and count.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::topology::{Isp, Lab};

/// What an ISP got from the router to carry to the Internet, in packets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Carried {
    /// From the ISP's own addresses: carried.
    pub own: u64,
    /// From a LAN address, which NAT should have replaced: dropped.
    pub private: u64,
    /// From any other address, such as the other ISP's: dropped.
    pub foreign: u64,
}

impl Carried {
    /// Packets that should not have come this way.
    #[must_use]
    pub const fn violations(&self) -> u64 {
        self.private + self.foreign
    }
}

impl Lab {
    /// Makes both ISPs drop what does not come from their own networks. Counting begins anew.
    ///
    /// # Errors
    /// When nft fails.
    pub fn bcp38(&self) -> Result<()> {
        Isp::ALL.into_iter().try_for_each(|isp| {
            let (net4, net6) = isp.networks();
            let prefixes = isp.prefixes().join(", ");
            self.isp(isp).nft(&format!(
                "table inet bcp38\ndelete table inet bcp38\ntable inet bcp38 {{\n\
                 counter own {{}}\ncounter private {{}}\ncounter foreign {{}}\n\
                 set strays {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; size 64; flags dynamic; }}\n\
                 set strays6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; size 64; flags dynamic; }}\n\
                 chain forward {{ type filter hook forward priority 0;\n\
                   iifname \"up0\" accept\n\
                   ip saddr {net4} counter name own accept\n\
                   ip6 saddr {{ {net6}, {prefixes} }} counter name own accept\n\
                   add @strays {{ ip saddr . ip daddr . meta l4proto . th sport . th dport }}\n\
                   add @strays6 {{ ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport }}\n\
                   ip saddr 172.16.0.0/24 counter name private drop\n\
                   ip6 saddr fd00:10::/64 counter name private drop\n\
                   counter name foreign drop\n\
                 }}\n}}\n"
            ))
        })
    }

    /// What each ISP got since [`Self::bcp38`].
    ///
    /// # Errors
    /// When nft fails, as it does without [`Self::bcp38`].
    pub fn carried(&self) -> Result<[Carried; 2]> {
        let one = |isp: Isp| -> Result<Carried> {
            let text = self.isp(isp).run("nft -j list counters table inet bcp38")?;
            let json: Value = serde_json::from_str(&text)?;
            let packets = |name: &str| {
                let mut all = json["nftables"].as_array()?.iter().map(|o| &o["counter"]);
                all.find(|c| c["name"] == name)?["packets"].as_u64()
            };
            Ok(Carried {
                own: packets("own").context("no counter `own`")?,
                private: packets("private").context("no counter `private`")?,
                foreign: packets("foreign").context("no counter `foreign`")?,
            })
        };
        Ok([one(Isp::One)?, one(Isp::Two)?])
    }

    /// Packets that came to the wrong ISP or without NAT, since [`Self::bcp38`].
    ///
    /// # Errors
    /// As [`Self::carried`].
    pub fn violations(&self) -> Result<u64> {
        Ok(self.carried()?.iter().map(Carried::violations).sum())
    }

    /// Fails unless every packet left by the ISP whose address it has.
    ///
    /// # Errors
    /// When there are violations, or as [`Self::carried`].
    pub fn expect_right_isps(&self, what: &str) -> Result<()> {
        self.expect_right_isps_since(what, 0)
    }

    /// As [`Self::expect_right_isps`], but for so many violations that were there before.
    ///
    /// # Errors
    /// When there are more, or as [`Self::carried`].
    pub fn expect_right_isps_since(&self, what: &str, before: u64) -> Result<()> {
        let carried = self.carried()?;
        println!("    {what}: carried {carried:?}");
        let wrong = carried.iter().map(Carried::violations).sum::<u64>() - before;
        ensure!(
            wrong == 0,
            "{what}: {wrong} packets by the wrong ISP: {carried:?}, among them {}",
            self.strays()?
        );
        Ok(())
    }

    /// Addresses, protocol and ports of the first packets by the wrong ISP.
    fn strays(&self) -> Result<String> {
        let mut text = String::new();
        for isp in Isp::ALL {
            for set in ["strays", "strays6"] {
                let listing = self.isp(isp).run(&format!("nft -n list set inet bcp38 {set}"))?;
                let elements = listing.split_once("elements = ").map(|(_, rest)| rest);
                let elements = elements.unwrap_or_default().replace(['}', '\t', '\n'], " ");
                write!(text, "{isp:?} {elements}; ")?;
            }
        }
        Ok(text)
    }
}
