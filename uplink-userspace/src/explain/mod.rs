//! `uplink explain`: what becomes of a flow, and why. Everything is read from the very maps that the programs read,
//! so the answer is theirs, not a second opinion.
//!
//! `question` -> `decide` (over a [`World`]) -> `answer` -> `text`; `what_if` lets each uplink go down in a copy of
//! the engine. All of that is pure. `kernel`, `route` and `scene` are the world as it is.

mod alone;
pub mod answer;
mod balance;
mod decide;
mod describe;
pub mod kernel;
mod minds;
mod policies;
pub mod question;
mod route;
pub mod scene;
mod shares;
mod text;
mod what_if;
pub mod world;

pub use answer::Answer;
pub use decide::explain;
pub use minds::minds;
pub use question::{Flow, Question, Source};
pub use text::text;
pub use world::{Known, Scene, World};

#[cfg(test)]
mod tests;
