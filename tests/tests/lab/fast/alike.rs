//! The fast path and the kernel do the same: the same packets, sent through a router with a fast path and through one
//! without, come out alike, byte by byte.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use uplink_lab::topology::{client, elsewhere};
use uplink_lab::{Config, Daemon, Family, Isp, Shape};

use super::ends::{PLAIN, SIGN, Wires, silence};
use super::{FAST, expect_attached, packets, plain, translated, wired};
use crate::support::pause;

/// Flows of each family, half of them UDP, half TCP.
const FLOWS: u16 = 250;
/// Packets of each flow and direction.
const ROUNDS: u32 = 100;
/// Both routers choose alike.
const SEED: &str = "seed = \"alike for all of them\"\n";
const FIRST_PORT: u16 = 20_000;
const SERVICE: u16 = 7_680;

/// All packets go the kernel's way.
const SLOW: &str = "[kernel]\nattach = \"tcx\"\n";

/// By number: where a packet came out, and its bytes from the IP header on.
type Seen = BTreeMap<u32, (usize, Vec<u8>)>;

pub fn alike() -> Result<()> {
    for family in Family::ALL {
        expect_alike(family, &plain).with_context(|| format!("{family:?}"))?;
    }
    expect_alike(Family::V6, &translated).context("a translated prefix")
}

/// `config` has the lines that it is given first.
fn expect_alike(family: Family, config: &dyn Fn(&str) -> Config) -> Result<()> {
    let [(kernel, none), (fast, some)] = [run(family, config, SLOW)?, run(family, config, FAST)?];
    println!(
        "    {family:?}: {} packets came out, {some} by the fast path",
        fast.len()
    );
    ensure!(
        none == 0 && some > fast.len() as u64 * 3 / 4,
        "{none}, {some} by the fast path"
    );
    compare(&kernel, &fast)
}

fn compare(kernel: &Seen, fast: &Seen) -> Result<()> {
    let all = u64::from(FLOWS) * u64::from(ROUNDS) * 2;
    ensure!(
        kernel.len() as u64 > all / 2,
        "{} of {all} packets came out",
        kernel.len()
    );
    for (number, other) in fast {
        let one = kernel.get(number);
        let one = one.with_context(|| format!("packet {number} came out by the fast path alone"))?;
        ensure!(one == other, "packet {number}:\n{one:02x?}\n{other:02x?}");
    }
    let lost = kernel.keys().find(|number| !fast.contains_key(number));
    ensure!(lost.is_none(), "packet {lost:?} came out by the kernel alone");
    Ok(())
}

/// What comes out of a router with this configuration, and how much of it by the fast path.
fn run(family: Family, config: &dyn Fn(&str) -> Config, kernel: &str) -> Result<(Seen, u64)> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    lab.delegate_prefixes()?;
    silence(&lab, &[SERVICE])?;
    let daemon = Daemon::start(&lab, &config(&format!("{kernel}{SEED}")))?;
    daemon.await_up()?;
    if kernel == FAST {
        expect_attached(&daemon, "xdp")?;
    }
    // What conntrack has not seen it must not miss; that is the one thing that differs.
    lab.router.sysctl("netfilter/nf_conntrack_tcp_be_liberal", "1")?;
    let mut wires = Wires::open(&lab)?;
    let mut flows: Vec<Flow> = (0..FLOWS).map(|n| Flow::new(family, n)).collect();
    let (mut seen, mut dice) = (Seen::new(), Dice(0x1234_5678_9abc_def1));
    for round in 0..ROUNDS {
        for flow in &mut flows {
            flow.send_out(&mut wires, round, &mut dice)?;
        }
        collect(&mut wires, &mut seen)?;
        for flow in &mut flows {
            flow.learn(&seen)?;
            flow.send_back(&mut wires, round, &mut dice)?;
        }
        collect(&mut wires, &mut seen)?;
    }
    let fast = packets(&daemon, "fast")?;
    daemon.stop()?;
    Ok((seen, fast))
}

/// Takes what has come out until nothing comes any more.
fn collect(wires: &mut Wires, seen: &mut Seen) -> Result<()> {
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(15) {
        let mut some = false;
        for place in 0..3 {
            while let Some(frame) = wires.ends[place].receive()? {
                some |= note(place, &frame, wires.macs[place], seen)?;
            }
        }
        if some {
            quiet = Instant::now();
        } else {
            pause(0.001);
        }
    }
    Ok(())
}

/// Notes a packet of ours. Its frame is from the router's card to the one that has it.
fn note(place: usize, frame: &[u8], [own, router]: [[u8; 6]; 2], seen: &mut Seen) -> Result<bool> {
    let Some(frame) = frame.get(PLAIN.len()..) else {
        return Ok(false);
    };
    let Some(at) = frame.windows(SIGN.len()).position(|bytes| bytes == SIGN) else {
        return Ok(false);
    };
    // An error quotes it.
    let headers = PacketHeaders::from_ethernet_slice(frame)?;
    if !matches!(
        headers.transport,
        Some(TransportHeader::Udp(_) | TransportHeader::Tcp(_)) | None
    ) {
        return Ok(false);
    }
    ensure!(
        frame[..6] == own && frame[6..12] == router,
        "another card: {frame:02x?}"
    );
    let number = frame
        .get(at + SIGN.len()..at + SIGN.len() + 4)
        .context("no number")?;
    let number = u32::from_be_bytes(<[u8; 4]>::try_from(number)?);
    let before = seen.insert(number, (place, frame[14..].to_vec()));
    ensure!(before.is_none(), "packet {number} came out twice");
    Ok(true)
}

