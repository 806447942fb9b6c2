//! Probes other than ICMP echo: one question, one verdict, each on a socket or process of its own.
//!
//! [`ask`] asks once and keeps no time but its limit; when to ask is the schedule's affair.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use socket2::{Domain, Socket, Type};
use uplink_common::record::PROBE_PRIORITY;

use super::{dns, exec, http, tcp};
use crate::config::{Kind, Target};

/// By which uplink a probe goes out.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// `SO_MARK` of its sockets; 0 leaves mark and priority alone, which takes no privilege.
    pub mark: u32,
    /// The uplink's own address, of the target's family.
    pub source: IpAddr,
    /// What an `exec` probe is told: `UPLINK_NAME`, `UPLINK_INTERFACE` and the like.
    pub environment: Vec<(String, String)>,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The target answered.
    Answered,
    /// It did not, or not as it should have.
    Lost,
    /// Nothing was asked, so nothing is known of the path: the `exec` probe before is still
    /// running, or this host has no descriptor or memory left.
    Skipped,
}

/// Answers and attempts that were refused, by kind. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Rc<RefCell<BTreeMap<&'static str, u64>>>);

impl Refused {
    /// Counts one more of this kind.
    pub fn note(&self, kind: &'static str) {
        *self.0.borrow_mut().entry(kind).or_default() += 1;
    }

    /// All counters so far; a kind that never occurred is missing.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.borrow().clone()
    }
}

/// A configured kind, with everything done that need not be done for each probe.
#[derive(Debug)]
pub(super) enum Prepared {
    /// See [`tcp`].
    Tcp,
    /// See [`dns`].
    Dns(dns::Query),
    /// See [`http`].
    Http(http::Get),
    /// See [`exec`].
    Exec(exec::Program),
}

impl Prepared {
    /// Prepares a kind; reads the CA file of an HTTPS probe.
    ///
    /// # Errors
    /// When a name, path, host or file of the configuration cannot be used, and for ICMP, which
    /// is not asked here.
    pub fn new(kind: &Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Icmp => bail!("ICMP echo has a prober of its own"),
            Kind::Tcp => Self::Tcp,
            Kind::Dns { name } => Self::Dns(dns::Query::new(name)?),
            Kind::Http(settings) => Self::Http(http::Get::new(settings)?),
            Kind::Exec { command } => Self::Exec(exec::Program::new(command)?),
        })
    }
}

/// Asks a target once. Returns when it has answered or is surely lost, never later than `timeout`
/// and a few milliseconds. Dropping the future ends the probe.
pub(super) async fn ask(
    kind: &Prepared,
    way: &Way,
    target: Target,
    timeout: Duration,
    refused: &Refused,
) -> Reply {
    let asked = async {
        match kind {
            Prepared::Tcp => tcp::ask(way, target, refused).await,
            Prepared::Dns(query) => query.ask(way, target, refused).await,
            Prepared::Http(get) => get.ask(way, target, refused).await,
            Prepared::Exec(program) => program.ask(way, target, refused).await,
        }
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or(Reply::Lost)
}

/// A nonblocking socket that leaves by the way.
///
/// # Errors
/// When the kernel refuses. An address that is gone for the moment is bound all the same: that
/// makes the probe fail, not the prober.
pub(super) fn socket(way: &Way, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(way.source, 0)), kind, None)?;
    socket.set_nonblocking(true)?;
    if way.mark != 0 {
        socket.set_mark(way.mark)?;
        socket.set_priority(PROBE_PRIORITY)?;
    }
    match way.source {
        IpAddr::V4(_) => socket.set_freebind_v4(true)?,
        IpAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&SocketAddr::new(way.source, 0).into())?;
    Ok(socket)
}

/// A TCP connection that leaves by the way. It is closed by a reset, so that a probe every few
/// hundred milliseconds piles up no connections in TIME_WAIT, here or there.
///
/// # Errors
/// When no socket is to be had, or the connection fails.
pub(super) async fn connect(way: &Way, target: Target) -> io::Result<tokio::net::TcpStream> {
    let socket = socket(way, Type::STREAM)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    socket.connect(SocketAddr::new(target.address, target.port)).await
}

/// The verdict on a probe that could not be sent: this host's own shortage tells nothing of a path.
pub(super) fn unsent(failure: &io::Error, refused: &Refused) -> Reply {
    match failure.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
            refused.note("shortage");
            Reply::Skipped
        }
        _ => Reply::Lost,
    }
}

#[cfg(test)]
pub(super) mod tests;
