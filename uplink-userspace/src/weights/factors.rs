//! What weights are multiplied with: latency, loss, bandwidth, quality.
//!
//! | `by` | factor | source |
//! |---|---|---|
//! | latency | 1 / max(RTT, 1 ms) | TCP's rate is inverse to the RTT (Mathis et al.) |
//! | loss | sqrt(p0 / (p0 + p)), p0 = 1 % | M. Mathis, J. Semke, J. Mahdavi, T. Ott, "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm", CCR 27(3), 1997: goodput falls with 1/sqrt(p); p0 is what a hundred probes can tell from no loss |
//! | bandwidth | capacity towards us x the part that is left in the fuller direction, 20 % at least | new flows go where there is room; of a line that is nearly full, the rest is noise |
//! | quality | the three together | |

use std::time::Duration;

use crate::config::By;
use crate::rates::Rate;

/// Round-trip times below this do not differ in what people notice.
const LEAST_RTT_MS: f64 = 1.0;
/// Loss that a window of a hundred probes cannot tell from none.
const UNNOTICED_LOSS: f64 = 0.01;
/// A full uplink counts as having this part of its capacity left. Downloads fill any line, so what is left of a
/// full one says nothing, and a pause of some on another one must not draw all new flows there: at
/// 5 % a second's pause halved the share of a line of 100 Mbit/s next to one of 20, and both were
/// idle in turn.
const LEAST_LEFT: f64 = 0.2;
/// Steps in which a recovered uplink's weight grows.
const RAMP_STEPS: u32 = 5;

/// What is known of an uplink that may serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Uplink id.
    pub id: u8,
    /// Configured weight.
    pub weight: u32,
    /// Smoothed round-trip time, where it was measured.
    pub rtt_ms: Option<f64>,
    /// Smoothed difference of neighbouring round-trip times; 0 where it was not measured.
    pub jitter_ms: f64,
    /// Lost probes, 0 to 1.
    pub loss: f64,
    /// Over how many probes that was counted.
    pub probes: u32,
    /// What it can carry, where both directions are known.
    pub capacity: Option<Rate>,
    /// What it carries now.
    pub carried: Rate,
    /// 1, or less for a while after a recovery.
    pub ramp: f64,
}

impl Member {
    /// The part of its capacity that is in use, in the fuller direction; 0 where no capacity is
    /// known, above 1 where the capacity is understated.
    #[must_use]
    pub fn usage(&self) -> f64 {
        self.capacity
            .map_or(0.0, |c| (self.carried.down / c.down).max(self.carried.up / c.up))
    }

    fn left(&self) -> f64 {
        let towards_us = self.capacity.map_or(1.0, |c| c.down);
        towards_us * (1.0 - self.usage()).max(LEAST_LEFT)
    }
}

/// Weight times factor of each member, in their order; all above 0.
#[must_use]
pub fn effective(members: &[Member], by: By) -> Vec<f64> {
    let known: Vec<f64> = members.iter().filter_map(|m| m.rtt_ms).collect();
    let typical = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let latency = |m: &Member| 1.0 / m.rtt_ms.unwrap_or(typical).max(LEAST_RTT_MS);
    let loss = |m: &Member| (UNNOTICED_LOSS / (UNNOTICED_LOSS + m.loss.max(0.0))).sqrt();
    let all_sized = members.iter().all(|m| m.capacity.is_some());
    let bandwidth = |m: &Member| if all_sized { m.left() } else { 1.0 };
    let factor = |m: &Member| match by {
        By::Weight => 1.0,
        By::Latency => latency(m),
        By::Loss => loss(m),
        By::Bandwidth => bandwidth(m),
        By::Quality => latency(m) * loss(m) * bandwidth(m),
    };
    let one = |m: &Member| f64::from(m.weight) * factor(m) * m.ramp;
    members.iter().map(one).collect()
}

/// The part of its weight that an uplink has so long after its recovery, 0.2 to 1 in five steps.
#[must_use]
pub fn ramp(since: Duration, slow_start: Duration) -> f64 {
    if since >= slow_start {
        return 1.0;
    }
    let step = (since.as_secs_f64() / slow_start.as_secs_f64() * f64::from(RAMP_STEPS)).floor();
    ((step + 1.0) / f64::from(RAMP_STEPS)).min(1.0)
}

/// The next part of the flows that go on from a member to the next ones: it grows while the
/// member carries more than `limit` of its capacity and shrinks while it carries less, so that
/// its usage stays there. 0 to `most`, the others' part of the capacity: more would leave the
/// member empty when what it carries now ends.
#[must_use]
pub fn spill(before: f64, usage: f64, limit: f64, most: f64) -> f64 {
    let excess = usage - limit;
    if excess.abs() < SPILL_BAND {
        return before;
    }
    (before + excess).clamp(0.0, most)
}

/// The shares of members in their order, each passing on a part of what reaches it. The last
/// one keeps the rest.
#[must_use]
pub fn cascade(passed_on: &[f64]) -> Vec<f64> {
    let mut left = 1.0;
    let last = passed_on.len().saturating_sub(1);
    let take = |(at, part): (usize, &f64)| {
        let keeps = if at == last { left } else { left * (1.0 - part) };
        left -= keeps;
        keeps
    };
    passed_on.iter().enumerate().map(take).collect()
}

