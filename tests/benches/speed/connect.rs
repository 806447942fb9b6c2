//! Sockets of this host: how many may connect in a second, with steering and without.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use uplink_lab::Cgroup;

use crate::contestants::{Case, Contestant, start_local};
use crate::report::{Fact, median};
use crate::wire::Wire;

/// How long each sample lasts.
const SPAN: Duration = Duration::from_millis(300);
const SAMPLES: usize = 9;
const NAT_V4: Case = Case { v6: false, nat: true };

/// Rates by taking turns: without any program, and with ours.
pub fn measure(contestant: &Contestant) -> Result<Vec<Fact>> {
    let cgroup = Cgroup::join()?;
    let wire = Wire::build(contestant.driver)?;
    let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..SAMPLES {
        for (steered, rates) in rates.iter_mut().enumerate() {
            let _guard = start_local(&wire, NAT_V4, (steered == 1).then(|| cgroup.path()))?;
            rates[0].push(wire.router.enter(tcp)??);
            rates[1].push(wire.router.enter(udp)??);
        }
    }
    let [without, with] = rates;
    let mut facts = Vec::new();
    for ((name, without), with) in ["TCP to this host", "UDP to the Internet"]
        .iter()
        .zip(&without)
        .zip(&with)
    {
        let (without, with) = (median(without), median(with));
        facts.push(Fact::new(
            name,
            "connects a second, without steering",
            without,
            "",
        ));
        facts.push(Fact::new(name, "connects a second, steered", with, ""));
        facts.push(Fact::new(name, "fewer", 100.0 * (1.0 - with / without), "%"));
    }
    Ok(facts)
}

fn tcp() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < SPAN {
        let stream = TcpStream::connect(address)?;
        // A reset leaves no connection behind that waits for its end.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let (accepted, _) = listener.accept()?;
        drop((stream, accepted));
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn udp() -> Result<f64> {
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < SPAN {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("198.18.0.1:4433")?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}
