//! Which names an address was looked up by: learned from the DNS answers that cross this box, and from our own.
//!
//! `packet` -> `stream` -> `message` -> `questions` -> `learned`; [`Ear`] ties them together. All of that is pure.
//! `resolve` asks for the names that policies mention.
//!
//! An answer is believed when it answers a question that was seen: the same two ends, protocol, identifier, name
//! and type (RFC 5452). Everything that comes in is counted by its [`Outcome`], and every store has a limit.

pub mod ear;
pub mod kept;
pub mod learned;
pub mod message;
pub mod outcome;
pub mod packet;
pub mod questions;
pub mod resolve;
pub mod stream;
pub mod wanted;

pub use ear::{Ear, Settings};
pub use learned::{Change, Entry, Known, Learned};
pub use message::{Answer, Question, Told};
pub use outcome::{Counts, Outcome};
pub use questions::Servers;
pub use resolve::{Resolver, Whom};
pub use wanted::Wanted;

#[cfg(test)]
mod tests;
