//! Next-hop mode: which packets may go to the gateway past the kernel's forwarding, and what a router
//! changes in them.
//!
//! Whatever the kernel answers better goes its way: a TTL at its end, what is too big, fragments, options
//! and extension headers, and TCP segments that open or close a connection, which conntrack has to see
//! and whose MSS is clamped there.

/// A pin that nobody has looked at for this long is looked at again: a power of two, in seconds. Shorter
/// than the 30 s after which conntrack forgets a datagram without an answer.
pub const LOOK_AGAIN_S: u32 = 16;

/// Without a heartbeat for this long, in seconds, nobody would notice a new firewall.
pub const ALIVE_S: u32 = 3;

/// `skb->tc_index` of a packet between ingress and egress that goes past the kernel's forwarding.
pub const PAST: u32 = 0x7570;

/// Frames up to this length may be padded.
const PADDED: u32 = 60;
const ETH: u32 = 14;

/// FIN, SYN and RST.
const EDGES: u8 = 0x07;

/// What decides beside the headers.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Of the whole frame, with its Ethernet header.
    pub frame: u32,
    /// Payload of each segment where the frame holds several; 0: it does not.
    pub segment: u32,
    /// The longest IP packet that leaves whole; 0: not known.
    pub mtu: u32,
}

/// The length of an IPv4 packet that may pass, given the first bytes of its header.
#[inline(always)]
#[must_use]
pub const fn v4(head: [u8; 10], size: Size) -> Option<u32> {
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff;
    if head[0] != 0x45 || fragment != 0 || head[8] < 2 {
        return None;
    }
    whole(u16::from_be_bytes([head[2], head[3]]) as u32, size)
}

/// The length of an IPv6 packet that may pass, given the first bytes of its header. What follows it is for
/// the caller to judge.
#[inline(always)]
#[must_use]
pub const fn v6(head: [u8; 8], size: Size) -> Option<u32> {
    if head[0] >> 4 != 6 || head[7] < 2 {
        return None;
    }
    whole(u16::from_be_bytes([head[4], head[5]]) as u32 + 40, size)
}

/// The kernel trims what is behind the packet, and refuses what is not there.
#[inline(always)]
const fn whole(length: u32, size: Size) -> Option<u32> {
    let all = length + ETH == size.frame;
    let padded = length + ETH < size.frame && size.frame <= PADDED;
    if all || padded { Some(length) } else { None }
}

/// Whether a packet of this length without segments fits.
#[inline(always)]
#[must_use]
pub const fn fits(length: u32, size: Size) -> bool {
    size.segment == 0 && length <= size.mtu
}

/// Whether a TCP segment may pass: `at` is where its header begins within the IP packet of `length` bytes,
/// `words` and `flags` are the 13th and 14th byte of it.
#[inline(always)]
#[must_use]
pub const fn segment(length: u32, at: u32, [words, flags]: [u8; 2], size: Size) -> bool {
    if flags & EDGES != 0 {
        return false;
    }
    let each = match size.segment {
        0 => length,
        payload => at + (words >> 4) as u32 * 4 + payload,
    };
    each <= size.mtu
}

/// TTL, protocol and checksum of an IPv4 header one hop later (RFC 1624).
#[inline(always)]
#[must_use]
pub const fn later([ttl, proto, high, low]: [u8; 4]) -> [u8; 4] {
    let sum = u16::from_be_bytes([high, low]) as u32 + 0x100;
    let [high, low] = ((sum + (sum >= 0xffff) as u32) as u16).to_be_bytes();
    [ttl - 1, proto, high, low]
}

/// `skb->priority` that the kernel gives what it forwards, by the TOS of an IPv4 header (`ip_tos2prio`).
#[inline(always)]
#[must_use]
pub const fn priority(tos: u8) -> u32 {
    const BY_TOS: u64 = 0x4444_6666_2222_0010;
    (BY_TOS >> ((tos & 0x1e) * 2)) as u32 & 0xf
}

