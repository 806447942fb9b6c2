//! The fast path: what the kernel made of a flow's packets, a line of a table for each direction, so that the next
//! ones are rewritten and sent on before the kernel has made a packet of them.

mod asked;
mod checksum;
mod ends;
mod mix;
mod way;

pub use asked::{ASKED, Asked, Print};
pub use checksum::{HOP, apply, delta, fold, is_unfinished};
pub use ends::{Address, Both, End, Ends, Ends4, Ends6};
pub use way::{MAX_WAYS, WAY_TRIES, Way};

use mix::{finish, turn};

/// Lines of a bucket, which are neighbours: of IPv4 they share a cache line.
pub const LINES: u32 = 2;

/// A path that was seen once only is looked at again this soon, in seconds: conntrack believes in a stream of
/// datagrams that has gone on for two.
pub const FIRST_LOOK_S: u32 = 3;

/// Two looks within this time count as one, in seconds: whole ones of the clock, so that there are more than two between them.
pub const APART_S: u32 = 3;

/// Records of map `ports`: an interface is found by the last byte of its index.
pub const PORTS: usize = 256;

/// [`Fast::families`]: IPv4.
pub const FAST_V4: u32 = 1;
/// [`Fast::families`]: IPv6.
pub const FAST_V6: u32 = 2;

/// Map `fast`, entry 0: whether there is a fast path, and which paths are valid.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fast {
    /// Paths of another generation are void. Raised whenever the kernel might treat a flow otherwise than it did. Never 0
    /// while the fast path is on.
    pub generation: u32,
    /// [`FAST_V4`], [`FAST_V6`].
    pub families: u32,
    /// A path that the kernel has not confirmed for so many seconds is not used before it has.
    pub look_again_s: u32,
    /// Buckets of the table of each family: powers of two.
    pub buckets: [u32; 2],
}

/// Map `ports`, by the last byte of the index: an interface that packets come in by and leave by.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Port {
    /// Its index; 0: none of ours.
    pub ifindex: u32,
    /// Index of the interface that has the wire: another one where this is a VLAN.
    pub device: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Number of the VLAN; 0: none.
    pub vlan: u16,
}

/// [`Path::flags`]: the other direction is known, too. Before, conntrack takes the flow for a new one, and rules may mind every packet.
pub const ANSWERED: u8 = 1;
/// [`Path::flags`]: it was seen twice, apart from each other.
pub const TWICE: u8 = 2;
/// [`Path::flags`]: it leaves by an uplink, and its source is what changes; otherwise its destination.
pub const OUTWARD: u8 = 4;

/// Maps `paths_v4` and `paths_v6`: the path of a flow in one direction. Two of IPv4 share a cache line; one of IPv6
/// lies in two, wherever it begins.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Path<E: Ends> {
    /// As it comes in.
    pub ends: E,
    /// [`Fast::generation`] when it was learned; 0: nothing is here.
    pub generation: u32,
    /// What one of its ends is when it leaves: the source of what leaves by an uplink, else the destination.
    pub becomes: End<E::Address>,
    /// Place of its [`Way`] in the map.
    pub way: u16,
    /// The longest packet that was seen to leave whole, bytes from its IP header on.
    pub longest: u16,
    /// The last bits of the seconds since boot when the kernel last sent such a packet this way.
    pub looked_s: u16,
    /// [`Path::checked`]. Two processors may write one line at the same time.
    pub check: u16,
    /// IP protocol number.
    pub proto: u8,
    /// [`ANSWERED`], [`TWICE`], [`OUTWARD`].
    pub flags: u8,
    /// Always zero: so many of them fill words.
    pub pad: E::Pad,
}

impl<E: Ends> Path<E> {
    /// What [`Path::check`] has to be, by everything else and by all of the way.
    #[inline(always)]
    #[must_use]
    pub fn checked(&self, way: &Way) -> u16 {
        let numbers = (self.way as u64) << 48
            | (self.longest as u64) << 32
            | (self.looked_s as u64) << 16
            | (self.proto as u64) << 8
            | self.flags as u64;
        let [a, b] = way.words();
        let sum = turn(turn(turn(self.generation as u64, numbers), a), b);
        let sum = turn(self.ends.mix(sum), self.becomes.port_word() as u64);
        let sum = self.becomes.address.mix(sum);
        (finish(sum) >> 48) as u16
    }

    /// Whether the same flow's packets become the same by both.
    #[inline(always)]
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        self.is_outward() == other.is_outward()
            && self.becomes.port_word() == other.becomes.port_word()
            && self.becomes.address.is(&other.becomes.address)
    }

    /// Whether it leaves by an uplink.
    #[inline(always)]
    #[must_use]
    pub const fn is_outward(&self) -> bool {
        self.flags & OUTWARD != 0
    }

    /// Its ends when it leaves.
    #[inline(always)]
    #[must_use]
    pub fn leaves(&self) -> E {
        self.ends.with(self.is_outward(), &self.becomes)
    }

    /// Seconds since the kernel last sent such a packet, by the last bits of this time.
    #[inline(always)]
    #[must_use]
    pub const fn age_s(&self, now_s: u32) -> u32 {
        (now_s as u16).wrapping_sub(self.looked_s) as u32
    }

    /// How long it may be used without asking the kernel, in seconds.
    #[inline(always)]
    #[must_use]
    pub const fn trust_s(&self, fast: &Fast) -> u32 {
        if self.flags & TWICE == 0 {
            FIRST_LOOK_S
        } else {
            fast.look_again_s
        }
    }

    /// What the checksum of the IPv4 header and that of TCP or UDP change by, the TTL left aside.
    #[inline(always)]
    #[must_use]
    pub fn deltas(&self) -> [u16; 2] {
        let before = self.ends.end(self.is_outward());
        let addresses = [before.address.sum(), self.becomes.address.sum()];
        let ports = [before.port, self.becomes.port].map(|port| u16::from_ne_bytes(port) as u32);
        [
            delta(addresses[0], addresses[1]),
            delta(addresses[0] + ports[0], addresses[1] + ports[1]),
        ]
    }
}

/// A path is told from one that is 2^16 seconds older by its generation, which has to change before: at least this often,
/// in seconds.
pub const GENERATION_S: u32 = 1 << 15;

/// The first lines of the two buckets that a flow may be in, by its [`Ends::place`]. With one bucket only, a fifth of all flows
/// would find no room in a table that is three quarters full; with the emptier one of two, a twentieth (Azar, Broder, Karlin and
/// Upfal, 1994).
#[inline(always)]
#[must_use]
pub const fn places(place: u64, buckets: u32) -> [u32; 2] {
    let mask = buckets.wrapping_sub(1);
    [
        ((place >> 32) as u32 & mask) * LINES,
        (place as u32 & mask) * LINES,
    ]
}

const _: () = assert!(size_of::<Path<Ends4>>() == 32);
const _: () = assert!(size_of::<Path<Ends6>>() == 72);
const _: () = assert!(size_of::<Port>() == 16);
const _: () = assert!(size_of::<Fast>() == 20);

#[cfg(feature = "user")]
mod pod {
    use super::*;
    // SAFETY: `repr(C)`, `Copy`, integers and byte arrays only, without padding (sizes are asserted above), so every bit
    // pattern is valid.
    unsafe impl aya::Pod for Fast {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Port {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Way {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Path<Ends4> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Path<Ends6> {}
}

#[cfg(test)]
mod tests;
