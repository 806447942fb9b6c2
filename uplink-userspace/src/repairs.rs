//! What others changed and we put right: how often, when last, what it was.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::status;

/// What was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A routing rule was gone, or a foreign one stood in our place.
    Rules,
    /// A route was gone.
    Routes,
    /// The nftables table was not ours any more.
    Nft,
    /// A program was detached.
    Program,
    /// A pin under bpffs was removed.
    Pins,
    /// A sysctl had another value.
    Sysctls,
    /// An address of this host came, went or moved.
    Addresses,
    /// A gateway has another MAC address.
    Neighbour,
    /// Packets would have left with an inside address.
    Untranslated,
    /// Netlink events were lost, so everything was compared.
    Overrun,
    /// The aggregate interface was deleted, set down or changed.
    Aggregate,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Rules,
        Self::Routes,
        Self::Nft,
        Self::Program,
        Self::Pins,
        Self::Sysctls,
        Self::Addresses,
        Self::Neighbour,
        Self::Untranslated,
        Self::Overrun,
        Self::Aggregate,
    ];

    /// Its name in `status`, which stays.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Routes => "routes",
            Self::Nft => "nft",
            Self::Program => "program",
            Self::Pins => "pins",
            Self::Sysctls => "sysctls",
            Self::Addresses => "addresses",
            Self::Neighbour => "neighbour",
            Self::Untranslated => "untranslated",
            Self::Overrun => "overrun",
            Self::Aggregate => "aggregate",
        }
    }
}

/// All repairs since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs(BTreeMap<Kind, Repair>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Repair {
    count: u64,
    last: SystemTime,
    text: String,
}

impl Repairs {
    /// Something was put right; `text` says what, for people.
    pub fn note(&mut self, kind: Kind, now: SystemTime, text: impl Into<String>) {
        let count = self.0.get(&kind).map_or(0, |r| r.count);
        let repair = Repair {
            count: count.saturating_add(1),
            last: now,
            text: text.into(),
        };
        self.0.insert(kind, repair);
    }

    /// Repairs of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, r| sum.saturating_add(r.count))
    }

    /// As `status` shows them, by the name of their kind; kinds without any are left out.
    #[must_use]
    pub fn to_status(&self) -> BTreeMap<String, status::Repair> {
        let shown = |(kind, repair): (&Kind, &Repair)| {
            let last = humantime::format_rfc3339_seconds(repair.last).to_string();
            let (count, text) = (repair.count, repair.text.clone());
            (kind.name().to_owned(), status::Repair { count, last, text })
        };
        self.0.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn repairs_are_counted_by_kind_and_the_last_is_told() {
        let mut repairs = Repairs::default();
        assert!(repairs.to_status().is_empty());
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        repairs.note(Kind::Rules, at(0), "first");
        repairs.note(Kind::Nft, at(1), "flushed");
        repairs.note(Kind::Rules, at(86_400), "fwmark 0x1000000 lookup 20001");
        assert_eq!(repairs.total(), 3);
        let status = repairs.to_status();
        let rules = &status["rules"];
        assert_eq!((rules.count, &*rules.last), (2, "1970-01-02T00:00:00Z"));
        assert_eq!(rules.text, "fwmark 0x1000000 lookup 20001");
        assert_eq!(status["nft"].count, 1);
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|k| k.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
