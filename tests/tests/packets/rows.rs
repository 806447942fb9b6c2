//! The rows: at least one for every named outcome.

use uplink_common::Reason::{self, *};

use crate::bench::{GATEWAY_MACS, SHARED_MAC};
use crate::frames::{V4, V6, established, of_type, sent_by, tagged};

/// One packet and what becomes of it.
pub struct Row {
    pub what: &'static str,
    pub frame: Vec<u8>,
    pub before: Before,
    pub mark_in: u32,
    pub reason: Reason,
    /// What is counted beside it.
    pub beside: &'static [Reason],
    pub steered: bool,
}

/// What happened before the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing: an empty flow table.
    Nothing,
    /// The same packet.
    Same,
    /// The same packet, then its uplink died.
    Died,
    /// Somebody gave the uplinks other weights in the map.
    WeightsEdited,
    /// Somebody wrote an uplink that does not exist into every slot.
    SlotsBroken,
    /// No daemon has written the configuration yet.
    NoConfig,
    /// The daemon has not been heard of since boot, and `stale_after` is five seconds.
    DaemonSilent,
    /// A strict policy for everything, none of whose uplinks lives.
    NobodyLeft,
    /// Policies go by names.
    Learns(Known),
}

/// What policies by names know already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Nothing,
    /// The destination's name, which a policy wants.
    Wanted,
    /// The destination's name, which no policy wants.
    Unwanted,
    /// Nothing, and nobody takes what is shown to user space.
    TooMuch,
}

fn row(what: &'static str, frame: Vec<u8>, reason: Reason) -> Row {
    let steered = matches!(reason, Pinned | Picked | PickedByWeight | Repicked);
    Row {
        what,
        frame,
        before: Before::Nothing,
        mark_in: 0,
        reason,
        beside: &[],
        steered,
    }
}

fn after(before: Before, row: Row) -> Row {
    Row { before, ..row }
}

pub fn all() -> Vec<Row> {
    let v4 = V4::udp(1000, 53);
    let v6 = V6::udp(1000, 53);
    let mut rows = steered(v4, v6);
    rows.extend(inbound(v4, v6));
    rows.extend(spoofed(v4));
    rows.extend(left_alone(v4, v6));
    rows.extend(malformed(v4, v6));
    rows.extend(by_policies());
    rows
}

fn steered(v4: V4, v6: V6) -> Vec<Row> {
    vec![
        row("UDP over IPv4", v4.frame(), Picked),
        row("TCP over IPv4", V4::tcp(1000, 443).frame(), Picked),
        row("UDP over IPv6", v6.frame(), Picked),
        row("a ping", v4.echo(7), Picked),
        row("one VLAN tag", tagged(&v4.frame(), 1), Picked),
        row("two VLAN tags", tagged(&v6.frame(), 2), Picked),
        row("IPv4 options", v4.with_options(), Picked),
        row("IPv6 extension headers", v6.with_extensions(), Picked),
        row("a first fragment", v4.first_fragment(), Picked),
        row("a later fragment", v4.later_fragment(), Picked),
        row("SCTP", v4.protocol(132), Picked),
        row("GRE", v4.protocol(47), Picked),
        row("ESP", v4.protocol(50), Picked),
        row("an unknown protocol", v4.protocol(253), Picked),
        row("an ICMP error", v4.error_about_reply(), Picked),
        Row {
            mark_in: 0x80ab_cdef,
            ..row("others' bits of the mark", v4.frame(), Picked)
        },
        after(Before::Same, row("the second packet", v4.frame(), Pinned)),
        after(Before::Same, row("the second packet, IPv6", v6.frame(), Pinned)),
        after(
            Before::Died,
            row("a flow whose uplink died", v4.frame(), Repicked),
        ),
        after(
            Before::WeightsEdited,
            row("weights edited by hand", v4.frame(), PickedByWeight),
        ),
    ]
}

/// With an address of this host as the source, which the kernel would refuse.
fn spoofed(v4: V4) -> Vec<Row> {
    let from_us = v4.from([192, 168, 1, 100]);
    vec![
        row("from an uplink's address", from_us.frame(), Spoofed),
        row(
            "from our address in the LAN",
            v4.from([172, 16, 0, 1]).frame(),
            Spoofed,
        ),
        row("from us to us", from_us.to([10, 0, 0, 100]).frame(), Spoofed),
        row("from us to everybody", from_us.frame_to([0xff; 6]), Spoofed),
        row("from us with IPv4 options", from_us.with_options(), Spoofed),
        Row {
            mark_in: 0x0200_0000,
            ..row("from us and already marked", from_us.frame(), Spoofed)
        },
        row(
            "from us in a VLAN, whose own setting counts",
            tagged(&from_us.frame(), 1),
            Picked,
        ),
    ]
}

