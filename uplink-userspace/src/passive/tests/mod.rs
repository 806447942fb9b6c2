mod simulated;

use proptest::prelude::*;
use uplink_common::Family;

use super::*;

const MS: Duration = Duration::from_millis(1);
const HERE: Path = path(1);
const THERE: Path = path(2);

const fn path(uplink: u8) -> Path {
    Path {
        uplink,
        family: Family::V4,
    }
}

/// Two paths whose totals are written by hand.
struct Bench {
    watch: Watch,
    now: Duration,
    here: record::Passive,
    there: record::Passive,
}

impl Bench {
    /// A path that has answered fifty flows within 10 ms each, and another one that answers a
    /// flow in every look.
    fn new() -> Self {
        let mut bench = Self {
            watch: Watch::default(),
            now: Duration::ZERO,
            here: record::Passive::default(),
            there: record::Passive::default(),
        };
        bench.look(|_| {});
        for _ in 0..50 {
            assert_eq!(bench.look(answered), 0);
        }
        bench
    }

    /// Changes the totals and looks, a tenth of a second later. Returns how many flows are
    /// suspiciously unanswered.
    fn look(&mut self, change: impl Fn(&mut record::Passive)) -> u64 {
        answered(&mut self.there);
        self.look_alone(change)
    }

    /// Likewise, while the other path is idle.
    fn look_alone(&mut self, change: impl Fn(&mut record::Passive)) -> u64 {
        self.now += 100 * MS;
        change(&mut self.here);
        self.watch.observe(self.now, HERE, &self.here);
        self.watch.observe(self.now, THERE, &self.there);
        let suspects = self.watch.suspects(self.now);
        assert!(suspects.iter().all(|s| s.path == HERE));
        suspects.first().map_or(0, |s| s.unanswered)
    }

    /// Looks until it is suspected, at most `looks` times. Returns how many it took.
    fn until_suspected(&mut self, looks: u32, change: impl Fn(&mut record::Passive)) -> Option<u32> {
        (1..=looks).find(|_| self.look(&change) > 0)
    }
}

fn answered(totals: &mut record::Passive) {
    totals.opened += 1;
    totals.answered += 1;
    totals.rtts += 1;
    totals.rtt_us += 10_000;
}

#[test]
fn three_unanswered_flows_are_suspected_once_their_patience_is_over() {
    let mut bench = Bench::new();
    assert_eq!(bench.look(|t| t.opened += 1), 0);
    assert_eq!(bench.look(|t| t.queries += 2), 0);
    // The first look took them to have begun at the look before.
    assert_eq!(bench.look(|_| {}), 3);
}

#[test]
fn two_flows_are_never_suspected() {
    let mut bench = Bench::new();
    bench.look(|t| t.opened += 2);
    assert_eq!(bench.until_suspected(200, |_| {}), None);
}

#[test]
fn a_suspicion_is_told_once_a_second_while_it_lasts_and_ends_with_an_answer() {
    let mut bench = Bench::new();
    let told: Vec<_> = (0..30).filter(|_| bench.look(|t| t.opened += 1) > 0).collect();
    assert_eq!(told, [3, 13, 23]);
    bench.look(|t| t.responses += 1);
    assert_eq!(bench.until_suspected(100, |_| {}), None);
}

#[test]
fn a_timestamp_that_comes_back_is_a_sign_of_life() {
    let mut bench = Bench::new();
    let established = |t: &mut record::Passive| {
        t.opened += 1;
        t.rtts += 1;
        t.rtt_us += 10_000;
    };
    assert_eq!(bench.until_suspected(100, established), None);
}

#[test]
fn nobody_is_suspected_while_the_other_one_is_silent_too() {
    let mut bench = Bench::new();
    // Its last answer came before these flows began and says nothing about them.
    for _ in 0..90 {
        assert_eq!(bench.look_alone(|t| t.opened += 3), 0);
    }
    assert!(bench.look(|_| {}) > 0);
}

#[test]
fn the_other_family_is_no_witness() {
    let mut watch = Watch::default();
    let six = Path {
        family: Family::V6,
        ..THERE
    };
    let (mut here, mut there) = (record::Passive::default(), record::Passive::default());
    for look in 0..200u32 {
        watch.observe(look * 100 * MS, HERE, &here);
        watch.observe(look * 100 * MS, six, &there);
        assert_eq!(watch.suspects(look * 100 * MS), []);
        here.opened += 1;
        answered(&mut there);
    }
}

