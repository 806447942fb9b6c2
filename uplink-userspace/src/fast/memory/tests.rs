use std::collections::BTreeSet;

use rtnetlink::packet_core::Emitable;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourState as Nud};

use super::*;

fn datagram(kind: u16, message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + message.buffer_len()];
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    message.emit(&mut bytes[HEADER..]);
    bytes
}

fn neighbour(last: u8, state: Nud, mac: u8) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 7;
    message.header.state = state;
    let address = IpAddr::from([10, 0, 0, last]);
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    if !matches!(state, Nud::Incomplete | Nud::Failed) {
        let mac = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]);
        message.attributes.push(mac);
    }
    message
}

fn causes(news: &Bump) -> Vec<Cause> {
    assert_eq!(news.lost, BTreeSet::new());
    news.causes.iter().copied().collect()
}

const NEW: u16 = libc::RTM_NEWNEIGH;
const GONE: u16 = libc::RTM_DELNEIGH;

#[test]
fn a_neighbour_is_lost_when_it_moves_or_is_silent_and_not_when_it_comes_or_grows_old() {
    let mut memory = Memory::default();
    memory.learn(&Message::NewNeighbour(neighbour(1, Nud::Reachable, 1)));
    let mut lost = |kind, last, state, mac| {
        let news = memory.news(&datagram(kind, &neighbour(last, state, mac)));
        assert_eq!(news.causes, BTreeSet::new());
        let macs = news.lost.iter().map(|lost| (lost.ifindex, lost.mac[5]));
        macs.collect::<Vec<_>>()
    };
    for state in [Nud::Stale, Nud::Delay, Nud::Probe, Nud::Reachable] {
        assert_eq!(lost(NEW, 1, state, 1), [], "{state:?}");
    }
    assert_eq!(lost(NEW, 1, Nud::Stale, 2), [(7, 1)], "it moved");
    assert_eq!(lost(NEW, 1, Nud::Reachable, 2), []);
    assert_eq!(lost(NEW, 1, Nud::Failed, 0), [(7, 2)], "it failed");
    assert_eq!(lost(GONE, 1, Nud::Failed, 0), [], "that was told");
    assert_eq!(lost(NEW, 1, Nud::Reachable, 2), [], "it is back");
    assert_eq!(lost(GONE, 1, Nud::Stale, 2), [(7, 2)], "it is forgotten");
    assert_eq!(lost(NEW, 9, Nud::Incomplete, 0), [], "asked for");
    assert_eq!(lost(NEW, 9, Nud::Failed, 0), [], "never there");
}

#[test]
fn a_datagram_tells_of_all_that_were_lost() {
    let mut memory = Memory::default();
    for last in [1, 2, 3] {
        memory.learn(&Message::NewNeighbour(neighbour(last, Nud::Reachable, last)));
    }
    let gone = [1, 2].map(|last| datagram(GONE, &neighbour(last, Nud::Stale, last)));
    let news = memory.news(&gone.concat());
    let macs: Vec<u8> = news.lost.iter().map(|lost| lost.mac[5]).collect();
    assert_eq!((macs, news.causes), (vec![1, 2], BTreeSet::new()));
}

fn link(flags: LinkFlags, more: &[LinkAttribute]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 3;
    message.header.flags = flags;
    message.attributes = vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::Mtu(1500)];
    message.attributes.extend_from_slice(more);
    message
}

#[test]
fn a_link_counts_when_what_it_is_changes() {
    let up = LinkFlags::Up | LinkFlags::Running;
    let mut memory = Memory::default();
    memory.learn(&Message::NewLink(link(up, &[])));
    let mut news = |kind, message: &LinkMessage| causes(&memory.news(&datagram(kind, message)));
    let new = libc::RTM_NEWLINK;
    assert_eq!(news(new, &link(up, &[])), []);
    assert_eq!(news(new, &link(up, &[LinkAttribute::TxQueueLen(5)])), []);
    assert_eq!(news(new, &link(LinkFlags::Up, &[])), [Cause::Link]);
    assert_eq!(news(new, &link(LinkFlags::Up, &[])), []);
    let enslaved = link(LinkFlags::Up, &[LinkAttribute::Controller(9)]);
    assert_eq!(news(new, &enslaved), [Cause::Link]);
    let mut smaller = enslaved.clone();
    smaller.attributes[1] = LinkAttribute::Mtu(1400);
    assert_eq!(news(new, &smaller), [Cause::Link]);
    assert_eq!(news(libc::RTM_DELLINK, &smaller), [Cause::Link]);
    assert_eq!(news(new, &smaller), [Cause::Link], "made anew");
}

#[test]
fn an_address_that_is_announced_anew_is_no_news() {
    let address = |flags: u32| {
        let mut message = AddressMessage::default();
        message.header.index = 3;
        message.header.prefix_len = 64;
        message.attributes = vec![
            AddressAttribute::Address("fd00::1".parse().unwrap()),
            AddressAttribute::Flags(rtnetlink::packet_route::address::AddressFlags::from_bits_retain(
                flags,
            )),
        ];
        message
    };
    let mut memory = Memory::default();
    let mut news = |kind, flags| causes(&memory.news(&datagram(kind, &address(flags))));
    assert_eq!(news(libc::RTM_NEWADDR, 0), [Cause::Address]);
    assert_eq!(news(libc::RTM_NEWADDR, 0), []);
    assert_eq!(news(libc::RTM_NEWADDR, 0x20), [Cause::Address], "deprecated");
    assert_eq!(news(libc::RTM_DELADDR, 0x20), [Cause::Address]);
}

#[test]
fn everything_else_counts_and_no_length_is_trusted() {
    let mut memory = Memory::default();
    for (kind, cause) in [
        (libc::RTM_NEWROUTE, Cause::Route),
        (libc::RTM_DELROUTE, Cause::Route),
        (libc::RTM_NEWRULE, Cause::Rule),
        (libc::RTM_DELRULE, Cause::Rule),
        (libc::RTM_NEWQDISC, Cause::Queue),
        (libc::RTM_DELTFILTER, Cause::Queue),
        (104, Cause::NextHop),
        (libc::RTM_NEWNETCONF, Cause::Forwarding),
    ] {
        assert_eq!(
            causes(&memory.news(&datagram(kind, &neighbour(1, Nud::Stale, 1)))),
            [cause],
            "{kind}"
        );
    }
    let whole = datagram(NEW, &neighbour(1, Nud::Stale, 1));
    for length in 1..whole.len() {
        assert_eq!(
            causes(&memory.news(&whole[..length])),
            [Cause::Lost],
            "{length} bytes"
        );
    }
    assert_eq!(memory.news(&[]), Bump::default());
}
