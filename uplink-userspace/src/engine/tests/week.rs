//! A week on a line that loses one packet in twenty, with bursts: nobody fails over. And a
//! brown-out on the same line is found in seconds.

use super::*;
use std::collections::VecDeque;

const HALF: Duration = Duration::from_millis(500);
/// Between the probes of a path in doubt.
const QUICK: Duration = Duration::from_millis(50);
/// How long the prober waits for an answer, as it does at the default interval.
const PATIENCE: Duration = Duration::from_millis(750);

/// Xorshift (Marsaglia 2003): the same week every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A line after E. N. Gilbert ("Capacity of a burst-noise channel", 1960) and Elliott: it is good
/// or bad for exponential times, and loses with another probability in each state.
struct Line {
    good_loss: f64,
    bad_loss: f64,
    bad_for: Duration,
    every: Duration,
    bad: bool,
}

impl Line {
    /// 3 % of losses that come alone and 2 % in bursts of a quarter second on average, in which
    /// four of five packets are lost.
    fn bursty() -> Self {
        Self {
            good_loss: 0.03,
            bad_loss: 0.8,
            bad_for: Duration::from_millis(250),
            every: Duration::from_secs(10),
            bad: false,
        }
    }

    fn loses(&mut self, dice: &mut Dice, passed: Duration) -> bool {
        let mean = if self.bad { self.bad_for } else { self.every };
        if dice.roll() < passed.as_secs_f64() / mean.as_secs_f64() {
            self.bad = !self.bad;
        }
        dice.roll() < if self.bad { self.bad_loss } else { self.good_loss }
    }
}

/// Two uplinks with two targets each, as `[health]` and `[probe]` are by default.
struct Week {
    engine: Engine,
    dice: Dice,
    lines: [Line; 2],
    now: Duration,
    quick_until: [Duration; 2],
    /// What is lost and not given up yet, oldest first.
    waiting: VecDeque<(Duration, Event)>,
    probes: u64,
    lost: u64,
    flips: Vec<(Duration, u8, Verdict)>,
}

impl Week {
    fn new(seed: u64) -> Self {
        let mut settings = settings();
        for individual in settings.uplinks.values_mut() {
            let health = &mut individual.health[0];
            (health.health, health.targets) = (config::Health::default(), 2);
        }
        let uplinks = vec![uplink(1, 3, 1), uplink(2, 1, 1)];
        Self {
            engine: Engine::new(uplinks, settings, &[], &[]),
            dice: Dice(seed),
            lines: [Line::bursty(), Line::bursty()],
            now: Duration::ZERO,
            quick_until: [Duration::ZERO; 2],
            waiting: VecDeque::new(),
            probes: 0,
            lost: 0,
            flips: Vec::new(),
        }
    }

    /// Runs for so long, or until the first flip.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.flips.is_empty() {
            self.now += QUICK;
            while self.waiting.front().is_some_and(|(due, _)| *due <= self.now) {
                let (_, event) = self.waiting.pop_front().unwrap();
                self.tell(event);
            }
            for id in [1u8, 2] {
                let quick = self.now < self.quick_until[usize::from(id) - 1];
                if quick || self.now.as_millis().is_multiple_of(HALF.as_millis()) {
                    self.round(id, if quick { QUICK } else { HALF });
                }
            }
            for path in self.engine.doubtful() {
                self.quick_until[usize::from(path.uplink) - 1] = self.now + 2 * HALF;
            }
        }
    }

    /// A round that nobody answers makes the prober ask again quickly.
    fn round(&mut self, id: u8, passed: Duration) {
        let round = self.now.as_millis() as u64;
        let before = self.waiting.len();
        for target in 0..2 {
            let lost = self.lines[usize::from(id) - 1].loses(&mut self.dice, passed / 2);
            let (path, rtt) = (path(id), Duration::from_millis(20));
            match lost {
                true => self.waiting.push_back((
                    self.now + PATIENCE,
                    Event::Lost {
                        path,
                        target,
                        round,
                        waited: WAITED,
                    },
                )),
                false => self.tell(Event::Answered {
                    path,
                    target,
                    round,
                    rtt,
                }),
            }
            (self.probes, self.lost) = (self.probes + 1, self.lost + u64::from(lost));
        }
        if self.waiting.len() == before + 2 {
            let until = &mut self.quick_until[usize::from(id) - 1];
            *until = (*until).max(self.now + PATIENCE);
        }
    }

    fn tell(&mut self, event: Event) {
        let verdicts = |e: &Engine| [1, 2].map(|id| e.verdict(path(id)));
        let before = verdicts(&self.engine);
        self.engine.handle(self.now, event);
        for (id, (was, is)) in (1..).zip(before.into_iter().zip(verdicts(&self.engine))) {
            if was != is && was != Verdict::Unknown {
                self.flips.push((self.now, id, is));
            }
        }
    }
}

#[test]
fn a_week_of_five_percent_loss_in_bursts_moves_nobody() {
    let mut week = Week::new(0x00c0_ffee);
    week.run(Duration::from_secs(7 * 24 * 3600));
    let (loss, rate) = (
        week.lost as f64 / week.probes as f64,
        week.probes as f64 / week.now.as_secs_f64(),
    );
    println!(
        "{} probes ({rate:.1}/s for two uplinks), {:.2} % lost, flips: {:?}",
        week.probes,
        loss * 100.0,
        week.flips
    );
    assert!(
        (0.045..0.055).contains(&loss),
        "the line is not what it should be: {loss}"
    );
    assert!(week.flips.is_empty(), "{:?}", week.flips);
}

#[test]
fn a_brown_out_of_twenty_percent_is_found_within_seconds() {
    let mut times: Vec<Duration> = (1..=500)
        .map(|seed: u64| {
            let mut week = Week::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            week.run(Duration::from_secs(60));
            let begun = week.now;
            let line = &mut week.lines[0];
            (line.good_loss, line.bad_loss) = (0.2, 0.2);
            week.run(Duration::from_secs(60));
            assert!(
                matches!(week.flips[..], [(_, 1, Verdict::Degraded)]),
                "{:?}",
                week.flips
            );
            week.now - begun
        })
        .collect();
    times.sort_unstable();
    println!(
        "found after: p50 {:?}, p99 {:?}, max {:?}",
        times[250], times[495], times[499]
    );
    assert!(times[495] <= Duration::from_secs(15));
}
