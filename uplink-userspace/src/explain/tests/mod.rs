//! Answers over a world that is made up.

mod fake;
mod left_alone;
mod questions;
mod texts;
mod uplinks;
mod without;
