//! A policy routing rule of somebody else.

use std::fmt;

use ipnet::IpNet;
use uplink_common::Family;

use super::MAIN;

/// A rule that is not ours. What is `None` or `false` is not asked for; a packet has to meet all
/// that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// Address family.
    pub family: Family,
    /// Its place.
    pub priority: u32,
    /// What becomes of the packets it applies to.
    pub action: Action,
    /// It applies to the packets that do *not* match.
    pub inverted: bool,
    /// Destination.
    pub to: Option<IpNet>,
    /// Source.
    pub from: Option<IpNet>,
    /// Interface that the packet came in by; `lo` for packets of this host.
    pub iif: Option<String>,
    /// Interface that the socket is bound to.
    pub oif: Option<String>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Type of service, which has its DSCP; 0: any.
    pub tos: u8,
    /// Owner of the socket, first and last.
    pub uids: Option<(u32, u32)>,
    /// Protocol number.
    pub protocol: Option<u8>,
    /// Source ports, first and last.
    pub source_ports: Option<(u16, u16)>,
    /// Destination ports, first and last.
    pub destination_ports: Option<(u16, u16)>,
    /// Packets of a VRF, which name their table themselves.
    pub l3mdev: bool,
    /// Packets of a metadata tunnel with this key.
    pub tunnel: Option<u64>,
    /// It asks for something that is not described here.
    pub unknown: bool,
    /// Ignores answers with a prefix this short or shorter.
    pub suppress_prefixlength: Option<u32>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Looks in a table and goes on to the next rule when there is no route.
    Table(u32),
    /// Goes on with the first rule of this priority.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drops the packet.
    Blackhole,
    /// Drops it with an ICMP unreachable.
    Unreachable,
    /// Drops it with an ICMP prohibited.
    Prohibit,
    /// Something newer than this program.
    Other(u8),
}

impl ForeignRule {
    /// A rule for everything.
    #[must_use]
    pub const fn new(family: Family, priority: u32, action: Action) -> Self {
        Self {
            family,
            priority,
            action,
            inverted: false,
            to: None,
            from: None,
            iif: None,
            oif: None,
            mark: None,
            tos: 0,
            uids: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            l3mdev: false,
            tunnel: None,
            unknown: false,
            suppress_prefixlength: None,
        }
    }
}

/// As `ip rule` prints it.
impl fmt::Display for ForeignRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}from ",
            self.priority,
            if self.inverted { "not " } else { "" }
        )?;
        match &self.from {
            Some(net) => write!(f, "{}", Host(net))?,
            None => write!(f, "all")?,
        }
        if let Some(net) = &self.to {
            write!(f, " to {}", Host(net))?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        self.selectors(f)?;
        match self.action {
            Action::Table(_) if self.l3mdev => {}
            Action::Table(table) => write!(f, " lookup {}", Name(table))?,
            Action::Goto(priority) => write!(f, " goto {priority}")?,
            Action::Nop => write!(f, " nop")?,
            Action::Blackhole => write!(f, " blackhole")?,
            Action::Unreachable => write!(f, " unreachable")?,
            Action::Prohibit => write!(f, " prohibit")?,
            Action::Other(number) => write!(f, " action {number}")?,
        }
        self.suppress_prefixlength
            .map_or(Ok(()), |n| write!(f, " suppress_prefixlength {n}"))
    }
}

impl ForeignRule {
    /// What it asks for besides addresses.
    fn selectors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Some((value, u32::MAX)) => write!(f, " fwmark {value:#x}")?,
            Some((value, mask)) => write!(f, " fwmark {value:#x}/{mask:#x}")?,
            None => {}
        }
        if let Some(name) = &self.iif {
            write!(f, " iif {name}")?;
        }
        if let Some(name) = &self.oif {
            write!(f, " oif {name}")?;
        }
        if self.l3mdev {
            write!(f, " lookup [l3mdev-table]")?;
        }
        if let Some((first, last)) = self.uids {
            write!(f, " uidrange {first}-{last}")?;
        }
        if let Some(number) = self.protocol {
            write!(f, " ipproto {number}")?;
        }
        ports(f, "sport", self.source_ports)?;
        ports(f, "dport", self.destination_ports)?;
        match self.tunnel {
            Some(key) => write!(f, " tun_id {key}"),
            None => Ok(()),
        }
    }
}

fn ports(f: &mut fmt::Formatter<'_>, word: &str, range: Option<(u16, u16)>) -> fmt::Result {
    match range {
        Some((first, last)) if first == last => write!(f, " {word} {first}"),
        Some((first, last)) => write!(f, " {word} {first}-{last}"),
        None => Ok(()),
    }
}

/// A single address goes without its length.
struct Host<'a>(&'a IpNet);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// The tables that have names everywhere.
struct Name(u32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            253 => write!(f, "default"),
            MAIN => write!(f, "main"),
            255 => write!(f, "local"),
            number => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_ip_rule_prints_it() {
        let mut rule = ForeignRule::new(Family::V4, 32764, Action::Table(51820));
        rule.mark = Some((0xca6c, u32::MAX));
        rule.inverted = true;
        assert_eq!(rule.to_string(), "32764: not from all fwmark 0xca6c lookup 51820");
        let mut rule = ForeignRule::new(Family::V4, 9, Action::Table(MAIN));
        rule.from = Some("10.0.0.1/32".parse().unwrap());
        rule.to = Some("10.1.0.0/16".parse().unwrap());
        (rule.iif, rule.mark) = (Some("eth0".into()), Some((1, 0xff)));
        (rule.uids, rule.protocol) = (Some((0, 9)), Some(6));
        (rule.source_ports, rule.destination_ports) = (Some((1, 1)), Some((2, 3)));
        rule.suppress_prefixlength = Some(0);
        assert_eq!(
            rule.to_string(),
            "9: from 10.0.0.1 to 10.1.0.0/16 fwmark 0x1/0xff iif eth0 uidrange 0-9 ipproto 6 \
             sport 1 dport 2-3 lookup main suppress_prefixlength 0"
        );
        let mut rule = ForeignRule::new(Family::V6, 1000, Action::Table(0));
        rule.l3mdev = true;
        assert_eq!(rule.to_string(), "1000: from all lookup [l3mdev-table]");
        let rule = ForeignRule::new(Family::V6, 7, Action::Goto(32766));
        assert_eq!(rule.to_string(), "7: from all goto 32766");
    }
}
