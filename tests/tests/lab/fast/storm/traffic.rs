//! Flows that go on both ways as fast as their packets come back, each of which is looked at.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use etherparse::{Ipv4Header, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use uplink_lab::topology::{client, elsewhere};
use uplink_lab::{Family, Isp, Lab};

use crate::fast::ends::{PLAIN, SIGN, Wires};

/// Where flows go to; the last one is what a firewall stops.
pub const SERVICES: [u16; 2] = [7_690, 7_691];
const FIRST_PORT: u16 = 30_000;
const TTL: u8 = 64;
/// Packets of a flow that are under way at the same time.
const AT_ONCE: u32 = 4;
/// What is not forbidden yet may be in a queue.
const GRACE: Duration = Duration::from_secs(1);

/// Everybody's flows, and what is right about them.
pub struct Traffic {
    wires: Wires,
    flows: Vec<Flow>,
    /// Packets that came out at the client's, and at each ISP's.
    pub seen: [u64; 3],
    /// Whether flows may go to another ISP.
    pub may_move: bool,
    /// Whether they may get another port from NAT.
    pub may_rename: bool,
    /// Since when no packet to the last service may leave.
    pub stopped: Option<Instant>,
    /// Since when no packet may leave by this ISP.
    pub dead: Option<(Isp, Instant)>,
    /// What the first ISP's MAC address was, and until when.
    old: Option<([u8; 6], Instant)>,
}

/// A flow from the client to a server of its own.
struct Flow {
    family: Family,
    n: u16,
    service: u16,
    is_tcp: bool,
    /// Packets each way.
    sent: [u32; 2],
    /// Whether an answer has come.
    is_answered: bool,
    /// When it was last seen to leave.
    left: Option<Instant>,
    /// By which ISP, and from which port of its address.
    by: Option<(Isp, u16)>,
}

/// A packet that came out.
struct Packet {
    flow: usize,
    ends: [(IpAddr, u16); 2],
    ttl: u8,
}

impl Traffic {
    pub fn new(lab: &Lab) -> Result<Self> {
        Ok(Self {
            wires: Wires::open(lab)?,
            flows: Vec::new(),
            seen: [0; 3],
            may_move: false,
            may_rename: false,
            stopped: None,
            dead: None,
            old: None,
        })
    }

    /// So many more flows: of both families and protocols, every tenth to the last service.
    pub fn begin(&mut self, n: u16) {
        let first = self.flows.len() as u16;
        self.flows.extend((first..first + n).map(Flow::new));
    }

    /// By how many flows each ISP was taken last, from this one on.
    pub fn by_isp(&self, first: usize) -> [usize; 2] {
        let by = |isp| {
            self.flows[first..]
                .iter()
                .filter(|f| f.by.is_some_and(|(by, _)| by == isp))
                .count()
        };
        Isp::ALL.map(by)
    }

    /// Those whose packets have not left within this time.
    pub fn silent(&self, within: Duration) -> Vec<u16> {
        let is = |flow: &&Flow| flow.left.is_none_or(|at| at.elapsed() > within);
        self.flows.iter().filter(is).map(|flow| flow.n).collect()
    }

    /// The first ISP is about to have another network card.
    pub fn new_card(&mut self, mac: [u8; 6]) {
        let before = std::mem::replace(&mut self.wires.macs[1][0], mac);
        self.old = Some((before, Instant::now() + GRACE));
    }

    /// Some packets of each flow, and the answers to what has come out.
    pub fn round(&mut self) -> Result<()> {
        for flow in &mut self.flows {
            for _ in 0..flow.at_once() {
                let packet = flow.packet([flow.inside(), flow.server()], 0)?;
                self.wires.send(0, flow.family, &packet);
            }
        }
        for place in [1, 2, 0] {
            while let Some(frame) = self.wires.ends[place].receive()? {
                let packet = self.judge(place, &frame);
                let packet = packet.with_context(|| format!("at {place}: {frame:02x?}"))?;
                let Some(packet) = packet.filter(|_| place != 0) else {
                    continue;
                };
                let [from, to] = packet.ends;
                let flow = &mut self.flows[packet.flow];
                let answer = flow.packet([to, from], 1)?;
                self.wires.send(place, flow.family, &answer);
            }
        }
        Ok(())
    }

