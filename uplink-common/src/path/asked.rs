//! What is kept of a packet from ingress to egress, where its path is learned.

use crate::FlowKey;

/// Packets between ingress and egress that one processor may have in hand: it takes them in lists.
pub const ASKED: usize = 1024;

/// What the kernel leaves as it is in a packet that it forwards plainly, and what it may change: compared and learned.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Print {
    /// Its flow.
    pub key: FlowKey,
    /// TCP: sequence number; UDP: zero.
    pub sequence: u32,
    /// TCP: acknowledgement number; UDP: length.
    pub acknowledged: u32,
    /// IPv4: TOS and identification; IPv6: traffic class and flow label.
    pub class: u32,
    /// From the IP header on, of the longest of its segments.
    pub longest: u32,
    /// Checksum of TCP or UDP.
    pub checksum: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always zero.
    pub pad: [u8; 4],
}

/// Map `asked`, by the last bits of its tag, per CPU: a packet that came in, whose path is to be learned when it leaves.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asked {
    /// `skb->hash`, by which it is known again; 0: nobody is here.
    pub tag: u32,
    /// Index of the interface that it came in by.
    pub ifindex: u32,
    /// [`Fast::generation`] before the kernel had it: what changes meanwhile makes void what is learned.
    pub generation: u32,
    /// The uplink that it came in by; 0: it comes from inside.
    pub from: u16,
    /// The policy that placed its flow; 0: none.
    pub policy: u16,
    /// Its headers.
    pub print: Print,
}

const _: () = assert!(size_of::<Print>() == 64);
