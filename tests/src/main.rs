//! `uplink-lab`
fn main() {}
