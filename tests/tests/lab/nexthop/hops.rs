//! A hop is a hop: the TTL tells of it, and what is too long is told so.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv4Ttl, Ipv6RecvErr, Ipv6Ttl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use uplink_lab::topology::elsewhere;
use uplink_lab::{Family, Isp, Lab, Shape};

use super::{daemon, packets, routed};
use crate::mtu::undivided;
use crate::pair::{udp_client, udp_server};
use crate::support::{between_renewals, pause};

const PORT: u16 = 7610;
const FLOWS: usize = 12;

/// As traceroute sees it: this router is the first hop, the provider's gateway the second.
pub fn counted() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        let (lab, _echo) = routed(shape)?;
        let daemon = daemon(&lab, "")?;
        for family in Family::ALL {
            let mut seen = [0; 2];
            for n in 0..FLOWS {
                between_renewals()?;
                let before = packets(&daemon, "forwarded")?;
                let isp = by_hops(&lab, family, n)?;
                let passed = packets(&daemon, "forwarded")? - before;
                // Of four packets the one with the last hop is the kernel's, and so is the first.
                ensure!(passed == 2, "{family:?}, flow {n}: {passed} packets passed");
                seen[isp.index()] += 1;
            }
            println!("    {shape:?} {family:?}: the second hop is a gateway {seen:?}");
        }
        daemon.stop()?;
    }
    Ok(())
}

/// The ISP of a flow whose packets have one hop to go, and two: this router answers the first, its gateway the second.
pub fn by_hops(lab: &Lab, family: Family, n: usize) -> Result<Isp> {
    let [first, second] = hops(lab, family, n)?;
    ensure!(routers(family).contains(&first), "the first hop is {first}");
    let isp = Isp::ALL.into_iter().find(|isp| gateway(*isp, family) == second);
    isp.with_context(|| format!("the second hop is {second}"))
}

/// Who answers to TTL 1 and 2 of a known flow.
fn hops(lab: &Lab, family: Family, n: usize) -> Result<[IpAddr; 2]> {
    let server = udp_server(lab, SocketAddr::new(elsewhere(family, n as u16), PORT))?;
    let client = udp_client(lab, family, n, server.local_addr()?)?;
    match family {
        Family::V4 => setsockopt(&client, Ipv4RecvErr, &true)?,
        Family::V6 => setsockopt(&client, Ipv6RecvErr, &true)?,
    }
    for _ in 0..2 {
        client.send(b"known")?;
        let (_, from) = server
            .recv_from(&mut [0; 8])
            .with_context(|| format!("{family:?}, flow {n}"))?;
        server.send_to(b"answered", from)?;
        client.recv(&mut [0; 8])?;
    }
    let answered = |ttl: i32| {
        match family {
            Family::V4 => setsockopt(&client, Ipv4Ttl, &ttl)?,
            Family::V6 => setsockopt(&client, Ipv6Ttl, &ttl)?,
        }
        client.send(b"how far")?;
        offender(&client).with_context(|| format!("{family:?}, flow {n}, TTL {ttl}"))
    };
    Ok([answered(1)?, answered(2)?])
}

/// Who sent the ICMP error that is next.
fn offender(socket: &UdpSocket) -> Result<IpAddr> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        let (mut data, mut space) = ([0; 64], nix::cmsg_space!([u8; 128]));
        let mut slices = [IoSliceMut::new(&mut data)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(Errno::EAGAIN) => pause(0.002),
            Err(e) => bail!("reading the error: {e}"),
            Ok(message) => {
                for one in message.cmsgs()? {
                    match one {
                        ControlMessageOwned::Ipv4RecvErr(_, Some(from)) => {
                            return Ok(IpAddr::from(from.sin_addr.s_addr.to_ne_bytes()));
                        }
                        ControlMessageOwned::Ipv6RecvErr(_, Some(from)) => {
                            return Ok(IpAddr::from(from.sin6_addr.s6_addr));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    bail!("nobody answers")
}

fn routers(family: Family) -> Vec<IpAddr> {
    let lan = match family {
        Family::V4 => "172.16.0.1",
        Family::V6 => "fd00:10::1",
    };
    let own = Isp::ALL.map(|isp| isp.source(family));
    own.into_iter().chain(lan.parse()).collect()
}

fn gateway(isp: Isp, family: Family) -> IpAddr {
    let (v4, v6) = isp.gateways();
    let text = if family == Family::V4 { v4 } else { v6 };
    text.parse().expect("an address")
}

const MTU: usize = 1_280;
const LONG: usize = 1_400;

/// A known flow's datagram that is longer than the uplink's MTU comes back as an error with that.
pub fn too_long() -> Result<()> {
    let (lab, _echo) = routed(Shape::NicEach)?;
    let daemon = daemon(&lab, &format!("mtu = {MTU}"))?;
    for family in Family::ALL {
        for n in 0..FLOWS {
            let server = udp_server(&lab, SocketAddr::new(elsewhere(family, 100 + n as u16), PORT))?;
            let client = undivided(&lab, family, n, server.local_addr()?)?;
            let headers = if family == Family::V4 { 28 } else { 48 };
            let fits = vec![7; MTU - headers];
            between_renewals()?;
            let before = packets(&daemon, "forwarded")?;
            for _ in 0..3 {
                client.send(&fits)?;
                let (length, _) = server.recv_from(&mut [0; LONG])?;
                ensure!(length == fits.len(), "{length} bytes arrived");
            }
            let passed = packets(&daemon, "forwarded")? - before;
            ensure!(
                passed == 2,
                "{family:?}, flow {n}: {passed} packets of the MTU passed"
            );
            client.send(&vec![7; LONG - headers])?;
            let told = client.recv(&mut [0]).map_err(|e| e.raw_os_error());
            ensure!(
                told == Err(Some(libc::EMSGSIZE)),
                "{family:?}: the client is told {told:?}"
            );
            client.send(&fits)?;
            server.recv_from(&mut [0; LONG]).context("after the error")?;
        }
        println!("    {family:?}: {FLOWS} flows told of the MTU");
    }
    daemon.stop()
}
