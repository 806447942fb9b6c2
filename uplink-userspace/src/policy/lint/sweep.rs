//! How the regions of many policies relate, pair by pair, in one walk along the line. At each end of a range a
//! whole row of bits says who is there, so the cost grows with the ranges and not with the pairs.

use super::region::{Point, Region};

/// How policies relate to each other in one field.
pub(super) struct Relation {
    /// Row `p`: who was there when a range of `p` began.
    met: Matrix,
    /// Row `p`: who was not there when a range of `p` began.
    missed: Matrix,
    /// Row `p`: who was still there when a range of `p` had ended.
    outlived: Matrix,
    empty: Vec<bool>,
}

impl Relation {
    /// By position.
    pub fn of(regions: &[Region]) -> Self {
        let count = regions.len();
        let mut relation = Self {
            met: Matrix::of(count),
            missed: Matrix::of(count),
            outlived: Matrix::of(count),
            empty: regions.iter().map(|r| r.ranges().is_empty()).collect(),
        };
        let mut there = Row::of(count);
        let events = events(regions);
        for at in events.chunk_by(|a, b| a.place() == b.place()) {
            relation.pass(at, &mut there);
        }
        relation
    }

    /// Whether all of b's region is in a's.
    pub fn contains(&self, a: usize, b: usize) -> bool {
        !self.missed.has(b, a) && !self.outlived.has(a, b)
    }

    /// Whether they have something in common.
    pub fn meets(&self, a: usize, b: usize) -> bool {
        self.met.has(a, b) || self.met.has(b, a)
    }

    /// Whether its region is empty.
    pub fn is_empty(&self, a: usize) -> bool {
        self.empty.get(a).is_some_and(|empty| *empty)
    }

    /// One place where ranges begin or end, not both: what begins at a point is there before what ends at it is gone.
    fn pass(&mut self, at: &[Event], there: &mut Row) {
        for event in at {
            there.set(event.policy, !event.ends);
        }
        for event in at {
            match event.ends {
                false => {
                    self.met.join(event.policy, there, |there| there);
                    self.missed.join(event.policy, there, |there| !there);
                }
                true => self.outlived.join(event.policy, there, |there| there),
            }
        }
    }
}

/// The beginning or the end of a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    point: Point,
    ends: bool,
    policy: usize,
}

impl Event {
    const fn place(&self) -> (Point, bool) {
        (self.point, self.ends)
    }
}

fn events(regions: &[Region]) -> Vec<Event> {
    let of = |(policy, region): (usize, &Region)| {
        let ends = |&(from, to): &(Point, Point)| [(from, false), (to, true)];
        let events = region.ranges().iter().flat_map(ends);
        let events = events.map(|(point, ends)| Event { point, ends, policy });
        events.collect::<Vec<_>>()
    };
    let mut events: Vec<Event> = regions.iter().enumerate().flat_map(of).collect();
    events.sort_unstable();
    events
}

/// A bit for each policy.
struct Row(Vec<u64>);

impl Row {
    fn of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn set(&mut self, bit: usize, value: bool) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            let mask = 1 << (bit % 64);
            *word = if value { *word | mask } else { *word & !mask };
        }
    }
}

/// A row for each policy.
struct Matrix {
    width: usize,
    words: Vec<u64>,
}

impl Matrix {
    fn of(count: usize) -> Self {
        let width = count.div_ceil(64);
        let words = vec![0; width * count];
        Self { width, words }
    }

    fn join(&mut self, row: usize, other: &Row, with: impl Fn(u64) -> u64) {
        let words = self.words.iter_mut().skip(row * self.width);
        for (word, other) in words.zip(&other.0) {
            *word |= with(*other);
        }
    }

    fn has(&self, row: usize, bit: usize) -> bool {
        let word = self.words.get(row * self.width + bit / 64);
        word.is_some_and(|word| word & 1 << (bit % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn relations_are_those_of_the_points(
            bits in proptest::collection::vec(any::<u16>(), 1..80)
        ) {
            let region = |bits: &u16| {
                let points = (0..16_u128).filter(|p| bits & 1 << p != 0);
                Region::of(points.map(|p| ((1, p), (1, p))).collect())
            };
            let regions: Vec<Region> = bits.iter().map(region).collect();
            let relation = Relation::of(&regions);
            for (i, a) in bits.iter().enumerate() {
                prop_assert_eq!(relation.is_empty(i), *a == 0);
                for (j, b) in bits.iter().enumerate() {
                    prop_assert_eq!(relation.contains(i, j), b & !a == 0, "{:b} in {:b}", b, a);
                    prop_assert_eq!(relation.meets(i, j), a & b != 0, "{:b} and {:b}", a, b);
                }
            }
        }
    }
}
