//! A million broken frames: never dropped, never steered by bytes that are not there.

use uplink_common::FlowKey;

use crate::bench::{Bench, EGRESS, INGRESS};
use crate::frames::{V4, V6, tagged};
use crate::{in_namespace, reference};

/// The kernel runs no program on less than an Ethernet header and one byte.
const SHORTEST: usize = 15;
const FRAMES: usize = 1_000_000;

/// xorshift64* (Vigna, 2016): the same frames in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
}

/// One of each kind, behind a tag: the kernel's test run itself refuses untagged IP frames that
/// are shorter than an IP header.
fn seeds() -> Vec<Vec<u8>> {
    let (v4, v6) = (V4::udp(1000, 53), V6::udp(1000, 53));
    let frames = [
        v4.frame(),
        V4::tcp(1, 2).frame(),
        v4.echo(7),
        v4.with_options(),
        v4.first_fragment(),
        v4.later_fragment(),
        v4.protocol(47),
        v4.error_about_reply(),
        v6.frame(),
        v6.with_extensions(),
        v6.error_about_reply(),
        tagged(&v4.frame(), 1),
    ];
    frames.iter().map(|f| tagged(f, 1)).collect()
}

/// Random bytes behind a random header boundary, or a few anywhere; then cut somewhere.
fn broken(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = seeds[random.below(seeds.len())].clone();
    match random.below(4) {
        0 => {
            let from = [18, 38, 58][random.below(3)].min(frame.len());
            frame[from..].iter_mut().for_each(|b| *b = random.next() as u8);
        }
        1 => {}
        _ => {
            for _ in 0..=random.below(4) {
                let at = 16 + random.below(frame.len() - 16);
                frame[at] = random.next() as u8;
            }
        }
    }
    if random.below(3) != 0 {
        frame.truncate(SHORTEST + random.below(frame.len() - SHORTEST + 1));
    }
    frame
}

#[test]
fn a_million_broken_frames_are_passed_on_and_steered_only_by_what_they_hold() {
    in_namespace(|bench| {
        let (seeds, mut random) = (seeds(), Random(0x9e37_79b9_7f4a_7c15));
        let (before, mut steered) = (bench.total(), 0_u64);
        for n in 0..FRAMES {
            let frame = broken(&mut random, &seeds);
            let passed = bench.pass(INGRESS, &frame, 0);
            assert_eq!(passed.frame, frame, "frame {n} was changed");
            if passed.mark != 0 {
                steered += 1;
                by_its_own_bytes(bench, n, &frame);
            }
            if n % 10 == 0 {
                bench.pass(EGRESS, &frame, 1 << 24);
            }
        }
        println!("{FRAMES} broken frames, {steered} of them whole enough to be steered");
        assert!(
            steered > FRAMES as u64 / 20,
            "hardly any frame gets that far: {steered}"
        );
        assert_eq!(
            bench.total() - before,
            FRAMES as u64,
            "every frame has one outcome"
        );
    });
}

/// The yardstick finds a flow in it, and that flow is what was pinned.
fn by_its_own_bytes(bench: &mut Bench, n: usize, frame: &[u8]) {
    let Some(key) = reference::flow(frame) else {
        panic!("frame {n} was steered by bytes that are not there: {frame:02x?}")
    };
    let key = FlowKey { pad: [0; 3], ..key };
    if bench.is_local(&key) {
        return;
    }
    assert!(
        bench.pin(&key).is_some(),
        "frame {n} has no pin for {key:?}: {frame:02x?}"
    );
}

#[test]
fn every_length_of_a_good_frame_is_passed_on() {
    in_namespace(|bench| {
        for frame in seeds() {
            for length in SHORTEST..=frame.len() {
                let passed = bench.pass(INGRESS, &frame[..length], 0);
                let whole = reference::flow(&frame[..length]).is_some();
                assert!(
                    whole || passed.mark == 0,
                    "steered by {length} bytes of {frame:02x?}"
                );
            }
        }
    });
}
