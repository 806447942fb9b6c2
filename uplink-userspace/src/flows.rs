//! The pinned flows as people and scripts see them. Pure: `flow_map` reads the map.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uplink_common::{Addr, Family, FlowKey, Pin};

/// A flow counts as active when a packet used it this recently, in seconds.
const ACTIVE_S: u32 = 60;

/// Where the keys of this host's own sockets begin: the discard prefix 100::/64 (RFC 6666), which
/// no packet can come from. The socket's cookie follows.
const HOST: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// A pinned flow, `uplink flows --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Source address; "-" for a socket of this host, which may have none yet.
    pub src: String,
    /// Destination address.
    pub dst: String,
    /// Source port, or the identifier of an ICMP echo; 0 where there is none.
    pub sport: u16,
    /// Destination port, or the identifier of an ICMP echo; 0 where there is none.
    pub dport: u16,
    /// Name of the IP protocol, or its number.
    pub proto: String,
    /// The uplink it keeps.
    pub uplink: String,
    /// Seconds since it was pinned.
    pub age_s: u32,
    /// Seconds since a packet used it.
    pub idle_s: u32,
    /// It belongs to a socket of this host.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub host: bool,
}

/// How many flows an uplink has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Pinned: those that ended stay until newer ones need the room.
    pub flows: u64,
    /// Used within the last minute.
    pub active: u64,
}

/// What a pin has to be held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks(BTreeMap<u32, Known>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: String,
    generation: [u32; 2],
}

impl Uplinks {
    /// An uplink by its id: its name, and by family the generation of valid pins.
    pub fn insert(&mut self, id: u8, name: impl Into<String>, generation: [u32; 2]) {
        let name = name.into();
        self.0.insert(u32::from(id), Known { name, generation });
    }

    /// The id of an uplink.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<u32> {
        let found = self.0.iter().find(|(_, known)| known.name == name);
        found.map(|(id, _)| *id)
    }

    /// The uplink that the flow keeps. `None` for a void pin, and for flows that were left to
    /// the kernel's routes.
    fn of(&self, key: &FlowKey, pin: &Pin) -> Option<&Known> {
        let known = self.0.get(&u32::from(pin.uplink))?;
        (known.generation[family(key) as usize] == pin.generation).then_some(known)
    }
}

