//! `uplink top`: uplinks, events and talkers, live in a terminal.
//!
//! `state` is the model: it takes answers, events and keys with their time. `draw` shows a model on
//! a frame. Both are pure; `run` has the socket, `screen` the terminal.

mod clean;
mod draw;
mod figures;
mod history;
mod keys;
mod rows;
mod run;
mod screen;
mod state;
mod talkers;
mod theme;

pub use draw::draw;
pub use history::{History, Sample, spark};
pub use keys::Action;
pub use rows::Sort;
pub use run::run;
pub use state::{Interval, Model};
pub use talkers::{Talker, Talkers};
pub use theme::Theme;

#[cfg(test)]
mod tests;
