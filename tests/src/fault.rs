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

    /// The gateway has another MAC from now on and does not say so: it neither announces it nor
    /// asks for the router's, which would tell as well. It still answers who asks.
    ///
    /// # Errors
    /// When ip or nft fails.
    pub fn change_mac_silently(&self, isp: Isp) -> Result<()> {
        self.isp(isp).nft(
            "table arp silent { chain out { type filter hook output priority 0; arp operation request drop; }\n}\n\
             table ip6 silent { chain out { type filter hook output priority 0;\n\
               icmpv6 type { nd-neighbor-solicit, nd-router-advert } drop\n\
               icmpv6 type nd-neighbor-advert ip6 daddr ff02::1 drop\n\
             }\n}\n",
        )?;
        let mac = format!("02:00:00:00:fe:{:02x}", isp.index());
        self.isp(isp).ip(&format!("link set dev eth0 address {mac}\n"))
    }

    /// The gateway asks for its neighbours again; its MAC stays as it is.
    ///
    /// # Errors
    /// When nft fails.
    pub fn end_silence(&self, isp: Isp) -> Result<()> {
        self.isp(isp)
            .nft("delete table arp silent\ndelete table ip6 silent\n")
    }

    /// The first ISP's gateway is the second's, too: one MAC for both uplinks.
    ///
    /// # Errors
    /// When ip fails.
    pub fn share_gateway(&self) -> Result<()> {
        let (v4, v6) = Isp::Two.gateways();
        self.isp(Isp::Two).ip("link set eth0 down\n")?;
        self.isp(Isp::One).ip(&format!(
            "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"
        ))?;
        let ((net4, net6), [_, via4, _, via6]) = (Isp::Two.networks(), Isp::One.addresses());
        self.internet.ip(&format!(
            "route replace {net4} via {via4}\nroute replace {net6} via {via6}\n"
        ))
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
