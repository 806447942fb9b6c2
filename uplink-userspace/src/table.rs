//! The slot table: weighted Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Every uplink walks its own permutation of the slots, derived from its name, and takes the
//! next free one when it is its turn. An uplink of weight `w` has its turn in `w / max` of the
//! rounds. Removing an uplink frees its slots and moves few of the others.

/// An uplink's claim on the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Uplink id.
    pub id: u8,
    /// Where its permutation comes from; stable across restarts.
    pub name: String,
    /// Relative share, at least 1.
    pub weight: u32,
}

/// The uplink id of each of `size` slots, a prime; all zero where nobody claims.
#[must_use]
pub fn build(claims: &[Claim], size: u32) -> Vec<u8> {
    let mut slots = vec![0; size as usize];
    let Some(max) = claims.iter().map(|c| c.weight).max().filter(|w| *w > 0) else {
        return slots;
    };
    let mut walks: Vec<Walk> = claims.iter().map(|c| Walk::new(c, size)).collect();
    let mut free = size;
    loop {
        for walk in &mut walks {
            walk.credit += walk.weight;
            if walk.credit < max {
                continue;
            }
            walk.credit -= max;
            let slot = walk.next_free(&slots);
            slots[slot] = walk.id;
            free -= 1;
            if free == 0 {
                return slots;
            }
        }
    }
}

/// One uplink's way through the slots.
struct Walk {
    id: u8,
    weight: u32,
    /// Rounds' worth of weight not yet spent, below `max` between rounds.
    credit: u32,
    position: u32,
    skip: u32,
    size: u32,
}

impl Walk {
    fn new(claim: &Claim, size: u32) -> Self {
        Self {
            id: claim.id,
            weight: claim.weight,
            credit: 0,
            position: (fnv1a(&claim.name, 0) % u64::from(size)) as u32,
            skip: (fnv1a(&claim.name, 1) % u64::from(size - 1)) as u32 + 1,
            size,
        }
    }

    /// The next slot on the way that nobody has. `skip` and the prime `size` have no common
    /// factor, so the walk meets every slot.
    fn next_free(&mut self, slots: &[u8]) -> usize {
        loop {
            let here = self.position as usize;
            self.position = (self.position + self.skip) % self.size;
            if slots[here] == 0 {
                return here;
            }
        }
    }
}

/// FNV-1a with a final mix (the finalizer of MurmurHash3): spreads names, not secret.
fn fnv1a(name: &str, salt: u8) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for b in name.bytes().chain([0xff, salt]) {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uplink_common::SLOTS;
    use uplink_common::policy::GROUP_SLOTS;

    fn claims(weights: &[u32]) -> Vec<Claim> {
        let claim = |(i, w): (usize, &u32)| Claim {
            id: i as u8 + 1,
            name: format!("isp{}", i + 1),
            weight: *w,
        };
        weights.iter().enumerate().map(claim).collect()
    }

    fn share(slots: &[u8], id: u8) -> f64 {
        slots.iter().filter(|s| **s == id).count() as f64 / slots.len() as f64
    }

    /// Slots of uplinks other than `gone` that changed hands, as a fraction of the table.
    fn moved(before: &[u8], after: &[u8], gone: u8) -> f64 {
        let moved = before
            .iter()
            .zip(after)
            .filter(|(b, a)| **b != gone && a != b)
            .count();
        moved as f64 / f64::from(SLOTS)
    }

    #[test]
    fn shares_are_within_a_tenth_of_a_point() {
        for weights in [&[3, 1][..], &[1, 1, 1], &[1000, 1], &[5, 3, 2, 90], &[7; 64]] {
            let slots = build(&claims(weights), SLOTS);
            let total: u32 = weights.iter().sum();
            for (i, w) in weights.iter().enumerate() {
                let wanted = f64::from(*w) / f64::from(total);
                let got = share(&slots, i as u8 + 1);
                assert!((got - wanted).abs() < 0.001, "{weights:?}: {got} for {wanted}");
            }
        }
    }

    #[test]
    fn shares_of_a_group_are_within_a_fifth_of_a_point() {
        for weights in [
            &[3, 1][..],
            &[1, 1, 1],
            &[1000, 1],
            &[5, 3, 2, 90],
            &[7; 64],
            &[1; 64],
        ] {
            let slots = build(&claims(weights), GROUP_SLOTS);
            let total: u32 = weights.iter().sum();
            for (i, w) in weights.iter().enumerate() {
                let wanted = f64::from(*w) / f64::from(total);
                let got = share(&slots, i as u8 + 1);
                assert!((got - wanted).abs() < 0.002, "{weights:?}: {got} for {wanted}");
            }
        }
    }

    #[test]
    fn removing_one_moves_hardly_any_slot_of_the_others() {
        for n in [2, 3, 4, 8] {
            let all = claims(&vec![1; n]);
            let before = build(&all, SLOTS);
            for gone in 0..n {
                let mut rest = all.clone();
                rest.remove(gone);
                let after = build(&rest, SLOTS);
                let moved = moved(&before, &after, gone as u8 + 1);
                // The paper's figure 12 shows a few percent at one slot in a hundred; with this
                // many slots it stays far below.
                assert!(moved < 0.01, "{n} uplinks, without {}: {moved}", gone + 1);
            }
        }
    }

    #[test]
    fn nobody_gets_nothing() {
        assert!(build(&[], SLOTS).iter().all(|s| *s == 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_slot_is_taken_by_a_claimant(
            weights in prop::collection::vec(1u32..=1000, 1..16),
            size in prop_oneof![Just(SLOTS), Just(GROUP_SLOTS)],
        ) {
            let slots = build(&claims(&weights), size);
            prop_assert!(slots.iter().all(|s| *s >= 1 && usize::from(*s) <= weights.len()));
        }
    }
}
