use super::*;

fn totals(name: &str, sent: u64, lost: u64, rtt_us: u64) -> Totals {
    Totals {
        name: name.into(),
        share: 0.5,
        sent,
        lost,
        answered: sent - lost,
        rtt_us,
        ..Totals::default()
    }
}

fn at(history: &mut History, n: u64, uplinks: Vec<Totals>) {
    history.observe(INTERVAL * n as u32, 1_000 + 10 * n, uplinks);
}

#[test]
fn a_point_tells_of_the_time_since_the_last_one() {
    let mut history = History::default();
    at(&mut history, 0, vec![totals("isp1", 100, 50, 1_000_000)]);
    let bytes = |n| Totals {
        rx_bytes: n,
        ..totals("isp1", 120, 55, 1_150_000)
    };
    at(&mut history, 1, vec![bytes(1_250_000)]);
    let view = history.view();
    assert_eq!(view.times, [1_000, 1_010]);
    let isp1 = &view.uplinks[0];
    assert_eq!(isp1.rtt_ms, [None, Some(10.0)]);
    assert_eq!(isp1.loss, [None, Some(0.25)]);
    assert_eq!(isp1.share, [Some(0.5), Some(0.5)]);
    assert_eq!((isp1.rx_bps[1], isp1.tx_bps[1]), (Some(1_000_000.0), Some(0.0)));
}

#[test]
fn silence_has_no_round_trip_time_and_a_slow_probe_no_gaps() {
    let mut history = History::default();
    at(&mut history, 0, vec![totals("isp1", 0, 0, 0)]);
    at(&mut history, 1, vec![totals("isp1", 1, 0, 7_000)]);
    at(&mut history, 2, vec![totals("isp1", 1, 0, 7_000)]);
    at(&mut history, 3, vec![totals("isp1", 2, 1, 7_000)]);
    let isp1 = &history.view().uplinks[0];
    assert_eq!(isp1.rtt_ms, [None, Some(7.0), Some(7.0), None]);
    assert_eq!(isp1.loss, [None, Some(0.0), Some(0.0), Some(1.0)]);
}

#[test]
fn counters_that_start_over_are_not_known() {
    let mut history = History::default();
    let with_bytes = |n, sent| Totals {
        tx_bytes: n,
        ..totals("isp1", sent, 0, sent)
    };
    at(&mut history, 0, vec![with_bytes(500, 9)]);
    at(&mut history, 1, vec![with_bytes(100, 3)]);
    let isp1 = &history.view().uplinks[0];
    assert_eq!((isp1.tx_bps[1], isp1.rtt_ms[1], isp1.loss[1]), (None, None, None));
}

#[test]
fn an_hour_is_kept_and_every_list_is_as_long_as_the_times() {
    let mut history = History::default();
    for n in 0..POINTS as u64 + 50 {
        let mut uplinks = vec![totals("isp1", n, 0, n)];
        if n >= 100 {
            uplinks.push(totals("late", n, 0, n));
        }
        if n < 200 {
            uplinks.insert(0, totals("gone", n, 0, n));
        }
        at(&mut history, n, uplinks);
    }
    let view = history.view();
    assert_eq!((view.times.len(), view.times[0]), (POINTS, 1_500));
    let names: Vec<_> = view.uplinks.iter().map(|u| &*u.name).collect();
    assert_eq!(names, ["isp1", "late"]);
    for u in &view.uplinks {
        for list in [&u.rtt_ms, &u.loss, &u.share, &u.rx_bps, &u.tx_bps] {
            assert_eq!(list.len(), POINTS, "{}", u.name);
        }
    }
    assert_eq!(view.uplinks[1].share[49], None, "before its first point");
    assert_eq!(view.uplinks[1].share[50], Some(0.5));
}

#[test]
fn it_is_due_every_ten_seconds() {
    let mut history = History::default();
    assert!(history.is_due(Duration::ZERO));
    at(&mut history, 1, Vec::new());
    assert!(!history.is_due(Duration::from_millis(19_999)));
    assert!(history.is_due(Duration::from_secs(20)));
}