    /// Whether a packet is as it has to be; `None`: it is none of ours.
    fn judge(&mut self, place: usize, frame: &[u8]) -> Result<Option<Packet>> {
        let frame = frame.get(PLAIN.len()..).context("no header")?;
        let Some(packet) = packet(frame)? else {
            return Ok(None);
        };
        let flow = self.flows.get_mut(packet.flow).context("no such flow")?;
        self.seen[place] += 1;
        ensure!(packet.ttl == TTL - 1, "{} hops to go", packet.ttl);
        let [own, router] = self.wires.macs[place];
        let was = self
            .old
            .filter(|(_, until)| place == 1 && Instant::now() < *until);
        ensure!(
            frame[..6] == own || was.is_some_and(|(mac, _)| frame[..6] == mac),
            "to another card"
        );
        ensure!(frame[6..12] == router, "from another card");
        let Some(isp) = place.checked_sub(1).map(|n| Isp::ALL[n]) else {
            ensure!(packet.ends == [flow.server(), flow.inside()], "other ends");
            flow.is_answered = true;
            return Ok(Some(packet));
        };
        ensure!(packet.ends[1] == flow.server(), "another server");
        ensure!(
            packet.ends[0].0 == isp.source(flow.family),
            "not the address of {isp:?}"
        );
        let is_past = |since: Instant| since.elapsed() > GRACE;
        ensure!(
            flow.service != SERVICES[1] || !self.stopped.is_some_and(is_past),
            "the firewall stops it"
        );
        let is_dead = self
            .dead
            .is_some_and(|(dead, since)| dead == isp && is_past(since));
        ensure!(!is_dead, "{isp:?} is dead");
        let port = packet.ends[0].1;
        let stays = |(by, before)| {
            (by == isp || self.may_move) && (before == port || self.may_move || self.may_rename)
        };
        ensure!(flow.by.is_none_or(stays), "it was by {:?}", flow.by);
        (flow.by, flow.left) = (Some((isp, port)), Some(Instant::now()));
        Ok(Some(packet))
    }
}

/// Reads a packet of ours, whose checksums have to be right.
fn packet(frame: &[u8]) -> Result<Option<Packet>> {
    let headers = PacketHeaders::from_ethernet_slice(frame)?;
    let payload = headers.payload.slice();
    let Some(rest) = payload.strip_prefix(SIGN) else {
        return Ok(None);
    };
    let flow = rest.first_chunk().map(|n| u16::from_be_bytes(*n).into());
    let flow = flow.context("no number")?;
    let (addresses, ttl): ([IpAddr; 2], _) = match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            ensure!(
                ip.header_checksum == ip.calc_header_checksum(),
                "the header's sum"
            );
            ([ip.source.into(), ip.destination.into()], ip.time_to_live)
        }
        Some(NetHeaders::Ipv6(ip, _)) => ([ip.source.into(), ip.destination.into()], ip.hop_limit),
        _ => return Ok(None),
    };
    let ports = match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => {
            ensure!(udp.checksum == udp.calc_checksum_ipv4(ip, payload)?, "the sum");
            [udp.source_port, udp.destination_port]
        }
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            ensure!(tcp.checksum == tcp.calc_checksum_ipv4(ip, payload)?, "the sum");
            [tcp.source_port, tcp.destination_port]
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            ensure!(udp.checksum == udp.calc_checksum_ipv6(ip, payload)?, "the sum");
            [udp.source_port, udp.destination_port]
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            ensure!(tcp.checksum == tcp.calc_checksum_ipv6(ip, payload)?, "the sum");
            [tcp.source_port, tcp.destination_port]
        }
        _ => return Ok(None),
    };
    let ends = [0, 1].map(|n| (addresses[n], ports[n]));
    Ok(Some(Packet { flow, ends, ttl }))
}

impl Flow {
    const fn new(n: u16) -> Self {
        Self {
            family: if n.is_multiple_of(4) {
                Family::V6
            } else {
                Family::V4
            },
            n,
            service: SERVICES[(n % 10 == 9) as usize],
            is_tcp: n.is_multiple_of(3),
            sent: [0; 2],
            is_answered: false,
            left: None,
            by: None,
        }
    }

    fn inside(&self) -> (IpAddr, u16) {
        (client(self.family, self.n as u8), FIRST_PORT + self.n)
    }

    fn server(&self) -> (IpAddr, u16) {
        (elsewhere(self.family, self.n), self.service)
    }

    /// A connection has to be open first.
    const fn at_once(&self) -> u32 {
        if self.is_opening() { 1 } else { AT_ONCE }
    }

    const fn is_opening(&self) -> bool {
        self.is_tcp && !self.is_answered
    }

    /// Its next packet that way.
    fn packet(&mut self, [from, to]: [(IpAddr, u16); 2], way: usize) -> Result<Vec<u8>> {
        let is_syn = self.is_opening() && way == 0;
        let number = if is_syn { 0 } else { self.sent[way] };
        self.sent[way] = number + 1;
        let payload = [&SIGN[..], &self.n.to_be_bytes(), &number.to_be_bytes()].concat();
        let builder = match (from.0, to.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let header = Ipv4Header::new(0, TTL, etherparse::ip_number::UDP, a.octets(), b.octets())?;
                PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), TTL),
            _ => unreachable!("one family"),
        };
        let mut packet = Vec::new();
        if !self.is_tcp {
            builder.udp(from.1, to.1).write(&mut packet, &payload)?;
            return Ok(packet);
        }
        // Every byte has a number, and so has SYN.
        let sequence = |packets: u32| packets * payload.len() as u32 + u32::from(packets > 0);
        let tcp = builder.tcp(from.1, to.1, sequence(number), 65_000);
        let ack = sequence(self.sent[1 - way]);
        let tcp = match (is_syn, number) {
            (true, _) => tcp.syn(),
            (false, 0) => tcp.syn().ack(ack),
            _ => tcp.ack(ack),
        };
        tcp.write(&mut packet, &payload)?;
        Ok(packet)
    }
}
