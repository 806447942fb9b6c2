//! Lists and forgets the connections of an uplink, so that their next packets choose anew.

pub(crate) mod tuple;

use anyhow::{Context, Result, ensure};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, ProtoInfo, ProtoInfoTCP, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use uplink_common::{Family, FlowKey};

use crate::routes::socket::{Failure, Netlink};

const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// TCP states of conntrack in which data still flows, at least one way: established, and the two
/// in which one end has closed its half.
const CARRYING: std::ops::RangeInclusive<u8> = 3..=5;

/// A TCP connection as conntrack knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What its first packet said, before any translation.
    pub original: FlowKey,
    /// What its answers say: reversed, the first packet after translation.
    pub reply: FlowKey,
}

/// Deletes every connection of a family with `connection mark & mask == mark` and returns about how many
/// those were (others come and go meanwhile). One request does it; a kernel that rejects
/// that one gets a request per connection.
///
/// # Errors
/// When the mark fits everything, or the kernel refuses.
pub async fn delete_by_mark(mark: u32, mask: u32, family: Family) -> Result<usize> {
    check(mark, mask)?;
    let netlink = open()?;
    let before = count();
    let request = ConntrackMessage::Delete(filter(mark, mask));
    match netlink.execute(wrap(request, protocol(family)), 0).await {
        Ok(()) => Ok(before.saturating_sub(count())),
        Err(failure) if failure.errno == libc::ENOENT => Ok(0),
        Err(failure) => {
            tracing::debug!(%failure, "deleting connections one by one");
            one_by_one(&netlink, mark, mask, family)
                .await
                .with_context(|| format!("deleting connections by mark {mark:#x}/{mask:#x}"))
        }
    }
}

/// The TCP connections of a family with `connection mark & mask == mark` that still carry data.
///
/// # Errors
/// When the mark fits everything, or the kernel refuses.
pub async fn tcp_by_mark(mark: u32, mask: u32, family: Family) -> Result<Vec<Connection>> {
    check(mark, mask)?;
    // A kernel that does not know the filter answers with everything.
    let request = ConntrackMessage::Get(filter(mark, mask));
    let all = open()?.dump(wrap(request, protocol(family))).await;
    let all = all.with_context(|| format!("listing connections by mark {mark:#x}/{mask:#x}"))?;
    let inner = all.into_iter().map(|message| message.inner);
    Ok(inner
        .filter_map(|message| match message {
            NetfilterMessageInner::Conntrack(ConntrackMessage::New(a)) => connection(&a, mark, mask),
            _ => None,
        })
        .collect())
}

/// Deletes exactly the connections whose first packets had these keys, and returns how many
/// there were. Echoes are found by their identifier, everything else by its ports.
///
/// # Errors
/// When the kernel refuses; what was deleted before stays deleted.
pub async fn delete_flows(keys: &[FlowKey]) -> Result<usize> {
    let netlink = open()?;
    let mut deleted = 0;
    for key in keys {
        let identity = vec![ConntrackAttribute::CtaTupleOrig(tuple::of_key(key))];
        let gone = delete_one(&netlink, identity, tuple::family(key)).await;
        deleted += usize::from(gone.with_context(|| format!("deleting the connection of {key:?}"))?);
    }
    Ok(deleted)
}

/// The kernel takes an empty filter as "all of them".
fn check(mark: u32, mask: u32) -> Result<()> {
    ensure!(
        mark != 0 && mask != 0 && mark & !mask == 0,
        "refusing to select connections by mark {mark:#x}/{mask:#x}: \
         it must not be zero and must lie within its mask"
    );
    Ok(())
}

fn open() -> Result<Netlink<NetfilterMessage>> {
    Netlink::open(NETLINK_NETFILTER).context("opening a netfilter socket")
}

async fn one_by_one(
    netlink: &Netlink<NetfilterMessage>,
    mark: u32,
    mask: u32,
    family: Family,
) -> Result<usize, Failure> {
    let all = ConntrackMessage::Get(vec![]);
    let all = netlink.dump(wrap(all, protocol(family))).await?;
    let mut deleted = 0;
    for message in all {
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
            continue;
        };
        let Some(identity) = identity(attributes, mark, mask) else {
            continue;
        };
        deleted += usize::from(delete_one(netlink, identity, message.header.family).await?);
    }
    Ok(deleted)
}

