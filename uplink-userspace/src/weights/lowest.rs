//! The one uplink of several that is best by one measure, and when it is worth leaving another for it.

use crate::config::Prefer;

use super::Member;

/// A round-trip time has to be shorter by this part.
const RTT_PART: f64 = 0.2;
/// And by so much.
const RTT_MS: f64 = 2.0;
/// And by so many times the jitter.
const JITTERS: f64 = 1.5;
/// A loss has to be less by so much, which is one probe of the hundred that it is counted over.
const LOSS: f64 = 0.01;
/// And by so many standard errors of the difference: what a hundred probes count is mostly chance.
const ERRORS: f64 = 2.0;

/// The best of the members, the first of them where several are. Whoever has not answered yet comes last.
#[must_use]
pub fn lowest(members: &[Member], prefer: Prefer) -> Option<&Member> {
    let key = |m: &Member| {
        let rtt = m.rtt_ms.unwrap_or(f64::INFINITY);
        let loss = if m.rtt_ms.is_some() { m.loss } else { 1.0 };
        match prefer {
            Prefer::Balance => [0.0, 0.0],
            Prefer::LowestLatency => [rtt, loss],
            Prefer::LowestLoss => [loss, rtt],
        }
    };
    members.iter().min_by(|a, b| {
        let [a, b] = [key(a), key(b)];
        a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]))
    })
}

/// Whether `other` is so much better than `own` that it is not chance.
#[must_use]
pub fn is_clearly_better(other: &Member, own: &Member, prefer: Prefer) -> bool {
    let (Some(theirs), Some(ours)) = (other.rtt_ms, own.rtt_ms) else {
        return prefer != Prefer::Balance && other.rtt_ms.is_some() && own.rtt_ms.is_none();
    };
    match prefer {
        Prefer::Balance => false,
        Prefer::LowestLatency => ours - theirs > rtt_margin(other, own, ours),
        Prefer::LowestLoss => own.loss - other.loss > loss_margin(other, own),
    }
}

/// A smoothed time wanders by a quarter of the deviation of single ones, which the jitter is a little above, so
/// chance does not get there in days; one late answer moves both alike.
fn rtt_margin(other: &Member, own: &Member, ours: f64) -> f64 {
    let jitter = other.jitter_ms.max(own.jitter_ms);
    (ours * RTT_PART).max(RTT_MS).max(jitter * JITTERS)
}

fn loss_margin(other: &Member, own: &Member) -> f64 {
    (ERRORS * (variance(other) + variance(own)).sqrt()).max(LOSS)
}

/// Of a counted loss. Counted as if half a probe more had been lost and half a one not (Jeffreys), so that a few
/// probes without loss prove nothing.
fn variance(m: &Member) -> f64 {
    let n = f64::from(m.probes.max(1));
    let p = (m.loss * n + 0.5) / (n + 1.0);
    p * (1.0 - p) / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::Rate;

    fn member(id: u8, rtt_ms: Option<f64>, loss: f64) -> Member {
        Member {
            id,
            weight: 1,
            rtt_ms,
            jitter_ms: 0.0,
            loss,
            probes: 100,
            capacity: None,
            carried: Rate::default(),
            ramp: 1.0,
        }
    }

    fn first(members: &[Member], prefer: Prefer) -> Option<u8> {
        lowest(members, prefer).map(|m| m.id)
    }

    #[test]
    fn the_lowest_is_first_then_the_other_measure_then_the_order() {
        use Prefer::{LowestLatency, LowestLoss};
        let all = [
            member(1, None, 0.0),
            member(2, Some(20.0), 0.0),
            member(3, Some(10.0), 0.02),
            member(4, Some(10.0), 0.02),
            member(5, Some(15.0), 0.0),
        ];
        assert_eq!(first(&all, LowestLatency), Some(3));
        assert_eq!(first(&all, LowestLoss), Some(5));
        assert_eq!(first(&all[..1], LowestLoss), Some(1));
        assert_eq!(first(&[], LowestLoss), None);
    }

    #[test]
    fn a_time_is_better_by_two_milliseconds_a_fifth_and_the_jitter() {
        let better = |theirs, ours, jitter_ms| {
            let of = |rtt| Member {
                jitter_ms,
                ..member(1, Some(rtt), 0.0)
            };
            is_clearly_better(&of(theirs), &of(ours), Prefer::LowestLatency)
        };
        assert!(better(7.9, 10.0, 0.0) && !better(8.1, 10.0, 0.0));
        assert!(!better(0.1, 2.0, 0.0), "nobody notices");
        assert!(better(69.0, 100.0, 20.0) && !better(81.0, 100.0, 0.0));
        assert!(!better(71.0, 100.0, 20.0));
        assert!(!better(10.0, 10.0, 0.0));
    }

    #[test]
    fn a_loss_is_better_when_it_is_no_chance() {
        let better = |theirs, ours, probes| {
            let of = |loss| Member {
                probes,
                ..member(1, Some(10.0), loss)
            };
            is_clearly_better(&of(theirs), &of(ours), Prefer::LowestLoss)
        };
        assert!(better(0.0, 0.05, 100) && !better(0.0, 0.03, 100));
        assert!(!better(0.0, 0.25, 4), "one of four");
        assert!(!better(0.05, 0.10, 100) && better(0.05, 0.15, 100));
    }

    #[test]
    fn whoever_answers_is_better_than_who_has_not() {
        let (known, unknown) = (member(1, Some(500.0), 0.5), member(2, None, 0.0));
        for prefer in [Prefer::LowestLatency, Prefer::LowestLoss] {
            assert!(is_clearly_better(&known, &unknown, prefer));
            assert!(!is_clearly_better(&unknown, &known, prefer));
            assert!(!is_clearly_better(&unknown, &unknown, prefer));
        }
    }
}