#[test]
fn one_dead_host_is_not_several_however_often_its_syn_is_sent_again() {
    let mut bench = Bench::new();
    bench.look(|t| t.opened += 1);
    for second in 0..20u32 {
        assert_eq!(bench.until_suspected(10, |_| {}), None, "{second}");
        bench.look(|t| t.retransmitted += 1);
    }
}

#[test]
fn a_syn_that_was_sent_again_makes_two_flows_suspect() {
    let mut bench = Bench::new();
    bench.look(|t| t.opened += 1);
    assert_eq!(bench.until_suspected(9, |_| {}), None);
    assert_eq!(
        bench.look(|t| {
            t.retransmitted += 1;
            t.opened += 1
        }),
        0
    );
    assert_eq!(bench.look(|_| {}), 2);
}

#[test]
fn a_syn_of_before_the_last_answer_that_is_sent_again_proves_nothing() {
    let mut bench = Bench::new();
    bench.look(|t| t.opened += 1);
    bench.look(answered);
    bench.look(|t| t.opened += 2);
    bench.look(|t| t.retransmitted += 1);
    assert_eq!(bench.until_suspected(100, |_| {}), None);
}

#[test]
fn a_burst_to_a_dead_host_means_nothing_while_others_are_answered() {
    let mut bench = Bench::new();
    for look in 0..100 {
        let other = |t: &mut record::Passive| {
            if look % 2 == 0 {
                answered(t)
            }
        };
        assert_eq!(
            bench.look(|t| {
                t.opened += 30;
                other(t)
            }),
            0,
            "{look}"
        );
    }
}

#[test]
fn a_burst_in_the_look_of_the_last_answer_means_nothing() {
    let mut bench = Bench::new();
    bench.look(|t| {
        t.opened += 30;
        answered(t)
    });
    assert_eq!(bench.until_suspected(100, |_| {}), None);
}

#[test]
fn an_idle_path_does_not_gather_dead_hosts() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.look(|t| t.opened += 1);
        assert_eq!(bench.until_suspected(60, |_| {}), None);
    }
}

#[test]
fn a_path_without_new_flows_is_never_suspected() {
    let mut bench = Bench::new();
    assert_eq!(bench.until_suspected(1000, |_| {}), None);
}

#[test]
fn a_scanner_is_suspected_until_its_habit_is_known() {
    let mut bench = Bench::new();
    let mut scan = |looks| (0..looks).filter(|_| bench.look(|t| t.opened += 100) > 0).count();
    assert!(scan(120) <= 12);
    assert_eq!(scan(3000), 0);
}

#[test]
fn a_path_that_dies_again_and_again_has_no_habit_of_silence() {
    let mut bench = Bench::new();
    let mut looks = Vec::new();
    for _ in 0..20 {
        looks.push(bench.until_suspected(40, |t| t.opened += 2).unwrap());
        // Probes find it dead, and then it comes back.
        for _ in 0..5 {
            bench.look(|t| t.opened += 2);
        }
        bench.watch.excuse(HERE);
        for _ in 0..15 {
            bench.look(answered);
        }
        bench.watch.excuse(HERE);
    }
    assert!(looks.iter().all(|n| *n <= looks[0]), "{looks:?}");
}

#[test]
fn a_path_whose_answers_are_rarely_seen_needs_more_silence() {
    let mut bench = Bench::new();
    for look in 0..400 {
        let seen = look % 2 == 0;
        bench.look(|t| if seen { answered(t) } else { t.opened += 1 });
    }
    // Half of the flows are answered: fourteen in a row would be one in ten thousand.
    let looks = bench.until_suspected(40, |t| t.opened += 1).unwrap();
    assert!((13..=18).contains(&looks), "{looks}");
}

#[test]
fn counters_that_jump_back_start_over() {
    let mut bench = Bench::new();
    bench.look(|t| t.opened += 2);
    bench.look(|t| {
        *t = record::Passive {
            opened: 7,
            ..Default::default()
        }
    });
    assert_eq!(bench.watch.rtt_ms(HERE), None);
    assert_eq!(bench.until_suspected(100, |_| {}), None);
}

