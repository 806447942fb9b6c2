//! The Internet's servers that probes meet, and what ISPs tell by DHCP, without the daemon.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use uplink_lab::autoconf::Offer;
use uplink_lab::liar::icmp::ask;
use uplink_lab::liar::web::{CA, NAME};
use uplink_lab::liar::{Dns, Liar, Lie, Manner, Page, Web, dns};
use uplink_lab::topology::{elsewhere, servers};
use uplink_lab::traffic::{How, host_udp};
use uplink_lab::{Autoconf, Family, Isp, Lab, Shape};

use crate::support::{await_within, lab, pause};

/// Each lie is told at its address, and the truth everywhere else.
pub fn icmp() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    for family in Family::ALL {
        let lies = [
            Lie::Payload,
            Lie::Id,
            Lie::Future,
            Lie::Source,
            Lie::Short,
            Lie::Thrice,
        ];
        let at = |n: usize| elsewhere(family, 100 + n as u16);
        let lies: Vec<_> = lies
            .into_iter()
            .enumerate()
            .map(|(n, lie)| (at(n), lie))
            .collect();
        let liar = Liar::start(&lab, &lies)?;
        let honest = servers(family)[0];
        let replies = echo(&lab, honest)?;
        let [(from, truth)] = &replies[..] else {
            bail!("{honest} answers {replies:?}")
        };
        ensure!(*from == honest, "{honest} answers from {from}");
        for (address, lie) in lies {
            let replies = echo(&lab, address)?;
            let n = replies.len();
            let (from, bytes) = replies
                .first()
                .with_context(|| format!("{lie:?} does not answer"))?;
            println!("    {family:?} {lie:?}: {n} from {from}, {} bytes", bytes.len());
            let same = bytes[4..] == truth[4..];
            ensure!(
                same == matches!(lie, Lie::Source | Lie::Thrice),
                "{lie:?}: {bytes:?}"
            );
            ensure!((*from == address) == (lie != Lie::Source), "{lie:?}: from {from}");
            ensure!(
                n == if lie == Lie::Thrice { 3 } else { 1 },
                "{lie:?}: {n} replies"
            );
        }
        drop(liar);
        ensure!(echo(&lab, honest)?.is_empty(), "somebody else answers, too");
    }
    Ok(())
}

fn echo(lab: &Lab, to: IpAddr) -> Result<Vec<(IpAddr, Vec<u8>)>> {
    lab.router.enter(|| ask(to, Duration::from_millis(150)))?
}

/// The good one tells who asks; the others do not.
pub fn dns() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let servers_running = Dns::start(&lab)?;
    for family in Family::ALL {
        for manner in Manner::ALL {
            let seen = lab.router.enter(|| query(family, manner))??;
            let good = matches!(manner, Manner::Good | Manner::Many);
            println!("    {family:?} {manner:?}: {seen:?}");
            ensure!(seen.and_then(Isp::of).is_some() == good, "{manner:?}: {seen:?}");
        }
    }
    ensure!(
        servers_running.queries() == 16,
        "{} queries",
        servers_running.queries()
    );
    Ok(())
}

fn query(family: Family, manner: Manner) -> Result<Option<IpAddr>> {
    let to = SocketAddr::new(servers(family)[0], manner.port());
    let any: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let question = dns::question(77, family);
    socket.send(&question)?;
    let mut answer = [0; 512];
    let n = socket
        .recv(&mut answer)
        .with_context(|| format!("{manner:?} says nothing"))?;
    Ok(dns::seen(&answer[..n], &question))
}

