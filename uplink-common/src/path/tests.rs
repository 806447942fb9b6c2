extern crate std;

use std::collections::BTreeSet;
use std::vec::Vec;

use super::*;
use crate::Seed;

const ENDS: Ends4 = Ends4 {
    addresses: [[172, 16, 0, 9], [203, 0, 113, 7]],
    ports: [[0x9c, 0x40], [0x01, 0xbb]],
};

fn checksum(words: &[u16]) -> u16 {
    !fold(words.iter().map(|w| u32::from(*w)).sum())
}

#[test]
fn a_checksum_follows_every_change() {
    for first in (0..=u16::MAX).step_by(7) {
        for (second, becomes) in [(0, 0xffff), (1, 2), (0xfffe, first), (first, 0)] {
            let before = [first, second, 0x1234];
            let after = [first, becomes, 0x1234];
            let delta = delta(u32::from(second), u32::from(becomes));
            let (got, right) = (apply(checksum(&before), delta), checksum(&after));
            // Of both zeros of one's complement either is right.
            let zero = |sum| sum == 0 || sum == 0xffff;
            assert!(got == right || zero(got) && zero(right), "{first:#x} {second:#x}");
        }
    }
}

#[test]
fn one_hop_less_is_what_later_says() {
    for other in 0..=u16::MAX {
        let [high, low] = other.to_be_bytes();
        let [_, _, a, b] = crate::hop::later([64, 17, high, low]);
        let got = apply(u16::from_ne_bytes([high, low]), HOP);
        let right = u16::from_ne_bytes([a, b]);
        let zero = |sum| sum == 0 || sum == 0xffff;
        assert!(got == right || zero(got) && zero(right), "{other:#x}");
    }
}

#[test]
fn an_unfinished_checksum_is_told() {
    let addresses = ENDS.sum_of_addresses();
    let length = 28_u16;
    let pseudo = fold(addresses + u32::from(u16::from_be_bytes([0, 17]).to_be()) + u32::from(length.to_be()));
    assert!(is_unfinished(pseudo, addresses, 17, length));
    assert!(!is_unfinished(!pseudo, addresses, 17, length));
    assert!(!is_unfinished(pseudo, addresses, 6, length));
}

const WAY: Way = Way {
    generation: 7,
    next: [2, 0, 0, 0, 0, 1],
    policy: 3,
    entry: 4,
    exit: 5,
    from: 0,
    to: 1,
};

fn path() -> Path<Ends4> {
    Path {
        ends: ENDS,
        generation: 7,
        becomes: End {
            address: [192, 168, 1, 100],
            port: [0x10, 0x92],
        },
        way: 9,
        longest: 1500,
        looked_s: 65_530,
        check: 0,
        proto: 17,
        flags: OUTWARD,
        pad: [],
    }
}

#[test]
fn a_check_minds_every_bit_of_a_path_and_of_its_way() {
    let (path, right) = (path(), path().checked(&WAY));
    type Change = fn(&mut Path<Ends4>, &mut Way, u32);
    let fields: [(&str, u32, Change); 16] = [
        ("source", 32, |p, _, n| {
            p.ends.addresses[0][(n / 8) as usize] ^= 1 << (n % 8)
        }),
        ("destination", 32, |p, _, n| {
            p.ends.addresses[1][(n / 8) as usize] ^= 1 << (n % 8)
        }),
        ("ports", 32, |p, _, n| {
            p.ends.ports[(n / 16) as usize][(n / 8 % 2) as usize] ^= 1 << (n % 8)
        }),
        ("generation", 32, |p, _, n| p.generation ^= 1 << n),
        ("new address", 32, |p, _, n| {
            p.becomes.address[(n / 8) as usize] ^= 1 << (n % 8)
        }),
        ("new port", 16, |p, _, n| {
            p.becomes.port[(n / 8) as usize] ^= 1 << (n % 8)
        }),
        ("place of the way", 16, |p, _, n| p.way ^= 1 << n),
        ("longest", 16, |p, _, n| p.longest ^= 1 << n),
        ("time", 16, |p, _, n| p.looked_s ^= 1 << n),
        ("protocol", 8, |p, _, n| p.proto ^= 1 << n),
        ("flags", 8, |p, _, n| p.flags ^= 1 << n),
        ("the way's generation", 32, |_, w, n| w.generation ^= 1 << n),
        ("next hop", 48, |_, w, n| w.next[(n / 8) as usize] ^= 1 << (n % 8)),
        ("policy", 16, |_, w, n| w.policy ^= 1 << n),
        ("interfaces", 16, |_, w, n| {
            if n < 8 {
                w.entry ^= 1 << n
            } else {
                w.exit ^= 1 << (n - 8)
            }
        }),
        ("uplinks", 16, |_, w, n| {
            if n < 8 {
                w.from ^= 1 << n
            } else {
                w.to ^= 1 << (n - 8)
            }
        }),
    ];
    for (what, bits, change) in fields {
        for n in 0..bits {
            let (mut path, mut way) = (path, WAY);
            change(&mut path, &mut way, n);
            assert_ne!(path.checked(&way), right, "bit {n} of {what}");
        }
    }
    let known = Path { check: 1, ..path };
    assert_eq!(known.checked(&WAY), right, "not by itself");
}

