//! What the BPF programs and user space of uplink share: the flow key, the keyed hash, the
//! slot rule, the records in the maps, the named reasons and the ABI number.
//!
//! Nothing here allocates, does I/O or reads a clock, so both sides compute the same answer.
#![no_std]

pub mod addr;
pub mod filter;
pub mod flow;
pub mod hash;
pub mod hop;
pub mod load;
pub mod mark;
pub mod npt;
pub mod path;
pub mod policy;
pub mod reason;
pub mod recent;
pub mod record;
pub mod select;

pub use addr::{Addr, Family};
pub use filter::Filter;
pub use flow::FlowKey;
pub use hash::Seed;
pub use reason::Reason;
pub use record::{
    ABI, Config, MAX_UPLINKS, NextHop, PIN_IDLE_S, Pin, SLOTS, Slot, Station, Translation, Uplink,
};
