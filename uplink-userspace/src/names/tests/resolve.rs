use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::resolve::{End, pause, servers};
use super::super::{Resolver, Told, Whom, message};
use super::*;
use crate::config::{self, At};

const SOON: Duration = Duration::from_secs(5);

/// A name server on a port of loopback that says whatever `answers` makes of a question; several datagrams for each.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    asked: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The question's identifier, type and name.
fn read(query: &[u8]) -> (u16, TYPE, String) {
    let head = message::head(query).unwrap();
    (
        head.question.id,
        head.question.kind.into(),
        head.question.name.to_string(),
    )
}

async fn server(answers: fn(&[u8]) -> Vec<Vec<u8>>) -> Server {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            tokio::select! {
                received = udp.recv_from(&mut buffer) => {
                    let (length, from) = received.unwrap();
                    let _ = tell.send(buffer[..length].to_vec());
                    for answer in answers(&buffer[..length]) {
                        udp.send_to(&answer, from).await.unwrap();
                    }
                }
                accepted = tcp.accept() => {
                    let (mut stream, _) = accepted.unwrap();
                    let mut query = vec![0; stream.read_u16().await.unwrap().into()];
                    stream.read_exact(&mut query).await.unwrap();
                    let (id, kind, name) = read(&query);
                    let answer = reply(id, &name, kind, &[(&name, 300, "203.0.113.9")]);
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    });
    Server { address, task, asked }
}

fn start(servers: &[&Server]) -> (Resolver, mpsc::Receiver<Told>) {
    let whom = Whom {
        listed: servers.iter().map(|s| s.address).collect(),
        file: None,
    };
    let (tell, told) = mpsc::channel(8);
    (
        Resolver::start(vec!["a.org".into()], whom, 0..=86_400, tell),
        told,
    )
}

async fn next(told: &mut mpsc::Receiver<Told>) -> (IpAddr, u32, String) {
    let told = timeout(SOON, told.recv()).await.unwrap().unwrap();
    assert_eq!(told.server, ip("127.0.0.1"));
    let address = &told.answer.addresses[0];
    (address.address, address.ttl_s, address.names.join(","))
}

/// By an alias, either type.
fn good(query: &[u8]) -> Vec<Vec<u8>> {
    let (id, kind, name) = read(query);
    let address = if kind == TYPE::A {
        "203.0.113.7"
    } else {
        "2001:db8::7"
    };
    let records = [(&*name, 300, "b.net"), ("b.net", 200, address)];
    vec![reply(id, &name, kind, &records)]
}

#[tokio::test]
async fn both_types_are_asked_for_and_aliases_followed() {
    let server = server(good).await;
    let (_resolver, mut told) = start(&[&server]);
    let mut both = [next(&mut told).await, next(&mut told).await];
    both.sort();
    let names = || "a.org,b.net".to_owned();
    assert_eq!(
        both,
        [
            (ip("203.0.113.7"), 200, names()),
            (ip("2001:db8::7"), 200, names())
        ]
    );
}

#[tokio::test]
async fn what_is_too_long_for_udp_is_asked_for_by_tcp() {
    let server = server(|query| {
        let mut answer = good(query).remove(0);
        answer[2] |= 0x02;
        vec![answer]
    })
    .await;
    let (_resolver, mut told) = start(&[&server]);
    assert_eq!(next(&mut told).await.0, ip("203.0.113.9"));
}

#[tokio::test]
async fn forged_answers_are_not_heard() {
    let server = server(|query| {
        let (id, kind, _) = read(query);
        let evil = |id, name| {
            reply(
                id,
                name,
                kind,
                &[(name, 300, "198.51.100.66"), (name, 300, "2001:db8::66")],
            )
        };
        let forged = [
            evil(id ^ 1, "a.org"),
            evil(id, "b.org"),
            query.to_vec(),
            vec![0; 5],
        ];
        [forged.to_vec(), good(query)].concat()
    })
    .await;
    let (_resolver, mut told) = start(&[&server]);
    for _ in 0..2 {
        assert!([ip("203.0.113.7"), ip("2001:db8::7")].contains(&next(&mut told).await.0));
    }
}

#[tokio::test]
async fn the_next_server_is_asked_where_one_fails() {
    let refuses = server(|query| {
        let mut answer = good(query).remove(0);
        answer[3] |= 5;
        vec![answer]
    })
    .await;
    let silent = server(|_| Vec::new()).await;
    let works = server(good).await;
    let (_resolver, mut told) = start(&[&refuses, &silent, &works]);
    assert_eq!(next(&mut told).await.1, 200);
}