/// Usage this near to the limit is at it.
const SPILL_BAND: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MBIT: f64 = 1e6;

    fn member(weight: u32) -> Member {
        Member {
            id: 1,
            weight,
            rtt_ms: None,
            jitter_ms: 0.0,
            loss: 0.0,
            probes: 100,
            capacity: None,
            carried: Rate::default(),
            ramp: 1.0,
        }
    }

    fn sized(capacity: f64, carried: f64) -> Member {
        let rate = |r: f64| Rate {
            down: r * MBIT,
            up: r * MBIT / 10.0,
        };
        Member {
            capacity: Some(rate(capacity)),
            carried: rate(carried),
            ..member(1)
        }
    }

    /// The first member's part.
    fn share(members: &[Member], by: By) -> f64 {
        let all = effective(members, by);
        all[0] / all.iter().sum::<f64>()
    }

    #[test]
    fn latency_shares_are_inverse_to_the_round_trip_time() {
        let of = |rtt_ms| Member { rtt_ms, ..member(1) };
        assert!((share(&[of(Some(10.0)), of(Some(40.0))], By::Latency) - 0.8).abs() < 1e-9);
        assert!((share(&[of(Some(0.1)), of(Some(0.4))], By::Latency) - 0.5).abs() < 1e-9);
        assert!((share(&[of(None), of(None)], By::Latency) - 0.5).abs() < 1e-9);
        assert!((share(&[of(None), of(Some(20.0))], By::Latency) - 0.5).abs() < 1e-9);
        let heavy = Member {
            weight: 4,
            ..of(Some(40.0))
        };
        assert!((share(&[heavy, of(Some(10.0))], By::Latency) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn loss_shares_follow_the_goodput() {
        let of = |loss| Member { loss, ..member(1) };
        let ratio = |loss| {
            let all = effective(&[of(loss), of(0.0)], By::Loss);
            all[0] / all[1]
        };
        assert!((ratio(0.0) - 1.0).abs() < 1e-9);
        assert!((ratio(0.03) - 0.5).abs() < 1e-9);
        assert!((ratio(0.24) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn bandwidth_shares_follow_what_is_left() {
        let share = |a, b| share(&[a, b], By::Bandwidth);
        assert!((share(sized(100.0, 0.0), sized(20.0, 0.0)) - 5.0 / 6.0).abs() < 1e-9);
        assert!((share(sized(100.0, 80.0), sized(20.0, 0.0)) - 0.5).abs() < 1e-9);
        let both_full = share(sized(100.0, 100.0), sized(20.0, 25.0));
        assert!((both_full - 5.0 / 6.0).abs() < 1e-9, "{both_full}");
        // One direction alone can be full.
        let mut upload = sized(100.0, 0.0);
        upload.carried.up = 10.0 * MBIT;
        assert!((share(upload, sized(20.0, 0.0)) - 0.5).abs() < 1e-9);
        // A pause on the smaller line while both are full moves a few points, not half.
        let pause = share(sized(100.0, 96.0), sized(20.0, 14.0));
        assert!((pause - 0.77).abs() < 0.01, "{pause}");
    }

    #[test]
    fn a_recovered_uplink_grows_in_steps() {
        let slow = Duration::from_secs(5);
        let at = |ms| ramp(Duration::from_millis(ms), slow);
        assert_eq!(
            [at(0), at(999), at(1_000), at(4_999), at(5_000)],
            [0.2, 0.2, 0.4, 1.0, 1.0]
        );
        assert_eq!(ramp(Duration::ZERO, Duration::ZERO), 1.0);
    }

    #[test]
    fn a_member_passes_on_what_is_too_much_and_takes_it_back() {
        let near = |before, usage, to: f64| (spill(before, usage, 0.8, 0.5) - to).abs() < 1e-9;
        assert!(near(0.0, 0.5, 0.0) && near(0.0, 1.0, 0.2));
        assert!(near(0.4, 0.82, 0.4), "at the limit nothing moves");
        assert!(near(0.4, 0.6, 0.2) && near(0.4, 2.0, 0.5));
    }

    #[test]
    fn what_is_passed_on_reaches_the_next_ones() {
        let near = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near(cascade(&[0.0, 0.0]), &[1.0, 0.0]));
        assert!(near(cascade(&[0.2, 0.5, 0.9]), &[0.8, 0.1, 0.1]));
        assert!(near(cascade(&[0.9]), &[1.0]), "a single one keeps everything");
        assert!(cascade(&[]).is_empty());
    }

    /// A line on which flows last ten seconds: the share settles where usage is at the limit.
    #[test]
    fn constant_demand_ends_in_a_constant_share() {
        let (mut passed, mut usage, mut moved) = (0.0, 0.0, 0.0f64);
        for step in 0..300 {
            let before = passed;
            passed = spill(passed, usage, 0.8, 0.9);
            // A fifth of the flows ends within a step of two seconds.
            usage += (1.6 * (1.0 - passed) - usage) / 5.0;
            if step > 200 {
                moved = moved.max((passed - before).abs());
            }
        }
        assert!((usage - 0.8).abs() <= SPILL_BAND, "{usage}");
        assert!(moved < 1e-9, "{moved}");
    }

    proptest! {
        #[test]
        fn nobody_is_left_without_a_share(
            members in prop::collection::vec(
                (1u32..=1000, prop::option::of(0.0..5000.0f64), 0.0..=1.0f64, 1e4..1e12f64, 0.0..1e13f64), 1..16),
            by in prop_oneof![Just(By::Weight), Just(By::Latency), Just(By::Loss), Just(By::Bandwidth), Just(By::Quality)],
        ) {
            let members: Vec<Member> = members.into_iter().map(|(weight, rtt_ms, loss, c, carried)| Member {
                rtt_ms, loss,
                capacity: Some(Rate { down: c, up: c / 5.0 }),
                carried: Rate { down: carried, up: 0.0 },
                ..member(weight)
            }).collect();
            prop_assert!(effective(&members, by).iter().all(|e| e.is_finite() && *e > 0.0));
        }
    }
}
