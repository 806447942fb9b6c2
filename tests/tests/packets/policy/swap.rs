//! Policies are exchanged as a whole, while flows arrive.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use uplink_common::{FlowKey, Reason};
use uplink_userspace::config::Policy;

use super::by;
use crate::bench::{Bench, Rules, Runner, Writer};
use crate::frames::{CLIENT_MAC, V4};
use crate::in_namespace;

const SWITCHES: u32 = 500;
const PORTS: u16 = 32;

/// By destination port the policy that decides, all by one uplink. `shift` makes the two sets of policies differ in
/// shape: in which place decides about which port, and in which fields they look at.
fn rules(uplink: &str, shift: u16, first_number: u32) -> Rules {
    let mut policies: Vec<Policy> = Vec::new();
    // Of a group that nobody else is in, so that the others' group has another number in each set.
    for n in 0..shift {
        let mut never = by(&format!("never{n}"), &["nobody"]);
        never.matches.proto.any = Some(vec![200]);
        policies.push(never);
    }
    for n in 0..PORTS {
        let port = (n * 5 + shift) % PORTS;
        let mut policy = by(&format!("port{port}"), &[uplink]);
        policy.matches.dport.any = Some(vec![port..=port]);
        if shift != 0 {
            policy.matches.dst.any = Some(vec!["203.0.113.0/24".parse().expect("a prefix")]);
            policy.matches.mac.any = Some(vec![CLIENT_MAC]);
            policy.matches.dscp.any = Some(vec![0]);
        }
        policies.push(policy);
    }
    let mut rules = Rules::new(policies);
    rules.numbers.iter_mut().for_each(|n| *n += first_number);
    rules
}

/// The number of the policy for a destination port.
fn number(rules: &Rules, port: u16) -> u16 {
    let name = format!("port{port}");
    let place = rules.policies.iter().position(|p| p.name.value == name);
    rules.numbers[place.expect("a policy for each port")] as u16
}

/// What came of the flows: uplink and policy as one of the sets has it, how many by each.
fn watch(runner: &Runner<'_>, sets: [&Rules; 2], stop: &AtomicBool, done: &AtomicU32) -> [u32; 2] {
    let mut by = [0; 2];
    let mut n = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let port = (n % u32::from(PORTS)) as u16;
        let flow = V4::tcp((n / 64) as u16, port).client(n % 64);
        runner.forget(&flow.key());
        let mark = runner.run(&flow.frame());
        let pin = runner.pin(&flow.key());
        let got = (mark >> 24, u32::from(pin.uplink), pin.policy);
        let of = |i: usize| (i as u32 + 1, i as u32 + 1, number(sets[i], port));
        let set = [0, 1].into_iter().find(|i| of(*i) == got);
        let set = set.unwrap_or_else(|| panic!("{got:?} is neither {:?} nor {:?}", of(0), of(1)));
        by[set] += 1;
        done.store(n, Ordering::Relaxed);
    }
    by
}

/// Writes them by turns.
fn exchange(writer: &mut Writer<'_>, sets: [&Rules; 2], stop: &AtomicBool, done: &AtomicU32) {
    for n in 0..SWITCHES {
        writer.obey(sets[(n as usize + 1) % 2]);
        // Flows arrive under each, and at other moments each time.
        let seen = done.load(Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) && done.load(Ordering::Relaxed) < seen + n % 7 {
            std::hint::spin_loop();
        }
    }
}

fn prepared(bench: &mut Bench) -> [Rules; 2] {
    let sets = [rules("isp1", 0, 0), rules("isp2", 3, 500)];
    bench.group(0, &[1]);
    bench.group(1, &[2]);
    bench.obey(&sets[0]);
    sets
}

#[test]
fn every_flow_falls_under_one_set_of_policies_or_the_other() {
    in_namespace(|bench| {
        let [a, b] = prepared(bench);
        let (runner, mut writer) = bench.halves();
        let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
        let by = std::thread::scope(|scope| {
            let watching = scope.spawn(|| watch(&runner, [&a, &b], &stop, &done));
            let writing = scope.spawn(|| exchange(&mut writer, [&a, &b], &stop, &done));
            while !writing.is_finished() && !watching.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            watching.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        });
        println!("{SWITCHES} switches: {by:?} flows by either set");
        assert!(by[0].min(by[1]) > 1_000, "{by:?}");
    });
}

#[test]
fn flows_that_have_an_uplink_keep_it_whatever_the_policies_become() {
    in_namespace(|bench| {
        let [a, b] = prepared(bench);
        let flows: Vec<V4> = (0..PORTS).map(|port| V4::tcp(1000, port)).collect();
        let keys: Vec<FlowKey> = flows.iter().map(V4::key).collect();
        flows.iter().for_each(|f| drop(bench.run(&f.frame(), 0)));
        let pins = |bench: &Bench| {
            keys.iter()
                .map(|k| bench.pin(k).map(|p| (p.uplink, p.policy)))
                .collect::<Vec<_>>()
        };
        let before = pins(bench);
        for rules in [&b, &a, &b] {
            bench.obey(rules);
            for flow in &flows {
                let got = bench.run(&flow.frame(), 0);
                assert_eq!(
                    (got.reason, got.mark >> 24),
                    (Reason::Pinned, 1),
                    "{:?}",
                    flow.key()
                );
            }
            assert_eq!(pins(bench), before);
        }
        let new = bench.run(&V4::tcp(1001, 3).frame(), 0);
        assert_eq!((new.reason, new.mark >> 24), (Reason::Picked, 2));
    });
}