#[tokio::test]
async fn a_name_without_addresses_is_nothing_to_tell() {
    let mut server = server(|query| {
        let (id, kind, name) = read(query);
        let mut answer = reply(id, &name, kind, &[]);
        answer[3] |= 3;
        vec![answer]
    })
    .await;
    let (_resolver, mut told) = start(&[&server]);
    for _ in 0..2 {
        timeout(SOON, server.asked.recv()).await.unwrap().unwrap();
    }
    assert!(timeout(Duration::from_millis(1_500), told.recv()).await.is_err());
    assert!(server.asked.try_recv().is_err());
}

#[tokio::test]
async fn answers_that_expire_are_asked_for_again_until_it_is_dropped() {
    let mut server = server(|query| {
        let (id, kind, name) = read(query);
        let address = if kind == TYPE::A {
            "203.0.113.7"
        } else {
            "2001:db8::7"
        };
        vec![reply(id, &name, kind, &[(&name, 0, address)])]
    })
    .await;
    let (resolver, mut told) = start(&[&server]);
    for _ in 0..4 {
        next(&mut told).await;
    }
    drop(resolver);
    tokio::task::yield_now().await;
    while server.asked.try_recv().is_ok() {}
    assert!(timeout(SOON, told.recv()).await.unwrap().is_none());
    assert!(
        timeout(Duration::from_millis(1_500), server.asked.recv())
            .await
            .is_err()
    );
}

#[test]
fn pauses_follow_what_was_heard() {
    let s = |end, failures, dice| pause(end, failures, &(60..=3_600), dice).as_secs_f64();
    assert!((s(End::Addresses(300), 0, 0.0) - 240.0).abs() < 0.001);
    assert!((s(End::Addresses(300), 0, 1.0) - 216.0).abs() < 0.001);
    assert!((s(End::Addresses(0), 0, 0.0) - 48.0).abs() < 0.001);
    assert!((s(End::Addresses(u32::MAX), 0, 0.0) - 2_880.0).abs() < 0.001);
    assert!((s(End::Nothing, 0, 0.0) - 60.0).abs() < 0.001);
    let failures: Vec<f64> = (1..9).map(|n| s(End::Failed, n, 0.0)).collect();
    assert_eq!(failures, [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]);
    assert!((s(End::Failed, u32::MAX, 0.0) - 300.0).abs() < 0.001);
    let least = pause(End::Addresses(0), 0, &(0..=9), 1.0);
    assert_eq!(least, Duration::from_millis(500));
    let before = pause(End::Addresses(1), 0, &(1..=9), 0.0);
    assert!(before < Duration::from_millis(900), "{before:?} of a second");
}

#[tokio::test]
async fn servers_of_a_file_are_asked_behind_those_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
    let works = server(good).await;
    let (tell, mut told) = mpsc::channel(8);
    let mut whom = Whom {
        listed: vec![works.address],
        file: Some(file),
    };
    let _resolver = Resolver::start(vec!["a.org".into()], whom.clone(), 60..=60, tell);
    assert_eq!(next(&mut told).await.1, 200);
    let words = |whom: &Whom| whom.servers().map_err(|e| e.to_string());
    assert_eq!(words(&whom), Ok(vec![works.address, at("127.0.0.1:53")]));
    whom.file = Some("/nowhere/resolv.conf".into());
    assert_eq!(words(&whom), Ok(vec![works.address]));
    whom.listed.clear();
    assert!(
        words(&whom)
            .unwrap_err()
            .starts_with("/nowhere/resolv.conf: No such file")
    );
}

#[test]
fn resolvers_are_as_the_file_says() {
    let at_start = |value| At { value, span: 0..0 };
    let dns = |resolvers: Vec<config::Resolver>| config::Dns {
        resolvers: resolvers.into_iter().map(at_start).collect(),
        ttl_min: Duration::ZERO,
        ttl_max: Duration::ZERO,
    };
    let listed = config::Resolver::At(ip("192.0.2.53"));
    let both = dns(vec![config::Resolver::Auto, listed]);
    let whom = Whom::new(&both);
    assert_eq!(
        (whom.listed, whom.file),
        (vec![at(SERVER)], Some("/etc/resolv.conf".into()))
    );
    assert!(Servers::new(&both).allow(ip("192.0.2.1")));
    let one = dns(vec![listed]);
    assert_eq!(Whom::new(&one).file, None);
    assert!(Servers::new(&one).allow(ip("192.0.2.53")) && !Servers::new(&one).allow(ip("192.0.2.1")));
}

#[test]
fn name_servers_are_read_like_the_library_does() {
    let file = "# nameserver 192.0.2.9\nnameserver 192.0.2.53\n search a.org\nnameserver\t2001:db8::53 # x\n\
                nameserver\nnameserver fe80::1%eth0\nnameservers 192.0.2.8\noptions edns0\n";
    assert_eq!(servers(file), [at("192.0.2.53:53"), at("[2001:db8::53]:53")]);
}
