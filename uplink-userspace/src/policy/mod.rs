//! What policies come to: whether they can match at all, and when they are in force.

pub mod lint;
pub mod schedule;
