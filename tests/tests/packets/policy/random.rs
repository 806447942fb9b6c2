//! Random packets against random policies: program, tables and configuration agree.

use std::collections::HashSet;
use std::process::Command;

use uplink_common::{Addr, Reason};
use uplink_userspace::maps::policies::PolicyReader;
use uplink_userspace::policy::classify::{Facts, classify};

use super::draw::Universe;
use super::packet::{frame, router_mac};
use super::reference::{Flow, first};
use crate::bench::{Bench, Rules};
use crate::{in_namespace, reference};

const POLICIES: usize = 200;
const FLOWS: usize = 10_000;
const SEEDS: [u64; 3] = [1, 0x5eed, 0xdead_beef];

/// Random policies with all that is known around them; the last number goes to the first.
pub fn rules(universe: &mut Universe, count: usize) -> Rules {
    let mut rules = Rules::new((0..count).map(|n| universe.policy(n)).collect());
    rules.numbers.reverse();
    rules.active = (0..count).map(|_| universe.random.below(10) != 0).collect();
    for (address, names, until_s) in universe.names() {
        rules.learned.insert(Addr::from(address), (names, until_s));
    }
    rules
}

/// What is known of a flow's destination.
pub fn known(rules: &Rules, flow: &Flow) -> Vec<&'static str> {
    let learned = rules.learned.get(&Addr::from(flow.dst));
    let fresh = learned.filter(|(_, until_s)| *until_s == super::FAR_AWAY_S);
    fresh.map(|(names, _)| names.clone()).unwrap_or_default()
}

/// Who wants what, and what came of it.
#[derive(Default)]
pub struct Tally {
    pub flows: usize,
    matched: usize,
    deciding: HashSet<usize>,
}

impl Tally {
    pub fn note(&mut self, place: Option<usize>) {
        self.flows += 1;
        self.matched += usize::from(place.is_some());
        self.deciding.extend(place);
    }

    /// Neither nothing nor everything matched, or the test would say little.
    pub fn report(&self, what: &str) {
        let share = self.matched as f64 / self.flows as f64;
        let (flows, deciding) = (self.flows, self.deciding.len());
        println!(
            "{what}: {flows} flows, {:.1} % by {deciding} policies",
            share * 100.0
        );
        assert!(deciding > 10, "{what}: {deciding} policies decided");
        assert!((0.3..0.9).contains(&share), "{what}: {share}");
    }
}

/// The place of the policy that a pin names.
pub fn place_of(rules: &Rules, number: u16) -> Option<usize> {
    rules.numbers.iter().position(|n| *n == u32::from(number))
}

/// The policy that decides says what the configuration says.
pub fn check_uplink(rules: &Rules, place: Option<usize>, uplink: u32, flow: &Flow) {
    let Some(place) = place else { return };
    let names = rules.policies[place].choice.tiers.iter().flatten();
    let wanted: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    let got = ["isp1", "isp2"][uplink as usize - 1];
    assert!(wanted.contains(&got), "{got} instead of {wanted:?}: {flow:?}");
}

fn facts(frame: &[u8], flow: &Flow, ifindex: u32) -> Facts {
    let key = reference::flow(frame).expect("a flow");
    Facts {
        src: Some(key.src),
        dst: key.dst,
        sport: u16::from_be_bytes(key.sport),
        dport: u16::from_be_bytes(key.dport),
        proto: key.proto,
        dscp: flow.dscp,
        iif: ifindex,
        mac: flow.mac,
        uid: None,
        cgroups: Vec::new(),
        now_s: 1_000,
    }
}

fn try_one(bench: &mut Bench, rules: &Rules, reader: &PolicyReader, flow: &Flow) -> Option<usize> {
    let frame = frame(flow);
    let ifindex = rules.around.ifindex[flow.iif];
    let key = reference::flow(&frame).expect("a flow");
    bench.forget(&key);
    let got = bench.run_at(ifindex, &frame, 0);
    assert_eq!(got.reason, Reason::Picked, "{flow:?}");
    let pin = bench.pin(&key).expect("a pin");
    let by_program = place_of(rules, pin.policy);
    assert_eq!(by_program.is_some(), pin.policy != 0, "{pin:?}");
    let by_tables = classify(reader, &facts(&frame, flow, ifindex))
        .expect("the maps")
        .place;
    let by_person = first(&rules.policies, &rules.active, flow);
    let of = |place: Option<usize>| place.map(|p| &rules.policies[p]);
    assert_eq!(
        by_program,
        by_person,
        "{flow:?}\n{:?}\n{:?}",
        of(by_program),
        of(by_person)
    );
    assert_eq!(
        by_tables.map(|p| p as usize),
        by_person,
        "{flow:?}\n{:?}",
        of(by_person)
    );
    check_uplink(rules, by_program, got.mark >> 24, flow);
    by_person
}

fn interfaces(rules: &mut Rules) {
    let mac = router_mac("peer").map(|b| format!("{b:02x}")).join(":");
    let status = Command::new("ip")
        .args(["link", "set", "peer", "address", &mac])
        .status();
    assert!(status.expect("ip").success());
    for name in ["eth0", "peer"] {
        let index = nix::net::if_::if_nametoindex(name).expect("an interface");
        rules.around.ifindex.insert(name.into(), index);
    }
}

#[test]
fn packets_tables_and_configuration_agree() {
    in_namespace(|bench| {
        for seed in SEEDS {
            let mut universe = Universe::packets(seed);
            let mut rules = rules(&mut universe, POLICIES);
            interfaces(&mut rules);
            bench.obey(&rules);
            bench.settle_groups(&rules.policies);
            let reader = bench.reader();
            let mut tally = Tally::default();
            for _ in 0..FLOWS {
                let mut flow = universe.forwarded();
                flow.names = known(&rules, &flow);
                tally.note(try_one(bench, &rules, &reader, &flow));
            }
            tally.report(&format!("seed {seed:#x}"));
        }
    });
}
