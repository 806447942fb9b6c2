//! Taking an uplink out by hand.

use std::fmt;

use uplink_common::Family;

use super::{Engine, Path};
use crate::health::Verdict;
use crate::resolve::Uplink;

/// Why an uplink may not be drained: a family would be left without anybody who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The uplink's name.
    pub name: String,
    /// The family that only it serves.
    pub family: Family,
    /// The others of that family.
    pub others: Others,
}

/// Why the others of a family cannot serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Others {
    /// There is none.
    None,
    /// Some were drained, too.
    Drained,
    /// All are dead.
    Dead,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let why = match self.others {
            Others::None => "no other one carries it",
            Others::Drained => "enable another first",
            Others::Dead => "the others are down",
        };
        write!(f, "{} is the only uplink left for {family}: {why}", self.name)
    }
}

impl std::error::Error for Refusal {}

impl Engine {
    /// Whether the uplink was taken out by hand.
    #[must_use]
    pub fn is_drained(&self, id: u8) -> bool {
        self.drained.contains(&id)
    }

    /// The names of the uplinks taken out by hand, in the order of the configuration.
    #[must_use]
    pub fn drained(&self) -> Vec<String> {
        let drained = self.uplinks.iter().filter(|u| self.is_drained(u.id));
        drained.map(|u| u.name.clone()).collect()
    }

    /// Whether an uplink takes new flows although it was taken out by hand.
    #[must_use]
    pub fn is_recalled(&self, id: u8) -> bool {
        let serves = |family| self.serves(Path { uplink: id, family });
        self.is_drained(id) && Family::ALL.into_iter().any(serves)
    }

    /// Whether [`super::Event::Drain`] would be obeyed.
    ///
    /// # Errors
    /// When nobody else could serve one of the uplink's families.
    pub fn may_drain(&self, id: u8) -> Result<(), Refusal> {
        let Some(uplink) = self.uplinks.iter().find(|u| u.id == id) else {
            return Ok(());
        };
        let carried = Family::ALL.into_iter().filter(|f| self.carries(uplink, *f));
        for family in carried.filter(|_| !self.is_drained(id)) {
            if let Some(others) = self.nobody_else(id, family) {
                let name = uplink.name.clone();
                return Err(Refusal { name, family, others });
            }
        }
        Ok(())
    }

    /// Why nobody else could take over a family; `None` where somebody can, or where the uplink
    /// is out of use anyway and others are wanted.
    fn nobody_else(&self, id: u8, family: Family) -> Option<Others> {
        let carries = |u: &&Uplink| u.id != id && self.carries(u, family);
        let others: Vec<&Uplink> = self.uplinks.iter().filter(carries).collect();
        let mut wanted = others.iter().filter(|u| !self.is_drained(u.id)).peekable();
        let path = |uplink| Path { uplink, family };
        if !self.serves(path(id)) && wanted.peek().is_some() {
            return None;
        }
        if wanted.any(|u| self.verdict(path(u.id)) != Verdict::Down) {
            return None;
        }
        Some(match others.iter().any(|u| self.is_drained(u.id)) {
            true => Others::Drained,
            false if others.is_empty() => Others::None,
            false => Others::Dead,
        })
    }
}
