//! The veth pair itself.
//!
//! Both ends have one MAC address and no ARP: the kernel then takes the device's own address for
//! the next hop's, so that each frame is for us at the other end.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::config::Kernel;
use crate::resolve::Uplink;
use crate::routes::socket::{Failure, Netlink};

/// Locally administered; it is there from the first moment on, so a pair that a killed daemon left
/// half made is ours, too.
const MAC: [u8; 6] = [0x02, 0x75, 0x70, 0x6c, 0x6b, 0x01];
/// What people see in `ip link`.
const ALIAS: &str = "uplink: stands for all uplinks";
/// The dummy address of RFC 7600. With a reverse path filter on, the kernel takes nothing from an
/// interface without an address.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// How an end has to be.
struct End {
    name: String,
    mtu: u32,
    group: u32,
    address: bool,
}

/// Makes the pair what it has to be, whatever there is of it, and says what had to be done.
///
/// # Errors
/// When the kernel refuses, or an interface of somebody else has one of the names.
pub async fn ensure(outer: &str, uplinks: &[Uplink], kernel: &Kernel) -> Result<Vec<String>> {
    let netlink = open()?;
    let mut links = links(&netlink).await?;
    let ends = ends(outer, mtu(uplinks, &links), kernel);
    let complete = ends.iter().all(|end| find(&links, &end.name).is_some());
    if !complete {
        make(&netlink, &ends, &links).await?;
        links = self::links(&netlink).await?;
    }
    let mut mended = Vec::new();
    for end in &ends {
        let link = find(&links, &end.name).filter(|l| is_ours(l));
        let link = link.with_context(|| {
            let remedy = "remove it, or choose another [mpath] interface";
            format!("interface {} exists and is not uplink's: {remedy}", end.name)
        })?;
        let done = mend(&netlink, link, end).await;
        mended.extend(done.with_context(|| format!("setting up {}", end.name))?);
    }
    Ok(match complete {
        true => mended,
        false => vec![format!("{outer} was made")],
    })
}

fn ends(outer: &str, mtu: u32, kernel: &Kernel) -> [End; 2] {
    let inner = super::inner(outer);
    let group = super::group(kernel);
    [(outer, group, false), (&inner, 0, true)].map(|(name, group, address)| End {
        name: name.to_owned(),
        mtu,
        group,
        address,
    })
}

/// Makes the pair. Half of one is none: an end whose other one was renamed or moved away goes first.
async fn make(netlink: &Netlink<Message>, ends: &[End; 2], links: &[LinkMessage]) -> Result<()> {
    for link in ends.iter().filter_map(|end| find(links, &end.name)) {
        if is_ours(link) {
            delete(netlink, link).await?;
        }
    }
    let created = create(netlink, ends).await;
    created.with_context(|| format!("making {} and {}", ends[0].name, ends[1].name))
}

/// Removes every pair of ours but the one called `outer`, and says how many that was.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove_others(outer: Option<&str>) -> Result<usize> {
    let netlink = open()?;
    let keep: Vec<String> = outer
        .into_iter()
        .flat_map(|o| [o.to_owned(), super::inner(o)])
        .collect();
    let links = links(&netlink).await?;
    let other = |l: &&LinkMessage| is_ours(l) && !keep.iter().any(|name| self::name(l) == Some(name));
    let mut removed = 0;
    for link in links.iter().filter(other) {
        // With one end goes the other, which is in the list, too.
        removed += usize::from(delete(&netlink, link).await?);
    }
    Ok(removed)
}

/// Whether a link is an end of our pair.
pub(crate) fn is_ours(link: &LinkMessage) -> bool {
    let veth = |info: &LinkInfo| *info == LinkInfo::Kind(InfoKind::Veth);
    let is_veth = |a: &LinkAttribute| matches!(a, LinkAttribute::LinkInfo(info) if info.iter().any(veth));
    let named = |a: &LinkAttribute| match a {
        LinkAttribute::Address(mac) => *mac == MAC,
        LinkAttribute::IfAlias(alias) => alias == ALIAS,
        _ => false,
    };
    link.attributes.iter().any(is_veth) && link.attributes.iter().any(named)
}

