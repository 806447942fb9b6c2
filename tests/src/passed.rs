//! What went by which ISP, where no server is there to tell.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::topology::{Family, Isp, Lab};

/// For the last packet to be forwarded, and noted.
const FORWARDED: Duration = Duration::from_secs(1);

impl Lab {
    /// Both ISPs note destination and protocol of what the router sends them for
    /// [`crate::topology::elsewhere`]. They begin anew.
    ///
    /// # Errors
    /// When nft fails.
    pub fn note_passage(&self) -> Result<()> {
        Isp::ALL.into_iter().try_for_each(|isp| {
            self.isp(isp).nft(
                "table inet passed\ndelete table inet passed\ntable inet passed {\n\
                 set v4 { type ipv4_addr . inet_proto; flags dynamic; size 65535; }\n\
                 set v6 { type ipv6_addr . inet_proto; flags dynamic; size 65535; }\n\
                 chain forward { type filter hook forward priority -10;\n\
                   iifname \"eth0\" ip daddr 198.18.0.0/16 add @v4 { ip daddr . meta l4proto }\n\
                   iifname \"eth0\" ip6 daddr 2001:db8:18::/112 add @v6 { ip6 daddr . meta l4proto }\n\
                 }\n}\n",
            )
        })
    }

    /// What each ISP noted.
    ///
    /// # Errors
    /// When nft fails, as it does without [`Self::note_passage`].
    pub fn passed(&self, family: Family) -> Result<[BTreeSet<String>; 2]> {
        let set = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        let one = |isp: Isp| -> Result<BTreeSet<String>> {
            let text = self.isp(isp).run(&format!("nft -j list set inet passed {set}"))?;
            let json: Value = serde_json::from_str(&text)?;
            let mut sets = json["nftables"].as_array().context("no list")?.iter();
            let set = sets.find_map(|o| o.get("set")).context("no set")?;
            let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(elements.iter().map(Value::to_string).collect())
        };
        Ok([one(Isp::One)?, one(Isp::Two)?])
    }

    /// How many of `n` flows, each to a destination of its own, went by each ISP.
    ///
    /// # Errors
    /// When a flow went by both or by none.
    pub fn expect_passed(&self, what: &str, family: Family, n: usize) -> Result<[usize; 2]> {
        let mut passed = self.passed(family)?;
        let sent = Instant::now();
        while passed[0].union(&passed[1]).count() < n && sent.elapsed() < FORWARDED {
            std::thread::sleep(Duration::from_millis(20));
            passed = self.passed(family)?;
        }
        let [one, two] = passed;
        let (split, all) = (one.intersection(&two).count(), one.union(&two).count());
        let by_isp = [one.len(), two.len()];
        println!("    {what}: {all} of {n} flows passed, {by_isp:?} by ISP, {split} by both");
        ensure!(split == 0, "{what}: {split} flows went by both ISPs");
        ensure!(all == n, "{what}: {all} of {n} flows passed");
        Ok(by_isp)
    }
}
