//! An uplink or a LAN with a smaller MTU: TCP is told at once, everybody else by ICMP.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;
use uplink_lab::topology::{elsewhere, servers};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::icmp::unlimited;
use crate::pair::{self, tcp_server, udp_client, udp_server};
use crate::support::{daemon, lab};

const MTU: usize = 1_400;
const PORT: u16 = 7400;
/// Of both uplinks there are some among so many, but for one time in 100,000.
const FLOWS: usize = 80;
/// The length of an IP packet that fits into the LAN, not into the uplink.
const LONG: usize = 1_450;

pub fn and_mss() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    // Timestamps would take their part of every segment.
    for ns in [&lab.client, &lab.internet] {
        ns.sysctl("ipv4/tcp_timestamps", "0")?;
    }
    let config = Config {
        uplink_more: [format!("mtu = {MTU}"), String::new()],
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &config)?;
    daemon.await_up()?;
    for family in Family::ALL {
        segments(&lab, family)?;
        datagrams(&lab, family)?;
    }
    daemon.stop()
}

/// A LAN with a smaller MTU: what comes in and is too long is answered by this host, and the answer leaves by the
/// connection's ISP, as the other one would drop it.
pub fn inward() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    lab.router.run(&format!("ip link set {} mtu {MTU}", lab.lan()))?;
    let daemon = daemon(&lab, "")?;
    unlimited(&lab)?;
    lab.bcp38()?;
    for family in Family::ALL {
        let mut told = [false; 2];
        for n in 0..FLOWS {
            let server = udp_server(&lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
            let client = udp_client(&lab, family, n, server.local_addr()?)?;
            client.send(&[1])?;
            let (_, from) = server.recv_from(&mut [0])?;
            let isp = Isp::of(from.ip()).with_context(|| format!("seen from {from}"))?;
            // The Internet remembers the MTU by destination, which is this host's address at the ISP.
            if !std::mem::replace(&mut told[isp.index()], true) {
                server.connect(from)?;
                never_divides(&server, family)?;
                let long = vec![7; LONG - headers(family) - 8];
                server.send(&long)?;
                too_long(&server, &long).with_context(|| format!("{family:?} by {isp:?}"))?;
            }
        }
        ensure!(told == [true; 2], "{family:?}: one ISP only: {told:?}");
    }
    lab.expect_right_isps("errors about what comes in")?;
    daemon.stop()
}

/// Bytes of an IP header without options.
pub const fn headers(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// Both ends of a TCP connection send segments that fit.
fn segments(lab: &Lab, family: Family) -> Result<()> {
    let server = tcp_server(lab, SocketAddr::new(servers(family)[0], PORT))?;
    let mut seen: [Vec<[u32; 2]>; 2] = Default::default();
    for n in 0..FLOWS {
        let (near, far, from) = pair::tcp(lab, family, n, &server)?;
        let isp = Isp::of(from.ip()).with_context(|| format!("seen from {from}"))?;
        seen[isp.index()].push([mss(&near)?, mss(&far)?]);
    }
    for (isp, mtu) in [(Isp::One, MTU), (Isp::Two, 1_500)] {
        let (flows, right) = (&seen[isp.index()], (mtu - headers(family) - 20) as u32);
        println!(
            "    {family:?} {isp:?}: {} connections, MSS of client and server {:?}",
            flows.len(),
            flows.first()
        );
        ensure!(!flows.is_empty(), "{family:?}: none of {FLOWS} by {isp:?}");
        let wrong = flows.iter().find(|both| **both != [right; 2]);
        ensure!(wrong.is_none(), "{family:?} {isp:?}: MSS {wrong:?}, not {right}");
    }
    Ok(())
}

fn mss(stream: &TcpStream) -> Result<u32> {
    Ok(getsockopt(stream, TcpMaxSeg)?)
}

/// What is too long for the uplink comes back as an error with its MTU; what is not arrives.
fn datagrams(lab: &Lab, family: Family) -> Result<()> {
    let long = vec![7; LONG - headers(family) - 8];
    let mut met = [0; 2];
    for n in 0..FLOWS {
        // The client remembers the MTU by destination, so that every flow needs one of its own.
        let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
        let client = undivided(lab, family, n, server.local_addr()?)?;
        client.send(&[1])?;
        let (_, from) = server.recv_from(&mut [0])?;
        let isp = Isp::of(from.ip()).with_context(|| format!("seen from {from}"))?;
        met[isp.index()] += 1;
        client.send(&long)?;
        match isp {
            Isp::One => too_long(&client, &long),
            Isp::Two => arrives(&server, &long),
        }
        .with_context(|| format!("{family:?}, flow {n} by {isp:?}"))?;
    }
    println!(
        "    {family:?}: {} flows told of the MTU, {} passed",
        met[0], met[1]
    );
    ensure!(met.iter().all(|n| *n > 0), "{family:?}: one ISP only: {met:?}");
    Ok(())
}

/// A client's socket whose datagrams are never divided.
pub fn undivided(lab: &Lab, family: Family, n: usize, to: SocketAddr) -> Result<UdpSocket> {
    let socket = udp_client(lab, family, n, to)?;
    never_divides(&socket, family)?;
    Ok(socket)
}

fn never_divides(socket: &UdpSocket, family: Family) -> Result<()> {
    let (level, name, value) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        Family::V6 => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DO,
        ),
    };
    let length = size_of_val(&value) as libc::socklen_t;
    let at = (&raw const value).cast();
    // SAFETY: the kernel reads `length` bytes at `at`, which are those of `value`.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, length) };
    Errno::result(set)?;
    Ok(())
}

fn too_long(socket: &UdpSocket, long: &[u8]) -> Result<()> {
    let errno = |e: std::io::Error| e.raw_os_error().map(Errno::from_raw);
    let told = socket.recv(&mut [0]).map_err(errno);
    ensure!(told == Err(Some(Errno::EMSGSIZE)), "the sender is told {told:?}");
    let again = socket.send(long).map_err(errno);
    ensure!(again == Err(Some(Errno::EMSGSIZE)), "the next send: {again:?}");
    let fits = socket.send(&long[..long.len() - (LONG - MTU)]).map_err(errno);
    ensure!(fits.is_ok(), "a datagram of the MTU: {fits:?}");
    Ok(())
}

fn arrives(server: &UdpSocket, long: &[u8]) -> Result<()> {
    let mut buffer = [0; LONG];
    let (length, _) = server.recv_from(&mut buffer)?;
    ensure!(&buffer[..length] == long, "{length} other bytes arrived");
    Ok(())
}
