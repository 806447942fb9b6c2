//! The metrics address: what the control socket tells, read-only, over HTTP. It asks the daemon
//! like any client of the socket, and touches nothing of its state.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the status page |
//! | `/metrics` | [`crate::metrics`] |
//! | `/health` | 200 while an uplink serves and nothing of ours is broken, else 503; [`health::Health`] |
//! | `/status.json` | as `uplink status --json` |
//! | `/events.json?after=N` | as `org.uplink.Events` |
//! | `/history.json` | [`crate::history::View`] |

mod clients;
mod desk;
pub mod health;
mod page;
mod respond;
mod route;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

use crate::api;
use clients::Clients;
use desk::Desk;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Binds the address.
///
/// # Errors
/// When it is not this host's, somebody else has it, or it needs privileges.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().with_context(|| format!("listening on {address}"))
}

/// Serves clients until it is dropped.
pub async fn serve(listener: TcpListener, requests: mpsc::Sender<api::Request>) {
    let desk = Rc::new(Desk::new(requests));
    let mut clients = Clients::default();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.have_room() => match accepted {
                Ok((stream, _)) => clients.welcome(stream, &desk),
                // Out of descriptors, most likely: let others finish.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            () = clients.one_left() => {}
        }
    }
}

#[cfg(test)]
mod tests;
