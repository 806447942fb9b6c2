//! Which uplinks take new flows, and with what weight.

mod factors;
mod lowest;

pub use crate::rates::Rate;
pub use factors::{Member, cascade, effective, ramp, spill};
pub use lowest::{is_clearly_better, lowest};

/// The uplinks that serve one family now, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving(pub Vec<(u8, u32)>);

impl Serving {
    /// The weight of an uplink, 0 where it does not serve.
    #[must_use]
    pub fn weight(&self, id: u8) -> u32 {
        self.0.iter().find(|(i, _)| *i == id).map_or(0, |(_, w)| *w)
    }

    /// Its part of the whole, 0 to 1.
    #[must_use]
    pub fn share(&self, id: u8) -> f64 {
        match self.0.iter().map(|(_, w)| w).sum::<u32>() {
            0 => 0.0,
            total => f64::from(self.weight(id)) / f64::from(total),
        }
    }
}

impl Serving {
    /// Whether the same uplinks serve and no share differs by as much as `band`, 0 to 1.
    #[must_use]
    pub fn is_close(&self, other: &Self, band: f64) -> bool {
        let ids = |s: &Self| s.0.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let near = |id: &u8| (self.share(*id) - other.share(*id)).abs() < band;
        ids(self) == ids(other) && ids(self).iter().all(near)
    }
}

/// Weights of effective weights: as integers, the largest being [`MOST`], none below 1.
#[must_use]
pub fn scaled(ids: &[u8], effective: &[f64]) -> Serving {
    let most = effective.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let one = |e: &f64| ((e / most * f64::from(MOST)).round() as u32).clamp(1, MOST);
    Serving(ids.iter().copied().zip(effective.iter().map(one)).collect())
}

/// The largest weight, as in the configuration.
pub const MOST: u32 = 1000;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::resolve::{Leg, Uplink};

    pub(crate) fn uplink(id: u8, weight: u32, tier: u32) -> Uplink {
        let leg = |gateway: &str, source: &str, prefix: &str| Leg {
            gateway: gateway.parse().unwrap(),
            source: source.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        };
        Uplink {
            id,
            name: format!("isp{id}"),
            interface: "eth0".into(),
            ifindex: 2,
            v4: Some(leg(
                &format!("10.0.{id}.1"),
                &format!("10.0.{id}.100"),
                &format!("10.0.{id}.0/24"),
            )),
            v6: None,
            weight,
            tier,
            mtu: None,
            table: 20000 + u32::from(id),
            mark: u32::from(id) << 24,
            host_mark: 0,
            translation: None,
        }
    }

    #[test]
    fn effective_weights_become_integers_that_keep_their_ratio() {
        assert_eq!(scaled(&[1, 2], &[0.1, 0.025]), Serving(vec![(1, 1000), (2, 250)]));
        assert_eq!(scaled(&[1, 2], &[1.0, 1e-9]), Serving(vec![(1, 1000), (2, 1)]));
        assert_eq!(scaled(&[], &[]), Serving(vec![]));
    }

    #[test]
    fn within_the_band_is_close() {
        let s = |a, b| Serving(vec![(1, a), (2, b)]);
        assert!(s(500, 500).is_close(&s(510, 490), 0.03) && !s(500, 500).is_close(&s(540, 460), 0.03));
        assert!(!s(1, 1).is_close(&Serving(vec![(1, 1)]), 0.9));
    }

    #[test]
    fn shares_sum_to_one() {
        let s = Serving(vec![(1, 3), (2, 1)]);
        assert!((s.share(1) - 0.75).abs() < 1e-9 && (s.share(2) - 0.25).abs() < 1e-9);
        assert!(s.share(9).abs() < 1e-9);
    }
}