/// Sums as RFC 1071 has them, over what the packet is before and after.
#[test]
fn the_end_that_changes_is_the_source_outward_and_the_destination_inward() {
    let words = |ends: &Ends4, ports: bool| -> Vec<u16> {
        let addresses = ends.addresses.concat();
        let ports = ends.ports.concat().into_iter().filter(|_| ports);
        let bytes: Vec<u8> = addresses.into_iter().chain(ports).collect();
        bytes
            .chunks(2)
            .map(|b| u16::from_ne_bytes([b[0], b[1]]))
            .collect()
    };
    for (flags, source) in [(OUTWARD, true), (ANSWERED, false)] {
        let path = Path { flags, ..path() };
        let left = path.leaves();
        assert_eq!(left.end(source), path.becomes);
        assert_eq!(left.end(!source), ENDS.end(!source));
        for (ports, delta) in [false, true].into_iter().zip(path.deltas()) {
            let (before, after) = (checksum(&words(&ENDS, ports)), checksum(&words(&left, ports)));
            assert_eq!(
                apply(before, delta),
                after,
                "outward: {source}, with ports: {ports}"
            );
        }
    }
}

#[test]
fn an_age_goes_on_when_the_seconds_begin_again() {
    assert_eq!(path().age_s(65_530), 0);
    assert_eq!(path().age_s(65_536 + 10), 16);
    const { assert!(GENERATION_S < 1 << 16) }
}

#[test]
fn ways_that_differ_are_elsewhere() {
    let of = |n: u16| Way {
        next: [2, 0, 0, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]],
        ..WAY
    };
    let places: BTreeSet<u32> = (0..1000).map(|n| of(n).place() % MAX_WAYS as u32).collect();
    assert!(places.len() > 950, "{} places of a thousand", places.len());
}

#[test]
fn a_closed_way_is_another_and_the_last_try_is_known() {
    assert!(!WAY.is_closed() && WAY.closed().is_closed());
    assert_ne!(WAY.closed(), WAY);
    let last: Vec<u32> = (0..WAY_TRIES)
        .filter(|n| WAY.is_last_try(WAY.place().wrapping_add(*n) % MAX_WAYS as u32))
        .collect();
    assert_eq!(last, [WAY_TRIES - 1]);
}

#[test]
fn a_table_that_is_three_quarters_full_has_room_for_nineteen_of_twenty() {
    const BUCKETS: u32 = 4096;
    let seed = Seed { k0: 0x1234, k1: 0 };
    let mut taken = [0; BUCKETS as usize];
    let (all, mut without) = (BUCKETS * LINES * 3 / 4, 0);
    for n in 0..all {
        let ends = Ends4 {
            ports: [(n as u16 ^ 0x5a5a).to_be_bytes(), [0, 80]],
            ..ENDS
        };
        let [a, b] = places(ends.place(seed, 6), BUCKETS).map(|line| (line / LINES) as usize);
        let emptier = if taken[a] <= taken[b] { a } else { b };
        if taken[emptier] < LINES {
            taken[emptier] += 1;
        } else {
            without += 1;
        }
    }
    assert!(without * 18 < all, "{without} of {all}");
}
