//! The connections. One request each, all of it within a time, so that nobody holds a place for
//! long; and whoever has not asked yet makes room for newer ones.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

use super::desk::Desk;
use super::respond;

/// Connections at one time. A service has 1,024 descriptors by default, and others need some.
const MOST: usize = 256;
/// From the first byte to the end of the header.
const HEADER: Duration = Duration::from_secs(5);
/// From the first byte to the last of the response.
const ALL: Duration = Duration::from_secs(15);
/// Bytes of a request's header.
const HEADER_SIZE: usize = 8 * 1024;
/// Fields of a request's header.
const FIELDS: usize = 64;

/// Those that are connected, oldest first.
#[derive(Default)]
pub(super) struct Clients {
    tasks: JoinSet<()>,
    connected: VecDeque<Client>,
}

struct Client {
    task: AbortHandle,
    /// Its request is there, so it is no longer the first to go.
    asked: Rc<Cell<bool>>,
}

impl Clients {
    /// Whether one more can come, perhaps in the place of a silent one.
    pub(super) fn have_room(&self) -> bool {
        self.connected.len() < MOST || self.connected.iter().any(|c| !c.asked.get())
    }

    /// Serves a connection; the oldest silent one leaves where there is no room.
    pub(super) fn welcome(&mut self, stream: TcpStream, desk: &Rc<Desk>) {
        self.forget_those_who_left();
        if self.connected.len() >= MOST
            && let Some(silent) = self.connected.iter().position(|c| !c.asked.get())
            && let Some(client) = self.connected.remove(silent)
        {
            client.task.abort();
        }
        let asked = Rc::<Cell<bool>>::default();
        let task = self
            .tasks
            .spawn_local(serve(stream, Rc::clone(desk), Rc::clone(&asked)));
        self.connected.push_back(Client { task, asked });
    }

    /// Waits until a connection ends.
    pub(super) async fn one_left(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => self.forget_those_who_left(),
            None => std::future::pending().await,
        }
    }

    fn forget_those_who_left(&mut self) {
        self.connected.retain(|c| !c.task.is_finished());
    }
}

async fn serve(stream: TcpStream, desk: Rc<Desk>, asked: Rc<Cell<bool>>) {
    let service = service_fn(move |request| {
        asked.set(true);
        let desk = Rc::clone(&desk);
        async move { Ok::<_, Infallible>(respond::respond(&desk, &request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_SIZE)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(ALL, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!("metrics address: {e}"),
        Err(_) => tracing::debug!("metrics address: a client took longer than {ALL:?}"),
    }
}
