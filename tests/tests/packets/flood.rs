//! A flow table that is flooded: old flows in use keep their uplink.

use uplink_common::Reason;

use crate::bench::{Bench, INGRESS};
use crate::frames::V4;

const TABLE: u32 = 1 << 20;
/// Twice what the table holds.
const FLOOD: u32 = 2 * TABLE;
const ACTIVE: u32 = 1_000;
/// So many new flows come between two packets of an active flow: 20 ms of a flood of a million a
/// second. The kernel's LRU is not exact: at ten times the gap some 0.2 % of the pins are lost, and
/// conntrack's mark decides, which the lab shows.
const GAP: u32 = 20_000;

#[test]
fn old_flows_in_use_keep_their_uplink_while_the_table_is_flooded() {
    let run = || {
        let mut bench = Bench::with_flows(TABLE).expect("this test needs root and UPLINK_BPF_OBJECT");
        let active: Vec<Vec<u8>> = (0..ACTIVE).map(|n| flow(n).frame()).collect();
        let before: Vec<u32> = active.iter().map(|f| bench.run(f, 0).mark).collect();
        // From here on a flow that lost its pin may be placed on the other uplink.
        bench.serve(&[(1, 1), (2, 3)], false);
        let mut lost = 0;
        for n in 0..FLOOD {
            bench.pass(INGRESS, &flow(ACTIVE + n).frame(), 0);
            if n % GAP == GAP - 1 {
                bench.moved();
                lost += active
                    .iter()
                    .zip(&before)
                    .filter(|(f, was)| !kept(&mut bench, f, **was))
                    .count();
            }
        }
        println!(
            "{ACTIVE} flows in use, {FLOOD} new ones in a table of {TABLE}: {lost} times a pin was lost"
        );
        assert_eq!(lost, 0);
    };
    std::thread::spawn(run)
        .join()
        .unwrap_or_else(|e| std::panic::resume_unwind(e));
}

fn kept(bench: &mut Bench, frame: &[u8], was: u32) -> bool {
    let now = bench.run(frame, 0);
    now.reason == Reason::Pinned && now.mark == was
}

/// The n-th of four million flows.
fn flow(n: u32) -> V4 {
    V4::udp(1024 + (n >> 14) as u16, 53).client(n & 0x3fff)
}
