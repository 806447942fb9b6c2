//! An end of a wire, as frames of Ethernet.

use std::ffi::c_int;
use std::io::{self, ErrorKind};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// A frame behind its `virtio_net_hdr`, which tells where a checksum is still to be filled in and
/// how large frames are to be cut: veth leaves both to the receiver.
pub type Frame = Box<[u8]>;

/// The header, and the longest frame that segmentation offload makes.
const LONGEST: usize = 10 + 14 + 65_535;
/// linux/if_packet.h
const PACKET_IGNORE_OUTGOING: c_int = 23;
const BUFFER: usize = 16 << 20;

/// A device, opened for every frame that comes in by it.
#[derive(Debug)]
pub struct End {
    socket: Socket,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl End {
    /// The device of this name in the calling thread's namespace.
    pub fn open(device: &str) -> Result<Self> {
        // Without a protocol nothing is received before it is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).context("a packet socket")?;
        socket.set_nonblocking(true)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).context("PACKET_VNET_HDR")?;
        set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1).context("PACKET_IGNORE_OUTGOING")?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER as c_int)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER as c_int)?;
        socket.bind(&address(if_nametoindex(device)?))?;
        Ok(Self {
            socket,
            buffer: vec![MaybeUninit::uninit(); LONGEST].into(),
        })
    }

    /// The next frame, if there is one.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        match self.socket.recv(&mut self.buffer) {
            Ok(n) => {
                // SAFETY: the kernel has written the first n bytes.
                let frame = self.buffer[..n].iter().map(|byte| unsafe { byte.assume_init() });
                Ok(Some(frame.collect()))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
            // The device went down; it may come back.
            Err(e) if e.kind() == ErrorKind::NetworkDown => Ok(None),
            Err(e) => Err(e).context("receive a frame"),
        }
    }

    /// A frame that cannot be sent is lost, as on any wire.
    pub fn send(&self, frame: &[u8]) {
        let _ = self.socket.send(frame);
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(index: u32) -> SockAddr {
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a socket address and fits any storage for them.
    unsafe { *storage.view_as::<libc::sockaddr_ll>() = link };
    // SAFETY: the storage holds an address of this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) }
}

fn set(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as u32;
    // SAFETY: the value lives through the call and has the length named.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
