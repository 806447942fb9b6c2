//! What can go wrong with an ISP.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::topology::{Isp, Lab};

impl Lab {
    /// Packets forwarded through the ISP vanish silently in both directions; its own addresses
    /// (the gateway) still answer.
    ///
    /// # Errors
    /// When nft fails.
    pub fn blackhole(&self, isp: Isp) -> Result<()> {
        self.stop_forwarded(isp, "drop")
    }

    /// `percent` of the packets forwarded through the ISP vanish, each direction by itself.
    ///
    /// # Errors
    /// When nft fails.
    pub fn lossy(&self, isp: Isp, percent: u8) -> Result<()> {
        self.stop_forwarded(isp, &format!("numgen random mod 100 < {percent} drop"))
    }

    /// As [`Self::lossy`], but only what comes from the Internet is lost.
    ///
    /// # Errors
    /// When nft fails.
    pub fn lossy_replies(&self, isp: Isp, percent: u8) -> Result<()> {
        let rule = format!("iifname \"up0\" numgen random mod 100 < {percent} drop");
        self.stop_forwarded(isp, &rule)
    }

    /// Ends [`Self::blackhole`], [`Self::lossy`], [`Self::lossy_replies`] and [`Self::refuse`].
    ///
    /// # Errors
    /// When nft fails.
    pub fn heal(&self, isp: Isp) -> Result<()> {
        self.isp(isp).nft(HEALED)
    }

    /// The ISP says of everything beyond it that it cannot be reached.
    ///
    /// # Errors
    /// When nft fails.
    pub fn refuse(&self, isp: Isp) -> Result<()> {
        // One answer a second would all go to users.
        self.isp(isp).sysctl("ipv4/icmp_ratelimit", "0")?;
        self.isp(isp).sysctl("ipv6/icmp/ratelimit", "0")?;
        self.stop_forwarded(isp, "iifname \"eth0\" reject with icmpx type no-route")
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

    /// The gateway neither asks for neighbours nor answers who asks for it, and the router forgets
    /// what it knows: ARP and neighbour discovery fail while the carrier stays.
    ///
    /// # Errors
    /// When nft or ip fails.
    pub fn mute_neighbours(&self, isp: Isp) -> Result<()> {
        self.isp(isp).nft(
            "table arp mute { chain in { type filter hook input priority 0; drop; }\n\
               chain out { type filter hook output priority 0; drop; }\n}\n\
             table ip6 mute { chain in { type filter hook input priority 0; jump nd; }\n\
               chain out { type filter hook output priority 0; jump nd; }\n\
               chain nd { icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } drop; }\n}\n",
        )?;
        let device = isp.interface(self.shape);
        for gateway in <[&str; 2]>::from(isp.gateways()) {
            // An entry that is not there cannot be forgotten.
            let _ = self.router.run(&format!("ip neigh del {gateway} dev {device}"));
        }
        Ok(())
    }

    /// Ends [`Self::mute_neighbours`].
    ///
    /// # Errors
    /// When nft fails.
    pub fn end_mute(&self, isp: Isp) -> Result<()> {
        self.isp(isp)
            .nft("delete table arp mute\ndelete table ip6 mute\n")
    }

    /// Limits what the ISP carries to and from the Internet, in megabits per second (TBF, with
    /// queues of 50 ms).
    ///
    /// # Errors
    /// When tc fails.
    pub fn shape(&self, isp: Isp, down_mbit: u32, up_mbit: u32) -> Result<()> {
        let limit = |device: &str, mbit: u32| {
            format!("tc qdisc replace dev {device} root tbf rate {mbit}mbit burst 64kb latency 50ms")
        };
        self.internet.run(&limit(isp.name(), down_mbit))?;
        self.isp(isp).run(&limit("up0", up_mbit)).map(drop)
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

    /// This address of the Internet answers nobody any more.
    ///
    /// # Errors
    /// When nft fails.
    pub fn silence(&self, address: IpAddr) -> Result<()> {
        let version = if address.is_ipv4() { "ip" } else { "ip6" };
        self.internet.nft(&format!(
            "table inet silent {{ chain in {{ type filter hook input priority 0; }}\n}}\n\
             add rule inet silent in {version} daddr {address} drop\n"
        ))
    }

    fn stop_forwarded(&self, isp: Isp, rule: &str) -> Result<()> {
        self.isp(isp).nft(&stopping(isp, rule))
    }
}

const HEALED: &str = "table inet fault\ndelete table inet fault\n";

/// What is not for the ISP itself meets the rule.
fn stopping(isp: Isp, rule: &str) -> String {
    let [v4, transit4, v6, transit6] = isp.addresses();
    format!(
        "{HEALED}table inet fault {{ chain prerouting {{\n\
           type filter hook prerouting priority raw; policy accept;\n\
           ip daddr {{ {v4}, {transit4} }} accept\n\
           ip6 daddr {{ {v6}, {transit6}, fe80::/10, ff00::/8 }} accept\n\
           {rule}\n\
         }}\n}}\n",
    )
}

/// An ISP that is a blackhole half of the time, until dropped; then it is healed.
#[derive(Debug)]
pub struct Flapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flapping {
    /// Begins with a blackhole for one `period`, then all is well for one, and so on.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn start(lab: &Lab, isp: Isp, period: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, ns) = (stop.clone(), lab.isp(isp).try_clone()?);
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                ns.nft(&stopping(isp, "drop"))?;
                std::thread::sleep(period);
                ns.nft(HEALED)?;
                std::thread::sleep(period);
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("    flapping failed: {e:#}");
        }
    }
}
