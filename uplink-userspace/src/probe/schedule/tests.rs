use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

fn pace(interval: u64, targets: u8) -> Pace {
    Pace {
        interval: interval as u32 * MS,
        timeout: 1000 * MS,
        fall: 3,
        targets,
        bursts: true,
    }
}

/// A path that answers after `rtt` where `answers` says so, by time of sending and target.
struct Line<F> {
    schedule: Schedule,
    rtt: Duration,
    answers: F,
    flying: Vec<(Duration, u64, u8)>,
    now: Duration,
    sent: Vec<Duration>,
    /// When which probe was lost, and when it had been sent.
    lost: Vec<(Duration, Duration)>,
    answered: usize,
    dice: u64,
}

impl<F: Fn(Duration, u8) -> bool> Line<F> {
    fn new(pace: Pace, rtt: Duration, answers: F) -> Self {
        Self {
            schedule: Schedule::new(pace, 0, Duration::ZERO),
            rtt,
            answers,
            flying: Vec::new(),
            now: Duration::ZERO,
            sent: Vec::new(),
            lost: Vec::new(),
            answered: 0,
            dice: 7,
        }
    }

    fn roll(&mut self) -> f64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 40) as f64 / (1u64 << 24) as f64
    }

    fn run(&mut self, until: Duration) {
        loop {
            let reply = self.flying.iter().map(|(at, ..)| *at).min();
            let next = self.schedule.next(self.now).max(self.now);
            let next = reply.map_or(next, |r| r.min(next));
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let (due, rest) = self.flying.iter().partition(|(at, ..)| *at <= now);
        self.flying = rest;
        let due: Vec<(Duration, u64, u8)> = due;
        for (_, id, target) in due {
            self.answered += usize::from(self.schedule.answered(now, id, target).is_some());
        }
        for (_, _, waited) in self.schedule.expired(now) {
            self.lost.push((now, now - waited));
        }
        let dice = self.roll();
        if let Some(id) = self.schedule.due(now, || dice) {
            self.sent.push(now);
            let targets = 0..self.schedule.pace.targets;
            let answering: Vec<u8> = targets.filter(|t| (self.answers)(now, *t)).collect();
            let rtt = self.rtt;
            self.flying
                .extend(answering.into_iter().map(|t| (now + rtt, id, t)));
        }
    }

    /// How long after `fault` so many rounds had been lost.
    fn lost_after(&self, fault: Duration, n: usize) -> Duration {
        let behind = self.lost.iter().filter(|(_, sent)| *sent >= fault);
        behind
            .map(|(at, _)| *at - fault)
            .nth(n - 1)
            .expect("so many are lost")
    }
}

#[test]
fn rounds_keep_their_pace() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |_, _| true);
    line.run(100_000 * MS);
    assert!((190..=210).contains(&line.sent.len()), "{}", line.sent.len());
    assert!(line.lost.is_empty() && line.answered >= line.sent.len() - 1);
}

#[test]
fn a_path_that_never_answered_gets_its_full_timeout() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |_, _| false);
    line.run(10_000 * MS);
    assert!(line.lost.iter().all(|(at, sent)| *at - *sent >= 1000 * MS));
    assert!(line.lost_after(Duration::ZERO, 3) <= 2_200 * MS);
}

/// What people are promised: 1.5 s by default, 300 ms at an interval of 50 ms, with room for
/// what comes after the third loss.
#[test]
fn a_death_is_known_in_time_at_the_defaults_and_at_fifty_milliseconds() {
    for (interval, bound) in [(500, 1_350), (50, 240)] {
        for fault in (10_000..12_000).step_by(7) {
            let fault = fault * MS;
            let mut line = Line::new(pace(interval, 2), 2 * MS, |sent, _| sent < fault);
            line.run(fault + 3_000 * MS);
            let down = line.lost_after(fault, 6);
            assert!(down <= bound * MS, "{interval}: {down:?}");
        }
    }
}

#[test]
fn a_dead_path_is_not_stormed() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |sent, _| sent < 30_000 * MS);
    line.run(30_000 * MS);
    let before = line.sent.len();
    line.run(90_000 * MS);
    let extra = line.sent.len() - before;
    assert!(
        (120..=150).contains(&extra),
        "{extra} rounds in the minute after the death"
    );
}

#[test]
fn a_single_loss_costs_one_quick_round() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |sent, _| {
        !(10_000 * MS..10_400 * MS).contains(&sent)
    });
    line.run(20_000 * MS);
    let quick = line.sent.windows(2).filter(|w| w[1] - w[0] < 200 * MS).count();
    assert!((1..=10).contains(&quick), "{quick}");
    let (at, sent) = line.lost[0];
    assert!(
        line.sent.iter().any(|s| *s > sent && *s + line.rtt < at),
        "a later one was answered before it"
    );
}

#[test]
fn one_silent_target_of_two_is_no_silence() {
    let mut line = Line::new(pace(500, 2), 20 * MS, |_, target| target == 0);
    line.run(60_000 * MS);
    assert!(
        line.sent.len() <= 130,
        "{} rounds: bursts for a dead target",
        line.sent.len()
    );
    assert!(line.lost.len() >= 110);
}

