//! Filters of the clsact qdisc, for kernels before 6.6.

use anyhow::{Context as _, Result, bail};
use aya::programs::SchedClassifier;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::tc::{TcHandle as Parent, TcMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::Hook;
use super::port::{PROGRAMS, Port, SIDES};
use crate::routes::socket::Netlink;

/// Where our filter stands among others', and its handle.
const PRIORITY: u16 = 50;
const HANDLE: u16 = 1;
/// `TC_H_CLSACT`, and the minor numbers of its two sides (linux/pkt_sched.h).
const CLSACT: u16 = 0xffff;
const INGRESS: u16 = 0xfff2;
const EGRESS: u16 = 0xfff3;

/// An interface with a filter of ours.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClsactPort {
    /// Interface.
    pub name: String,
    /// There was no clsact qdisc before us.
    pub qdisc_is_ours: bool,
}

/// Adds our filter, or replaces the one that is there, so that it is never missing.
pub(super) fn attach(program: &mut SchedClassifier, port: &Port, side: TcAttachType) -> Result<bool> {
    if qdisc_add_clsact(&port.name).is_err() && has_qdisc(&port.name, "ingress") {
        // It takes a filter for the way out, too, and asks it on the way in.
        bail!(
            "{0} has an ingress qdisc, where the clsact qdisc has to be: `tc qdisc del dev {0} ingress && tc qdisc add dev {0} clsact`, \
             and add its filters there again",
            port.name
        );
    }
    let handle = TcHandle::new(0, HANDLE);
    let options = NlOptions {
        priority: PRIORITY,
        handle,
        classid: None,
    };
    let ours = SchedClassifierLink::attached(&port.name, side, PRIORITY, handle, None)?;
    let id = match program.attach_to_link(ours) {
        Ok(id) => id,
        Err(_) => program.attach_with_options(&port.name, side, TcAttachOptions::Netlink(options))?,
    };
    // Dropping the link would detach the filter, which has to outlive us.
    std::mem::forget(program.take_link(id)?);
    Ok(true)
}

/// Whether our filters are there on both sides.
pub(super) async fn present(port: &Port) -> Result<bool> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    for minor in [INGRESS, EGRESS] {
        let mut request = TcMessage::with_index(i32::try_from(port.ifindex)?);
        request.header.parent = Parent { major: CLSACT, minor };
        // Without the qdisc the kernel has an error instead of a list.
        let Ok(filters) = netlink.dump(Message::GetTrafficFilter(request)).await else {
            return Ok(false);
        };
        let ours = |m: &Message| {
            matches!(m, Message::NewTrafficFilter(f)
                if f.header.info >> 16 == u32::from(PRIORITY) && f.header.handle.minor == HANDLE)
        };
        if !filters.iter().any(ours) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Filters of others that are asked behind our program on the way in: with tcx all of them, else those behind
/// our filter.
pub(super) async fn behind(hook: Hook, port: &Port) -> Result<Vec<String>> {
    let filters = filters(port, INGRESS).await?;
    let behind = filters.into_iter().filter(|(p, h)| is_behind(hook, *p, *h));
    let words = |p: u32| format!("the tc filter with preference {p} at {}", port.name);
    Ok(priorities(behind).into_iter().map(words).collect())
}

/// Filters of others on both ways, wherever they stand.
pub(super) async fn foreign(hook: Hook, port: &Port) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (minor, side) in [(INGRESS, "ingress"), (EGRESS, "egress")] {
        let all = filters(port, minor).await?.into_iter();
        let foreign = all.filter(|(priority, handle)| match hook {
            Hook::Clsact if *priority == u32::from(PRIORITY) => *handle != 0 && *handle != HANDLE,
            _ => true,
        });
        let words = |p: u32| format!("the tc filter with preference {p} ({side})");
        found.extend(priorities(foreign).into_iter().map(words));
    }
    Ok(found)
}

/// The priorities and handles of filters on one side.
async fn filters(port: &Port, minor: u16) -> Result<Vec<(u32, u16)>> {
    let netlink = Netlink::<Message>::open(NETLINK_ROUTE).context("opening a netlink socket")?;
    let mut request = TcMessage::with_index(i32::try_from(port.ifindex)?);
    request.header.parent = Parent { major: CLSACT, minor };
    // Without a qdisc the kernel has an error instead of a list, and no filters.
    let filters = netlink.dump(Message::GetTrafficFilter(request)).await;
    let one = |message| match message {
        Message::NewTrafficFilter(f) => Some((f.header.info >> 16, f.header.handle.minor)),
        _ => None,
    };
    Ok(filters.unwrap_or_default().into_iter().filter_map(one).collect())
}

fn priorities(filters: impl Iterator<Item = (u32, u16)>) -> Vec<u32> {
    let mut all: Vec<u32> = filters.map(|(priority, _)| priority).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Each priority is listed once without a handle, too.
const fn is_behind(hook: Hook, priority: u32, handle: u16) -> bool {
    match hook {
        Hook::Tcx => true,
        Hook::Clsact if priority == PRIORITY as u32 => handle != 0 && handle != HANDLE,
        Hook::Clsact => priority > PRIORITY as u32,
    }
}

/// Takes our filters off an interface; none there is just as well.
pub(super) fn detach(interface: &str) {
    for side in SIDES {
        for name in PROGRAMS {
            let _ = qdisc_detach_program(interface, side, name);
        }
    }
}

/// Takes our filters off, and the qdisc where we made it and nobody else uses it.
pub(super) fn remove(port: &ClsactPort) {
    detach(&port.name);
    if port.qdisc_is_ours {
        remove_empty(&port.name);
    }
}

/// Whether an interface has a clsact qdisc.
#[must_use]
pub fn has_clsact(interface: &str) -> bool {
    has_qdisc(interface, "clsact")
}

fn has_qdisc(interface: &str, kind: &str) -> bool {
    let is_one = |line: &str| line.split_whitespace().nth(1) == Some(kind);
    tc(&["qdisc", "show", "dev", interface]).is_some_and(|out| out.lines().any(is_one))
}

/// Somebody else's filters on our qdisc keep it.
fn remove_empty(interface: &str) {
    let empty = |side| tc(&["filter", "show", "dev", interface, side]).is_some_and(|o| o.trim().is_empty());
    if empty("ingress") && empty("egress") {
        tc(&["qdisc", "del", "dev", interface, "clsact"]);
    }
}

fn tc(args: &[&str]) -> Option<String> {
    let out = std::process::Command::new("tc").args(args).output().ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}
