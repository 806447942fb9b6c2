//! TCP: a handshake, and a reset.

use std::io::ErrorKind;

use super::kinds::{Refused, Reply, Way, connect, unsent};
use crate::config::Target;

/// Connects. A refused connection is no answer: it may be a provider's box that refuses for
/// everybody, and nobody can tell.
pub(super) async fn ask(way: &Way, target: Target, refused: &Refused) -> Reply {
    match connect(way, target).await {
        Ok(_) => Reply::Answered,
        Err(failure) => {
            if failure.kind() == ErrorKind::ConnectionRefused {
                refused.note("tcp-refused");
            }
            unsent(&failure, refused)
        }
    }
}
