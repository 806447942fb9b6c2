//! Forgets the connections of an uplink, so that their next packets choose anew.

use anyhow::{Context, Result, ensure};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::routes::socket::{Failure, Netlink};

const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Deletes every connection with `connection mark & mask == mark` and returns about how many
/// those were (others come and go meanwhile). One request does it; a kernel that rejects
/// that one gets a request per connection.
pub async fn delete_by_mark(mark: u32, mask: u32) -> Result<usize> {
    // The kernel takes an empty filter as "all of them".
    ensure!(
        mark != 0 && mask != 0 && mark & !mask == 0,
        "refusing to delete connections by mark {mark:#x}/{mask:#x}: \
         it must not be zero and must lie within its mask"
    );
    let netlink = Netlink::open(NETLINK_NETFILTER).context("opening a netfilter socket")?;
    let before = count();
    let request = ConntrackMessage::Delete(filter(mark, mask));
    match netlink.execute(wrap(request), 0).await {
        Ok(()) => Ok(before.saturating_sub(count())),
        Err(failure) if failure.errno == libc::ENOENT => Ok(0),
        Err(failure) => {
            tracing::debug!(%failure, "deleting connections one by one");
            one_by_one(&netlink, mark, mask)
                .await
                .with_context(|| format!("deleting connections by mark {mark:#x}/{mask:#x}"))
        }
    }
}

async fn one_by_one(netlink: &Netlink<NetfilterMessage>, mark: u32, mask: u32) -> Result<usize, Failure> {
    let all = netlink.dump(wrap(ConntrackMessage::Get(vec![]))).await?;
    let mut deleted = 0;
    for message in all {
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
            continue;
        };
        let Some(identity) = identity(attributes, mark, mask) else {
            continue;
        };
        let mut request = wrap(ConntrackMessage::Delete(identity));
        request.header.family = message.header.family;
        match netlink.execute(request, 0).await {
            Ok(()) => deleted += 1,
            Err(failure) if failure.errno == libc::ENOENT => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(deleted)
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
    // Without its tuple the request would delete everything.
    let named = identity
        .iter()
        .any(|a| matches!(a, ConntrackAttribute::CtaTupleOrig(_)));
    named.then_some(identity)
}

fn filter(mark: u32, mask: u32) -> Vec<ConntrackAttribute> {
    let mask = DefaultNla::new(CTA_MARK_MASK, mask.to_be_bytes().to_vec());
    vec![ConntrackAttribute::CtaMark(mark), ConntrackAttribute::Other(mask)]
}

fn wrap(message: ConntrackMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
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

    #[tokio::test]
    async fn nothing_that_would_delete_everything_is_sent() {
        for (mark, mask) in [(0, 0x7f00_0000), (0x100_0000, 0), (0x100_0000, 0xff)] {
            let error = delete_by_mark(mark, mask).await.unwrap_err();
            assert!(error.to_string().contains("refusing"), "{error}");
        }
    }

    #[test]
    fn only_a_marked_connection_with_a_tuple_has_an_identity() {
        let mark = ConntrackAttribute::CtaMark(0x8100_0000);
        let tuple = ConntrackAttribute::CtaTupleOrig(vec![]);
        let of = |attributes| identity(attributes, 0x100_0000, 0x7f00_0000);
        assert_eq!(of(vec![mark.clone()]), None);
        assert_eq!(of(vec![tuple.clone()]), None);
        assert_eq!(of(vec![tuple.clone(), mark]), Some(vec![tuple]));
    }
}
