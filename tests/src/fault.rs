//! What can go wrong with an ISP.

use anyhow::Result;

use crate::topology::{Isp, Lab};

impl Lab {
    /// Packets forwarded through the ISP vanish silently in both directions; its own addresses
    /// (the gateway) still answer.
    ///
    /// # Errors
    /// When nft fails.
    pub fn blackhole(&self, isp: Isp) -> Result<()> {
        self.drop_forwarded(isp, "")
    }

    /// `percent` of the packets forwarded through the ISP vanish, each direction by itself.
    ///
    /// # Errors
    /// When nft fails.
    pub fn lossy(&self, isp: Isp, percent: u8) -> Result<()> {
        self.drop_forwarded(isp, &format!("numgen random mod 100 < {percent}"))
    }

    /// Ends [`Self::blackhole`] and [`Self::lossy`].
    ///
    /// # Errors
    /// When nft fails.
    pub fn heal(&self, isp: Isp) -> Result<()> {
        self.isp(isp).nft("table inet fault\ndelete table inet fault\n")
    }

    /// The gateway's link to the router goes down, without a loss of carrier at the router when
    /// a bridge lies between.
    ///
    /// # Errors
    /// When ip fails.
    pub fn link_down(&self, isp: Isp) -> Result<()> {
        self.isp(isp).ip("link set eth0 down\n")
    }

    /// Ends [`Self::link_down`].
    ///
    /// # Errors
    /// When ip fails.
    pub fn link_up(&self, isp: Isp) -> Result<()> {
        self.isp(isp).ip("link set eth0 up\n")
    }

    fn drop_forwarded(&self, isp: Isp, condition: &str) -> Result<()> {
        let [v4, transit4, v6, transit6] = isp.addresses();
        self.isp(isp).nft(&format!(
            "table inet fault\ndelete table inet fault\n\
             table inet fault {{ chain prerouting {{\n\
               type filter hook prerouting priority raw; policy accept;\n\
               ip daddr {{ {v4}, {transit4} }} accept\n\
               ip6 daddr {{ {v6}, {transit6}, fe80::/10, ff00::/8 }} accept\n\
               {condition} drop\n\
             }}\n}}\n",
        ))
    }
}
