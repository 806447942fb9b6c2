//! A netlink socket whose failures carry the kernel's own words.

use std::fmt::{self, Debug};
use std::io;

use futures::StreamExt;
use nix::errno::Errno;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use rtnetlink::proto::{ConnectionHandle, new_connection};
use rtnetlink::sys::{AsyncSocket, SocketAddr};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`.
const ATTRIBUTE_MESSAGE: u16 = 1;
/// A dump that raced with a change is repeated this often before its last answer is taken.
const DUMPS: usize = 5;

/// What the kernel refused, in its own words where it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The positive error number.
    pub errno: i32,
    /// The extended acknowledgement.
    pub text: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = Errno::from_raw(self.errno).desc();
        match &self.text {
            Some(text) => write!(f, "{text} ({error})"),
            None => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    const CLOSED: Self = Self {
        errno: libc::ENOTCONN,
        text: None,
    };

    fn new(header: &NetlinkHeader, error: &ErrorMessage) -> Self {
        let text = (header.flags & NLM_F_ACK_TLVS != 0)
            .then(|| text(header.flags & NLM_F_CAPPED != 0, &error.header))
            .flatten();
        Self {
            errno: error.raw_code().abs(),
            text,
        }
    }
}

/// The message attribute behind the (capped or whole) request that an error quotes.
fn text(capped: bool, quoted: &[u8]) -> Option<String> {
    let length = u32::from_ne_bytes(quoted.get(..4)?.try_into().ok()?) as usize;
    let start = if capped {
        HEADER
    } else {
        length.next_multiple_of(4)
    };
    NlasIterator::new(quoted.get(start..)?)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ATTRIBUTE_MESSAGE)
        .map(|attribute| {
            String::from_utf8_lossy(attribute.value())
                .trim_end_matches('\0')
                .to_owned()
        })
}

/// A netlink connection. It stays in the network namespace where it was made.
#[derive(Clone, Debug)]
pub(crate) struct Netlink<T: Debug>(ConnectionHandle<T>);

impl<T> Netlink<T>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug + Unpin + Send + 'static,
{
    /// Opens a connection and spawns the task that serves it; the task ends with the last clone.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let (mut connection, handle, _) = new_connection::<T>(protocol)?;
        // A request whose socket broke must not look like one that succeeded.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Lets the kernel filter dumps. Without it we get everything and filter ourselves.
        let _ = socket.set_netlink_get_strict_chk(true);
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Sends one request and waits for its acknowledgement.
    pub async fn execute(&self, message: T, flags: u16) -> Result<(), Failure> {
        let mut answers = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = &answer.payload {
                return match error.code {
                    None => Ok(()),
                    Some(_) => Err(Failure::new(&answer.header, error)),
                };
            }
        }
        Err(Failure::CLOSED)
    }

    /// Sends one request and waits for its one answer.
    pub async fn ask(&self, message: T) -> Result<T, Failure> {
        let mut answers = self.send(message, NLM_F_REQUEST)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => return Ok(message),
                NetlinkPayload::Error(error) => return Err(Failure::new(&answer.header, &error)),
                _ => {}
            }
        }
        Err(Failure::CLOSED)
    }

    /// Everything the kernel has that fits `message`.
    pub async fn dump(&self, message: T) -> Result<Vec<T>, Failure>
    where
        T: Clone,
    {
        for _ in 1..DUMPS {
            let (found, interrupted) = self.dump_once(message.clone()).await?;
            if !interrupted {
                return Ok(found);
            }
        }
        Ok(self.dump_once(message).await?.0)
    }

    async fn dump_once(&self, message: T) -> Result<(Vec<T>, bool), Failure> {
        let mut answers = self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Error(error) => return Err(Failure::new(&answer.header, &error)),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Failure {
                        errno: -done.code,
                        text: None,
                    });
                }
                NetlinkPayload::Done(_) => return Ok((found, interrupted)),
                _ => {}
            }
        }
        Err(Failure::CLOSED)
    }

    fn send(
        &self,
        message: T,
        flags: u16,
    ) -> Result<impl futures::Stream<Item = NetlinkMessage<T>> + use<T>, Failure> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        let kernel = SocketAddr::new(0, 0);
        self.0.request(request, kernel).or(Err(Failure::CLOSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(request: usize) -> Vec<u8> {
        let mut bytes = vec![0; request];
        bytes[..4].copy_from_slice(&20u32.to_ne_bytes());
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(ATTRIBUTE_MESSAGE.to_ne_bytes());
        bytes.extend(b"bad\0");
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_capped_and_a_whole_request() {
        assert_eq!(text(true, &quoted(HEADER)).as_deref(), Some("bad"));
        assert_eq!(text(false, &quoted(20)).as_deref(), Some("bad"));
        assert_eq!(text(true, &[0; 3]), None);
    }

    #[test]
    fn a_failure_without_words_names_the_errno() {
        let failure = Failure {
            errno: libc::EEXIST,
            text: None,
        };
        assert!(failure.to_string().contains("exists"));
    }
}
