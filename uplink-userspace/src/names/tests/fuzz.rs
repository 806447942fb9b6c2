//! Hostile bytes. The files in `corpus` begin with what they are: 0 a capture, 1 a packet, 2 a message, 3 pieces of a
//! TCP stream, each with its length in eights in front.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/names/corpus")
}

/// A file of the corpus.
pub fn seed(name: &str) -> Vec<u8> {
    std::fs::read(corpus().join(name)).unwrap()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| (name.clone(), seed(&name)))
        .collect();
    seeds.sort();
    seeds
}

/// Lets an ear hear it, as what it is. Only a message whose question was asked may teach anything.
fn drive(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let mut ear = ear();
    match kind % 4 {
        0 => assert!(ear.hear(rest, NOW).is_empty()),
        1 => assert!(ear.hear(&capture(rest), NOW).is_empty()),
        2 => converse(&mut ear, rest),
        _ => stream(&mut ear, rest),
    }
}

fn converse(ear: &mut Ear, message: &[u8]) {
    assert!(ear.hear(&udp(SERVER, CLIENT, message), NOW).is_empty());
    let mut question = message.to_vec();
    if let Some(flags) = question.get_mut(2) {
        *flags &= 0x7f;
    }
    ear.hear(&udp(CLIENT, SERVER, &question), NOW);
    ear.hear(&udp(SERVER, CLIENT, message), NOW);
    assert!(ear.learned().len() <= 400);
    for (address, entry) in ear.learned().iter() {
        let counts_for = entry.expires_s() - NOW.as_secs();
        assert!((60..=86_400).contains(&counts_for), "{address}: {counts_for}");
    }
    ear.expire(NOW + Duration::from_secs(86_400));
    assert!(ear.learned().is_empty());
}

fn stream(ear: &mut Ear, mut pieces: &[u8]) {
    ear.hear(&tcp(SERVER, CLIENT, 99, "S", &[]), NOW);
    let mut seq = 100u32;
    while let Some((length, rest)) = pieces.split_first() {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length) * 8));
        assert!(ear.hear(&tcp(SERVER, CLIENT, seq, "", piece), NOW).is_empty());
        seq = seq.wrapping_add(piece.len() as u32);
        pieces = rest;
    }
}

#[test]
fn the_corpus_does_no_harm() {
    let seeds = seeds();
    assert!(seeds.len() > 80, "the corpus is not there");
    for (name, seed) in seeds {
        println!("{name}");
        drive(&seed);
        for length in 0..seed.len().min(600) {
            drive(&seed[..length]);
        }
    }
}

/// Names that are as long as they can be, over and over, are read in a moment.
#[test]
fn pointer_bombs_are_soon_over() {
    for name in [
        "message-pointer-bomb",
        "message-pointer-bomb-labels",
        "message-pointer-bomb-cname",
    ] {
        let bomb = seed(name);
        let start = Instant::now();
        drive(&bomb);
        assert!(
            start.elapsed() < Duration::from_millis(250),
            "{name}: {:?}",
            start.elapsed()
        );
    }
}

/// Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }

    fn mutate(&mut self, data: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
        for _ in 0..=self.throw(6) {
            let at = self.throw(data.len());
            let byte = self.throw(256) as u8;
            match self.throw(7) {
                0 if !data.is_empty() => data[at] = byte,
                1 if !data.is_empty() => data[at] ^= 1 << (byte % 8),
                2 if !data.is_empty() => {
                    data[at] = [0, 1, 0x0c, 0x3f, 0x40, 0x80, 0xc0, 0xff][usize::from(byte % 8)]
                }
                3 => data.truncate(at),
                4 => data.insert(at, byte),
                5 if !data.is_empty() => drop(data.remove(at)),
                _ => {
                    let other = &others[self.throw(others.len())].1;
                    let from = self.throw(other.len());
                    data.truncate(at.max(1));
                    data.extend_from_slice(&other[from..]);
                    data.truncate(5_000);
                }
            }
        }
    }
}

#[test]
#[ignore = "runs for UPLINK_FUZZ_S seconds, default 10"]
fn mutations_of_the_corpus_do_no_harm() {
    let seconds = std::env::var("UPLINK_FUZZ_S").map_or(10, |s| s.parse().unwrap());
    let seeds = seeds();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (start, mut runs) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1_000 {
            let mut data = seeds[dice.throw(seeds.len())].1.clone();
            dice.mutate(&mut data, &seeds);
            if std::panic::catch_unwind(|| drive(&data)).is_err() {
                panic!("this does harm: {data:02x?}");
            }
            runs += 1;
        }
    }
    println!("{runs} runs");
}
