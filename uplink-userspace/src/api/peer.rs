//! Who asks: what the kernel says of the other end of the socket.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::net::UnixStream;

/// Who may ask beside root.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    uid: u32,
    gid: u32,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub uid: u32,
    gids: Vec<u32>,
}

impl Allowed {
    /// Our own user, and the group that owns the socket.
    ///
    /// # Errors
    /// When the socket is not there.
    pub fn at(socket: &Path) -> Result<Self> {
        let socket_of = socket.metadata().with_context(|| socket.display().to_string())?;
        Ok(Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: socket_of.gid(),
        })
    }

    /// The socket's mode says the same, unless somebody has changed it.
    pub(super) fn lets_in(self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.uid || peer.gids.contains(&self.gid)
    }
}

impl Peer {
    /// As it was when it connected.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut gids = groups(stream)?;
        gids.push(credentials.gid());
        Ok(Self {
            uid: credentials.uid(),
            gids,
        })
    }
}

/// Supplementary groups.
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut gids: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = size_of_val(&gids[..]) as libc::socklen_t;
        // SAFETY: the buffer is writable for `bytes`, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                gids.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let n = bytes as usize / size_of::<libc::gid_t>();
        match result {
            0 => {
                gids.truncate(n);
                return Ok(gids);
            }
            // It says how much room it needs; there are at most 65536 (NGROUPS_MAX).
            _ => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ERANGE) && n > gids.len() => gids.resize(n, 0),
                e => return Err(e),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_we_and_the_group_are_let_in() {
        let allowed = Allowed { uid: 500, gid: 600 };
        let peer = |uid, gids: &[u32]| Peer {
            uid,
            gids: gids.to_vec(),
        };
        assert!(allowed.lets_in(&peer(0, &[])));
        assert!(allowed.lets_in(&peer(500, &[1])));
        assert!(allowed.lets_in(&peer(1000, &[1000, 600])));
        assert!(!allowed.lets_in(&peer(1000, &[1000, 500])));
        assert!(!allowed.lets_in(&peer(600, &[])));
    }

    #[tokio::test]
    async fn the_kernel_knows_our_own_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        let mut ours: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|g| g.as_raw())
            .collect();
        ours.push(nix::unistd::getegid().as_raw());
        assert_eq!((peer.uid, peer.gids), (nix::unistd::geteuid().as_raw(), ours));
    }
}