#[test]
fn a_daemon_that_was_starved_does_not_take_young_flows_for_old_ones() {
    let mut bench = Bench::new();
    bench.now += 5000 * MS;
    assert_eq!(bench.look(|t| t.opened += 20), 0);
    assert_eq!(
        bench.look(|t| {
            t.answered += 20;
            t.rtts += 20;
            t.rtt_us += 200_000
        }),
        0
    );
}

#[test]
fn the_round_trip_time_is_smoothed_over_two_seconds_and_forgotten_after_a_minute() {
    let mut watch = Watch::default();
    let mut totals = record::Passive::default();
    let measure = |totals: &mut record::Passive, ms: u64| {
        totals.rtts += 4;
        totals.rtt_us += 4 * ms * 1000;
    };
    watch.observe(Duration::ZERO, HERE, &totals);
    assert_eq!(watch.rtt_ms(HERE), None);
    measure(&mut totals, 10);
    watch.observe(100 * MS, HERE, &totals);
    assert!((watch.rtt_ms(HERE).unwrap() - 10.0).abs() < 1e-9);
    for look in 2..=21u32 {
        measure(&mut totals, 20);
        watch.observe(look * 100 * MS, HERE, &totals);
    }
    let rtt = watch.rtt_ms(HERE).unwrap();
    assert!((rtt - 16.32).abs() < 0.01, "{rtt}");
    watch.observe(62_000 * MS, HERE, &totals);
    assert!(watch.rtt_ms(HERE).is_some());
    watch.observe(62_100 * MS, HERE, &totals);
    assert_eq!(watch.rtt_ms(HERE), None);
}

#[test]
fn the_retransmission_share_is_of_the_last_seconds() {
    let mut bench = Bench::new();
    assert_eq!(bench.watch.retransmission_share(HERE), Some(0.0));
    for _ in 0..300 {
        bench.look(|t| {
            answered(t);
            answered(t);
            answered(t);
            t.retransmitted += 1
        });
    }
    let share = bench.watch.retransmission_share(HERE).unwrap();
    assert!((share - 0.25).abs() < 0.01, "{share}");
    bench.until_suspected(2000, |_| {});
    assert_eq!(bench.watch.retransmission_share(HERE), None);
    bench.watch.forget(HERE);
    assert_eq!(bench.watch.retransmission_share(HERE), None);
}

#[test]
fn patience_follows_the_round_trip_time_within_bounds() {
    let cases = [
        (Some(1.0), 200),
        (Some(120.0), 340),
        (Some(900.0), 1000),
        (None, 1000),
    ];
    for (rtt, ms) in cases {
        assert_eq!(patience(rtt), ms * MS, "{rtt:?}");
    }
}

proptest! {
    #[test]
    fn nobody_is_suspected_while_answers_keep_coming(
        looks in prop::collection::vec((0u64..50, 0u64..10, 0u64..10, any::<bool>()), 1..300),
    ) {
        let mut bench = Bench::new();
        for (opened, queries, retransmitted, response) in looks {
            let suspected = bench.look(|t| {
                t.opened += opened;
                t.queries += queries;
                t.retransmitted += retransmitted;
                if response { t.responses += 1 } else { t.answered += 1 }
            });
            prop_assert_eq!(suspected, 0);
        }
    }

    /// Any counters at all: no panic, and never more flows than were opened.
    #[test]
    fn counters_without_sense_do_no_harm(
        looks in prop::collection::vec((0u32..3000, prop::array::uniform7(any::<u64>())), 1..100),
    ) {
        let mut watch = Watch::default();
        let mut now = Duration::ZERO;
        for (pause, [opened, answered, retransmitted, queries, responses, rtt_us, rtts]) in looks {
            now += pause * MS;
            let rtt_log2 = [0; record::RTT_BUCKETS];
            let totals = record::Passive { opened, answered, retransmitted, queries, responses, rtt_us, rtts, rtt_log2 };
            watch.observe(now, HERE, &totals);
            watch.observe(now, THERE, &record::Passive { opened: answered, ..totals });
            watch.suspects(now);
            prop_assert!(watch.rtt_ms(HERE).is_none_or(f64::is_finite));
            prop_assert!(watch.retransmission_share(HERE).is_none_or(|s| (0.0..=1.0).contains(&s)));
        }
    }
}
