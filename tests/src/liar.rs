//! Servers of the Internet that probes meet: good ones, and such as send what nobody asked for.

pub mod dns;
pub mod icmp;
mod tls;
pub mod web;

pub use dns::{Dns, Manner};
pub use icmp::{Liar, Lie};
pub use web::{Page, Web};