/// The MTU that the pair needs.
fn mtu(uplinks: &[Uplink], links: &[LinkMessage]) -> u32 {
    super::largest_mtu(uplinks, |ifindex| {
        let link = links.iter().find(|l| l.header.index == ifindex)?;
        link.attributes.iter().find_map(|a| match a {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    })
}

fn open() -> Result<Netlink<Message>> {
    Netlink::open(NETLINK_ROUTE).context("opening a netlink socket")
}

async fn links(netlink: &Netlink<Message>) -> Result<Vec<LinkMessage>> {
    let dump = netlink.dump(Message::GetLink(LinkMessage::default())).await;
    let links = dump.context("reading interfaces")?.into_iter();
    Ok(links
        .filter_map(|message| match message {
            Message::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

fn find<'a>(links: &'a [LinkMessage], name: &str) -> Option<&'a LinkMessage> {
    links.iter().find(|l| self::name(l) == Some(name))
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Makes the pair, both ends down.
async fn create(netlink: &Netlink<Message>, [outer, inner]: &[End; 2]) -> Result<(), Failure> {
    let peer = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(bare(inner))));
    let mut link = bare(outer);
    let info = vec![LinkInfo::Kind(InfoKind::Veth), peer];
    link.attributes.push(LinkAttribute::LinkInfo(info));
    netlink
        .execute(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
        .await
}

fn bare(end: &End) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(end.name.clone()),
        LinkAttribute::Address(MAC.to_vec()),
        LinkAttribute::Mtu(end.mtu),
    ];
    link
}

/// False when it was gone already.
async fn delete(netlink: &Netlink<Message>, link: &LinkMessage) -> Result<bool> {
    let mut request = LinkMessage::default();
    request.header.index = link.header.index;
    match netlink.execute(Message::DelLink(request), 0).await {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno == libc::ENODEV => Ok(false),
        Err(failure) => Err(failure).context(format!("deleting {}", name(link).unwrap_or("?"))),
    }
}

/// Sets what differs, the flags last: an end that comes up must not give itself an address.
async fn mend(netlink: &Netlink<Message>, link: &LinkMessage, end: &End) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let wrong = differences(link, end);
    if !wrong.is_empty() {
        let mut request = LinkMessage::default();
        request.header.index = link.header.index;
        request.attributes.clone_from(&wrong);
        netlink.execute(Message::SetLink(request), 0).await?;
        done.push(format!("{} was changed", end.name));
    }
    let flags = LinkFlags::Up | LinkFlags::Noarp;
    if !link.header.flags.contains(flags) {
        let mut request = LinkMessage::default();
        request.header.index = link.header.index;
        (request.header.flags, request.header.change_mask) = (flags, flags);
        netlink.execute(Message::SetLink(request), 0).await?;
        done.push(format!("{} is up again", end.name));
    }
    if end.address && !has_address(netlink, link.header.index).await? {
        let request = Message::NewAddress(address(link.header.index));
        netlink.execute(request, NLM_F_CREATE | NLM_F_REPLACE).await?;
        done.push(format!("{} has {DUMMY} again", end.name));
    }
    Ok(done)
}

/// The attributes that are not as they have to be, as they have to be.
fn differences(link: &LinkMessage, end: &End) -> Vec<LinkAttribute> {
    let no_address = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let wanted = [
        LinkAttribute::IfAlias(ALIAS.to_owned()),
        LinkAttribute::Address(MAC.to_vec()),
        LinkAttribute::Mtu(end.mtu),
        LinkAttribute::Group(end.group),
    ];
    let mut wrong: Vec<LinkAttribute> = wanted
        .into_iter()
        .filter(|w| !link.attributes.contains(w))
        .collect();
    if mode(link).is_some_and(|mode| mode != In6AddrGenMode::None) {
        wrong.push(LinkAttribute::AfSpecUnspec(vec![no_address]));
    }
    wrong
}

/// How the end makes its IPv6 addresses; `None` where the kernel has no IPv6.
fn mode(link: &LinkMessage) -> Option<In6AddrGenMode> {
    let specs = link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::AfSpecUnspec(specs) => Some(specs),
        _ => None,
    });
    let inet6 = specs.flatten().filter_map(|spec| match spec {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    });
    inet6.flatten().find_map(|a| match a {
        AfSpecInet6::AddrGenMode(mode) => Some(*mode),
        _ => None,
    })
}

async fn has_address(netlink: &Netlink<Message>, index: u32) -> Result<bool, Failure> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let found = netlink.dump(Message::GetAddress(request)).await?;
    let ours = AddressAttribute::Local(IpAddr::V4(DUMMY));
    Ok(found.iter().any(|message| match message {
        Message::NewAddress(m) => m.header.index == index && m.attributes.contains(&ours),
        _ => false,
    }))
}

/// Of the link's scope, so that no socket chooses it for its source.
fn address(index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.scope = AddressScope::Link;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(DUMMY)),
        AddressAttribute::Address(IpAddr::V4(DUMMY)),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        End {
            name: "mpath0".into(),
            mtu: 1492,
            group: 20000,
            address: false,
        }
    }

    /// As the kernel shows an end that is as it has to be.
    fn whole() -> LinkMessage {
        let mut link = bare(&end());
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        link.attributes.extend([
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
            LinkAttribute::IfAlias(ALIAS.into()),
            LinkAttribute::Group(20000),
            LinkAttribute::AfSpecUnspec(vec![inet6]),
        ]);
        link
    }

    fn without(gone: impl Fn(&LinkAttribute) -> bool) -> LinkMessage {
        let mut link = whole();
        link.attributes.retain(|a| !gone(a));
        link
    }

    #[test]
    fn a_veth_with_our_address_or_alias_is_ours() {
        assert!(is_ours(&whole()) && is_ours(&without(|a| matches!(a, LinkAttribute::IfAlias(_)))));
        assert!(is_ours(&without(|a| matches!(a, LinkAttribute::Address(_)))));
        let neither = |a: &LinkAttribute| matches!(a, LinkAttribute::Address(_) | LinkAttribute::IfAlias(_));
        assert!(!is_ours(&without(neither)));
        let mut theirs = without(neither);
        theirs
            .attributes
            .push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]));
        theirs.attributes.push(LinkAttribute::IfAlias("lan".into()));
        assert!(!is_ours(&theirs));
        assert!(!is_ours(&without(|a| matches!(a, LinkAttribute::LinkInfo(_)))));
    }

    #[test]
    fn only_what_differs_is_set() {
        assert_eq!(differences(&whole(), &end()), []);
        let other = End { mtu: 1400, ..end() };
        assert_eq!(differences(&whole(), &other), [LinkAttribute::Mtu(1400)]);
        let nameless = without(|a| matches!(a, LinkAttribute::IfAlias(_)));
        assert_eq!(
            differences(&nameless, &end()),
            [LinkAttribute::IfAlias(ALIAS.into())]
        );
        // A kernel without IPv6 has no such addresses to keep away.
        let v4 = without(|a| matches!(a, LinkAttribute::AfSpecUnspec(_)));
        assert_eq!(differences(&v4, &end()), []);
    }
}