/// Numbers that are always the same (xorshift, Marsaglia, 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A flow's history: it begins, goes on both ways, and now and then ends and begins again.
struct Flow {
    family: Family,
    n: u16,
    /// Number of its latest packet outward.
    last: u32,
    /// Where it leaves, and from where.
    outside: Option<(usize, IpAddr, u16)>,
    sequence: [u32; 2],
}

impl Flow {
    fn new(family: Family, n: u16) -> Self {
        Self {
            family,
            n,
            last: 0,
            outside: None,
            sequence: [1_000 * u32::from(n) + 7, 77_000 + u32::from(n)],
        }
    }

    const fn is_tcp(&self) -> bool {
        self.n % 2 == 1
    }

    fn inside(&self) -> (IpAddr, u16) {
        (client(self.family, self.n as u8), FIRST_PORT + self.n)
    }

    fn server(&self) -> (IpAddr, u16) {
        (elsewhere(self.family, self.n), SERVICE)
    }

    fn number(&self, round: u32, way: u32) -> u32 {
        1 + (round * 2 + way) * u32::from(FLOWS) + u32::from(self.n)
    }

    fn send_out(&mut self, wires: &mut Wires, round: u32, dice: &mut Dice) -> Result<()> {
        let ends = [self.inside(), self.server()];
        self.last = self.number(round, 0);
        let packet = self.packet(ends, 0, self.last, round, dice)?;
        wires.send(0, self.family, &packet);
        Ok(())
    }

    fn send_back(&mut self, wires: &mut Wires, round: u32, dice: &mut Dice) -> Result<()> {
        let number = self.number(round, 1);
        // The dice fall alike for both routers whether or not anything is known yet.
        let (place, address, port) = self.outside.unwrap_or((1, Isp::One.source(self.family), 9));
        let ends = [self.server(), (address, port)];
        let packet = self.packet(ends, 1, number, round, dice)?;
        wires.send(place, self.family, &packet);
        Ok(())
    }

    /// Where the latest packet came out, if it did.
    fn learn(&mut self, seen: &Seen) -> Result<()> {
        let Some((place, packet)) = seen.get(&self.last) else {
            return Ok(());
        };
        let headers = PacketHeaders::from_ip_slice(packet)?;
        let source: IpAddr = match headers.net.context("no IP header")? {
            NetHeaders::Ipv4(header, _) => header.source.into(),
            NetHeaders::Ipv6(header, _) => header.source.into(),
            NetHeaders::Arp(_) => return Ok(()),
        };
        let port = match headers.transport {
            Some(TransportHeader::Udp(header)) => header.source_port,
            Some(TransportHeader::Tcp(header)) => header.source_port,
            _ => return Ok(()),
        };
        self.outside = Some((*place, source, port));
        Ok(())
    }

    fn packet(
        &mut self,
        [from, to]: [(IpAddr, u16); 2],
        way: usize,
        number: u32,
        round: u32,
        dice: &mut Dice,
    ) -> Result<Vec<u8>> {
        let length = dice.roll(1_200) as usize;
        let mut payload = [&SIGN[..], &number.to_be_bytes(), &vec![number as u8; length]].concat();
        // Now and then the last hop.
        let ttl = if dice.roll(40) == 0 {
            dice.roll(3) as u8
        } else {
            2 + dice.roll(250) as u8
        };
        let odd = dice.roll(25);
        let plain = dice.roll(16);
        let builder = match (from.0, to.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mut header =
                    etherparse::Ipv4Header::new(0, ttl, etherparse::ip_number::UDP, a.octets(), b.octets())?;
                header.identification = number as u16;
                header.dont_fragment = plain.is_multiple_of(2);
                if odd == 0 {
                    header.options = [1, 1, 1, 0][..].try_into()?;
                }
                PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), ttl),
            _ => unreachable!("one family"),
        };
        let mut packet = Vec::new();
        if !self.is_tcp() {
            builder.udp(from.1, to.1).write(&mut packet, &payload)?;
            return Ok(packet);
        }
        payload.truncate(SIGN.len() + 4 + length);
        let other = self.sequence[1 - way];
        let mut tcp = builder.tcp(from.1, to.1, self.sequence[way], 65_000);
        self.sequence[way] = self.sequence[way].wrapping_add(payload.len() as u32);
        match (round % 40, way) {
            (0, 0) => {
                tcp = tcp.syn();
                self.sequence[way] = self.sequence[way].wrapping_add(1);
            }
            (0, _) => {
                tcp = tcp.syn().ack(other);
                self.sequence[way] = self.sequence[way].wrapping_add(1);
            }
            (38, _) if self.n % 4 == 1 => {
                tcp = tcp.fin().ack(other);
                self.sequence[way] = self.sequence[way].wrapping_add(1);
            }
            (39, 0) if self.n % 4 == 1 => tcp = tcp.rst().ack(other),
            _ if odd == 1 => tcp = tcp.psh().ack(other),
            _ => tcp = tcp.ack(other),
        }
        tcp.write(&mut packet, &payload)?;
        Ok(packet)
    }
}
