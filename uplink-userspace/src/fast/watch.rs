//! A bell that rings when something changed that could change what becomes of a running flow: then all flows
//! have to take the kernel's way again. It rings at once, then at most 20 times a second, and for the last change,
//! too.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup as Group;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::memory::Memory;
use crate::nat;
use crate::nexthop::xfrm;
use crate::routes::socket::Netlink;

const GROUPS: [Group; 12] = [
    Group::Link,
    Group::Neigh,
    Group::Tc,
    Group::Ipv4Ifaddr,
    Group::Ipv6Ifaddr,
    Group::Ipv4Route,
    Group::Ipv6Route,
    Group::Ipv4Rule,
    Group::Ipv6Rule,
    Group::Ipv4Netconf,
    Group::Ipv6Netconf,
    Group::Nexthop,
];
/// Between two rings.
const PERIOD: Duration = Duration::from_millis(50);
/// A link with many virtual functions has much to say.
const DATAGRAM: usize = 64 * 1024;
/// What a burst of events may hold in the kernel, in bytes.
const QUEUED: usize = 8 << 20;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// We began to listen: whatever was before is not known.
    Start,
    /// A transaction of nftables, set elements too.
    Firewall,
    /// A link: flags, carrier, MTU, master, MAC address, XDP program.
    Link,
    /// An address.
    Address,
    /// A route of any table.
    Route,
    /// A routing rule.
    Rule,
    /// A next hop object.
    NextHop,
    /// A qdisc, a class, a filter or a chain of filters.
    Queue,
    /// Whether an interface forwards, or looks at source addresses.
    Forwarding,
    /// An IPsec policy.
    Ipsec,
    /// The kernel had more to say than we took: anything may have changed.
    Lost,
}

/// A neighbour that could be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Index of the interface that it is at.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// Flows have to take the kernel's way again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bump {
    /// All flows, if there is any.
    pub causes: BTreeSet<Cause>,
    /// Those to these, which are elsewhere, silent or forgotten.
    pub lost: BTreeSet<Neighbour>,
}

impl Bump {
    /// Whether the ruleset has to be judged anew.
    #[must_use]
    pub fn of_rules(&self) -> bool {
        let about_rules = [Cause::Start, Cause::Firewall, Cause::Lost];
        about_rules.iter().any(|cause| self.causes.contains(cause))
    }

    fn is_empty(&self) -> bool {
        self.causes.is_empty() && self.lost.is_empty()
    }

    fn extend(&mut self, more: Self) {
        self.causes.extend(more.causes);
        self.lost.extend(more.lost);
    }
}

impl From<Cause> for Bump {
    fn from(cause: Cause) -> Self {
        Self {
            causes: BTreeSet::from([cause]),
            ..Self::default()
        }
    }
}

/// Rings for every change in this network namespace, the first time at once. The receiver ends if a socket breaks:
/// then nobody tells, and the fast path has to go off.
///
/// # Errors
/// When the kernel has no nftables or refuses a subscription.
pub async fn watch() -> Result<mpsc::Receiver<Bump>> {
    let sources = Sources {
        nft: nat::watch().await?,
        route: route()?,
        ipsec: xfrm::watch()?,
        memory: remember().await?,
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(ring(sources, sender));
    Ok(receiver)
}

struct Sources {
    nft: mpsc::Receiver<nat::Event>,
    route: TokioSocket,
    ipsec: mpsc::Receiver<()>,
    memory: Memory,
}

fn route() -> Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    let groups = GROUPS.iter().fold(0, |all, g| all | 1 << (*g as u32 - 1));
    let inner = socket.socket_mut();
    enlarge(inner, QUEUED);
    inner
        .bind(&SocketAddr::new(0, groups))
        .context("subscribing to routing and queueing events")?;
    Ok(socket)
}

/// Room for what comes in bursts; without the privilege as much as the host allows.
pub(super) fn enlarge(socket: &impl AsFd, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
}

async fn remember() -> Result<Memory> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    let mut memory = Memory::default();
    for (what, request) in [
        ("interfaces", Message::GetLink(LinkMessage::default())),
        ("addresses", Message::GetAddress(AddressMessage::default())),
        ("neighbours", Message::GetNeighbour(NeighbourMessage::default())),
    ] {
        let found = netlink.dump(request).await;
        let found = found.with_context(|| format!("reading {what}"))?;
        found.iter().for_each(|message| memory.learn(message));
    }
    Ok(memory)
}

async fn ring(mut sources: Sources, sender: mpsc::Sender<Bump>) {
    let mut owed = Bump::from(Cause::Start);
    let mut free_at = Instant::now();
    let mut route = Vec::with_capacity(DATAGRAM);
    loop {
        route.clear();
        tokio::select! {
            received = sources.route.recv(&mut route) => match told(received) {
                Some(true) => owed.extend(sources.memory.news(&route)),
                Some(false) => {
                    // What comes while we look is judged by what we find: it rings before and after.
                    let _ = sender.try_send(Cause::Lost.into());
                    owed.extend(Cause::Lost.into());
                    match remember().await {
                        Ok(memory) => sources.memory = memory,
                        Err(error) => return tracing::warn!("nobody watches the fast path: {error:#}"),
                    }
                }
                None => return,
            },
            event = sources.ipsec.recv() => match event {
                Some(()) => owed.extend(Cause::Ipsec.into()),
                None => return,
            },
            event = sources.nft.recv() => match event {
                Some(_) => owed.extend(Cause::Firewall.into()),
                None => return,
            },
            Ok(room) = turn(&sender, free_at), if !owed.is_empty() => {
                room.send(std::mem::take(&mut owed));
                free_at = Instant::now() + PERIOD;
            }
            () = sender.closed() => return,
        }
    }
}

async fn turn(
    sender: &mpsc::Sender<Bump>,
    free_at: Instant,
) -> Result<mpsc::Permit<'_, Bump>, mpsc::error::SendError<()>> {
    sleep_until(free_at).await;
    sender.reserve().await
}

/// Whether there is something to read, or something was lost; `None` where the socket broke.
fn told(received: io::Result<()>) -> Option<bool> {
    match received {
        Ok(()) => Some(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Some(false),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Some(true),
        Err(error) => {
            tracing::warn!(%error, "a netlink socket for the fast path broke");
            None
        }
    }
}
