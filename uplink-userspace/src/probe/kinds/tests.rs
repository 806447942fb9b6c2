//! TCP, and what all kinds share, on the loopback interface.

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;

use super::*;

pub(in crate::probe) const SHORT: Duration = Duration::from_millis(300);
/// Long enough that a test which waits for it is seen to have waited.
pub(in crate::probe) const LONG: Duration = Duration::from_secs(20);

/// Without a mark: it takes privileges.
pub(in crate::probe) fn way() -> Way {
    Way {
        mark: 0,
        source: Ipv4Addr::LOCALHOST.into(),
        environment: Vec::new(),
    }
}

pub(in crate::probe) fn target(address: SocketAddr) -> Target {
    Target {
        address: address.ip(),
        port: address.port(),
    }
}

/// The verdict on a target while `serve` runs, and what was refused.
pub(in crate::probe) async fn asked(
    kind: &Prepared,
    target: Target,
    timeout: Duration,
    serve: impl Future<Output = ()>,
) -> (Reply, BTreeMap<&'static str, u64>) {
    let (way, refused) = (way(), Refused::default());
    let serve = async {
        serve.await;
        std::future::pending::<()>().await;
    };
    let reply = tokio::select! {
        reply = ask(kind, &way, target, timeout, &refused) => reply,
        () = serve => unreachable!("it never ends"),
    };
    (reply, refused.counts())
}

async fn tcp(address: SocketAddr, timeout: Duration) -> Reply {
    ask(
        &Prepared::Tcp,
        &way(),
        target(address),
        timeout,
        &Refused::default(),
    )
    .await
}

#[tokio::test]
async fn an_accepted_connection_is_an_answer_and_leaves_nothing_behind() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(tcp(address, LONG).await, Reply::Answered);
    let (mut accepted, _) = listener.accept().await.unwrap();
    let failure = accepted.read_u8().await.unwrap_err();
    assert_eq!(
        failure.kind(),
        io::ErrorKind::ConnectionReset,
        "closed by a reset: no TIME_WAIT"
    );
}

#[tokio::test]
async fn a_refused_connection_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(tcp(address, LONG).await, Reply::Lost);
}

#[tokio::test]
async fn silence_is_lost_at_the_timeout() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // Linux drops SYNs to a listener whose queue is full.
    let _queued: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket(&way(), Type::STREAM).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let began = Instant::now();
    assert_eq!(tcp(address, SHORT).await, Reply::Lost);
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn an_address_that_is_gone_loses_the_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = Way {
        source: Ipv4Addr::new(192, 0, 2, 7).into(),
        ..way()
    };
    socket(&gone, Type::STREAM).expect("bound without the address");
    let target = target(listener.local_addr().unwrap());
    let reply = ask(&Prepared::Tcp, &gone, target, SHORT, &Refused::default()).await;
    assert_eq!(reply, Reply::Lost);
}

#[tokio::test]
async fn ipv6_is_asked_from_an_ipv6_address() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let six = Way {
        source: std::net::Ipv6Addr::LOCALHOST.into(),
        ..way()
    };
    let target = target(listener.local_addr().unwrap());
    let reply = ask(&Prepared::Tcp, &six, target, LONG, &Refused::default()).await;
    assert_eq!(reply, Reply::Answered);
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), six.source);
}

#[test]
fn sockets_carry_mark_and_priority() {
    let marked = Way {
        mark: 0x300_0000,
        ..way()
    };
    for kind in [Type::STREAM, Type::DGRAM] {
        let socket = match socket(&marked, kind) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                return eprintln!("skipped: a mark takes root");
            }
            made => made.unwrap(),
        };
        assert_eq!(socket.mark().unwrap(), 0x300_0000);
        assert_eq!(socket.priority().unwrap(), PROBE_PRIORITY);
        assert_eq!(
            socket.local_addr().unwrap().as_socket().unwrap().ip(),
            marked.source
        );
    }
}

#[test]
fn this_hosts_own_shortage_says_nothing_of_a_path() {
    let refused = Refused::default();
    let shortage = io::Error::from_raw_os_error(libc::EMFILE);
    assert_eq!(unsent(&shortage, &refused), Reply::Skipped);
    let unreachable = io::Error::from_raw_os_error(libc::ENETUNREACH);
    assert_eq!(unsent(&unreachable, &refused), Reply::Lost);
    assert_eq!(refused.counts(), BTreeMap::from([("shortage", 1)]));
}

#[test]
fn icmp_is_not_asked_here() {
    assert!(Prepared::new(&Kind::Icmp).is_err());
}