/// Whether the connection was there.
async fn delete_one(
    netlink: &Netlink<NetfilterMessage>,
    identity: Vec<ConntrackAttribute>,
    family: NetfilterProtoFamily,
) -> Result<bool, Failure> {
    // Without its tuple the request would delete everything.
    assert!(names_one(&identity), "a deletion must name its connection");
    let request = wrap(ConntrackMessage::Delete(identity), family);
    match netlink.execute(request, 0).await {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno == libc::ENOENT => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Both halves of an original tuple.
fn names_one(identity: &[ConntrackAttribute]) -> bool {
    identity.iter().any(|a| match a {
        ConntrackAttribute::CtaTupleOrig(tuple) => {
            tuple.iter().any(|t| matches!(t, Tuple::Ip(_)))
                && tuple.iter().any(|t| matches!(t, Tuple::Proto(_)))
        }
        _ => false,
    })
}

/// A TCP connection that carries data, if its mark fits.
fn connection(attributes: &[ConntrackAttribute], mark: u32, mask: u32) -> Option<Connection> {
    let (mut original, mut reply, mut fits, mut carries) = (None, None, false, false);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = tuple::key(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = tuple::key(tuple),
            ConntrackAttribute::CtaMark(found) => fits = found & mask == mark,
            ConntrackAttribute::CtaProtoInfo(info) => carries = info.iter().any(carrying),
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    let tcp = libc::IPPROTO_TCP as u8;
    (fits && carries && original.proto == tcp).then_some(Connection { original, reply })
}

fn carrying(info: &ProtoInfo) -> bool {
    let state = |a: &ProtoInfoTCP| matches!(a, ProtoInfoTCP::State(state) if CARRYING.contains(state));
    matches!(info, ProtoInfo::TCP(attributes) if attributes.iter().any(state))
}

/// What names a connection, if its mark fits.
fn identity(attributes: Vec<ConntrackAttribute>, mark: u32, mask: u32) -> Option<Vec<ConntrackAttribute>> {
    let fits = |a: &ConntrackAttribute| matches!(a, ConntrackAttribute::CtaMark(m) if m & mask == mark);
    if !attributes.iter().any(fits) {
        return None;
    }
    let names = |a: &ConntrackAttribute| match a {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        other => other.kind() == CTA_ZONE,
    };
    let identity: Vec<_> = attributes.into_iter().filter(names).collect();
    names_one(&identity).then_some(identity)
}

fn filter(mark: u32, mask: u32) -> Vec<ConntrackAttribute> {
    let mask = DefaultNla::new(CTA_MARK_MASK, mask.to_be_bytes().to_vec());
    vec![ConntrackAttribute::CtaMark(mark), ConntrackAttribute::Other(mask)]
}

const fn protocol(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    }
}

fn wrap(message: ConntrackMessage, family: NetfilterProtoFamily) -> NetfilterMessage {
    // In messages of version 0 the kernel ignores the family where no tuple is named.
    let header = NetfilterHeader::new(family, 1, 0);
    NetfilterMessage::new(header, message)
}

/// How many connections there are; asking the kernel for a list of them could take seconds.
fn count() -> usize {
    let text = std::fs::read_to_string(COUNT).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tuple::tests::flow;

    const MARK: u32 = 0x100_0000;
    const MASK: u32 = 0x7f00_0000;

    #[tokio::test]
    async fn nothing_that_would_select_everything_is_sent() {
        for (mark, mask) in [(0, MASK), (MARK, 0), (MARK, 0xff)] {
            let error = delete_by_mark(mark, mask, Family::V4).await.unwrap_err();
            assert!(error.to_string().contains("refusing"), "{error}");
            let error = tcp_by_mark(mark, mask, Family::V4).await.unwrap_err();
            assert!(error.to_string().contains("refusing"), "{error}");
        }
    }

    #[test]
    fn only_a_marked_connection_with_a_tuple_has_an_identity() {
        let mark = ConntrackAttribute::CtaMark(0x8100_0000);
        let empty = ConntrackAttribute::CtaTupleOrig(vec![]);
        let tuple = ConntrackAttribute::CtaTupleOrig(tuple::of_key(&flow("10.0.0.1", "192.0.2.1", 17)));
        let of = |attributes| identity(attributes, MARK, MASK);
        assert_eq!(of(vec![mark.clone()]), None);
        assert_eq!(of(vec![tuple.clone()]), None);
        assert_eq!(of(vec![empty, mark.clone()]), None);
        assert_eq!(of(vec![tuple.clone(), mark]), Some(vec![tuple]));
    }

    #[test]
    fn a_connection_is_tcp_carries_data_and_has_both_tuples() {
        let of = |proto, state, mark| {
            let original = flow("10.0.0.1", "192.0.2.1", proto);
            let tcp = ProtoInfo::TCP(vec![ProtoInfoTCP::State(state)]);
            let attributes = [
                ConntrackAttribute::CtaTupleOrig(tuple::of_key(&original)),
                ConntrackAttribute::CtaTupleReply(tuple::of_key(&original.reversed())),
                ConntrackAttribute::CtaProtoInfo(vec![tcp]),
                ConntrackAttribute::CtaMark(mark),
            ];
            assert_eq!(connection(&attributes[1..], MARK, MASK), None);
            connection(&attributes, MARK, MASK)
        };
        let original = flow("10.0.0.1", "192.0.2.1", 6);
        let reply = original.reversed();
        assert_eq!(of(6, 3, 0x8100_0000), Some(Connection { original, reply }));
        assert_eq!(of(17, 3, MARK), None);
        assert_eq!(of(6, 7, MARK), None);
        assert_eq!(of(6, 3, 2 * MARK), None);
    }
}
