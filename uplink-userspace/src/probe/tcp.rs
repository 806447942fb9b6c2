//! TCP: a handshake, and a reset.

use std::io::ErrorKind;

use super::kinds::{Refused, Reply, Way, connect, unsent};
use crate::config::Target;

/// Connects. A refused connection is an answer, too: whoever refused was reached, and came back.
pub(super) async fn ask(way: &Way, target: Target, refused: &Refused) -> Reply {
    match connect(way, target).await {
        Ok(_) => Reply::Answered,
        Err(failure) if failure.kind() == ErrorKind::ConnectionRefused => Reply::Answered,
        Err(failure) => unsent(&failure, refused),
    }
}