/// Each page does what it says; the certificate is good for the name and the address.
pub fn web() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let web = Web::start(&lab)?;
    for page in Page::ALL
        .into_iter()
        .filter(|p| !matches!(p, Page::Tls | Page::Untrusted))
    {
        for family in Family::ALL {
            let begun = Instant::now();
            let got = lab
                .router
                .enter(|| get(SocketAddr::new(servers(family)[0], page.port())))??;
            let (n, head) = (
                got.len(),
                String::from_utf8_lossy(&got[..got.len().min(15)]).into_owned(),
            );
            println!(
                "    {family:?} {page:?}: {n} bytes in {:?}: {head:?}",
                begun.elapsed()
            );
            let as_expected = match page {
                Page::Good => head == "HTTP/1.1 200 OK" && got.ends_with(b"yes"),
                Page::Failure => head.starts_with("HTTP/1.1 503"),
                Page::EndlessBody | Page::EndlessHeader => n > 1_000_000,
                Page::Dribble => (3..30).contains(&n),
                Page::Garbage => n == 2000,
                _ => n == 0,
            };
            ensure!(as_expected, "{page:?}: {n} bytes, {head:?}");
        }
    }
    let open = || Ok(web.open() == 0);
    await_within(
        "no connection is left",
        Instant::now(),
        Duration::from_secs(5),
        open,
    )?;
    certificates(&lab)?;
    ensure!(web.served() == 14 + 3, "{} connections", web.served());
    Ok(())
}

/// What comes within a second, up to 2 MB.
fn get(to: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: probe.test\r\n\r\n")?;
    let (begun, mut got, mut part) = (Instant::now(), Vec::new(), [0; 65_536]);
    while begun.elapsed() < Duration::from_secs(1) && got.len() < 2 << 20 {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => got.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    Ok(got)
}

fn certificates(lab: &Lab) -> Result<()> {
    let server = servers(Family::V4)[0];
    let verify = |page: Page, wanted: &str| {
        let port = page.port();
        let line = format!(
            "timeout 5 openssl s_client -connect {server}:{port} -CAfile {CA} -verify_return_error {wanted}"
        );
        lab.router.run(&line)
    };
    verify(Page::Tls, &format!("-servername {NAME} -verify_hostname {NAME}"))?;
    verify(Page::Tls, &format!("-verify_ip {server}"))?;
    let refused = verify(Page::Untrusted, "").is_err();
    ensure!(refused, "anybody may sign");
    Ok(())
}

/// Addresses, routes and gateways come by DHCP and router advertisements, and change.
pub fn autoconf() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let isp = Isp::Two;
    lab.forget(isp)?;
    let bare = routes(&lab)?;
    let known = ["10.0.0.", "fd00:2:"].iter().any(|net| bare.contains(net));
    ensure!(!known, "something is left: {bare}");
    let first = Autoconf::start(&lab, isp, &Offer::of(isp, false))?;
    lab.lease(isp)?;
    learned(&lab, isp, &Offer::of(isp, false))?;
    drop(first);
    let _second = Autoconf::start(&lab, isp, &Offer::of(isp, true))?;
    lab.lease(isp)?;
    learned(&lab, isp, &Offer::of(isp, true))
}

fn learned(lab: &Lab, isp: Isp, offer: &Offer) -> Result<()> {
    let Offer {
        address,
        gateway,
        prefix,
    } = offer;
    let wants = [
        format!("default via {gateway} dev wan2 proto dhcp"),
        "default via fe80::".into(),
        format!("{prefix}/64 dev wan2 proto kernel"),
        format!("inet {address}/24"),
    ];
    let all = || {
        Ok(wants
            .iter()
            .all(|want| routes(lab).is_ok_and(|text| text.contains(want))))
    };
    await_within(
        "routes by DHCP and RA",
        Instant::now(),
        Duration::from_secs(12),
        all,
    )
    .with_context(|| format!("{wants:?} in {}", routes(lab).unwrap_or_default()))?;
    lab.router.run("ip route del default via 192.168.1.1").ok();
    lab.router.run("ip -6 route del default via fd00:1::1").ok();
    pause(0.3);
    for family in Family::ALL {
        let tally = host_udp(lab, 20, family, How::Free)?;
        ensure!(
            tally.by_isp[isp.index()] == 20,
            "{family:?} with {offer:?}: {tally:?}"
        );
    }
    Ok(())
}

fn routes(lab: &Lab) -> Result<String> {
    let lines = [
        "ip route",
        "ip -6 route",
        "ip -4 addr show wan2",
        "ip -6 addr show wan2 scope global",
    ];
    lines.iter().map(|line| lab.router.run(line)).collect()
}
