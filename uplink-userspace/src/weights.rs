//! Which uplinks take new flows, and with what weight.

use uplink_common::Family;

use crate::resolve::Uplink;

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

/// The members of the lowest tier in which anybody is alive. `None` when nobody is: the last
/// good table stays then, since a wrong verdict about everybody must not cut everybody off.
#[must_use]
pub fn serving(uplinks: &[Uplink], family: Family, alive: impl Fn(&Uplink) -> bool) -> Option<Serving> {
    let candidates = || uplinks.iter().filter(|u| u.leg(family).is_some() && alive(u));
    let tier = candidates().map(|u| u.tier).min()?;
    let members = candidates().filter(|u| u.tier == tier);
    Some(Serving(members.map(|u| (u.id, u.weight)).collect()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::resolve::Leg;

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
    fn the_lowest_living_tier_serves() {
        let all = [uplink(1, 3, 1), uplink(2, 1, 1), uplink(3, 5, 2)];
        let with = |dead: &[u8]| serving(&all, Family::V4, |u| !dead.contains(&u.id));
        assert_eq!(with(&[]), Some(Serving(vec![(1, 3), (2, 1)])));
        assert_eq!(with(&[1]), Some(Serving(vec![(2, 1)])));
        assert_eq!(with(&[1, 2]), Some(Serving(vec![(3, 5)])));
        assert_eq!(with(&[1, 2, 3]), None);
    }

    #[test]
    fn a_family_that_nobody_carries_has_no_table() {
        assert_eq!(serving(&[uplink(1, 1, 1)], Family::V6, |_| true), None);
    }

    #[test]
    fn shares_sum_to_one() {
        let s = Serving(vec![(1, 3), (2, 1)]);
        assert!((s.share(1) - 0.75).abs() < 1e-9 && (s.share(2) - 0.25).abs() < 1e-9);
        assert!(s.share(9).abs() < 1e-9);
    }
}
