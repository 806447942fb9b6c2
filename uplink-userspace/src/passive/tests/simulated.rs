//! Poisson traffic over two paths, one of which goes silent.

use super::*;

/// New flows of one path, in milliseconds since the start; every one is answered after `rtt_ms`,
/// unless it begins when the path is `dead`. Nobody tries again.
#[derive(Clone, Debug)]
struct World {
    openings: Vec<u64>,
    rtt_ms: u64,
    dead: std::ops::Range<u64>,
}

const NEVER: std::ops::Range<u64> = u64::MAX..u64::MAX;

impl World {
    /// Poisson arrivals for a minute.
    fn poisson(seed: u64, per_second: f64, rtt_ms: u64) -> Self {
        let (mut state, mut at, mut openings) = (seed, 0.0, Vec::new());
        while at < 60_000.0 {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
            at += -(1.0 - uniform).ln() * 1000.0 / per_second;
            openings.push(at as u64);
        }
        Self {
            openings,
            rtt_ms,
            dead: NEVER,
        }
    }

    fn dead_from(mut self, at: u64) -> Self {
        self.dead = at..u64::MAX;
        self
    }

    /// When the flows are answered.
    fn answers(&self) -> impl Iterator<Item = u64> + '_ {
        let answered = self.openings.iter().filter(|t| !self.dead.contains(t));
        answered.map(|t| t + self.rtt_ms)
    }

    fn totals(&self, at: u64) -> record::Passive {
        let before = |end: u64| self.openings.partition_point(|t| *t < end);
        let arrived = before((at + 1).saturating_sub(self.rtt_ms));
        let lost = before(self.dead.end).min(arrived) - before(self.dead.start).min(arrived);
        let answered = (arrived - lost) as u64;
        record::Passive {
            opened: self.openings.partition_point(|t| *t <= at) as u64,
            answered,
            rtts: answered,
            rtt_us: answered * self.rtt_ms * 1000,
            ..Default::default()
        }
    }
}

/// Looks every 100 ms at both, and says when which one is suspected.
fn run(here: &World, there: &World, until: u64) -> Vec<(u64, Path)> {
    let (mut watch, mut told) = (Watch::default(), Vec::new());
    for at in (0..=until).step_by(100) {
        let now = at as u32 * MS;
        watch.observe(now, HERE, &here.totals(at));
        watch.observe(now, THERE, &there.totals(at));
        told.extend(watch.suspects(now).iter().map(|s| (at, s.path)));
    }
    told
}

#[test]
fn slow_traffic_takes_as_long_as_three_flows() {
    let here = World {
        openings: (0..60).map(|s| s * 1000).collect(),
        rtt_ms: 20,
        dead: 30_000..u64::MAX,
    };
    let there = World {
        openings: (0..60).map(|s| s * 1000 + 500).collect(),
        ..here.clone()
    };
    let there = World { dead: NEVER, ..there };
    // At 30, 31 and 32 s, and the other one's next answer.
    assert_eq!(run(&here, &there, 40_000)[0], (32_600, HERE));
}

/// The time from a blackhole to the suspicion, of 101 runs, sorted.
fn delays(per_second: f64) -> Vec<u64> {
    let delay = |seed: u64| {
        let dead = 30_000 + seed * 7 % 100;
        let here = World::poisson(seed, per_second, 20).dead_from(dead);
        let told = run(&here, &World::poisson(!seed, per_second, 20), 40_000);
        told[0].0 - dead
    };
    let mut delays: Vec<_> = (0..101).map(delay).collect();
    delays.sort_unstable();
    delays
}

#[test]
fn half_of_all_blackholes_are_suspected_within_half_a_second_at_twenty_flows_a_second() {
    for (per_second, median, worst) in [(5.0, 1100, 2500), (20.0, 450, 900), (100.0, 350, 450)] {
        let delays = delays(per_second);
        println!(
            "{per_second} flows/s: p50 {} ms, p99 {} ms",
            delays[50], delays[99]
        );
        assert!(
            delays[50] <= median && delays[99] <= worst,
            "{per_second}: {delays:?}"
        );
    }
}

/// The look that a suspicion comes with at the latest: when the last answer has been seen, so
/// many flows have begun, their patience is over, and the other path has answered just now.
fn bound(here: &World, there: &World, flows: usize) -> u64 {
    let look = |t: u64| t.next_multiple_of(100);
    let heard = look(here.answers().last().unwrap());
    let after = here.openings.partition_point(|t| *t <= heard);
    let due = look(here.openings[after + flows - 1]) - 100 + 200;
    let witness = |look: &u64| there.answers().any(|t| t > look - 200 && t <= *look);
    (due..).step_by(100).find(witness).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_blackhole_is_always_suspected_in_time_and_never_before(
        seed in any::<u64>(),
        rate in prop::sample::select(vec![(5.0, 3), (20.0, 3), (100.0, 6)]),
        dead in 20_000u64..30_000,
        rtt_ms in 1u64..=50,
    ) {
        let (per_second, flows) = rate;
        let here = World::poisson(seed, per_second, rtt_ms).dead_from(dead);
        let there = World::poisson(!seed, per_second, rtt_ms);
        let bound = bound(&here, &there, flows);
        let (at, path) = run(&here, &there, bound)[0];
        prop_assert!(path == HERE && at > dead + 100 && at <= bound, "{at}, dead at {dead}, bound {bound}");
    }

    #[test]
    fn nobody_is_suspected_while_everybody_is_answered(
        seed in any::<u64>(),
        rates in (0.1f64..200.0, 0.1f64..200.0),
        rtts in (1u64..=400, 1u64..=400),
    ) {
        let here = World::poisson(seed, rates.0, rtts.0);
        let there = World::poisson(!seed, rates.1, rtts.1);
        prop_assert_eq!(run(&here, &there, 60_000), []);
    }

    #[test]
    fn nobody_is_suspected_when_all_go_silent_at_once(
        seed in any::<u64>(),
        rates in (0.1f64..200.0, 0.1f64..200.0),
        dead in 10_000u64..20_000,
        rtt_ms in 1u64..=100,
    ) {
        let here = World::poisson(seed, rates.0, rtt_ms).dead_from(dead);
        let there = World::poisson(!seed, rates.1, rtt_ms).dead_from(dead);
        let told = run(&here, &there, 60_000);
        prop_assert!(told.iter().all(|(at, _)| *at < dead + 1000), "dead at {dead}: {told:?}");
    }
}
