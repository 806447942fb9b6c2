use super::super::Outcome;
use super::super::packet::{TcpSegment, read};
use super::*;

/// An IPv4 or IPv6 packet out of its parts, with true lengths.
fn v4(number: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, number, 0, 0, 192, 168, 7, 2, 192, 0, 2, 53]);
    [&packet, options, payload].concat()
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xfd; 16]);
    packet.extend([0xfc; 16]);
    [&packet, payload].concat()
}

const UDP: [u8; 11] = [0x0f, 0xa0, 0, 53, 0, 11, 0, 0, b'd', b'n', b's'];

fn outcome(packet: &[u8]) -> Result<Vec<u8>, Outcome> {
    read(&capture(packet)).map(|heard| heard.payload.to_vec())
}

#[test]
fn both_families_and_protocols_are_read() {
    for (from, to, family) in [
        (CLIENT, SERVER, uplink_common::Family::V4),
        (
            "[2001:db8::2]:4000",
            "[2001:db8::53]:53",
            uplink_common::Family::V6,
        ),
    ] {
        let bytes = udp(from, to, b"dns");
        let heard = read(&bytes).unwrap();
        assert_eq!((heard.source, heard.destination), (at(from), at(to)));
        assert_eq!(
            (heard.family, heard.tcp, heard.payload),
            (family, None, &b"dns"[..])
        );

        let bytes = tcp(to, from, 7, "F", b"dns");
        let heard = read(&bytes).unwrap();
        let segment = TcpSegment {
            seq: 7,
            syn: false,
            fin: true,
            rst: false,
        };
        assert_eq!((heard.tcp, heard.payload), (Some(segment), &b"dns"[..]));
    }
}

#[test]
fn options_and_extension_headers_are_passed_over() {
    let dns = Ok(b"dns".to_vec());
    assert_eq!(outcome(&v4(17, 0, &[1, 1, 1, 0], &UDP)), dns);
    let hop_by_hop = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &UDP].concat();
    assert_eq!(outcome(&v6(0, &hop_by_hop)), dns);
    let atomic_fragment = [&[17, 0, 0, 0, 0, 0, 0, 1][..], &UDP].concat();
    assert_eq!(outcome(&v6(44, &atomic_fragment)), dns);
    // What is behind the packet's own length is somebody's padding.
    let mut padded = v4(17, 0, &[], &UDP);
    padded.extend([0; 9]);
    assert_eq!(outcome(&padded), dns);
}

#[test]
fn fragments_are_refused() {
    for fragment in [0x2000, 0x0010] {
        assert_eq!(outcome(&v4(17, fragment, &[], &UDP)), Err(Outcome::Fragment));
    }
    let first = [&[17, 0, 0, 1, 0, 0, 0, 1][..], &UDP].concat();
    assert_eq!(outcome(&v6(44, &first)), Err(Outcome::Fragment));
}

#[test]
fn what_was_not_captured_whole_is_refused() {
    let mut bytes = capture(&v4(17, 0, &[], &UDP));
    assert!(read(&bytes).is_ok());
    // The ring buffer's own padding.
    bytes.extend([0xff; 5]);
    assert!(read(&bytes).is_ok());
    for length in 0..16 + 31 {
        assert_eq!(read(&bytes[..length]), Err(Outcome::Malformed), "{length}");
    }
    bytes[4..8].copy_from_slice(&9_000u32.to_ne_bytes());
    assert_eq!(read(&bytes), Err(Outcome::Cut));
    bytes[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert_eq!(read(&bytes), Err(Outcome::Malformed));
}

#[test]
fn lengths_that_lie_are_refused() {
    for length in [0u16, 7, 12, 65_535] {
        let mut lie = UDP;
        lie[4..6].copy_from_slice(&length.to_be_bytes());
        let expected = if length == 0 {
            Ok(b"dns".to_vec())
        } else {
            Err(Outcome::Malformed)
        };
        assert_eq!(outcome(&v4(17, 0, &[], &lie)), expected, "{length}");
    }
    let mut packet = v4(17, 0, &[], &UDP);
    packet[3] += 1;
    assert_eq!(outcome(&packet), Err(Outcome::Malformed));
    packet[0] = 0x44;
    assert_eq!(outcome(&packet), Err(Outcome::Malformed));
}

#[test]
fn what_is_no_dns_says_so() {
    assert_eq!(
        outcome(&v4(1, 0, &[], &[8, 0, 0, 0, 0, 0, 0, 0])),
        Err(Outcome::NotDns)
    );
    let mut other = UDP;
    other[3] = 54;
    assert_eq!(outcome(&v4(17, 0, &[], &other)), Err(Outcome::NotDns));
}
