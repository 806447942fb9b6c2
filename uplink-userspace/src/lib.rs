//! The uplink daemon as a library. Pure modules decide, I/O modules carry it out:
//!
//! `config <- health <- weights <- table <- engine <- daemon -> {probe, links, routes, nat, maps, api}`
//!
//! A pure module imports no tokio, aya or rtnetlink and reads no clock.

pub mod aggregate;
pub mod api;
pub mod bypass;
pub mod census;
pub mod changes;
pub mod cli;
pub mod config;
pub mod conntrack;
pub mod daemon;
pub mod desired;
pub mod doctor;
pub mod engine;
pub mod events;
pub mod explain;
pub mod fast;
pub mod flow_map;
pub mod flows;
pub mod foreign;
pub mod health;
pub mod history;
pub mod hooks;
pub mod host;
pub mod inspect;
pub mod links;
pub mod loader;
pub mod lock;
pub mod maps;
pub mod metrics;
pub mod names;
pub mod nat;
pub mod nexthop;
pub mod options;
pub mod passive;
pub mod plan;
pub mod policy;
pub mod probe;
mod process;
pub mod quota;
pub mod rates;
pub mod reference;
pub mod repairs;
pub mod reset;
pub mod resolve;
pub mod routes;
pub mod shadow;
pub mod state;
pub mod stations;
pub mod status;
pub mod sysctl;
pub mod table;
pub mod tally;
pub mod top;
pub mod usage;
pub mod web;
pub mod weights;
