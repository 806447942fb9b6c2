//! Sockets of this host: how many may connect in a second of the processor's time, with steering and without.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::{Domain, SockRef, Socket, Type};
use uplink_lab::Cgroup;
use uplink_lab::process::own_time;

use crate::contestants::{Case, Contestant, start_local};
use crate::report::{Fact, median};
use crate::wire::Wire;

type Kind = (&'static str, fn() -> Result<f64>);

/// The cgroup below this process's own.
const STEERED: &str = "steered";
/// How long each sample lasts, on the clock: short, as the machine's speed changes by the second.
const SPAN: Duration = Duration::from_millis(50);
const SAMPLES: usize = 100;
const NAT_V4: Case = Case { v6: false, nat: true };

/// Rates by taking turns, under a daemon: outside of the cgroup that it steers, and in there.
pub fn measure(contestant: &Contestant) -> Result<Vec<Fact>> {
    let cgroup = Cgroup::join()?;
    // There has to be one to be steered.
    drop(cgroup.descend(STEERED)?);
    let wire = Wire::build(contestant.driver)?;
    let _guard = start_local(&wire, NAT_V4, &format!("{}/{STEERED}", cgroup.path()))?;
    let kinds: [Kind; 2] = [("TCP to this host", tcp), ("UDP to the Internet", udp)];
    let mut facts = Vec::new();
    for (name, rate) in kinds {
        let [mut without, mut with, mut ratios] = <[Vec<f64>; 3]>::default();
        for _ in 0..SAMPLES {
            let free = wire.router.enter(rate)??;
            let inside = cgroup.descend(STEERED)?;
            let steered = wire.router.enter(rate)??;
            drop(inside);
            without.push(free);
            with.push(steered);
            ratios.push(steered / free);
        }
        facts.extend([
            Fact::new(name, "connects a second, without steering", median(&without), ""),
            Fact::new(name, "connects a second, steered", median(&with), ""),
            Fact::new(name, "fewer", 100.0 * (1.0 - median(&ratios)), "%"),
        ]);
    }
    Ok(facts)
}

fn tcp() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (begun, own, mut count) = (Instant::now(), own_time()?, 0_u32);
    while begun.elapsed() < SPAN {
        let stream = TcpStream::connect(address)?;
        // A reset leaves no connection behind that waits for its end.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let (accepted, _) = listener.accept()?;
        drop((stream, accepted));
        count += 1;
    }
    Ok(f64::from(count) / (own_time()? - own).as_secs_f64())
}

fn udp() -> Result<f64> {
    let server = SocketAddr::from(([198, 18, 0, 1], 4433)).into();
    let (begun, own, mut count) = (Instant::now(), own_time()?, 0_u32);
    while begun.elapsed() < SPAN {
        // As resolvers do it: the kernel finds address and port.
        Socket::new(Domain::IPV4, Type::DGRAM, None)?.connect(&server)?;
        count += 1;
    }
    Ok(f64::from(count) / (own_time()? - own).as_secs_f64())
}