const _: () = assert!(LOOK_AGAIN_S.is_power_of_two() && LOOK_AGAIN_S < 30);

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(frame: u32) -> Size {
        Size {
            frame,
            segment: 0,
            mtu: 1500,
        }
    }

    const HEAD4: [u8; 10] = [0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, 17];
    const HEAD6: [u8; 8] = [0x60, 0, 0, 0, 0, 60, 17, 64];

    fn with<const N: usize>(head: [u8; N], changes: &[(usize, u8)]) -> [u8; N] {
        let mut head = head;
        changes.iter().for_each(|(at, value)| head[*at] = *value);
        head
    }

    #[test]
    fn a_plain_packet_passes_and_whatever_the_kernel_answers_does_not() {
        assert_eq!(v4(HEAD4, size(114)), Some(100));
        assert_eq!(v6(HEAD6, size(114)), Some(100));
        for (what, changes) in [
            ("options", [(0, 0x46)]),
            ("the last hop", [(8, 1)]),
            ("TTL 0", [(8, 0)]),
            ("a first fragment", [(6, 0x20)]),
            ("a later fragment", [(7, 9)]),
        ] {
            assert_eq!(v4(with(HEAD4, &changes), size(114)), None, "{what}");
        }
        assert!(v4(with(HEAD4, &[(8, 2)]), size(114)).is_some());
        assert_eq!(v6(with(HEAD6, &[(7, 1)]), size(114)), None, "hop limit 1");
        assert_eq!(v6(with(HEAD6, &[(0, 0x45)]), size(114)), None);
    }

    #[test]
    fn a_frame_is_as_long_as_its_packet_or_padded() {
        assert_eq!(v4(HEAD4, size(115)), None, "something behind it");
        assert_eq!(v4(HEAD4, size(113)), None, "cut short");
        let short = with(HEAD4, &[(3, 30)]);
        assert_eq!(v4(short, size(60)), Some(30));
        assert_eq!(v4(short, size(61)), None);
    }

    #[test]
    fn what_leaves_is_no_longer_than_the_mtu() {
        let size = |segment| Size {
            frame: 0,
            segment,
            mtu: 1280,
        };
        assert!(fits(1280, size(0)) && !fits(1281, size(0)));
        assert!(!fits(100, size(50)), "datagrams to be segmented");
        const ACK: [u8; 2] = [0x80, 0x10];
        assert!(segment(1280, 20, ACK, size(0)) && !segment(1281, 20, ACK, size(0)));
        // 20 of IPv4, 32 of TCP.
        assert!(segment(60_000, 20, ACK, size(1228)));
        assert!(!segment(60_000, 20, ACK, size(1229)));
        assert!(!segment(60_000, 40, ACK, size(1228)), "IPv6");
        let unknown = Size { mtu: 0, ..size(0) };
        assert!(!fits(20, unknown) && !segment(40, 20, ACK, unknown));
    }

    #[test]
    fn conntrack_sees_how_connections_begin_and_end() {
        for (flags, passes) in [
            (0x10, true),
            (0x18, true),
            (0x11, false),
            (0x02, false),
            (0x14, false),
        ] {
            assert_eq!(segment(60, 20, [0x50, flags], size(74)), passes, "{flags:#x}");
        }
    }

    /// Adds as RFC 1071 says.
    fn sum(words: [u16; 2]) -> u16 {
        let sum = u32::from(words[0]) + u32::from(words[1]);
        (sum as u16) + (sum >> 16) as u16
    }

    #[test]
    fn the_checksum_follows_the_ttl() {
        for other in 0..=u16::MAX {
            for ttl in [2_u8, 3, 64, 255] {
                let before = u16::from_be_bytes([ttl, 17]);
                let check = !sum([before, other]);
                let [high, low] = check.to_be_bytes();
                let after = later([ttl, 17, high, low]);
                assert_eq!(after[..2], [ttl - 1, 17]);
                let right = !sum([u16::from_be_bytes([ttl - 1, 17]), other]);
                let check = u16::from_be_bytes([after[2], after[3]]);
                // Of both zeros of one's complement either is right.
                assert!(
                    check == right || (check, right) == (0, 0xffff),
                    "{ttl} {other:#x}"
                );
            }
        }
    }

    #[test]
    fn priorities_are_the_kernels() {
        let seen = [0, 0x02, 0x08, 0x10, 0x18, 0xb8, 0x01].map(priority);
        assert_eq!(seen, [0, 1, 2, 6, 4, 4, 0]);
    }
}
