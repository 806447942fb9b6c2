//! How often the table may change, whatever happens.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The defaults of `[health]`, which all other tests leave out.
fn damped() -> Engine {
    let mut settings = settings();
    for individual in settings.uplinks.values_mut() {
        individual
            .health
            .iter_mut()
            .for_each(|h| h.health = config::Health::default());
    }
    Engine::new(vec![uplink(1, 3, 1), uplink(2, 1, 1)], settings, &[], &[])
}

/// The uplinks that new flows use.
fn ids(e: &Engine) -> Vec<u8> {
    e.selection().v4.0.iter().map(|(id, _)| *id).collect()
}

/// Half a second of probes; returns whether other uplinks serve than before.
fn round(e: &mut Engine, round: u64, lives: impl Fn(u8) -> bool) -> bool {
    let before = ids(e);
    let now = Duration::from_millis(500) * u32::try_from(round).unwrap();
    for id in [1, 2] {
        let event = match lives(id) {
            true => answered(id, round),
            false => Event::Lost {
                path: path(id),
                target: 0,
                round,
                waited: WAITED,
            },
        };
        e.handle(now, event);
    }
    e.handle(now, Event::Tick);
    before != ids(e)
}

/// Switches in each minute of ten when the first uplink lives for `on` rounds in turn with
/// `off` rounds of death.
fn toggled(on: u64, off: u64) -> Vec<usize> {
    let mut e = damped();
    let mut switches = vec![0; 10];
    for n in 0..1200 {
        let lives = |id| id == 2 || n % (on + off) < on;
        switches[n as usize / 120] += usize::from(round(&mut e, n, lives));
    }
    switches
}

#[test]
fn toggling_each_second_switches_once() {
    assert_eq!(toggled(2, 3).iter().sum::<usize>(), 1);
}

#[test]
fn slow_toggling_switches_twice_a_minute_at_most_after_the_first() {
    for (on, off) in [(10, 5), (20, 20), (12, 4), (40, 6)] {
        let switches = toggled(on, off);
        // A death right after the first recovery has to be obeyed, too.
        assert!(switches[0] <= 3, "{on}/{off}: {switches:?}");
        assert!(switches[1..].iter().all(|n| *n <= 2), "{on}/{off}: {switches:?}");
        assert!(switches[1..].iter().any(|n| *n > 0), "{on}/{off}: {switches:?}");
    }
}

#[test]
fn a_recovered_uplink_gets_its_share_in_steps() {
    let mut e = damped();
    for n in 0..5 {
        round(&mut e, n, |id| id == 2);
    }
    assert_eq!(ids(&e), [2]);
    let mut shares = Vec::new();
    for n in 5..40 {
        round(&mut e, n, |_| true);
        let share = (e.selection().v4.share(1) * 100.0).round() as u32;
        if share > 0 && shares.last() != Some(&share) {
            shares.push(share);
        }
    }
    // 3:1 with 20, 40, 60, 80 and all of the weight.
    assert_eq!(shares, [38, 55, 64, 71, 75]);
    assert_eq!(e.selection().v4, Serving(vec![(1, 3), (2, 1)]));
}

#[test]
fn whoever_recovers_alone_has_everything_at_once() {
    let mut e = damped();
    for n in 0..5 {
        round(&mut e, n, |_| false);
    }
    for n in 5..20 {
        round(&mut e, n, |id| id == 1);
    }
    assert_eq!(ids(&e), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whoever dies and returns, however often: what is voluntary never makes more than two
    /// switches of an uplink in a minute, and the dead are left at once.
    #[test]
    fn damping_is_never_outrun(lives in prop::collection::vec((any::<bool>(), any::<bool>(), 1u64..40), 1..80)) {
        let mut e = damped();
        let mut flips: Vec<(u8, Verdict, Duration)> = Vec::new();
        let mut n = 0;
        for (one, two, rounds) in lives {
            for _ in 0..rounds {
                n += 1;
                let before = [1, 2].map(|id| e.verdict(path(id)));
                round(&mut e, n, |id| if id == 1 { one } else { two });
                let now = e.now;
                for (id, before) in [1u8, 2].into_iter().zip(before) {
                    let to = e.verdict(path(id));
                    if to != before && before != Verdict::Unknown {
                        flips.push((id, to, now));
                    }
                }
                prop_assert!(!ids(&e).is_empty());
                for id in ids(&e) {
                    let alive = [1, 2].iter().any(|o| e.verdict(path(*o)) != Verdict::Down && !e.failing(path(*o)));
                    let dead = e.verdict(path(id)) == Verdict::Down && e.failing(path(id));
                    prop_assert!(!alive || !dead, "{id} is dead and serves while another answers");
                }
            }
        }
        for (at, (id, to, then)) in flips.iter().enumerate() {
            let within = flips[..=at].iter().filter(|(i, _, t)| i == id && *then - *t < 60 * SECOND).count();
            prop_assert!(*to == Verdict::Down || within <= 2, "{id} {to:?} at {then:?}: {flips:?}");
        }
    }
}
