//! How a new flow finds its uplink, over the tables of now or over those that would be: the steps of the programs.

use anyhow::Result;
use uplink_common::Pin;
use uplink_common::policy::{Choice, STRICT};

/// Uplinks by id, and how likely each of them is.
pub(super) type Shares = Vec<(u8, f64)>;

/// The tables of new flows. Without a hash any slot is as likely as the others.
pub(super) trait Balance {
    /// Those of everybody, and whether the weights as they are now decide instead of the table.
    fn everybody(&self, hash: Option<u64>) -> Result<(Shares, bool)>;
    /// Those of a group; nobody where none of its uplinks lives.
    fn group(&self, group: u32, hash: Option<u64>) -> Result<Shares>;
    /// Whether a client that keeps an uplink goes on with it.
    fn goes_on(&self, group: u32, kept: &Pin) -> Result<bool>;
}

/// What decides about a flow's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spread {
    /// The hash of the flow; `None` while not everything about it is known.
    pub flow: Option<u64>,
    /// The hash of its ends, by which a sticky policy goes.
    pub ends: u64,
}

/// What a new flow is given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Chosen {
    /// One of these.
    Given(Shares, How),
    /// A strict policy has nobody for it.
    Refused,
    /// The table has nobody for it.
    Nobody,
}

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Its client keeps it.
    Kept,
    /// The table of the policy.
    Group,
    /// The table of everybody.
    Everybody,
    /// Weights that somebody edited.
    Weights,
}

/// The steps of `pick::by_policy`. `kept` is what the client keeps, as far as it is not too old.
pub(super) fn choose(
    balance: &impl Balance,
    choice: Option<&Choice>,
    spread: Spread,
    kept: Option<&Pin>,
) -> Result<Chosen> {
    if let Some(choice) = choice {
        if let Some(pin) = kept
            && balance.goes_on(choice.group, pin)?
        {
            let id = pin.uplink;
            return Ok(Chosen::Given(vec![(id, 1.0)], How::Kept));
        }
        let shares = balance.group(choice.group, by(choice, spread))?;
        if !shares.is_empty() {
            return Ok(Chosen::Given(shares, How::Group));
        }
        if choice.flags & STRICT != 0 {
            return Ok(Chosen::Refused);
        }
    }
    let (shares, by_weight) = balance.everybody(spread.flow)?;
    let how = if by_weight { How::Weights } else { How::Everybody };
    match shares.is_empty() {
        true => Ok(Chosen::Nobody),
        false => Ok(Chosen::Given(shares, how)),
    }
}

/// The hash that a policy goes by.
pub(super) const fn by(choice: &Choice, spread: Spread) -> Option<u64> {
    match choice.sticky {
        0 => spread.flow,
        _ => Some(spread.ends),
    }
}
