//! What the first packet of a flow costs under policies: a measurement, run by hand.
//!
//! Every packet is another flow to another destination, so that caches help no more than in life, and runs once; the
//! kernel's clock around the program is part of each figure (the last row says how much). All rows are measured in
//! turns, in one run.

use aya::programs::{TestRun as _, TestRunOptions};
use uplink_userspace::config::Policy;

use super::{Bench, INGRESS, Rules, classifier};
use crate::frames::V4;
use crate::in_namespace;
use crate::policy::by;

const ROUNDS: u32 = 7;
const PACKETS: u32 = 4_000;

/// As many policies, by destination port and prefixes, with so many prefixes in all.
struct Case {
    policies: u32,
    prefixes: u32,
}

// Each flow has a source port of its own.
const _: () = assert!(10_000 + CASES.len() * (PACKETS as usize) < 65_536);

const CASES: [Case; 7] = [
    Case {
        policies: 0,
        prefixes: 0,
    },
    Case {
        policies: 1,
        prefixes: 1,
    },
    Case {
        policies: 100,
        prefixes: 100,
    },
    Case {
        policies: 1_000,
        prefixes: 1_000,
    },
    Case {
        policies: 1,
        prefixes: 10_000,
    },
    Case {
        policies: 1,
        prefixes: 100_000,
    },
    Case {
        policies: 1_000,
        prefixes: 100_000,
    },
];

/// Spreads numbers over 32 bits, and back (Knuth, 6.4): neighbours are far apart.
const fn spread(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

/// The nth prefix, of 20 to 28 bits, of public addresses.
fn prefix(n: u32) -> ([u8; 4], u8) {
    let [a, b, c, d] = spread(n).to_be_bytes();
    ([20 + a % 80, b, c, d], 20 + (n % 9) as u8)
}

fn rules(case: &Case) -> Rules {
    let policy = |n: u32| -> Policy {
        let mut policy = by(&format!("p{n}"), &["isp1", "isp2"]);
        let own = (n..case.prefixes).step_by(case.policies as usize);
        let nets = own.map(|n| {
            let (address, length) = prefix(n);
            let net = ipnet::Ipv4Net::new(address.into(), length).expect("at most 32 bits");
            net.trunc().into()
        });
        policy.matches.dst.any = Some(nets.collect());
        let ports = [1_000 + (n % 500) as u16..=2_000, 443..=443];
        policy.matches.dport.any = Some(ports.into());
        policy
    };
    Rules::new((0..case.policies).map(policy).collect())
}

/// The median over packets: half of them go to an address within some prefix.
fn measure(bench: &mut Bench, (nth, case): (u32, &Case), round: u32) -> u32 {
    let mut times: Vec<u32> = Vec::new();
    for n in 0..PACKETS {
        let (at, outside) = (spread(n) % case.prefixes.max(1), n % 2 == 1);
        let ([a, b, c, d], _) = prefix(at);
        let dst = if outside { [a + 100, b, c, d] } else { [a, b, c, d] };
        // Nobody else's: by the port no other packet's of this round, by the client none of another round's.
        let port = 10_000 + nth * PACKETS + n;
        let flow = V4::udp(port as u16, 443).client(100 + round).to(dst);
        times.push(time(bench, &flow.frame()));
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn time(bench: &mut Bench, frame: &[u8]) -> u32 {
    let ctx = bench.context(0);
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.ctx_in = Some(&ctx);
    let program = classifier(&mut bench.ebpf, INGRESS).expect("the program");
    program
        .test_run(options)
        .expect("BPF_PROG_TEST_RUN")
        .duration
        .subsec_nanos()
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_first_packet() {
    in_namespace(|bench| {
        let all = CASES.map(|case| (rules(&case), case));
        let mut medians: Vec<Vec<u32>> = CASES.iter().map(|_| Vec::new()).collect();
        let mut floor = Vec::new();
        for round in 0..ROUNDS {
            for (nth, ((rules, case), medians)) in (0..).zip(all.iter().zip(&mut medians)) {
                bench.obey(rules);
                bench.settle_groups(&rules.policies);
                medians.push(measure(bench, (nth, case), round));
            }
            let frame = V4::tcp(1, 1).to([224, 0, 0, 1]).frame();
            let mut nothing: Vec<u32> = (0..PACKETS).map(|_| time(bench, &frame)).collect();
            nothing.sort_unstable();
            floor.push(nothing[nothing.len() / 2]);
        }
        for (case, medians) in CASES.iter().zip(&mut medians) {
            medians.sort_unstable();
            let (policies, prefixes) = (case.policies, case.prefixes);
            let (min, mid) = (medians[0], medians[medians.len() / 2]);
            println!("{policies} policies, {prefixes} prefixes: median {mid} ns, least {min} ns");
        }
        floor.sort_unstable();
        println!(
            "a packet that is left alone at once: median {} ns",
            floor[floor.len() / 2]
        );
    });
}
