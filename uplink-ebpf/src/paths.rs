//! The paths that flows were seen to take, a line of a table for each direction, and the ways that many of them share.

use uplink_common::{
    Config, Family, Seed,
    path::{self, Ends, Ends4, Ends6, Fast, LINES, MAX_WAYS, Path, WAY_TRIES, Way},
};

use crate::maps::{PATHS_V4, PATHS_V6, SCRATCH, WAYS};

/// The table of a family.
pub trait Table: Ends {
    /// A line by its number.
    fn line(index: u32) -> Option<&'static mut Path<Self>>;

    /// Room for a path in hand, this CPU's.
    fn draft() -> Option<&'static mut Path<Self>>;

    /// A line as it is now, read once.
    fn read(line: &Path<Self>) -> Path<Self>;
}

/// Each word of a record read once, for others may write it meanwhile.
macro_rules! read_words {
    ($record:expr, $($n:literal)*) => {{
        let words = core::ptr::from_ref($record).cast::<u64>();
        // SAFETY: the record is aligned for words and has so many of them.
        unsafe { [$(words.add($n).read_volatile()),*] }
    }};
}

impl Table for Ends4 {
    #[inline(always)]
    fn line(index: u32) -> Option<&'static mut Path<Self>> {
        // SAFETY: valid as long as the map. Other processors may write it meanwhile, which its check tells.
        PATHS_V4.get_ptr_mut(index).map(|line| unsafe { &mut *line })
    }

    #[inline(always)]
    fn draft() -> Option<&'static mut Path<Self>> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
        Some(unsafe { &mut (*scratch).path4 })
    }

    #[inline(always)]
    fn read(line: &Path<Self>) -> Path<Self> {
        let words: [u64; 4] = read_words!(line, 0 1 2 3);
        // SAFETY: of the same size, and any bits are a path.
        unsafe { core::mem::transmute(words) }
    }
}

impl Table for Ends6 {
    #[inline(always)]
    fn line(index: u32) -> Option<&'static mut Path<Self>> {
        // SAFETY: as above.
        PATHS_V6.get_ptr_mut(index).map(|line| unsafe { &mut *line })
    }

    #[inline(always)]
    fn draft() -> Option<&'static mut Path<Self>> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: a per-CPU entry, and a program is not preempted by another on its CPU.
        Some(unsafe { &mut (*scratch).path6 })
    }

    #[inline(always)]
    fn read(line: &Path<Self>) -> Path<Self> {
        let words: [u64; 9] = read_words!(line, 0 1 2 3 4 5 6 7 8);
        // SAFETY: of the same size, and any bits are a path.
        unsafe { core::mem::transmute(words) }
    }
}

/// The first lines of the buckets that a flow may be in.
#[inline(always)]
pub fn places<E: Table>(seed: Seed, fast: &Fast, ends: &E, proto: u8) -> [u32; 2] {
    let buckets = match E::FAMILY {
        Family::V4 => fast.buckets[0],
        Family::V6 => fast.buckets[1],
    };
    path::places(ends.place(seed, proto), buckets)
}

/// Whether a line is this flow's, of this generation.
#[inline(always)]
pub fn is_of<E: Table>(line: &Path<E>, fast: &Fast, ends: &E, proto: u8) -> bool {
    line.ends == *ends && line.proto == proto && line.generation == fast.generation
}

/// The path of a flow.
#[inline(always)]
pub fn find<E: Table>(seed: Seed, fast: &Fast, ends: &E, proto: u8) -> Option<&'static mut Path<E>> {
    const { assert!(LINES == 2) };
    let [a, b] = places(seed, fast, ends, proto);
    let own = |line| E::line(line).filter(|line| is_of(line, fast, ends, proto));
    own(a)
        .or_else(|| own(a + 1))
        .or_else(|| own(b))
        .or_else(|| own(b + 1))
}

/// The way of a path. Whether it still is that of this path, [`Path::check`] tells.
#[inline(always)]
pub fn way<E: Ends>(path: &Path<E>) -> Option<Way> {
    let way = place_of(u32::from(path.way))?;
    let words: [u64; 2] = read_words!(way, 0 1);
    // SAFETY: of the same size, and any bits are a way.
    Some(unsafe { core::mem::transmute::<[u64; 2], Way>(words) })
}

/// A place in the map of ways.
#[inline(always)]
fn place_of(number: u32) -> Option<&'static mut Way> {
    const { assert!(MAX_WAYS.is_power_of_two() && MAX_WAYS <= 1 << 16) };
    // SAFETY: valid as long as the map. Other processors may write it meanwhile, which the checks of paths tell.
    WAYS.get_ptr_mut(number).map(|way| unsafe { &mut *way })
}

/// What no way has as its number.
pub const NOWHERE: u32 = u32::MAX;

/// The place of a way in the map, which it may get now; [`NOWHERE`], where others have all of its places.
///
/// Not inlined: its loop is looked at once.
#[inline(never)]
pub fn number(way: &Way) -> u32 {
    let first = way.place();
    for n in 0..WAY_TRIES {
        let number = first.wrapping_add(n) & (MAX_WAYS as u32 - 1);
        let Some(place) = place_of(number) else {
            return NOWHERE;
        };
        // Of two processors that take it at once one loses, and his path does not fit its check.
        if place.generation != way.generation {
            *place = *way;
        }
        if *place == *way {
            return number;
        }
    }
    NOWHERE
}

/// Forgets the paths of a flow both ways: the connection begins or ends, and conntrack has to see how.
///
/// Not inlined: it runs seldom.
#[inline(never)]
pub fn forget<E: Table>(config: &Config, fast: &Fast, path: &Path<E>) {
    let Some(draft) = E::draft() else {
        return;
    };
    draft.ends = path.leaves().reversed();
    forget_one(config, fast, &draft.ends, path.proto);
    draft.ends = path.ends;
    forget_one(config, fast, &draft.ends, path.proto);
}

/// Forgets one direction of a flow, wherever it is.
///
/// Not inlined: it is called for both.
#[inline(never)]
pub fn forget_one<E: Table>(config: &Config, fast: &Fast, ends: &E, proto: u8) {
    let [a, b] = places(config.seed, fast, ends, proto);
    for line in [a, a + 1, b, b + 1] {
        if let Some(line) = E::line(line).filter(|line| is_of(line, fast, ends, proto)) {
            line.generation = 0;
        }
    }
}