/// The destination tells: the source may stand for a socket.
fn family(key: &FlowKey) -> Family {
    match IpAddr::from(key.dst) {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// Flows by uplink id.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<u32, Count>);

impl Counts {
    /// Counts one pin. `now_s` is seconds since boot, as in the pin.
    pub fn add(&mut self, uplinks: &Uplinks, key: &FlowKey, pin: &Pin, now_s: u32) {
        if uplinks.of(key, pin).is_some() {
            let count = self.0.entry(pin.uplink.into()).or_default();
            count.flows += 1;
            count.active += u64::from(now_s.saturating_sub(pin.last_used_s) <= ACTIVE_S);
        }
    }

    /// Those of one uplink.
    #[must_use]
    pub fn of(&self, id: u8) -> Count {
        self.0.get(&u32::from(id)).copied().unwrap_or_default()
    }
}

/// The newest flows of all that are added, without keeping all of them.
#[derive(Clone, Debug)]
pub struct Newest {
    limit: usize,
    uplink: Option<u32>,
    /// At most twice the limit.
    kept: Vec<(FlowKey, Pin)>,
    total: u64,
}

impl Newest {
    /// At most `limit` of them; with `uplink`, of that id only.
    #[must_use]
    pub fn new(limit: usize, uplink: Option<u32>) -> Self {
        let (kept, total) = (Vec::new(), 0);
        Self {
            limit,
            uplink,
            kept,
            total,
        }
    }

    /// Takes one pin into account.
    pub fn add(&mut self, uplinks: &Uplinks, key: &FlowKey, pin: &Pin) {
        let wanted = self.uplink.is_none_or(|id| id == u32::from(pin.uplink));
        if !wanted || uplinks.of(key, pin).is_none() {
            return;
        }
        self.total += 1;
        self.kept.push((*key, *pin));
        if self.kept.len() >= self.limit.saturating_mul(2) {
            self.shorten();
        }
    }

    /// How many there were, whatever the limit.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The newest, in order.
    #[must_use]
    pub fn finish(mut self) -> Vec<(FlowKey, Pin)> {
        self.shorten();
        self.kept.sort_unstable_by_key(newest_first);
        self.kept
    }

    fn shorten(&mut self) {
        if self.kept.len() > self.limit {
            self.kept.select_nth_unstable_by_key(self.limit, newest_first);
            self.kept.truncate(self.limit);
        }
    }
}

fn newest_first((_, pin): &(FlowKey, Pin)) -> std::cmp::Reverse<(u32, u32)> {
    std::cmp::Reverse((pin.created_s, pin.last_used_s))
}

/// A flow for people; `None` for a void pin. `now_s` is seconds since boot, as in the pin.
#[must_use]
pub fn flow(uplinks: &Uplinks, key: &FlowKey, pin: &Pin, now_s: u32) -> Option<Flow> {
    let host = key.src.0[..8] == HOST;
    let address = |a: Addr| IpAddr::from(a).to_string();
    Some(Flow {
        src: if host { "-".into() } else { address(key.src) },
        dst: address(key.dst),
        sport: u16::from_be_bytes(key.sport),
        dport: u16::from_be_bytes(key.dport),
        proto: protocol(key.proto),
        uplink: uplinks.of(key, pin)?.name.clone(),
        age_s: now_s.saturating_sub(pin.created_s),
        idle_s: now_s.saturating_sub(pin.last_used_s),
        host,
    })
}

/// Protocols as `ss` and `nft` call them.
const PROTOCOLS: [(&str, u8); 12] = [
    ("icmp", 1),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
];

/// The name of a protocol, or its number.
#[must_use]
pub fn protocol(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(_, n)| *n == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The number of a protocol by its name, or by itself.
#[must_use]
pub fn protocol_number(text: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(name, _)| *name == text);
    known.map(|(_, number)| *number).or_else(|| text.parse().ok())
}

/// The table for people.
#[must_use]
pub fn table(flows: &[Flow]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["PROTO", "SOURCE", "DESTINATION", "UPLINK", "AGE", "IDLE"]);
    for f in flows {
        table.add_row([
            f.proto.clone(),
            end(&f.src, f.sport),
            end(&f.dst, f.dport),
            f.uplink.clone(),
            seconds(f.age_s),
            seconds(f.idle_s),
        ]);
    }
    format!("{table}\n")
}

fn end(address: &str, port: u16) -> String {
    match (port, address.contains(':')) {
        (0, _) => address.into(),
        (port, true) => format!("[{address}]:{port}"),
        (port, false) => format!("{address}:{port}"),
    }
}

fn seconds(s: u32) -> String {
    humantime::format_duration(Duration::from_secs(s.into())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(src: &str, dst: &str, proto: u8) -> FlowKey {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        FlowKey {
            src: addr(src),
            dst: addr(dst),
            sport: 40_000u16.to_be_bytes(),
            dport: 443u16.to_be_bytes(),
            proto,
            pad: [0; 3],
        }
    }

    fn pin(uplink: u16, generation: u32, created_s: u32) -> Pin {
        Pin {
            uplink,
            policy: 0,
            generation,
            last_used_s: created_s + 5,
            created_s,
        }
    }

    fn uplinks() -> Uplinks {
        let mut uplinks = Uplinks::default();
        uplinks.insert(1, "isp1", [7, 0]);
        uplinks.insert(2, "isp2", [0, 0]);
        uplinks
    }

    #[test]
    fn a_flow_reads_like_this() {
        let v4 = key("10.9.0.2", "203.0.113.1", 6);
        let shown = flow(&uplinks(), &v4, &pin(1, 7, 100), 130).unwrap();
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            r#"{"src":"10.9.0.2","dst":"203.0.113.1","sport":40000,"dport":443,"proto":"tcp","uplink":"isp1","age_s":30,"idle_s":25}"#
        );
        let mut host = key("100::1:2:3:4", "2001:db8::1", 17);
        host.sport = [0; 2];
        let host = flow(&uplinks(), &host, &pin(2, 0, 100), 90).unwrap();
        assert_eq!((&*host.src, host.host, host.age_s), ("-", true, 0));
        let text = table(&[shown, host]);
        assert!(text.contains("10.9.0.2:40000"), "{text}");
        assert!(text.contains("[2001:db8::1]:443"), "{text}");
        assert!(text.contains("30s"), "{text}");
    }

    #[test]
    fn void_pins_and_those_of_the_kernel_are_no_flows() {
        let (v4, v6) = (
            key("10.9.0.2", "203.0.113.1", 6),
            key("fd00::2", "2001:db8::1", 6),
        );
        let mut counts = Counts::default();
        let rows = [
            (&v4, pin(1, 7, 100)),
            (&v4, pin(1, 6, 100)),
            (&v6, pin(1, 0, 10)),
            (&v6, pin(1, 7, 100)),
            (&v4, pin(0, 0, 100)),
            (&v4, pin(9, 0, 100)),
        ];
        for (key, pin) in &rows {
            counts.add(&uplinks(), key, pin, 110);
        }
        assert_eq!(counts.of(1), Count { flows: 2, active: 1 });
        assert_eq!(counts.of(2), Count::default());
        assert!(flow(&uplinks(), &v4, &pin(0, 0, 1), 2).is_none());
    }

    #[test]
    fn the_newest_are_kept() {
        for limit in [0, 1, 3, 10, 1000] {
            let mut newest = Newest::new(limit, Some(2));
            for i in 0..100u32 {
                // 37 has no common factor with 101, so every age comes once.
                let key = key("10.9.0.2", "203.0.113.1", 6);
                newest.add(&uplinks(), &key, &pin(2, 0, i * 37 % 101));
                newest.add(&uplinks(), &key, &pin(1, 7, 500));
            }
            assert_eq!(newest.total(), 100);
            let ages: Vec<u32> = newest.finish().iter().map(|(_, p)| p.created_s).collect();
            let mut all: Vec<u32> = (0..100u32).map(|i| i * 37 % 101).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(limit);
            assert_eq!(ages, all);
        }
    }
}
