//! What the benchmark's generator sends and its sink counts. Nothing here concerns the daemon.

/// The destination port of every packet of the load: what has it leaves by an uplink, and an answer comes from it.
pub const PORT: u16 = 4433;

/// The length of its frames, in bytes, for both families.
pub const FRAME: usize = 64;

/// Clients; flow `n` is client `n % CLIENTS`'s.
pub const CLIENTS: u32 = 16;

/// Destinations; flow `n` goes to number `n / CLIENTS % DESTINATIONS`.
pub const DESTINATIONS: u32 = 1 << 16;

/// Most flows that differ, with NAT and without.
pub const MOST_FLOWS: u32 = CLIENTS * DESTINATIONS;

/// What to send: UDP flows from clients behind the router.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Flows, 1 to [`MOST_FLOWS`].
    pub flows: u32,
    /// 1: each packet is of a flow drawn at random; 0: one after the other.
    pub random: u32,
    /// 1: IPv6.
    pub v6: u32,
    /// 1: the sink answers what it gets.
    pub answer: u32,
    /// The router's MAC address, and a client's.
    pub router: [u8; 6],
    /// The sender's MAC address.
    pub client: [u8; 6],
    /// The number of the next packet.
    pub next: u32,
}

/// What the sink saw.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// Packets of the load, by the last byte of the gateway's MAC address, 1 or 2; else 0.
    pub by_gateway: [u64; 3],
    /// Of these, with a client's own address as the source.
    pub with_own_address: u64,
    /// Answers that came back for a client.
    pub answers: u64,
}

const _: () = assert!(size_of::<Load>() == 32);
const _: () = assert!(size_of::<Seen>() == 40);

/// The order in which flows are drawn: the finalizer of MurmurHash3 (Appleby, public domain), a permutation of all
/// 32-bit numbers that looks random.
#[inline(always)]
#[must_use]
pub const fn mix(n: u32) -> u32 {
    let n = (n ^ (n >> 16)).wrapping_mul(0x85eb_ca6b);
    let n = (n ^ (n >> 13)).wrapping_mul(0xc2b2_ae35);
    n ^ (n >> 16)
}

/// The source port of a flow: no two clients share one, so that NAT need not change it.
#[inline(always)]
#[must_use]
pub const fn source_port(flow: u32) -> u16 {
    (1024 + (mix(flow) & 0x7ff) * CLIENTS + flow % CLIENTS) as u16
}

/// A flow's addresses, source and destination, as 32-bit numbers: the whole address in IPv4, the lower end in IPv6.
#[inline(always)]
#[must_use]
pub const fn ends(flow: u32) -> (u32, u32) {
    let client = 0xac10_0002 + flow % CLIENTS;
    let destination = 0xc612_0000 + flow / CLIENTS % DESTINATIONS;
    (client, destination)
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, `Copy`, made of integers and byte arrays only, without padding (its size is asserted above).
    unsafe impl aya::Pod for super::Load {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Seen {}
}