#[test]
fn a_suspicion_is_settled_in_a_quarter_of_a_second() {
    let fault = 10_010 * MS;
    let mut line = Line::new(pace(500, 1), 20 * MS, |sent, _| sent < fault);
    line.run(fault);
    line.schedule.suspect(fault);
    line.run(fault + 2_000 * MS);
    let down = line.lost_after(fault, 3);
    assert!((200 * MS..=300 * MS).contains(&down), "{down:?}");
}

#[test]
fn the_late_replies_of_a_recovery_do_not_make_a_suspicion_patient() {
    let fault = 12_610 * MS;
    let mut line = Line::new(pace(500, 1), 20 * MS, |sent, _| sent < fault);
    line.run(10_000 * MS);
    line.rtt = 700 * MS;
    line.run(10_300 * MS);
    line.rtt = 20 * MS;
    line.run(fault);
    assert!(line.schedule.rto() > 250 * MS, "{:?}", line.schedule.rto());
    line.schedule.suspect(fault);
    line.run(fault + 2_000 * MS);
    let down = line.lost_after(fault, 3);
    assert!(down <= 450 * MS, "{down:?}");
}

#[test]
fn a_false_suspicion_costs_a_probe_or_two_and_comes_four_times_a_second() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |_, _| true);
    line.run(10_000 * MS);
    let before = line.sent.len();
    for n in 0..10 {
        line.run((10_000 + 50 * n) * MS);
        line.schedule.suspect(line.now);
    }
    line.run(11_000 * MS);
    assert!(line.sent.len() - before <= 7, "{}", line.sent.len() - before);
    assert!(line.lost.is_empty());
}

#[test]
fn a_sampling_is_quick_for_a_second() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |_, _| true);
    line.run(10_000 * MS);
    let before = line.sent.len();
    line.schedule.sample(line.now);
    line.run(13_000 * MS);
    let sent = line.sent.len() - before;
    assert!((22..=28).contains(&sent), "{sent}");
}

#[test]
fn late_replies_and_duplicates() {
    let mut s = Schedule::new(pace(500, 1), 0, Duration::ZERO);
    let id = s.due(Duration::ZERO, || 0.5).unwrap();
    assert_eq!(s.expired(1_000 * MS), [(id, 0, 1_000 * MS)]);
    assert_eq!(s.answered(1_200 * MS, id, 0), Some(1_200 * MS));
    assert_eq!(s.answered(1_300 * MS, id, 0), None);
    assert_eq!(s.answered(1_300 * MS, id + 1, 0), None, "a reply from the future");
}

#[test]
fn the_network_may_refuse_and_then_it_is_quick() {
    let mut line = Line::new(pace(500, 1), 20 * MS, |sent, _| sent < 10_000 * MS);
    line.run(10_000 * MS);
    let begun = line.sent.len();
    while line.sent.len() == begun {
        line.now = line.schedule.next(line.now).max(line.now);
        line.step();
    }
    let id = line.schedule.next_id;
    assert_eq!(line.schedule.refused(line.now, id, 0), Some(Duration::ZERO));
    assert_eq!(line.schedule.refused(line.now, id, 0), None);
    assert!(line.schedule.next(line.now) <= line.now + 50 * MS);
}

#[test]
fn our_own_lateness_is_nobodys_loss() {
    let mut s = Schedule::new(pace(500, 1), 0, Duration::ZERO);
    let id = s.due(Duration::ZERO, || 0.5).unwrap();
    s.forgive(1_400 * MS, 400 * MS);
    assert!(s.expired(1_700 * MS).is_empty());
    assert_eq!(s.expired(1_800 * MS), [(id, 0, 1_800 * MS)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the interval and the round-trip time: nothing is lost on a path that answers,
    /// and a death is known within the bound.
    #[test]
    fn deaths_are_known_in_time_and_the_living_are_left_alone(
        interval in 50u64..5_000, rtt in 0u64..200, fault in 20_000u64..60_000, targets in 1u8..4,
    ) {
        let (fault, rtt) = (fault as u32 * MS, rtt as u32 * MS);
        let mut line = Line::new(pace(interval, targets), rtt, |sent, _| sent < fault);
        line.run(fault);
        prop_assert!(line.lost.is_empty(), "{:?}", line.lost);
        line.run(fault + 30_000 * MS);
        let n = 3 * usize::from(targets);
        let interval = interval as u32 * MS;
        let patience = (interval * 3 / 2).max(rtt + 100 * MS).max(150 * MS).min(1000 * MS);
        let quick = (interval / 10).max(50 * MS);
        let bound = interval * 11 / 10 + patience + 3 * quick + rtt + 60 * MS;
        prop_assert!(line.lost_after(fault, n) <= bound, "{:?} > {bound:?}", line.lost_after(fault, n));
        prop_assert!(line.lost.iter().all(|(at, sent)| *at - *sent >= (50 * MS).max(rtt)));
    }

    /// Losses at random: memory stays small, and extra rounds few.
    #[test]
    fn nothing_grows_without_bound(loss in 0u64..10, interval in 50u64..1000) {
        let mut line = Line::new(pace(interval, 2), 20 * MS, move |sent, t| {
            (sent.as_micros() as u64).wrapping_mul(0x9e37_79b9 + u64::from(t)) >> 7 & 15 >= loss
        });
        line.run(60_000 * MS);
        prop_assert!(line.schedule.rounds.len() <= 300);
        prop_assert!(line.sent.len() <= 1_600);
    }
}
