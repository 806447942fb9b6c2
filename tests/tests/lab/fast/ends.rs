//! The far ends of the router's wires, frame by frame.

use anyhow::{Context as _, Result};
use uplink_lab::relay::wire::End;
use uplink_lab::{Family, Isp, Lab, Namespace};

/// What a packet has from its first byte of payload on, in front of its number.
pub(super) const SIGN: &[u8; 8] = b"uplink: ";
/// Before every frame: nothing is left to the card.
pub(super) const PLAIN: [u8; 10] = [0; 10];

/// The far ends of the router's wires: the client's, and the ISPs'.
pub(super) struct Wires {
    pub ends: [End; 3],
    /// Their MAC addresses, and the router's there.
    pub macs: [[[u8; 6]; 2]; 3],
}

impl Wires {
    pub(super) fn open(lab: &Lab) -> Result<Self> {
        let places: [(&Namespace, &str); 3] = [
            (&lab.client, "lan0"),
            (lab.isp(Isp::One), "wan1"),
            (lab.isp(Isp::Two), "wan2"),
        ];
        let end = |(ns, _): (&Namespace, &str)| ns.enter(|| End::open("eth0"))?;
        let macs = |(ns, at): (&Namespace, &str)| -> Result<[[u8; 6]; 2]> {
            Ok([mac(ns, "eth0")?, mac(&lab.router, at)?])
        };
        let [a, b, c] = places;
        Ok(Self {
            ends: [end(a)?, end(b)?, end(c)?],
            macs: [macs(a)?, macs(b)?, macs(c)?],
        })
    }

    /// Sends an IP packet to the router.
    pub(super) fn send(&self, place: usize, family: Family, packet: &[u8]) {
        let [own, router] = self.macs[place];
        let kind = if family == Family::V4 {
            [0x08, 0]
        } else {
            [0x86, 0xdd]
        };
        let frame = [&PLAIN[..], &router, &own, &kind, packet].concat();
        self.ends[place].send(&frame);
    }
}

/// Nobody but the test answers at these ports.
pub(super) fn silence(lab: &Lab, services: &[u16]) -> Result<()> {
    let services: Vec<String> = services.iter().map(u16::to_string).collect();
    let services = services.join(", ");
    let script = format!(
        "table inet quiet {{ chain early {{ type filter hook prerouting priority -400;\n\
         meta l4proto {{ tcp, udp }} th dport {{ {services} }} drop\n\
         meta l4proto {{ tcp, udp }} th sport {{ {services} }} drop\n}}\n}}\n"
    );
    for ns in [&lab.client, lab.isp(Isp::One), lab.isp(Isp::Two)] {
        ns.nft(&script)?;
    }
    Ok(())
}

fn mac(ns: &Namespace, device: &str) -> Result<[u8; 6]> {
    let text = ns.run(&format!("ip -br link show {device}"))?;
    let mac = text.split_whitespace().nth(2).context("no MAC address")?;
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    <[u8; 6]>::try_from(bytes).ok().context("six bytes")
}
