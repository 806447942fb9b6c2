//! Policies as sets: what the programs look up, computed from the configuration. Pure.
//!
//! Each field of a flow answers with the set of the policies that it satisfies; [`compile`] makes the tables of
//! these answers, [`classify`] reads them as the programs do.

pub mod choices;
pub mod classify;
pub mod compile;
mod domains;
mod exact;
mod full;
pub mod groups;
pub mod lint;
mod lists;
mod numbers;
mod prefixes;
mod ranges;
pub mod schedule;
mod sets;
pub mod tables;

pub use domains::Domains;
pub use full::{Full, Limit};
pub use numbers::{Assigned, Numbers};
pub use prefixes::{Prefix, uid_value};
pub use sets::{IN_FORCE, Sets};

#[cfg(test)]
mod tests;
