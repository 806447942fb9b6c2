//! Sets of values as ranges on one long line.

/// A place on the line: kinds of values have different first numbers.
pub(super) type Point = (u8, u128);

/// Ranges in order that neither touch nor overlap, ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Region(Vec<(Point, Point)>);

impl Region {
    /// All values, and the absence of one.
    pub fn everything() -> Self {
        Self(vec![((0, 0), (u8::MAX, u128::MAX))])
    }

    /// The union of ranges in any order.
    pub fn of(mut ranges: Vec<(Point, Point)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(Point, Point)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if after(last.1).is_none_or(|next| from <= next) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// What is not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        for &(from, to) in &self.0 {
            let first = other.0.partition_point(|hole| hole.1 < from);
            let holes = other.0.iter().skip(first).take_while(|hole| hole.0 <= to);
            let mut rest = Some(from);
            for hole in holes {
                let Some(from) = rest else { break };
                if let Some(end) = before(hole.0).filter(|end| from <= *end) {
                    left.push((from, end));
                }
                rest = after(hole.1);
            }
            left.extend(rest.filter(|from| *from <= to).map(|from| (from, to)));
        }
        Self(left)
    }

    /// Its ranges, in order.
    pub fn ranges(&self) -> &[(Point, Point)] {
        &self.0
    }
}

fn after((kind, value): Point) -> Option<Point> {
    match value.checked_add(1) {
        Some(value) => Some((kind, value)),
        None => kind.checked_add(1).map(|kind| (kind, 0)),
    }
}

fn before((kind, value): Point) -> Option<Point> {
    match value.checked_sub(1) {
        Some(value) => Some((kind, value)),
        None => kind.checked_sub(1).map(|kind| (kind, u128::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(ranges: &[(u128, u128)]) -> Region {
        Region::of(ranges.iter().map(|(from, to)| ((1, *from), (1, *to))).collect())
    }

    #[test]
    fn neighbours_are_joined() {
        assert_eq!(
            region(&[(6, 9), (1, 3), (4, 4), (8, 12)]),
            region(&[(1, 4), (6, 12)])
        );
        assert_eq!(region(&[(1, 9), (2, 3)]).ranges().len(), 1);
        let ends = vec![((1, 0), (1, u128::MAX)), ((2, 0), (2, 5))];
        assert_eq!(Region::of(ends).ranges(), [((1, 0), (2, 5))]);
    }

    #[test]
    fn holes_split_ranges() {
        let whole = region(&[(0, 10), (20, 30)]);
        for (holes, left) in [
            (region(&[]), whole.clone()),
            (region(&[(0, 30)]), region(&[])),
            (region(&[(5, 5)]), region(&[(0, 4), (6, 10), (20, 30)])),
            (region(&[(0, 2), (9, 21), (30, 40)]), region(&[(3, 8), (22, 29)])),
        ] {
            assert_eq!(whole.without(&holes), left);
        }
        let rest = Region::everything().without(&region(&[(0, u128::MAX)]));
        assert_eq!(
            rest.ranges(),
            [((0, 0), (0, u128::MAX)), ((2, 0), (u8::MAX, u128::MAX))]
        );
        assert_eq!(
            Region::everything().without(&Region::everything()),
            Region::default()
        );
    }
}