/// From the Internet: marked with the uplink that it came in by.
fn inbound(v4: V4, v6: V6) -> Vec<Row> {
    let ours = v4.to([192, 168, 1, 100]);
    let syn = |flow: V4| V4::tcp(1000, 443).to(flow.dst).frame();
    let marked = |what, frame| Row {
        steered: true,
        ..row(what, frame, Inbound)
    };
    vec![
        marked("UDP to an uplink's address", ours.frame()),
        marked("a SYN to an uplink's address", syn(ours)),
        marked("a ping to an uplink's address", ours.echo(7)),
        marked("UDP to an uplink's IPv6 address", v6.to(OURS6).frame()),
        marked(
            "to an address of no uplink, by a gateway's MAC",
            sent_by(GATEWAY_MACS[1], &v4.to([172, 16, 0, 1]).frame()),
        ),
        row(
            "to an address of no uplink, by a MAC of two gateways",
            sent_by(SHARED_MAC, &v4.to([172, 16, 0, 1]).frame()),
            Local,
        ),
        row(
            "an established segment to an uplink's address",
            established(&syn(ours)),
            Local,
        ),
    ]
}

const OURS6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn left_alone(v4: V4, v6: V6) -> Vec<Row> {
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    vec![
        row("to our own address", v4.to([172, 16, 0, 1]).frame(), Local),
        row(
            "to an address of ours that the map does not know",
            v4.to([172, 16, 9, 1]).frame(),
            Local,
        ),
        row(
            "to a host of a connected network",
            v4.to([172, 16, 0, 77]).frame(),
            NotDefault,
        ),
        row(
            "to the gateway itself",
            v4.to([192, 168, 1, 1]).frame(),
            NotDefault,
        ),
        row(
            "where a static route points elsewhere",
            v4.to([198, 18, 0, 1]).frame(),
            NotDefault,
        ),
        after(
            Before::Same,
            row("again, remembered", v4.to([198, 18, 0, 1]).frame(), KernelPinned),
        ),
        row(
            "where a route says unreachable",
            v4.to([198, 19, 0, 1]).frame(),
            NoRoute,
        ),
        row("to another host's MAC", v4.frame_to([2, 0, 0, 0, 0, 9]), NotForUs),
        row("broadcast", v4.frame_to([0xff; 6]), NotForUs),
        row("ARP", of_type(&v4.frame(), 0x0806), NotIp),
        row("multicast", v4.to([224, 0, 0, 251]).frame(), NotRoutable),
        row("limited broadcast", v4.to([255; 4]).frame(), NotRoutable),
        row("IPv4 link-local", v4.to([169, 254, 1, 1]).frame(), NotRoutable),
        row("IPv6 link-local", v6.to(link_local).frame(), NotRoutable),
        row("from nowhere", v4.from([0; 4]).frame(), BadSource),
        Row {
            mark_in: 0x0200_0000,
            ..row("already marked", v4.frame(), Marked)
        },
        after(
            Before::SlotsBroken,
            row("a slot that names nobody", v4.frame(), BadSlot),
        ),
        after(
            Before::DaemonSilent,
            row("a new flow while the daemon is silent", v4.frame(), Stale),
        ),
        after(
            Before::NoConfig,
            row("no configuration yet", v4.frame(), NotReady),
        ),
    ]
}

fn by_policies() -> Vec<Row> {
    let web = V4::tcp(1000, 443);
    let learns = |known, what, frame, beside| Row {
        beside,
        ..after(Before::Learns(known), row(what, frame, Picked))
    };
    vec![
        after(
            Before::NobodyLeft,
            row("a strict policy without a living uplink", web.frame(), Refused),
        ),
        after(
            Before::NobodyLeft,
            row("the same with IPv6", V6::tcp(1000, 443).frame(), Refused),
        ),
        Row {
            mark_in: 0x80ab_cdef,
            ..after(
                Before::NobodyLeft,
                row("the same with others' bits", web.frame(), Refused),
            )
        },
        learns(
            Known::Nothing,
            "an address without a name",
            web.frame(),
            &[Nameless],
        ),
        learns(Known::Wanted, "an address by its name", web.frame(), &[Named]),
        learns(
            Known::Unwanted,
            "by a name that no policy wants",
            web.frame(),
            &[Named],
        ),
        learns(
            Known::Nothing,
            "a DNS query",
            V4::udp(1000, 53).frame(),
            &[Nameless, Overheard],
        ),
        learns(
            Known::TooMuch,
            "a DNS query too much",
            V4::udp(1000, 53).frame(),
            &[Nameless, Unheard],
        ),
    ]
}

fn malformed(v4: V4, v6: V6) -> Vec<Row> {
    let mut short_header = v4.frame();
    short_header[14] = 0x44;
    // Behind a tag, since the kernel's test run itself refuses untagged IP without a whole header.
    let cut = |frame: &[u8], length: usize| tagged(frame, 1)[..length].to_vec();
    vec![
        row("half an IPv4 header", cut(&v4.frame(), 28), Truncated),
        row("half an IPv6 header", cut(&v6.frame(), 44), Truncated),
        row("half a VLAN tag", cut(&v4.frame(), 16), Truncated),
        row("no ports", v4.frame()[..36].to_vec(), Truncated),
        row("a header length below five words", short_header, Truncated),
        row("three VLAN tags", tagged(&v4.frame(), 3), TooDeep),
        row("nine extension headers", v6.too_deep(), TooDeep),
    ]
}
