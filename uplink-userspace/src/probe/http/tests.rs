//! Web servers on the loopback interface, good and bad.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::probe::kinds::Prepared;
use crate::probe::kinds::tests::{LONG, SHORT, asked, target};

fn settings() -> config::Http {
    config::Http {
        tls: false,
        host: None,
        path: "/health?who=uplink".into(),
        status: vec![200..=204, 301..=301],
        ca: None,
    }
}

/// The head of a request, up to its empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// What a server does after the request.
enum Then {
    /// Sends this and says no more.
    Send(&'static [u8]),
    /// Sends this and closes.
    Close(&'static [u8]),
    /// Sends the first, then the second for ever, with pauses.
    Repeat(&'static [u8], &'static [u8], Duration),
}

impl Then {
    /// Errors are the prober's hanging up.
    async fn act(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        match self {
            Self::Close(bytes) => return stream.write_all(bytes).await,
            Self::Send(bytes) => stream.write_all(bytes).await?,
            Self::Repeat(first, again, pause) => {
                stream.write_all(first).await?;
                loop {
                    stream.write_all(again).await?;
                    stream.flush().await?;
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
        std::future::pending().await
    }
}

/// The verdict on a server that does this, what was refused, and what it was asked.
async fn against(then: Then, timeout: Duration) -> (Reply, BTreeMap<&'static str, u64>, String) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(server.local_addr().unwrap());
    let mut request = String::new();
    let serve = async {
        let (mut stream, _) = server.accept().await.unwrap();
        request = head(&mut stream).await;
        let _ = then.act(&mut stream).await;
        drop(stream);
    };
    let get = Prepared::Http(Get::new(&settings()).unwrap());
    let (reply, refused) = asked(&get, target, timeout, serve).await;
    (reply, refused, request)
}

#[tokio::test]
async fn an_expected_status_is_an_answer_whether_a_body_follows_or_not() {
    let heads: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n<html>",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 301 Moved\r\nLocation: /elsewhere\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    for head in heads {
        let (reply, refused, asked) = against(Then::Send(head), LONG).await;
        assert_eq!((reply, refused), (Reply::Answered, BTreeMap::new()), "{head:?}");
        assert!(
            asked.starts_with("GET /health?who=uplink HTTP/1.1\r\nhost: 127.0.0.1:"),
            "{asked}"
        );
    }
    let (reply, ..) = against(Then::Close(b"HTTP/1.1 200 OK\r\n\r\n"), LONG).await;
    assert_eq!(reply, Reply::Answered);
}

#[tokio::test]
async fn another_status_is_lost_at_once() {
    for head in [
        &b"HTTP/1.1 302 Found\r\n\r\n"[..],
        b"HTTP/1.1 511 Log In First\r\n\r\n",
    ] {
        let (reply, refused, _) = against(Then::Send(head), LONG).await;
        assert_eq!(
            (reply, refused),
            (Reply::Lost, BTreeMap::from([("http-status", 1)]))
        );
    }
}

#[tokio::test]
async fn garbage_and_a_closed_connection_are_lost_at_once() {
    let garbage: [&'static [u8]; 4] = [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\x01\x02\x03\xff\xfe garbage \r\n\r\n",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"",
    ];
    for bytes in garbage {
        let began = Instant::now();
        let (reply, refused, _) = against(Then::Close(bytes), LONG).await;
        assert_eq!(
            (reply, refused),
            (Reply::Lost, BTreeMap::from([("http-head", 1)])),
            "{bytes:?}"
        );
        assert!(began.elapsed() < LONG);
    }
}

#[tokio::test]
async fn a_head_without_end_is_cut_off_by_size() {
    let first = b"HTTP/1.1 200 OK\r\n";
    for again in [&[b'a'; 1024][..], b"X-More: of this\r\n"] {
        let began = Instant::now();
        let (reply, refused, _) = against(Then::Repeat(first, again, Duration::ZERO), LONG).await;
        assert_eq!(
            (reply, refused),
            (Reply::Lost, BTreeMap::from([("http-head", 1)]))
        );
        assert!(began.elapsed() < LONG);
    }
}

#[tokio::test]
async fn provisional_answers_without_end_are_cut_off_by_size() {
    let again =
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n";
    let (reply, refused, _) = against(Then::Repeat(b"", again, Duration::ZERO), LONG).await;
    assert_eq!(
        (reply, refused),
        (Reply::Lost, BTreeMap::from([("http-head", 1)]))
    );
}

#[tokio::test]
async fn a_server_that_dribbles_or_says_nothing_is_lost_at_the_timeout() {
    let dribble = Then::Repeat(b"HTTP/1.1 200 OK\r\nX: ", b"x", Duration::from_millis(10));
    for then in [dribble, Then::Send(b"HTTP/1.1 200")] {
        let began = Instant::now();
        let (reply, ..) = against(then, SHORT).await;
        assert_eq!(reply, Reply::Lost);
        assert!(began.elapsed() >= SHORT);
    }
}

#[test]
fn the_host_field_names_the_port_unless_it_is_the_schemes() {
    let field = |tls, host: Option<&str>, address: &str| {
        let host = host.map(str::to_owned);
        let get = Get::new(&config::Http {
            tls,
            host,
            ..settings()
        })
        .unwrap();
        let address: SocketAddr = address.parse().unwrap();
        get.host_field(target(address)).to_str().unwrap().to_owned()
    };
    assert_eq!(field(false, None, "192.0.2.1:80"), "192.0.2.1");
    assert_eq!(field(true, None, "192.0.2.1:80"), "192.0.2.1:80");
    assert_eq!(field(true, None, "[2001:db8::1]:443"), "[2001:db8::1]");
    assert_eq!(field(false, None, "[2001:db8::1]:8080"), "[2001:db8::1]:8080");
    assert_eq!(
        field(false, Some("example.com:81"), "192.0.2.1:80"),
        "example.com:81"
    );
}

#[test]
fn the_name_in_the_certificate_has_no_port_and_no_brackets() {
    for (text, name) in [
        ("example.com:81", "example.com"),
        ("[2001:db8::1]:81", "2001:db8::1"),
    ] {
        assert_eq!(host(text).unwrap().1, ServerName::try_from(name).unwrap());
    }
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_value() {
    let refusal = |settings: config::Http| format!("{:#}", Get::new(&settings).unwrap_err());
    let path = |path: &str| {
        refusal(config::Http {
            path: path.into(),
            ..settings()
        })
    };
    assert!(path("health").contains("\"health\""));
    assert!(path("/a b").contains("\"/a b\""));
    let host = Some("no host".into());
    assert!(refusal(config::Http { host, ..settings() }).contains("\"no host\""));
    let ca = |ca: &Path| {
        let ca = Some(ca.to_owned());
        refusal(config::Http {
            tls: true,
            ca,
            ..settings()
        })
    };
    assert!(ca(Path::new("/nowhere.pem")).contains("/nowhere.pem"));
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(ca(empty.path()).contains("no certificate"));
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server whose certificate has these names.
fn acceptor(authority: &Authority, names: &[&str]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, authority)
        .unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// The verdict of a prober that trusts `trusted` and expects `host`, on a server with `names`.
async fn secured(
    trusted: Option<&Authority>,
    issuer: &Authority,
    host: Option<&str>,
    names: &[&str],
) -> (Reply, BTreeMap<&'static str, u64>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    if let Some(trusted) = trusted {
        file.write_all(trusted.pem().as_bytes()).unwrap();
    }
    let settings = config::Http {
        tls: true,
        host: host.map(str::to_owned),
        ca: trusted.map(|_| file.path().to_owned()),
        ..settings()
    };
    let acceptor = acceptor(issuer, names);
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(server.local_addr().unwrap());
    let serve = async {
        let (stream, _) = server.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            head(&mut stream).await;
            let _ = Then::Send(b"HTTP/1.1 200 OK\r\n\r\n").act(&mut stream).await;
        }
    };
    let get = Prepared::Http(Get::new(&settings).unwrap());
    asked(&get, target, LONG, serve).await
}

#[tokio::test]
async fn https_believes_the_configured_authority_and_the_right_name_alone() {
    let (ours, theirs) = (authority(), authority());
    let good = (Reply::Answered, BTreeMap::new());
    let bad = (Reply::Lost, BTreeMap::from([("tls", 1)]));
    let name = Some("probe.example");
    assert_eq!(secured(Some(&ours), &ours, name, &["probe.example"]).await, good);
    assert_eq!(secured(Some(&ours), &ours, None, &["127.0.0.1"]).await, good);
    assert_eq!(
        secured(Some(&ours), &ours, name, &["other.example"]).await,
        bad,
        "wrong name"
    );
    assert_eq!(
        secured(Some(&ours), &ours, None, &["192.0.2.1"]).await,
        bad,
        "wrong address"
    );
    assert_eq!(
        secured(Some(&ours), &theirs, name, &["probe.example"]).await,
        bad,
        "wrong authority"
    );
    assert_eq!(
        secured(None, &ours, name, &["probe.example"]).await,
        bad,
        "not of the web's"
    );
}

#[tokio::test]
async fn tls_with_a_server_that_speaks_something_else_is_lost_at_once() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(server.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = Then::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .act(&mut stream)
            .await;
    };
    let settings = config::Http {
        tls: true,
        ..settings()
    };
    let get = Prepared::Http(Get::new(&settings).unwrap());
    let verdict = asked(&get, target, LONG, serve).await;
    assert_eq!(verdict, (Reply::Lost, BTreeMap::from([("tls", 1)])));
}
