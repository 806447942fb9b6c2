//! The pinned flows as people and scripts see them. Pure: `flow_map` reads the map.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uplink_common::{Addr, Family, FlowKey, Pin, flow};

/// A flow counts as active when a packet used it this recently, in seconds.
const ACTIVE_S: u32 = 60;

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
    /// The policy that placed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
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
pub struct Uplinks {
    known: BTreeMap<u32, Known>,
    /// Names of policies by number.
    policies: BTreeMap<u32, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: String,
    generation: [u32; 2],
}

impl Uplinks {
    /// An uplink by its id: its name, and by family the generation of valid pins.
    pub fn insert(&mut self, id: u8, name: impl Into<String>, generation: [u32; 2]) {
        let name = name.into();
        self.known.insert(u32::from(id), Known { name, generation });
    }

    /// A policy by its number.
    pub fn insert_policy(&mut self, number: u32, name: String) {
        self.policies.insert(number, name);
    }

    /// The number of a policy.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<u32> {
        let found = self.policies.iter().find(|(_, known)| *known == name);
        found.map(|(number, _)| *number)
    }

    /// The names of the policies.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.policies.values().map(String::as_str)
    }

    /// The id of an uplink.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<u32> {
        let found = self.known.iter().find(|(_, known)| known.name == name);
        found.map(|(id, _)| *id)
    }

    /// The uplink that the flow keeps. `None` for a void pin, and for flows that were left to
    /// the kernel's routes.
    fn of(&self, key: &FlowKey, pin: &Pin) -> Option<&Known> {
        let known = self.known.get(&u32::from(pin.uplink))?;
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
pub struct Counts {
    uplinks: BTreeMap<u32, Count>,
    entries: u64,
}

impl Counts {
    /// Counts one pin. `now_s` is seconds since boot, as in the pin.
    pub fn add(&mut self, uplinks: &Uplinks, key: &FlowKey, pin: &Pin, now_s: u32) {
        self.entries += 1;
        if uplinks.of(key, pin).is_some() {
            let count = self.uplinks.entry(pin.uplink.into()).or_default();
            count.flows += 1;
            count.active += u64::from(now_s.saturating_sub(pin.last_used_s) <= ACTIVE_S);
        }
    }

    /// All pins, void ones and those on the kernel's own routes with them.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Those of one uplink.
    #[must_use]
    pub fn of(&self, id: u8) -> Count {
        self.uplinks.get(&u32::from(id)).copied().unwrap_or_default()
    }
}

/// Which flows are listed; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this uplink, by id.
    pub uplink: Option<u32>,
    /// Placed by this policy, by number.
    pub policy: Option<u32>,
    /// With one of these addresses at either end.
    pub address: Option<IpNet>,
}

impl Wanted {
    fn is(&self, key: &FlowKey, pin: &Pin) -> bool {
        let within = |net: &IpNet| {
            let mut ends = [key.src, key.dst].into_iter().filter(|a| !flow::is_socket(a));
            ends.any(|end| net.contains(&IpAddr::from(end)))
        };
        self.uplink.is_none_or(|id| id == u32::from(pin.uplink))
            && self.policy.is_none_or(|number| number == u32::from(pin.policy))
            && self.address.as_ref().is_none_or(within)
    }
}

/// An address, or a prefix of them.
///
/// # Errors
/// In the words for whoever asked.
pub fn addresses(text: &str) -> Result<IpNet, String> {
    let prefix = text.parse::<IpNet>();
    prefix
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            format!("{text:?} is no address: give one, or a prefix such as 192.0.2.0/24 or 2001:db8::/32")
        })
}

/// The newest flows of all that are added, without keeping all of them.
#[derive(Clone, Debug)]
pub struct Newest {
    limit: usize,
    wanted: Wanted,
    /// At most twice the limit.
    kept: Vec<(FlowKey, Pin)>,
    total: u64,
}

impl Newest {
    /// At most `limit` of those that are wanted.
    #[must_use]
    pub fn new(limit: usize, wanted: Wanted) -> Self {
        let (kept, total) = (Vec::new(), 0);
        Self {
            limit,
            wanted,
            kept,
            total,
        }
    }

    /// Takes one pin into account.
    pub fn add(&mut self, uplinks: &Uplinks, key: &FlowKey, pin: &Pin) {
        if !self.wanted.is(key, pin) || uplinks.of(key, pin).is_none() {
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
    let host = flow::is_socket(&key.src);
    let address = |a: Addr| IpAddr::from(a).to_string();
    Some(Flow {
        src: if host { "-".into() } else { address(key.src) },
        dst: address(key.dst),
        sport: u16::from_be_bytes(key.sport),
        dport: u16::from_be_bytes(key.dport),
        proto: protocol(key.proto),
        uplink: uplinks.of(key, pin)?.name.clone(),
        policy: uplinks.policies.get(&u32::from(pin.policy)).cloned(),
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
    let placed = flows.iter().any(|f| f.policy.is_some());
    let policy = |text: &str| placed.then(|| text.to_owned());
    let columns = ["PROTO", "SOURCE", "DESTINATION", "UPLINK"].map(str::to_owned);
    let times = ["AGE", "IDLE"].map(str::to_owned);
    table.set_header(columns.into_iter().chain(policy("POLICY")).chain(times));
    for f in flows {
        let [src, dst] = [end(&f.src, f.sport), end(&f.dst, f.dport)];
        let columns = [f.proto.clone(), src, dst, f.uplink.clone()].into_iter();
        let by = policy(f.policy.as_deref().unwrap_or("-"));
        table.add_row(columns.chain(by).chain([seconds(f.age_s), seconds(f.idle_s)]));
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
mod tests;
